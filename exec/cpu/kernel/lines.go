package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/internal/memory"
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

// A lineProduct multiplies few rows of activations with strips of weights as they lie
// in memory, row after row: the order in which a processor reads fastest.
type lineProduct struct {
	w       *quant.Matrix
	x       *view
	kernels []linesKernel
	lanes   int
	blocks  int
	groups  int
	stride  int // bytes from row to row of the quants
	scales  int // bytes from row to row of the scales
	pitch   int // bytes from row to row of the sums
	xPitch  int // bytes from row to row of the activations' quants
	line    int // bytes from line to line
	other   int // which part the kernels read beside quants and D
}

func (k *Variant) lineProduct(w *quant.Matrix, x *view) lineProduct {
	blocks := x.cols / quant.BlockSize
	p := lineProduct{w: w, x: x, kernels: k.Lines4, lanes: k.Lanes, blocks: blocks, groups: ceilDiv(blocks, unpackGroup), line: lineBytes(x.pitch), other: lineN8}
	p.stride, p.scales = rowBytes(w)
	p.pitch, p.xPitch = ceilDiv(p.groups, 4)*64, p.line
	switch w.Type {
	case quant.Q4_0:
	case quant.Q6_0:
		p.kernels, p.other = k.Lines6, lineN32
		p.pitch *= 2 // two sums a block
	case quant.Q8_0:
		p.kernels, p.other = k.Lines8, lineN80
		p.xPitch = x.pitch * blockBytes
	default:
		p.kernels, p.other = k.LinesMin, lineS
	}
	return p
}

// strips is how many whole strips rows of weights from row first on are, less one
// where reading a group of blocks would reach beyond the matrix.
func (p *lineProduct) strips(first, rows int) int {
	over, width := p.groups*unpackGroup-p.blocks, &planeWidths[p.w.Type]
	readable := min(rowsWithin(cap(p.w.Quants), p.stride, over*width.quants), rowsWithin(cap(p.w.Scales), p.scales, over*width.scales))
	return max(min(rows, readable-first), 0) / p.lanes
}

// run multiplies acts rows of activations from row r on with strips from row first of
// the weights on.
func (p *lineProduct) run(s *scratch, first, strips, r, acts int, y []float32, ldy int) {
	line := p.x.lines[r*p.line:]
	quants := linePart[byte](line, p.x.pitch, lineHalves)
	if p.w.Type == quant.Q8_0 {
		quants = (*byte)(unsafe.Pointer(&p.x.blocks[r*p.x.pitch]))
	}
	early := 0
	if p.stride <= shortRow {
		early = p.lanes / 2
	}
	step := p.scales / max(4*p.groups/p.lanes, 1)
	p.kernels[acts-1](&y[0], strips, &p.w.Quants[first*p.stride], p.stride, &p.w.Scales[first*p.scales], p.scales,
		quants, linePart[float32](line, p.x.pitch, lineD), unsafe.Pointer(linePart[byte](line, p.x.pitch, p.other)),
		&s.sums[0], p.pitch, &s.d[0], &s.m[0], p.groups, p.blocks, early, step, acts, ldy, p.xPitch, p.line, p.lanes*p.pitch)
}

// shortRow is up to how many bytes of a row a strip's scales are unpacked between
// two halves of its rows, which keeps memory busier; with more, they would push
// what has been read ahead out of the first cache.
const shortRow = 1024

// lineRows is up to how many rows of activations are kept as lines.
const lineRows = 8

// inOrder tells whether products of x with weights of a type read those row after row.
func (k *Variant) inOrder(t quant.Type, x *view) bool {
	return len(x.lines) > 0 && (x.n == 1 || k.LineRows != nil && x.n <= k.LineRows(t))
}

// lineCache is how many bytes of strips are multiplied with some rows of activations
// before the next rows: they are to stay in the first or second cache.
const lineCache = 16 << 10

// lineStrips multiplies x with whole strips: y[r·ldy+row]. It tells how many rows of
// weights that was. A strip that comes from memory for the first rows of activations
// is in the caches for the others.
func (e *Engine) lineStrips(s *scratch, w *quant.Matrix, first, rows int, x *view, y []float32, ldy int) int {
	p := e.k.lineProduct(w, x)
	strips := p.strips(first, rows)
	if strips == 0 {
		return 0
	}
	most, scales := min(x.n, len(p.kernels)), p.groups*unpackGroup*p.lanes
	s.sums, s.d, s.m = memory.Aligned(s.sums, most*p.lanes*p.pitch/4), memory.Aligned(s.d, scales), memory.Aligned(s.m, scales)
	together := strips
	if x.n > most {
		together = max(lineCache/(p.lanes*(p.stride+p.scales)), 1)
	}
	for at := 0; at < strips; at += together {
		n, row := min(together, strips-at), at*p.lanes
		for r := 0; r < x.n; r += most {
			p.run(s, first+row, n, r, min(most, x.n-r), y[r*ldy+row:], ldy)
		}
	}
	return strips * p.lanes
}

// rowsWithin is how many rows of a plane may be read with beyond bytes more, whose
// memory may belong to what follows the plane.
func rowsWithin(plane, row, beyond int) int { return (plane - beyond) / row }
