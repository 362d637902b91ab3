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

// A lineProduct multiplies one row of activations with strips as they lie in
// memory, row after row: the order in which a processor reads fastest.
type lineProduct struct {
	kernel linesKernel
	quants *byte
	xd     *float32
	other  unsafe.Pointer // what the kernel reads beside it
	groups int
	pitch  int // bytes from row to row of the sums
}

func (k *Variant) lineProduct(t quant.Type, x *view) lineProduct {
	p := lineProduct{kernel: k.Lines4, groups: ceilDiv(x.cols/quant.BlockSize, unpackGroup)}
	p.quants, p.xd = linePart[byte](x.lines, x.pitch, lineHalves), linePart[float32](x.lines, x.pitch, lineD)
	p.pitch = ceilDiv(p.groups, 4) * 64
	other := lineN8
	switch t {
	case quant.Q4_0:
	case quant.Q6_0:
		p.kernel, other = k.Lines6, lineN32
		p.pitch *= 2 // two sums a block
	case quant.Q8_0:
		p.kernel, other = k.Lines8, lineN80
		p.quants = (*byte)(unsafe.Pointer(&x.blocks[0]))
	default:
		p.kernel, other = k.LinesMin, lineS
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
func (e *Engine) lineStrips(s *scratch, w *quant.Matrix, first, rows int, x *view, y []float32) int {
	k, lanes, blocks := e.k, e.k.Lanes, x.cols/quant.BlockSize
	p := k.lineProduct(w.Type, x)
	stride, scales := rowBytes(w)
	over := p.groups*unpackGroup - blocks
	readable := min(rowsWithin(cap(w.Quants), stride, over*planeWidths[w.Type].quants),
		rowsWithin(cap(w.Scales), scales, over*planeWidths[w.Type].scales))
	strips := max(min(rows, readable-first), 0) / lanes
	if strips == 0 {
		return 0
	}
	s.sums, s.d, s.m = aligned(s.sums, lanes*p.pitch/4), aligned(s.d, p.groups*unpackGroup*lanes), aligned(s.m, p.groups*unpackGroup*lanes)
	early := 0
	if stride <= shortRow {
		early = lanes / 2
	}
	step := scales / max(4*p.groups/lanes, 1)
	p.kernel(&y[0], strips, &w.Quants[first*stride], stride, &w.Scales[first*scales], scales, p.quants, p.xd, p.other,
		&s.sums[0], p.pitch, &s.d[0], &s.m[0], p.groups, blocks, early, step)
	return strips * lanes
}

// rowsWithin is how many rows of a plane may be read with beyond bytes more, whose
// memory may belong to what follows the plane.
func rowsWithin(plane, row, beyond int) int { return (plane - beyond) / row }
