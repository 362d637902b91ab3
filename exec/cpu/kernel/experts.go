package kernel

import (
	"slices"

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
	input               view
	active              []activeExpert
	choice              []int32 // of each pair, index into ids and weights
	gathered, inner     view    // the pairs' activations before gate and up, and before down
	gatheredX, innerX   []float32
	gatheredQ, innerQ   []Block
	gatheredA, innerA   []byte
	innerH              []byte
	gu                  []float32
	counts              []int
	phase, rows, chunks int
	share               shares
}

// An activeExpert is one that rows of the pass have chosen.
type activeExpert struct{ expert, from, to int } // its pairs

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
	t.e, t.gateUp, t.down, t.inter, t.k, t.acc, t.weights, t.input = e, gateUp, down, inter, k, acc, weights, a.view()
	if count == 0 || !t.sort(ids[:a.N*k], first, count) {
		return
	}
	t.hidden = down.Rows / count
	t.room()
	if a.N > 1 {
		t.do(expertsGather, len(t.choice))
	}
	lanes := e.k.Lanes
	strips := ceilDiv(2*inter, lanes)
	t.rows = e.unitRows(strips*len(t.active), a.N)
	t.chunks = ceilDiv(2*inter, t.rows)
	t.do(expertsGateUp, t.chunks*len(t.active))
	t.do(expertsSwiGLU, len(t.choice))
	t.rows = e.unitRows(ceilDiv(t.hidden, lanes), a.N)
	t.do(expertsDown, ceilDiv(t.hidden, t.rows))
}

// sort makes the pairs; it tells whether there are any.
func (t *expertsTask) sort(ids []int32, first, count int) bool {
	t.counts = slices.Grow(t.counts[:0], count+1)[:count+1]
	clear(t.counts)
	pairs := 0
	for _, id := range ids {
		if i := int(id) - first; i >= 0 && i < count {
			t.counts[i]++
			pairs++
		}
	}
	t.active, t.choice = t.active[:0], slices.Grow(t.choice[:0], pairs)[:pairs]
	from := 0
	for i, n := range t.counts[:count] {
		if n > 0 {
			t.active = append(t.active, activeExpert{i, from, from + n})
		}
		t.counts[i] = from
		from += n
	}
	for j, id := range ids {
		if i := int(id) - first; i >= 0 && i < count {
			t.choice[t.counts[i]] = int32(j)
			t.counts[i]++
		}
	}
	return pairs > 0
}

// room grows the buffers of the pairs. A single row serves all its experts as
// it is.
func (t *expertsTask) room() {
	e, pairs, cols := t.e, len(t.choice), t.input.cols
	t.gu = aligned(t.gu, pairs*2*t.inter)
	t.innerX = aligned(t.innerX, pairs*t.inter)
	t.inner = view{cols: t.inter, x: t.innerX}
	planar := e.k.Planar != nil
	switch {
	case !e.quantises(t.inter):
	case planar:
		t.innerA = aligned(t.innerA, pairs*e.k.arrangedBytes(t.inter))
		t.inner.arranged = t.innerA
	default:
		t.inner.pitch = blockPitch(t.inter)
		t.innerQ = aligned(t.innerQ, pairs*t.inner.pitch)
		t.inner.blocks = t.innerQ
		if t.input.n == 1 && e.k.Sums4 != nil {
			t.innerH = aligned(t.innerH, pairs*t.inner.pitch*quant.BlockSize)
			t.inner.halves = t.innerH
		}
	}
	if t.input.n == 1 {
		t.gathered = t.input
		return
	}
	t.gathered = view{cols: cols, pitch: t.input.pitch}
	switch {
	case t.gatheredFloats():
		t.gatheredX = aligned(t.gatheredX, pairs*cols)
		t.gathered.x = t.gatheredX
	case planar:
		t.gatheredA = aligned(t.gatheredA, pairs*e.k.arrangedBytes(cols))
		t.gathered.arranged = t.gatheredA
	default:
		t.gatheredQ = aligned(t.gatheredQ, pairs*t.input.pitch)
		t.gathered.blocks = t.gatheredQ
	}
}

