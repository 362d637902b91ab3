package cpu

import (
	"math"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
)

// buffers are reused from pass to pass: a decode step allocates nothing. What is
// not needed at the same time shares memory.
type buffers struct {
	embedded     []float32
	scratch      []float32 // q, k and v; router's logits; gates and ups
	added        []float32 // what attention or the FFN adds
	chosen       []int32
	weights      []float32
	pos          []int32
	caches       []*kernel.Cache
	input, inner kernel.Acts
	jobs         []kernel.Job
	router       routerScratch
}

// state is a pass on its way through the layers. Its slices are out's or the
// executor's.
type state struct {
	rows    []exec.Row
	n       int
	hidden  []float32
	normed  []float32 // the FFN's input, where a layer has begun and is not ended here
	chosen  []int32
	weights []float32
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// begin makes the first residual: the embedding, the prediction layer's
// projection, or a copy of what came in.
func (x *Executor) begin(in *exec.Pass) *state {
	b, h := &x.buf, x.config.Hidden
	n := len(in.Rows)
	s := &state{rows: in.Rows, n: n}
	b.embedded = grow(b.embedded, n*h)
	s.hidden = b.embedded
	b.pos, b.caches = grow(b.pos, n), grow(b.caches, n)
	for i, r := range in.Rows {
		b.pos[i] = r.Pos
	}
	switch {
	case x.span.MTP:
		x.beginMTP(in, s)
	case x.span.Embed:
		x.lookup(s.hidden, in.Tokens)
		if x.plan.Round {
			x.engine.RoundF16(s.hidden, n, h)
		}
		if in.Trace != nil {
			in.Trace(0, s.hidden)
		}
	default:
		copy(s.hidden, in.Hidden)
	}
	if x.span.From.Inside() {
		s.normed, s.chosen, s.weights = in.Normed, in.Chosen, in.Weights
		x.engine.Prepare(&b.input, s.normed, n, h)
	}
	return s
}

func (x *Executor) lookup(dst []float32, tokens []int32) {
	for i, id := range tokens {
		x.embed.row(dst[i*x.config.Hidden:(i+1)*x.config.Hidden], int(id))
	}
}

// beginMTP computes eh_proj · [Norm(embedding of the next token); Norm(state)].
func (x *Executor) beginMTP(in *exec.Pass, s *state) {
	e, b, h, n := x.engine, &x.buf, x.config.Hidden, s.n
	eps := float32(x.config.NormEps)
	b.scratch = grow(b.scratch, 2*n*h)
	for i := range n {
		embedded, state := b.scratch[2*i*h:][:h], b.scratch[(2*i+1)*h:][:h]
		x.lookup(embedded, in.Tokens[i:i+1])
		e.RMSNorm(embedded, embedded, x.mtp.enorm, 1, h, eps)
		e.RMSNorm(state, in.Hidden[i*h:(i+1)*h], x.mtp.hnorm, 1, h, eps)
	}
	e.Prepare(&b.input, b.scratch, n, 2*h)
	x.mul(s.hidden, x.mtp.ehProj, &b.input)
}

// mul computes y [n × t.rows] = a · tᵀ.
func (x *Executor) mul(y []float32, t *tensor, a *kernel.Acts) {
	x.buf.jobs = t.jobs(x.buf.jobs[:0], y, 0, t.rows)
	x.engine.MatMulMany(x.buf.jobs, a)
}

// runLayer computes what the span holds of one layer.
func (x *Executor) runLayer(l *layer, s *state) {
	if l.part.Begins {
		x.attend(l, s)
		x.normFFN(l, s)
		if l.router != nil {
			x.route(l, s)
		}
		if l.gateUp != nil {
			x.feedForward(l, s)
		}
	}
	moe := x.config.MoE
	for _, g := range l.experts {
		x.engine.Experts(s.hidden, &x.buf.input, g.gateUp, g.down, moe.FFN, g.first, g.count, s.chosen, s.weights, moe.PerToken)
	}
	if l.part.Ends && x.plan.Round {
		x.engine.RoundF16(s.hidden, s.n, x.config.Hidden)
	}
}

// expectRows is up to how many rows are worth asking for the memory of their keys;
// with more, products take long enough for them to be forgotten.
const expectRows = 8

// expect asks for the memory that the rows' keys will go to.
func (x *Executor) expect(l *layer, s *state) {
	if s.n > expectRows {
		return
	}
	for _, r := range s.rows {
		if c := l.caches[r.Slot]; c != nil {
			x.engine.Expect(c, int(r.Pos))
		}
	}
}

// apartRows is from how many rows on q is computed after k and v, in the memory that
// they leave: fewer are better off with one barrier for all three.
const apartRows = 64

// attend adds the attention to the residual.
func (x *Executor) attend(l *layer, s *state) {
	c, e, b, n := x.config, x.engine, &x.buf, s.n
	x.expect(l, s)
	e.PrepareNorm(&b.input, s.hidden, l.attnNorm, n, c.Hidden, float32(c.NormEps), l.attnFloats)
	queries, keys := n*c.QDim(), n*c.KVDim()
	if n < apartRows {
		b.scratch = grow(b.scratch, queries+2*keys)
		q, k, v := b.scratch[:queries], b.scratch[queries:][:keys], b.scratch[queries+keys:]
		b.jobs = l.v.jobs(l.k.jobs(l.q.jobs(b.jobs[:0], q, 0, l.q.rows), k, 0, l.k.rows), v, 0, l.v.rows)
		e.MatMulMany(b.jobs, &b.input)
		x.store(l, s, k, v)
	} else {
		b.scratch = grow(b.scratch, max(queries, 2*keys))
		k, v := b.scratch[:keys], b.scratch[keys:2*keys]
		b.jobs = l.v.jobs(l.k.jobs(b.jobs[:0], k, 0, l.k.rows), v, 0, l.v.rows)
		e.MatMulMany(b.jobs, &b.input)
		x.store(l, s, k, v)
		x.mul(b.scratch[:queries], l.q, &b.input)
	}
	q := b.scratch[:queries]
	x.turn(q, l.qBias, l.qNorm, c.Heads, s)
	e.Attend(q, q, b.caches, b.pos, c.Heads, float32(1/math.Sqrt(float64(c.HeadDim))))
	e.Prepare(&b.inner, q, n, c.QDim())
	x.add(s, l.o, &b.inner, l.attnPostNorm)
}

// turn readies queries or keys of some heads: bias, norm and rotation.
func (x *Executor) turn(y, bias, norm []float32, heads int, s *state) {
	c, e := x.config, x.engine
	if bias != nil {
		e.AddBias(y, bias, s.n, heads*c.HeadDim)
	}
	if norm != nil {
		e.RMSNormHeads(y, norm, s.n, heads, c.HeadDim, float32(c.NormEps))
	}
	e.Rope(y, s.n, heads, c.HeadDim, x.rope, x.buf.pos)
}

// store puts the rows' keys and values into their caches.
func (x *Executor) store(l *layer, s *state, k, v []float32) {
	c, e, b := x.config, x.engine, &x.buf
	x.turn(k, l.kBias, l.kNorm, c.KVHeads, s)
	if l.vBias != nil {
		e.AddBias(v, l.vBias, s.n, c.KVDim())
	}
	dim := c.KVDim()
	for i, r := range s.rows {
		cache := l.caches[r.Slot]
		if cache == nil {
			cache = kernel.NewCache(x.plan.KV, x.plan.Positions, c.KVHeads, c.HeadDim)
			l.caches[r.Slot] = cache
		}
		e.Store(cache, int(r.Pos), k[i*dim:(i+1)*dim], v[i*dim:(i+1)*dim])
		b.caches[i] = cache
	}
}

// add adds a · tᵀ to the residual. Where no norm comes between, some columns are
// computed and added at a time: those of a long pass would otherwise leave a core's
// caches and come back.
func (x *Executor) add(s *state, t *tensor, a *kernel.Acts, postNorm []float32) {
	e, b, n, h := x.engine, &x.buf, s.n, x.config.Hidden
	if postNorm != nil {
		b.added = grow(b.added, n*h)
		x.mul(b.added, t, a)
		e.RMSNorm(b.added, b.added, postNorm, n, h, float32(x.config.NormEps))
		e.Add(s.hidden, h, b.added, n, h)
		return
	}
	for first, most := 0, e.Band(n); first < h; first += most {
		count := min(most, h-first)
		b.added = grow(b.added, n*count)
		b.jobs = t.jobs(b.jobs[:0], b.added, first, count)
		e.MatMulMany(b.jobs, a)
		e.Add(s.hidden[first:], h, b.added, n, count)
	}
}

// normFFN readies the FFN's input.
func (x *Executor) normFFN(l *layer, s *state) {
	b := &x.buf
	handsOn := !l.part.Ends
	x.engine.PrepareNorm(&b.input, s.hidden, l.ffnNorm, s.n, x.config.Hidden, float32(x.config.NormEps), l.ffnFloats || handsOn)
	s.normed = b.input.Floats()
}

// feedForward adds a dense FFN, or the shared experts, to the residual. Gates
// and ups are computed some columns at a time.
func (x *Executor) feedForward(l *layer, s *state) {
	e, b, n := x.engine, &x.buf, s.n
	width := l.gateUp.rows / 2
	e.Room(&b.inner, n, width, l.down.floats())
	for first, most := 0, e.Band(n); first < width; first += most {
		pairs := min(most, width-first)
		b.scratch = grow(b.scratch, n*2*pairs)
		b.jobs = l.gateUp.jobs(b.jobs[:0], b.scratch, 2*first, 2*pairs)
		e.MatMulMany(b.jobs, &b.input)
		e.SwiGLU(&b.inner, first, b.scratch)
	}
	x.add(s, l.down, &b.inner, l.ffnPostNorm)
}

// finish hands the residual on, or turns the wanted rows into logits.
func (x *Executor) finish(s *state, in, out *exec.Pass) {
	out.Rows = append(out.Rows[:0], in.Rows...)
	out.Hidden, out.Normed, out.Chosen, out.Weights = out.Hidden[:0], out.Normed[:0], out.Chosen[:0], out.Weights[:0]
	out.Logits, out.Final = out.Logits[:0], out.Final[:0]
	switch {
	case x.span.MTP:
		x.logits(s, x.mtp.norm, in, out)
	case x.span.Head:
		x.logits(s, x.norm, in, out)
	default:
		out.Hidden = append(out.Hidden, s.hidden...)
		if x.span.To.Inside() {
			out.Normed = append(out.Normed, s.normed...)
			out.Chosen, out.Weights = append(out.Chosen, s.chosen...), append(out.Weights, s.weights...)
		}
	}
}

// logits applies the final norm and the head to the wanted rows.
func (x *Executor) logits(s *state, norm []float32, in, out *exec.Pass) {
	e, b, h := x.engine, &x.buf, x.config.Hidden
	eps := float32(x.config.NormEps)
	if in.Trace != nil && !x.span.MTP {
		all := make([]float32, len(s.hidden))
		e.RMSNorm(all, s.hidden, norm, s.n, h, eps)
		in.Trace(x.config.Layers, all)
	}
	wanted := len(in.Want)
	out.Want = append(out.Want[:0], in.Want...)
	if wanted == 0 {
		return
	}
	out.Final = grow(out.Final, wanted*h)
	for i, r := range in.Want {
		copy(out.Final[i*h:], s.hidden[int(r)*h:(int(r)+1)*h])
	}
	e.RMSNorm(out.Final, out.Final, norm, wanted, h, eps)
	e.Prepare(&b.input, out.Final, wanted, h)
	out.Logits = grow(out.Logits, wanted*x.head.rows)
	x.mul(out.Logits, x.head, &b.input)
}
