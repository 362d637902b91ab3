//go:build js && wasm

package simd

import (
	"syscall/js"
	"unsafe"

	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/quant"
)

// lanes of a vector; panel is how many rows products of floats take, by several
// calls. The more, the less often attention decodes keys and values.
const (
	lanes = 4
	panel = 16
)

// Register adds the kernels that the glue has instantiated and returns their
// name, "" where the browser has no vectors. It starts the threads that help.
func Register() string {
	name := js.Global().Get("potluckKernels")
	if name.Type() != js.TypeString || name.String() == "" {
		return ""
	}
	v := kernel.Reference()
	v.Name, v.Rank, v.Lanes, v.Panel = name.String(), 10, lanes, panel
	group := int(groupBytes())
	v.ArrangedBytes = func(blocks int) int { return (blocks + 3) / 4 * group }
	v.Arrange = func(dst *byte, x *float32, blocks int) { arrange(dst, x, int32(blocks)) }
	p := &products{threads: startThreads()}
	v.Planar, v.Attend = p.multiply, p.attend
	v.SumSquares = func(x *float32, n int) float32 { return sumSquares(x, int32(n)) }
	v.ScaleMul = func(y, x, w *float32, scale float32, n int) { scaleMul(y, x, w, scale, int32(n)) }
	v.SwiGLU = func(y, gu *float32, n int) { swiGLU(y, gu, int32(n)) }
	v.ExpSum = func(x *float32, n int, top float32) float32 { return expSum(x, int32(n), top) }
	v.Max = func(x *float32, n int) float32 { return largest(x, int32(n)) }
	v.DecodeF16 = func(dst *float32, src *uint16, n int) { decodeF16(dst, src, int32(n)) }
	v.EncodeF16 = func(dst *uint16, src *float32, n int) { encodeF16(dst, src, int32(n)) }
	v.DecodeKeys8 = func(dst *float32, src *int8, scales *float32, blocks int) {
		decodeKeys8(dst, src, scales, int32(blocks))
	}
	v.DecodeValues8 = func(dst *float32, src *int8, scales *float32, blocks int) {
		decodeValues8(dst, src, scales, int32(blocks))
	}
	v.Add = func(y, x *float32, n int) { add(y, x, int32(n)) }
	v.RoundHalf = func(x *float32, n int) bool { return roundHalf(x, int32(n)) != 0 }
	v.UnpackF32, v.UnpackF16, v.UnpackBF16 = unpackOf(unpackF32), unpackOf(unpackF16), unpackOf(unpackBF16)
	v.VecF32 = vecsOf(vecF32x1, vecF32x2, vecF32x3, vecF32x4)
	v.VecF16 = vecsOf(vecF16x1, vecF16x2, vecF16x3, vecF16x4)
	v.VecBF16 = vecsOf(vecBF16x1, vecBF16x2, vecBF16x3, vecBF16x4)
	v.DotFloat, v.DotFloat4 = nil, nil
	for n := 1; n <= panel; n++ {
		v.DotFloat, v.DotFloat4 = append(v.DotFloat, dotFloat(n)), append(v.DotFloat4, dotFloat4(n))
	}
	kernel.Register(v)
	return v.Name
}

// dotFloat takes n rows, at most four a call.
func dotFloat(n int) func(y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int) {
	calls := [...]func(*float32, int32, *float32, int32, *float32, int32, int32, int32){dotFloatOf1, dotFloatOf2, dotFloatOf3, dotFloatOf4}
	return func(y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int) {
		for at := 0; at < n; at += len(calls) {
			calls[min(n-at, len(calls))-1](row(y, at*ldy), int32(ldy), row(a, at*lda), int32(lda), b, int32(ldb), int32(k), int32(add))
		}
	}
}

// dotFloat4 takes n rows, at most two a call: with three, sums do not fit the registers.
func dotFloat4(n int) func(y *float32, ldy, ystep int, a *float32, lda int, b *float32, ldb, step, k, add int, ahead uintptr) {
	calls := [...]func(*float32, int32, int32, *float32, int32, *float32, int32, int32, int32, int32){dotFloat4Of1, dotFloat4Of2}
	return func(y *float32, ldy, ystep int, a *float32, lda int, b *float32, ldb, step, k, add int, _ uintptr) {
		for at := 0; at < n; at += len(calls) {
			calls[min(n-at, len(calls))-1](row(y, at*ldy), int32(ldy), int32(ystep), row(a, at*lda), int32(lda), b, int32(ldb), int32(step), int32(k), int32(add))
		}
	}
}

func row(p *float32, at int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*at)) }

func unpackOf(f func(*float32, *byte, int32, int32)) func(*float32, *byte, int, int) {
	return func(dst *float32, src *byte, stride, groups int) { f(dst, src, int32(stride), int32(groups)) }
}

func vecsOf(all ...func(*float32, int32, *byte, int32, *float32, int32, int32)) (vecs []func(*float32, int, *byte, int, *float32, int, int)) {
	for _, f := range all {
		vecs = append(vecs, func(y *float32, ldy int, src *byte, stride int, x *float32, ldx, groups int) {
			f(y, int32(ldy), src, int32(stride), x, int32(ldx), int32(groups))
		})
	}
	return vecs
}

// products multiplies quantised weights; it keeps the memory that this takes.
type products struct {
	threads int
	scratch []byte
	copied  struct{ quants, scales []byte }
}

// beyond is how far past a matrix its last rows may be read: what fills a group.
const beyond = 128