// gatheredFloats tells in which form gate and up read their input.
func (t *expertsTask) gatheredFloats() bool {
	return !quantised(t.gateUp.Type) || !t.e.quantises(t.input.cols)
}

func (t *expertsTask) do(phase, n int) {
	t.phase = phase
	t.share.reset(n, t.e.pool.threads)
	work := len(t.choice) * t.inter * t.hidden
	if n == 1 || work < productWork || t.input.n == 1 && phase == expertsSwiGLU {
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
			t.swiGLU(s, u)
		case expertsDown:
			t.downUnit(s, u)
		}
	}
}

// gather copies a pair's row to where its expert's rows lie together.
func (t *expertsTask) gather(pair int) {
	row, cols := int(t.choice[pair])/t.k, t.input.cols
	switch {
	case t.gatheredFloats():
		copy(t.gatheredX[pair*cols:(pair+1)*cols], t.input.x[row*cols:])
	case t.e.k.Planar != nil:
		size := t.e.k.arrangedBytes(cols)
		copy(t.gatheredA[pair*size:(pair+1)*size], t.input.arranged[row*size:])
	default:
		p := t.input.pitch
		copy(t.gatheredQ[pair*p:(pair+1)*p], t.input.blocks[row*p:])
	}
}

// of narrows v, the pairs' activations, to an expert's.
func (a *activeExpert) of(k *Variant, v *view) view {
	part := view{n: a.to - a.from, cols: v.cols, pitch: v.pitch}
	if v.arranged != nil {
		part.arranged = v.arranged[a.from*k.arrangedBytes(v.cols):]
	}
	if v.x != nil {
		part.x = v.x[a.from*v.cols:]
	}
	if v.blocks != nil {
		part.blocks = v.blocks[a.from*v.pitch:]
	}
	if v.halves != nil && part.n == 1 {
		part.halves = v.halves[a.from*v.pitch*quant.BlockSize:]
	}
	return part
}

func (t *expertsTask) gateUpUnit(s *scratch, u int) {
	a, first := &t.active[u/t.chunks], u%t.chunks*t.rows
	x := t.gathered
	if t.input.n > 1 {
		x = a.of(t.e.k, &t.gathered)
	}
	wide := 2 * t.inter
	if next := u/t.chunks + 1; u%t.chunks == t.chunks-1 && next < len(t.active) {
		t.e.fetch(&t.gateUp, t.active[next].expert*wide)
	}
	t.e.unit(s, &t.gateUp, a.expert*wide+first, min(t.rows, wide-first), &x, t.gu[a.from*wide+first:], wide)
}

func (t *expertsTask) swiGLU(s *scratch, pair int) {
	x := t.innerX[pair*t.inter : (pair+1)*t.inter]
	t.e.k.swiGLU(x, t.gu[2*pair*t.inter:2*(pair+1)*t.inter])
	switch {
	case t.inner.arranged != nil:
		t.e.k.arrange(t.innerA, pair, x)
	case t.inner.blocks != nil:
		blocks := t.innerQ[pair*t.inner.pitch : (pair+1)*t.inner.pitch]
		t.e.k.quantiseRow(blocks, x)
		if t.inner.halves != nil {
			halvesOf(t.innerH[pair*t.inner.pitch*quant.BlockSize:], blocks)
		}
	}
}

// downUnit computes some numbers of every row's sum, expert after expert.
func (t *expertsTask) downUnit(s *scratch, u int) {
	first := u * t.rows
	rows := min(t.rows, t.hidden-first)
	for i := range t.active {
		a := &t.active[i]
		x := a.of(t.e.k, &t.inner)
		s.values = aligned(s.values, x.n*rows)
		if i+1 < len(t.active) {
			t.e.fetch(&t.down, t.active[i+1].expert*t.hidden+first)
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
