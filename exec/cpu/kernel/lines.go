package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// A line is a row of activations as line products read it: what the blocks hold,
// each of its parts in one piece, so that nothing that a product does not need
// takes room in the first cache.
type line struct {
	quants, halves []byte    // of each group of blocks the quants as they are; the four first halves, then the second ones
	d, s           []float32 // D and S
	n8, n80        []int32   // N8 and N80
	n32            [][2]int32
}

// lineBytes is the size of a line of pitch blocks, a multiple of unpackGroup.
func lineBytes(pitch int) int { return pitch * (2*quant.BlockSize + 4*4 + 8) }

// lineOf views memory as a line of pitch blocks.
func lineOf(memory []byte, pitch int) (l line) {
	l.quants, memory = memory[:pitch*quant.BlockSize], memory[pitch*quant.BlockSize:]
	l.halves, memory = memory[:pitch*quant.BlockSize], memory[pitch*quant.BlockSize:]
	l.d, memory = part[float32](memory, pitch)
	l.s, memory = part[float32](memory, pitch)
	l.n8, memory = part[int32](memory, pitch)
	l.n80, memory = part[int32](memory, pitch)
	l.n32, _ = part[[2]int32](memory, pitch)
	return l
}

func part[T any](memory []byte, n int) (first []T, rest []byte) {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), n), memory[n*int(unsafe.Sizeof(zero)):]
}

// set fills the line from block number from on, the first of a group.
func (l line) set(from int, blocks []Block) {
	const size = quant.BlockSize
	for i := range blocks {
		b, at := &blocks[i], from+i
		*(*[size]int8)(unsafe.Pointer(&l.quants[at*size])) = b.Q
		half := at/unpackGroup*unpackGroup*size + at%unpackGroup*size/2
		*(*[size / 2]int8)(unsafe.Pointer(&l.halves[half])) = [size / 2]int8(b.Q[:])
		*(*[size / 2]int8)(unsafe.Pointer(&l.halves[half+unpackGroup*size/2])) = [size / 2]int8(b.Q[size/2:])
		l.d[at], l.s[at], l.n8[at], l.n80[at], l.n32[at] = b.D, b.S, b.N8, b.N80, b.N32
	}
}

// A line product multiplies one row of activations with strips as they lie in
// memory, row after row: the order in which a processor reads fastest.
type lineProduct struct {
	k      *Variant
	w      *quant.Matrix
	x      line
	groups int
	stride int // bytes from row to row of the quants
	pitch  int // bytes from row to row of the sums
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
	stride, _ := rowBytes(w)
	p := lineProduct{k: e.k, w: w, x: lineOf(x.lines, x.pitch), groups: ceilDiv(blocks, unpackGroup), stride: stride}
	p.pitch = ceilDiv(p.groups, 4) * 64
	if w.Type == quant.Q6_0 { // two sums a block
		p.pitch *= 2
	}
	beyond := (p.groups*unpackGroup - blocks) * planeWidths[w.Type].quants
	s.sums = aligned(s.sums, lanes*p.pitch/4)
	early := 0 // rows to sum before the scales are unpacked
	if stride <= shortRow {
		early = lanes / 2
	}
	for ; rows-done >= lanes && (first+done+lanes)*stride+beyond <= len(w.Quants); done += lanes {
		p.sum(s, first+done, 0, early)
		e.unpackScales(s, 0, w, first+done, lanes)
		p.sum(s, first+done, early, lanes)
		p.apply(s, &y[done])
	}
	return done
}

// sum sums the blocks of rows from..to-1 of the strip that begins with row first.
func (p *lineProduct) sum(s *scratch, first, from, to int) {
	if from == to {
		return
	}
	src, sums := &p.w.Quants[(first+from)*p.stride], &s.sums[from*p.pitch/4]
	switch p.w.Type {
	case quant.Q8_0:
		p.k.Sums8(src, p.stride, &p.x.quants[0], sums, p.pitch, to-from, p.groups)
	case quant.Q6_0:
		p.k.Sums6(src, p.stride, &p.x.halves[0], sums, p.pitch, to-from, p.groups)
	default:
		p.k.Sums4(src, p.stride, &p.x.halves[0], sums, p.pitch, to-from, p.groups)
	}
}

// apply turns a strip's sums into results.
func (p *lineProduct) apply(s *scratch, y *float32) {
	sums, d, m, xd := &s.sums[0], &s.d[0], &s.m[0], &p.x.d[0]
	switch p.w.Type {
	case quant.Q4_0:
		p.k.Apply4(y, sums, p.pitch, d, xd, &p.x.n8[0], p.groups)
	case quant.Q8_0:
		p.k.Apply8(y, sums, p.pitch, d, xd, &p.x.n80[0], p.groups)
	case quant.Q6_0:
		p.k.Apply6(y, sums, p.pitch, d, m, xd, &p.x.n32[0][0], p.groups)
	default:
		p.k.ApplyMin(y, sums, p.pitch, d, m, xd, &p.x.s[0], p.groups)
	}
}
