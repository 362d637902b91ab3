package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// A line is a row of activations as line products read it beside its blocks: what
// those hold, each part in one piece. Weights of 8 bits take quants from the blocks
// all the same: read in one piece they are measurably slower, by 3 to 5 % of all. A part begins at so many times the line's pitch in bytes,
// the pitch being its blocks, a multiple of unpackGroup.
const (
	lineHalves = 0  // of each group of blocks the four first halves, then the second ones
	lineD      = 32 // D of each block, and so on
	lineS      = 36
	lineN8     = 40
	lineN80    = 44
	lineN32    = 48
	lineWidth  = 56
)

func lineBytes(pitch int) int { return pitch * lineWidth }

// linePart is where a part of the line of pitch blocks begins in memory.
func linePart[T any](memory []byte, pitch, part int) *T {
	return (*T)(unsafe.Pointer(&memory[pitch*part]))
}

// setLine makes blocks, as many as the line's pitch, a line.
func setLine(memory []byte, blocks []Block) {
	const size = quant.BlockSize
	n := len(blocks)
	halves := memory[:lineD*n]
	d, s := unsafe.Slice(linePart[float32](memory, n, lineD), n), unsafe.Slice(linePart[float32](memory, n, lineS), n)
	n8, n80 := unsafe.Slice(linePart[int32](memory, n, lineN8), n), unsafe.Slice(linePart[int32](memory, n, lineN80), n)
	n32 := unsafe.Slice(linePart[[2]int32](memory, n, lineN32), n)
	for i := range blocks {
		b := &blocks[i]
		half := (i/unpackGroup*unpackGroup*2 + i%unpackGroup) * size / 2
		*(*[size / 2]int8)(unsafe.Pointer(&halves[half])) = [size / 2]int8(b.Q[:])
		*(*[size / 2]int8)(unsafe.Pointer(&halves[half+unpackGroup*size/2])) = [size / 2]int8(b.Q[size/2:])
		d[i], s[i], n8[i], n80[i], n32[i] = b.D, b.S, b.N8, b.N80, b.N32
	}
}

// A line product multiplies one row of activations with strips as they lie in
// memory, row after row: the order in which a processor reads fastest.
type lineProduct struct {
	k      *Variant
	t      quant.Type
	sums   func(src *byte, stride int, x *byte, sums *int32, pitch, rows, groups int)
	quants *byte
	xd     *float32
	other  unsafe.Pointer // what Apply reads beside D
	groups int
	pitch  int // bytes from row to row of the sums
}

func (k *Variant) lineProduct(t quant.Type, x *view, groups int) lineProduct {
	p := lineProduct{k: k, t: t, sums: k.Sums4, quants: linePart[byte](x.lines, x.pitch, lineHalves), groups: groups}
	p.pitch, p.xd = ceilDiv(groups, 4)*64, linePart[float32](x.lines, x.pitch, lineD)
	other := lineS
	switch t {
	case quant.Q4_0:
		other = lineN8
	case quant.Q6_0:
		p.sums, other = k.Sums6, lineN32
		p.pitch *= 2 // two sums a block
	case quant.Q8_0:
		p.sums, other = k.Sums8, lineN80
		p.quants = (*byte)(unsafe.Pointer(&x.blocks[0]))
	}
	p.other = unsafe.Pointer(linePart[byte](x.lines, x.pitch, other))
	return p
}

// shortRow is up to how many bytes of a row a strip's scales are unpacked between
// two halves of its rows, which keeps memory busier; with more, they would push
// what has been read ahead out of the first cache.
const shortRow = 1024

// lineStrips multiplies x, of one row, with whole strips: y[row]. It tells how
// many rows that was; the last strip may be left, where reading a group of
// blocks would reach beyond the matrix.
func (e *Engine) lineStrips(s *scratch, w *quant.Matrix, first, rows int, x *view, y []float32) (done int) {
	lanes, blocks := e.k.Lanes, w.Cols/quant.BlockSize
	stride, _ := rowBytes(w) // of quants
	p := e.k.lineProduct(w.Type, x, ceilDiv(blocks, unpackGroup))
	beyond := (p.groups*unpackGroup - blocks) * planeWidths[w.Type].quants
	s.sums = aligned(s.sums, lanes*p.pitch/4)
	early := 0 // rows to sum before the scales are unpacked
	if stride <= shortRow {
		early = lanes / 2
	}
	for ; rows-done >= lanes && (first+done+lanes)*stride+beyond <= len(w.Quants); done += lanes {
		at := (first + done) * stride
		if early > 0 {
			p.sums(&w.Quants[at], stride, p.quants, &s.sums[0], p.pitch, early, p.groups)
		}
		e.unpackScales(s, 0, w, first+done, lanes)
		p.sums(&w.Quants[at+early*stride], stride, p.quants, &s.sums[early*p.pitch/4], p.pitch, lanes-early, p.groups)
		p.apply(s, &y[done])
	}
	return done
}

// apply turns a strip's sums into results.
func (p *lineProduct) apply(s *scratch, y *float32) {
	sums, d, m := &s.sums[0], &s.d[0], &s.m[0]
	switch p.t {
	case quant.Q4_0:
		p.k.Apply4(y, sums, p.pitch, d, p.xd, (*int32)(p.other), p.groups)
	case quant.Q8_0:
		p.k.Apply8(y, sums, p.pitch, d, p.xd, (*int32)(p.other), p.groups)
	case quant.Q6_0:
		p.k.Apply6(y, sums, p.pitch, d, m, p.xd, (*int32)(p.other), p.groups)
	default:
		p.k.ApplyMin(y, sums, p.pitch, d, m, p.xd, (*float32)(p.other), p.groups)
	}
}
