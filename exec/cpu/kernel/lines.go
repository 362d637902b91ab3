package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// A line product multiplies one row of activations with strips as they lie in
// memory, row after row: the order in which a processor reads fastest.
type lineProduct struct {
	k      *Variant
	w      *quant.Matrix
	x      *view
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
	p := lineProduct{k: e.k, w: w, x: x, groups: ceilDiv(blocks, unpackGroup), stride: stride}
	p.pitch = ceilDiv(p.groups, 4) * 64
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
	if p.w.Type == quant.Q8_0 {
		p.k.Sums8(src, p.stride, (*byte)(unsafe.Pointer(&p.x.blocks[0])), sums, p.pitch, to-from, p.groups)
		return
	}
	p.k.Sums4(src, p.stride, &p.x.halves[0], sums, p.pitch, to-from, p.groups)
}

// apply turns a strip's sums into results.
func (p *lineProduct) apply(s *scratch, y *float32) {
	switch p.w.Type {
	case quant.Q4_0:
		p.k.Apply4(y, &s.sums[0], p.pitch, &s.d[0], &p.x.blocks[0], p.groups)
	case quant.Q8_0:
		p.k.Apply8(y, &s.sums[0], p.pitch, &s.d[0], &p.x.blocks[0], p.groups)
	default:
		p.k.ApplyMin(y, &s.sums[0], p.pitch, &s.d[0], &s.m[0], &p.x.blocks[0], p.groups)
	}
}
