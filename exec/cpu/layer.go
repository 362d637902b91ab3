package cpu

import (
	"math"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/memory"
)

// buffers are reused from pass to pass: a decode step allocates nothing. What is
// not needed at the same time shares memory.
type buffers struct {
	embedded     memory.Buffer[float32]
	scratch      memory.Buffer[float32] // q, k and v; router's logits; gates and ups
	added        memory.Buffer[float32] // what attention or the FFN adds, where a norm comes between
	chosen       []int32
	weights      []float32
	pos          []int32
	caches       []*kernel.Cache
	input, inner kernel.Acts
	jobs         []kernel.Job
	router       routerScratch
}

func (b *buffers) free() {
	b.embedded.Free()
	b.scratch.Free()
	b.added.Free()
	b.input.Free()
	b.inner.Free()
	*b = buffers{}
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
	s.hidden = b.embedded.Room(n * h)
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
	pairs := b.scratch.Room(2 * n * h)
	for i := range n {
		embedded, state := pairs[2*i*h:][:h], pairs[(2*i+1)*h:][:h]
		x.lookup(embedded, in.Tokens[i:i+1])
		e.RMSNorm(embedded, embedded, x.mtp.enorm, 1, h, eps)
		e.RMSNorm(state, in.Hidden[i*h:(i+1)*h], x.mtp.hnorm, 1, h, eps)
	}
	e.Prepare(&b.input, pairs, n, 2*h)
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
func (x *Executor) expect(s *state) {
	if s.n > expectRows {
		return
	}
	for i, r := range s.rows {
		x.engine.Expect(x.buf.caches[i], int(r.Pos))
	}
}

// attend adds the attention to the residual. Queries, keys and values are computed some
// heads at a time.
func (x *Executor) attend(l *layer, s *state) {
	c, e, b, n := x.config, x.engine, &x.buf, s.n
	x.cachesOf(l, s)
	x.expect(s)
	e.PrepareNorm(&b.input, s.hidden, l.attnNorm, n, c.Hidden, float32(c.NormEps), l.attnFloats)
	queries := c.QDim() / c.KVHeads // of a KV head
	e.Room(&b.inner, n, c.QDim(), l.o.floats())
	for first, most := 0, e.HeadBand(n, c.KVHeads, queries, c.HeadDim); first < c.KVHeads; first += most {
		e.PrepareColumns(&b.inner, first*queries, x.attendHeads(l, s, first, min(most, c.KVHeads-first)))
	}
	x.add(s, l.o, &b.inner, l.attnPostNorm)
}

// cachesOf finds the rows' caches.
func (x *Executor) cachesOf(l *layer, s *state) {
	c := x.config
	for i, r := range s.rows {
		if l.caches[r.Slot] == nil {
			l.caches[r.Slot] = kernel.NewCache(x.plan.KV, x.plan.Positions, c.KVHeads, c.HeadDim)
		}
		x.buf.caches[i] = l.caches[r.Slot]
	}
}

// attendHeads computes the attention of KV heads first.., count of them, and of the
// queries that share them: n × these queries, valid until scratch is used again.
func (x *Executor) attendHeads(l *layer, s *state, first, count int) []float32 {
	c, e, b, n := x.config, x.engine, &x.buf, s.n
	dim := count * c.HeadDim
	heads := kernel.Heads{Query: c.Heads / c.KVHeads * count, First: first, KV: count}
	queries := heads.Query * c.HeadDim
	room := b.scratch.Room(n * (queries + 2*dim))
	q, k, v := room[:n*queries], room[n*queries:][:n*dim], room[n*(queries+dim):]
	qFirst, kvFirst := first*queries/count, first*c.HeadDim
	b.jobs = l.q.jobs(b.jobs[:0], q, qFirst, queries)
	b.jobs = l.k.jobs(b.jobs, k, kvFirst, dim)
	b.jobs = l.v.jobs(b.jobs, v, kvFirst, dim)
	e.MatMulMany(b.jobs, &b.input)
	if l.qBias != nil {
		e.AddBias(q, l.qBias[qFirst:], n, queries)
		e.AddBias(k, l.kBias[kvFirst:], n, dim)
		e.AddBias(v, l.vBias[kvFirst:], n, dim)
	}
	if l.qNorm != nil {
		eps := float32(c.NormEps)
		e.RMSNormHeads(q, l.qNorm, n, heads.Query, c.HeadDim, eps)
		e.RMSNormHeads(k, l.kNorm, n, count, c.HeadDim, eps)
	}
	e.Rope(q, n, heads.Query, c.HeadDim, x.rope, b.pos)
	e.Rope(k, n, count, c.HeadDim, x.rope, b.pos)
	for i, r := range s.rows {
		e.Store(b.caches[i], int(r.Pos), first, k[i*dim:(i+1)*dim], v[i*dim:(i+1)*dim])
	}
	e.Attend(q, q, b.caches, b.pos, heads, float32(1/math.Sqrt(float64(c.HeadDim))))
	return q
}

// add adds a · tᵀ, behind a norm if there is one, to the residual.
func (x *Executor) add(s *state, t *tensor, a *kernel.Acts, norm []float32) {
	e, b, n, h := x.engine, &x.buf, s.n, x.config.Hidden
	if norm == nil {
		b.jobs = t.jobs(b.jobs[:0], s.hidden, 0, h)
		for i := range b.jobs {
			b.jobs[i].Add = true
		}
		e.MatMulMany(b.jobs, a)
		return
	}
	added := b.added.Room(n * h)
	x.mul(added, t, a)
	e.RMSNorm(added, added, norm, n, h, float32(x.config.NormEps))
	e.Add(s.hidden, added)
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
		gu := b.scratch.Room(n * 2 * pairs)
		b.jobs = l.gateUp.jobs(b.jobs[:0], gu, 2*first, 2*pairs)
		e.MatMulMany(b.jobs, &b.input)
		e.SwiGLU(&b.inner, first, gu)
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
