package kernel

import (
	"slices"

	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/quant"
)

// expertsTask adds a pass's routed experts. Its pairs are (row, choice) with an
// expert in range, sorted by expert and then by row, so that an expert's rows
// lie together and its weights are read once.
type expertsTask struct {
	e                   *Engine
	gateUp, down        quant.Matrix
	inter, hidden, k    int
	acc, weights        []float32
	input               *Acts
	counts              []int
	all                 []activeExpert
	choices             []int32        // of each pair, index into ids and weights
	active              []activeExpert // those at work now
	choice              []int32        // of their pairs
	gathered, inner     Acts           // their pairs' activations before gate and up, and before down
	gu                  []float32
	guRoom              memory.Buffer[float32]
	phase, rows, chunks int
	share               shares
}

// An activeExpert is one that rows of the pass have chosen. Its pairs are
// from..to-1 of those at work with it.
type activeExpert struct{ expert, from, to int }

const (
	expertsGather = iota
	expertsGateUp
	expertsSwiGLU
	expertsDown
)

// Experts adds, for each row of a, its chosen experts among first..first+count-1:
//
//	acc[r] += weight · down_e(silu(gate_e a[r]) · up_e a[r])
//
// in ascending order of experts, so that a split between experts does not change
// a bit of the sum. gateUp is (count·2·inter) × cols with rows gate 0, up 0,
// gate 1, up 1 … of each expert, down (count·hidden) × inter. ids and weights
// have k a row; ids out of range are skipped.
func (e *Engine) Experts(acc []float32, a *Acts, gateUp, down quant.Matrix, inter, first, count int, ids []int32, weights []float32, k int) {
	t := &e.expert
	t.e, t.gateUp, t.down, t.inter, t.k, t.acc, t.weights, t.input = e, gateUp, down, inter, k, acc, weights, a
	if count == 0 {
		return
	}
	t.hidden = down.Rows / count
	t.sort(ids[:a.N*k], first, count)
	for from := 0; from < len(t.all); {
		from = t.together(from)
		t.compute()
	}
}

// together puts experts number from.. of all to work, as many as bandFloats has
// room for the gates and ups of, and returns which is next.
func (t *expertsTask) together(from int) int {
	to, base := from+1, t.all[from].from
	most := t.e.bandFloats / (2 * t.inter) // pairs
	for to < len(t.all) && t.all[to].to-base <= most {
		to++
	}
	t.active, t.choice = t.all[from:to], t.choices[base:t.all[to-1].to]
	for i := range t.active {
		t.active[i].from -= base
		t.active[i].to -= base
	}
	return to
}

// compute adds the experts at work.
func (t *expertsTask) compute() {
	t.room()
	n, lanes := t.input.N, t.e.k.Lanes
	if n > 1 {
		t.do(expertsGather, len(t.choice))
	}
	strips := ceilDiv(2*t.inter, lanes)
	t.rows = t.e.unitRows(strips*len(t.active), n)
	t.chunks = ceilDiv(2*t.inter, t.rows)
	t.do(expertsGateUp, t.chunks*len(t.active))
	t.do(expertsSwiGLU, len(t.choice))
	t.rows = t.e.unitRows(ceilDiv(t.hidden, lanes), n)
	t.do(expertsDown, ceilDiv(t.hidden, t.rows))
}

// sort makes the pairs.
func (t *expertsTask) sort(ids []int32, first, count int) {
	t.counts = slices.Grow(t.counts[:0], count+1)[:count+1]
	clear(t.counts)
	pairs := 0
	for _, id := range ids {
		if i := int(id) - first; i >= 0 && i < count {
			t.counts[i]++
			pairs++
		}
	}
	t.all, t.choices = t.all[:0], slices.Grow(t.choices[:0], pairs)[:pairs]
	from := 0
	for i, n := range t.counts[:count] {
		if n > 0 {
			t.all = append(t.all, activeExpert{i, from, from + n})
		}
		t.counts[i] = from
		from += n
	}
	for j, id := range ids {
		if i := int(id) - first; i >= 0 && i < count {
			t.choices[t.counts[i]] = int32(j)
			t.counts[i]++
		}
	}
}

// room grows the buffers of the pairs at work.
func (t *expertsTask) room() {
	pairs := len(t.choice)
	t.gu = t.guRoom.Room(pairs * 2 * t.inter)
	t.e.room(&t.inner, pairs, t.inter, !quantised(t.down.Type), t.input.N <= lineRows)
	if g := &t.gathered; t.input.N > 1 {
		t.e.roomForBlocks(g, pairs, t.input.Cols, t.input.N <= lineRows)
		t.e.roomForFloats(g, pairs, g.Cols, !quantised(t.gateUp.Type) || len(g.blocks)+len(g.arranged) == 0)
	}
}