// lastRows may be read past a matrix's end.
const lastRows = 4

// multiply is Variant.Planar. A matrix may lie at the very end of memory: its
// last rows are then read from a copy.
func (p *products) multiply(all []kernel.Product, blocks int, x *byte, ldx, n int) {
	job := &pool.job
	job.n, job.blocks, job.ldx, job.x = int32(n), int32(blocks), int32(ldx), x
	for i := range all {
		w := &all[i]
		qrow, drow := w.Type.QuantsRowBytes(blocks*quant.BlockSize), w.Type.ScalesRowBytes(blocks*quant.BlockSize)
		end := memoryEnd()
		if blocks%4 == 0 || address(w.Quants)+uintptr(w.Rows*qrow)+beyond <= end && address(w.Scales)+uintptr(w.Rows*drow)+beyond <= end {
			p.add(w, w.Rows)
			continue
		}
		first := max(w.Rows-lastRows, 0)
		p.add(w, first)
		p.do()
		p.copied.quants = padded(p.copied.quants, w.Quants, first*qrow, w.Rows*qrow)
		p.copied.scales = padded(p.copied.scales, w.Scales, first*drow, w.Rows*drow)
		last := *w
		last.Y, last.Quants, last.Scales = (*float32)(unsafe.Add(unsafe.Pointer(w.Y), 4*first)), &p.copied.quants[0], &p.copied.scales[0]
		p.add(&last, w.Rows-first)
		p.do()
	}
	p.do()
}

// padded copies plane[from:to] to room with beyond bytes behind.
func padded(room []byte, plane *byte, from, to int) []byte {
	if need := to - from + beyond; cap(room) < need {
		room = make([]byte, need)
	}
	copy(room[:cap(room)], unsafe.Slice(plane, to)[from:])
	return room[:to-from]
}

func address(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }

// kinds are the types of weights in the order in which the kernels count them.
var kinds = [...]struct {
	t       quant.Type
	product func(y *float32, ldy int32, q, d *byte, from, to, blocks int32, x *byte, ldx, n int32, scratch *byte)
	scratch func(blocks int32) int32
}{
	{quant.Q4_0, productQ4_0, scratchQ4_0},
	{quant.Q4_1, productQ4_1, scratchQ4_1},
	{quant.Q6_0, productQ6_0, scratchQ6_0},
	{quant.Q8_0, productQ8_0, scratchQ8_0},
}

func kindOf(t quant.Type) (kind int32) {
	for kinds[kind].t != t {
		kind++
	}
	return kind
}

// add puts the first rows of w into the job.
func (p *products) add(w *kernel.Product, rows int) {
	if rows == 0 {
		return
	}
	job := &pool.job
	if job.count == poolProducts {
		p.do()
	}
	job.products[job.count] = product{kind: kindOf(w.Type), y: w.Y, ldy: int32(4 * w.LDY), q: w.Quants, d: w.Scales, rows: int32(rows)}
	job.count++
}

// do computes the job, with the helpers if it is worth their attention.
func (p *products) do() {
	job := &pool.job
	rows, need := 0, 0
	for i := range job.products[:job.count] {
		rows += int(job.products[i].rows)
		need = max(need, int(kinds[job.products[i].kind].scratch(job.blocks)))
	}
	if len(p.scratch) < need*p.threads {
		p.scratch = make([]byte, need*p.threads)
	}
	if p.threads > 1 && rows*int(job.blocks*job.n) >= worthSharing {
		job.scratch, job.scratchBytes, job.threads = &p.scratch[0], int32(need), int32(min(p.threads, poolThreads))
		job.chunk = int32(chunkSteps(rows, int(job.n), p.threads))
		share(&pool.words[0])
	} else {
		for i := range job.products[:job.count] {
			w := &job.products[i]
			kinds[w.kind].product(w.y, w.ldy, w.q, w.d, 0, w.rows, job.blocks, job.x, job.ldx, job.n, &p.scratch[0])
		}
	}
	job.count = 0
}

// attentionWorthSharing is how many multiply-adds of attention are worth the
// helpers' attention.
const attentionWorthSharing = 1 << 15

// attend is Variant.Attend.
func (p *products) attend(a *kernel.Attention) {
	need := attentionScratch(a.HeadDim)
	if len(p.scratch) < need*p.threads {
		p.scratch = make([]byte, need*p.threads)
	}
	pool.attention = attention{
		out: a.Out, q: a.Q, positions: a.Positions, tiles: &a.Tiles[0], tileCount: int32(len(a.Tiles)), units: int32(len(a.Tiles) * a.KVHeads),
		heads: int32(a.Heads), kvHeads: int32(a.KVHeads), dim: int32(a.HeadDim), scale: a.Scale, scratch: &p.scratch[0], scratchBytes: int32(need),
	}
	if p.threads > 1 && pool.units > 1 && a.Work >= attentionWorthSharing {
		share(&pool.words[0])
	} else {
		attend(&pool.words[0])
	}
	pool.attention = attention{} // keeps no cache alive
}

// attentionScratch is room for queries and sums, a page's values and scores, and a
// state of each query.
func attentionScratch(dim int) int {
	const pagePositions = 64
	return 4*(2*panel+pagePositions)*dim + 4*panel*pagePositions + 8*panel
}

// memoryEnd is the first address that is not in memory.
func memoryEnd() uintptr { return uintptr(memoryPages()) << 16 }
