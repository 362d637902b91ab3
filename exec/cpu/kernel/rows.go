package kernel

import (
	"math"

	"github.com/potluck-llm/potluck/quant"
)

// What each row of a pass can undergo by itself.
const (
	opPrepare = iota
	opPrepareColumns
	opPrepareNorm
	opNorm
	opRope
	opSwiGLU
	opAdd
	opBias
	opRound
)

type rowsArgs struct {
	op      int
	y, x, w []float32
	acts    *Acts
	first   int
	dim     int
	eps     float32
	heads   int
	rope    *Rope
	pos     []int32
}

// rowsTask runs one operation over rows, some rows at a time.
type rowsTask struct {
	rowsArgs
	e     *Engine
	n     int
	chunk int
	share shares
}

// rowsWork is how many numbers are worth handing to another thread: about two
// microseconds of work.
const rowsWork = 8192

func (e *Engine) eachRow(args rowsArgs, n int) {
	t := &e.rows
	t.rowsArgs, t.e, t.n = args, e, n
	if e.pool.threads == 1 || n*args.dim < 2*rowsWork {
		t.span(0, 0, n)
		return
	}
	t.chunk = max(rowsWork/max(args.dim, 1), 1)
	t.share.reset(ceilDiv(n, t.chunk), e.pool.threads)
	e.pool.do(t)
}

func (t *rowsTask) run(thread int) {
	for {
		i, ok := t.share.take(thread)
		if !ok {
			return
		}
		t.span(thread, i*t.chunk, min((i+1)*t.chunk, t.n))
	}
}

func (t *rowsTask) span(thread, from, to int) {
	k, dim := t.e.k, t.dim
	for i := from; i < to; i++ {
		switch t.op {
		case opPrepare:
			k.keep(t.acts, i, 0, t.x[i*dim:(i+1)*dim])
		case opPrepareColumns:
			x := t.x[i*dim : (i+1)*dim]
			if a := t.acts; a.x != nil {
				copy(a.x[i*a.Cols+t.first:], x)
			}
			k.keep(t.acts, i, t.first, x)
		case opPrepareNorm:
			t.e.prepareNorm(&t.e.local[thread], t.acts, i, t.x[i*dim:(i+1)*dim], t.w[:dim], t.eps)
		case opNorm:
			k.rmsNorm(t.y[i*dim:(i+1)*dim], t.x[i*dim:(i+1)*dim], t.w[:dim], t.eps)
		case opRope:
			t.rope.rotate(t.x[i*dim:(i+1)*dim], t.heads, int(t.pos[i]))
		case opSwiGLU:
			t.e.swiGLU(&t.e.local[thread], t.acts, i, t.first, t.x[2*i*dim:2*(i+1)*dim])
		case opAdd:
			k.add(t.y[i*dim:(i+1)*dim], t.x[i*dim:(i+1)*dim])
		case opBias:
			k.add(t.y[i*dim:(i+1)*dim], t.x[:dim])
		case opRound:
			k.round(t.x[i*dim : (i+1)*dim])
		}
	}
}

// RMSNorm computes y = x / sqrt(mean(x²) + eps) · w for n rows of dim. y may be x.
func (e *Engine) RMSNorm(y, x, w []float32, n, dim int, eps float32) {
	e.eachRow(rowsArgs{op: opNorm, y: y, x: x, w: w, dim: dim, eps: eps}, n)
}

// RMSNormHeads normalises each head of n rows in place, all with the same w of
// headDim numbers.
func (e *Engine) RMSNormHeads(x, w []float32, n, heads, headDim int, eps float32) {
	e.RMSNorm(x, x, w, n*heads, headDim, eps)
}

func (v *Variant) rmsNorm(y, x, w []float32, eps float32) {
	whole := len(x) &^ 15
	sum := 0.0
	if whole > 0 {
		sum = float64(v.SumSquares(&x[0], whole))
	}
	for _, f := range x[whole:] {
		sum += float64(f) * float64(f)
	}
	scale := float32(1 / math.Sqrt(sum/float64(len(x))+float64(eps)))
	if whole > 0 {
		v.ScaleMul(&y[0], &x[0], &w[0], scale, whole)
	}
	for i := whole; i < len(x); i++ {
		y[i] = x[i] * scale * w[i]
	}
}

// ones are weights for ScaleMul that change nothing.
var ones = func() (w [256]float32) {
	for i := range w {
		w[i] = 1
	}
	return w
}()

// scale computes y = x·by, which may be the same memory.
func (v *Variant) scale(y, x []float32, by float32) {
	x = x[:len(y)]
	for whole := min(len(y)&^15, len(ones)); whole > 0; whole = min(len(y)&^15, len(ones)) {
		v.ScaleMul(&y[0], &x[0], &ones[0], by, whole)
		y, x = y[whole:], x[whole:]
	}
	for i := range y {
		y[i] = x[i] * by
	}
}

// swiGLU computes y = silu(gate)·up; gu holds pairs gate, up.
func (v *Variant) swiGLU(y, gu []float32) {
	whole := len(y) &^ 15
	if whole > 0 {
		v.SwiGLU(&y[0], &gu[0], whole)
	}
	for i := whole; i < len(y); i++ {
		y[i] = silu(gu[2*i]) * gu[2*i+1]
	}
}

// Add computes y += x.
func (e *Engine) Add(y, x []float32) {
	const dim = 1024
	n := len(y) / dim
	e.eachRow(rowsArgs{op: opAdd, y: y, x: x, dim: dim}, n)
	e.k.add(y[n*dim:], x[n*dim:])
}

// AddBias adds b to each of n rows of dim.
func (e *Engine) AddBias(y, b []float32, n, dim int) {
	e.eachRow(rowsArgs{op: opBias, y: y, x: b, dim: dim}, n)
}

func (v *Variant) add(y, x []float32) {
	x = x[:len(y)]
	i := 0
	if whole := len(y) &^ 15; v.Add != nil && whole > 0 {
		v.Add(&y[0], &x[0], whole)
		i = whole
	}
	for ; i+4 <= len(y); i += 4 {
		y, x := y[i:i+4:i+4], x[i:i+4:i+4]
		y[0] += x[0]
		y[1] += x[1]
		y[2] += x[2]
		y[3] += x[3]
	}
	for ; i < len(y); i++ {
		y[i] += x[i]
	}
}

// round is quant.RoundRow. A row whose numbers are all of a half's size needs no
// scale: its parts can be rounded by themselves.
func (v *Variant) round(x []float32) {
	whole := len(x) &^ 15
	if v.RoundHalf == nil || whole == 0 || quant.RowScale(x[whole:]) != 0 || !v.RoundHalf(&x[0], whole) {
		quant.RoundRow(x)
		return
	}
	quant.RoundRow(x[whole:])
}

// RoundF16 rounds each of n rows of dim as quant.RoundRow does: to halves times
// a power of two of the row, so that nothing saturates.
func (e *Engine) RoundF16(x []float32, n, dim int) {
	e.eachRow(rowsArgs{op: opRound, x: x, dim: dim}, n)
}