func (t *expertsTask) free() {
	t.gu = nil
	t.guRoom.Free()
	t.gathered.Free()
	t.inner.Free()
}

func (t *expertsTask) do(phase, n int) {
	t.phase = phase
	t.share.reset(n, t.e.pool.threads)
	work := len(t.choice) * t.inter * t.hidden
	if n == 1 || work < productWork || t.input.N == 1 && phase == expertsSwiGLU {
		t.run(0)
		return
	}
	t.e.pool.do(t)
}

func (t *expertsTask) run(thread int) {
	s := &t.e.local[thread]
	for {
		u, ok := t.share.take(thread)
		if !ok {
			return
		}
		switch t.phase {
		case expertsGather:
			t.gather(u)
		case expertsGateUp:
			t.gateUpUnit(s, u)
		case expertsSwiGLU:
			t.e.swiGLU(s, &t.inner, u, 0, t.gu[2*u*t.inter:2*(u+1)*t.inter])
		case expertsDown:
			t.downUnit(s, u)
		}
	}
}

// gather copies a pair's row to where its expert's rows lie together.
func (t *expertsTask) gather(pair int) {
	row, g, cols := int(t.choice[pair])/t.k, &t.gathered, t.input.Cols
	switch {
	case g.x != nil:
		copy(g.x[pair*cols:(pair+1)*cols], t.input.x[row*cols:])
	case len(g.arranged) > 0:
		size := t.e.k.arrangedBytes(cols)
		copy(g.arranged[pair*size:(pair+1)*size], t.input.arranged[row*size:])
	default:
		copy(g.blocks[pair*g.pitch:(pair+1)*g.pitch], t.input.blocks[row*g.pitch:])
		if size := lineBytes(g.pitch); len(g.lines) > 0 {
			copy(g.lines[pair*size:(pair+1)*size], t.input.lines[row*size:])
		}
	}
}

// of are the rows of an expert's pairs.
func (a *activeExpert) of(k *Variant, pairs *Acts) view {
	v := pairs.view()
	v.n = a.to - a.from
	if len(v.arranged) > 0 {
		v.arranged = v.arranged[a.from*k.arrangedBytes(v.cols):]
	}
	if v.x != nil {
		v.x = v.x[a.from*v.cols:]
	}
	if len(v.blocks) > 0 {
		v.blocks = v.blocks[a.from*v.pitch:]
	}
	if len(v.lines) > 0 {
		v.lines = v.lines[a.from*lineBytes(v.pitch):]
	}
	return v
}

func (t *expertsTask) gateUpUnit(s *scratch, u int) {
	a, first := &t.active[u/t.chunks], u%t.chunks*t.rows
	x := t.input.view() // a single row serves all its experts as it is
	if t.input.N > 1 {
		x = a.of(t.e.k, &t.gathered)
	}
	wide := 2 * t.inter
	if next := u/t.chunks + 1; u%t.chunks == t.chunks-1 && next < len(t.active) {
		t.e.fetch(&t.gateUp, t.active[next].expert*wide, &x)
	}
	t.e.unit(s, &t.gateUp, a.expert*wide+first, min(t.rows, wide-first), &x, t.gu[a.from*wide+first:], wide)
}

// downUnit computes some numbers of every row's sum, expert after expert.
func (t *expertsTask) downUnit(s *scratch, u int) {
	first := u * t.rows
	rows := min(t.rows, t.hidden-first)
	for i := range t.active {
		a := &t.active[i]
		x := a.of(t.e.k, &t.inner)
		s.values = memory.Aligned(s.values, x.n*rows)
		if i+1 < len(t.active) {
			t.e.fetch(&t.down, t.active[i+1].expert*t.hidden+first, &x)
		}
		t.e.unit(s, &t.down, a.expert*t.hidden+first, rows, &x, s.values, rows)
		for p := range x.n {
			c := int(t.choice[a.from+p])
			w, y := t.weights[c], s.values[p*rows:(p+1)*rows]
			sum := t.acc[c/t.k*t.hidden+first:][:rows]
			for j, v := range y {
				sum[j] += float32(w * v) // rounded first, on machines that would fuse too
			}
		}
	}
}
