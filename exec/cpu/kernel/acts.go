package kernel

import (
	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/quant"
)

// A Block is 32 activations quantised to 8 bit: value = D·Q. What products need
// beside the quants lies with them, so that one address serves all.
type Block struct {
	Q   [quant.BlockSize]int8
	D   float32
	N8  int32    // -8·ΣQ: takes the offset of 4-bit weights back
	N80 int32    // -128·ΣQ: takes the offset of 8-bit weights back
	S   float32  // D·ΣQ: what a minimum is multiplied with
	N32 [2]int32 // -32·ΣQ of each half: takes the offset of 6-bit weights back
}

const blockBytes = 56

// Acts are rows of activations in the forms that products read. The zero value
// is ready; Prepare, PrepareNorm, or Room and SwiGLU, fill it and reuse its memory,
// which Free gives back.
type Acts struct {
	N, Cols int

	x        []float32 // N × Cols, the caller's or own; nil where no product reads it
	blocks   []Block   // N × pitch
	pitch    int       // blocks from row to row
	lines    []byte    // N lines, where rows are few and the variant takes them
	arranged []byte    // instead of blocks, where the variant arranges them: N rows

	own         memory.Buffer[float32]
	ownBlocks   memory.Buffer[Block]
	ownArranged memory.Buffer[byte]
}

// Free gives the memory back. a is then empty.
func (a *Acts) Free() {
	a.own.Free()
	a.ownBlocks.Free()
	a.ownArranged.Free()
	*a = Acts{}
}

// arrangedBytes are those of a row of cols activations.
func (v *Variant) arrangedBytes(cols int) int { return v.ArrangedBytes(cols / quant.BlockSize) }

// arrange writes row r of rows, which is x.
func (v *Variant) arrange(rows []byte, r int, x []float32) {
	v.Arrange(&rows[r*v.arrangedBytes(len(x))], &x[0], len(x)/quant.BlockSize)
}

// blockPitch is how many blocks lie between rows of cols activations, 4 modulo
// 8: rows are an odd number of cache lines apart, so that the rows of a panel do not fall into the
// same sets of a cache.
func blockPitch(cols int) int {
	pitch := cols / quant.BlockSize
	return pitch + (12-pitch%8)%8
}

// Prepare readies n rows of cols activations for products. x must stay as it is
// until the last product with a.
func (e *Engine) Prepare(a *Acts, x []float32, n, cols int) {
	a.x = x[:n*cols]
	if e.roomForBlocks(a, n, cols, n <= lineRows); e.quantises(cols) {
		e.eachRow(rowsArgs{op: opPrepare, acts: a, x: x, dim: cols}, n)
	}
}

// PrepareNorm readies RMSNorm(x) with weights w for products: n rows of cols.
// They are kept as floats too where a product with float weights reads them.
func (e *Engine) PrepareNorm(a *Acts, x, w []float32, n, cols int, eps float32, floats bool) {
	e.roomForFloats(a, n, cols, floats || !e.quantises(cols))
	e.roomForBlocks(a, n, cols, n <= lineRows)
	e.eachRow(rowsArgs{op: opPrepareNorm, acts: a, x: x, w: w, dim: cols, eps: eps}, n)
}

// prepareNorm is PrepareNorm for row r.
func (e *Engine) prepareNorm(s *scratch, a *Acts, r int, x, w []float32, eps float32) {
	y := a.floats(s, r, 0, len(x))
	e.k.rmsNorm(y, x, w, eps)
	e.k.keep(a, r, 0, y)
}

// PrepareColumns readies columns first.. of a's rows, x (n × some columns, whole
// blocks), for products. Columns come in order, after Room.
func (e *Engine) PrepareColumns(a *Acts, first int, x []float32) {
	if a.N > 0 {
		e.eachRow(rowsArgs{op: opPrepareColumns, acts: a, first: first, x: x, dim: len(x) / a.N}, a.N)
	}
}

// Floats are the rows as floats, n × cols; nil where they are not kept.
func (a *Acts) Floats() []float32 { return a.x }

// Room readies a for n rows of cols activations that PrepareColumns or SwiGLU brings.
// They are kept as floats too where a product with float weights reads them.
func (e *Engine) Room(a *Acts, n, cols int, floats bool) { e.room(a, n, cols, floats, n <= lineRows) }

func (e *Engine) room(a *Acts, n, cols int, floats, lines bool) {
	e.roomForFloats(a, n, cols, floats || !e.quantises(cols) || e.k.Planar != nil)
	e.roomForBlocks(a, n, cols, lines)
}

func (e *Engine) roomForFloats(a *Acts, n, cols int, wanted bool) {
	if a.x = nil; wanted {
		a.x = a.own.Room(n * cols)
	}
}

// roomForBlocks readies a for n rows as most products read them; lines: as those of
// few rows do, too.
func (e *Engine) roomForBlocks(a *Acts, n, cols int, lines bool) {
	a.N, a.Cols = n, cols
	a.blocks, a.lines, a.arranged = nil, a.lines[:0], nil
	switch {
	case !e.quantises(cols):
	case e.k.Planar != nil:
		a.arranged = a.ownArranged.Room(n * e.k.arrangedBytes(cols))
	default:
		a.pitch = blockPitch(cols)
		a.blocks = a.ownBlocks.Room(n * a.pitch)
		if lines && e.k.Lines4 != nil {
			a.lines = memory.Aligned(a.lines, n*lineBytes(a.pitch))
		}
	}
}

// bandFloats is room for what a thread computes before it is used, gates and ups or
// queries, keys and values: those of a long pass, all at once, would be tens of
// megabytes, and none of a core's second cache. With less, threads wait for each other.
const bandFloats = 1 << 17

// bandUnit columns are whole groups of blocks.
const bandUnit = unpackGroup * quant.BlockSize

// bandRows are the rows that a pass of n counts for: some hundreds as many as 512. So
// few are taken where memory is dear, and they make columns enough to share.
func bandRows(n int) int {
	if n > 128 {
		return max(n, 512)
	}
	return max(n, 1)
}

// Band is how many columns of gates and ups of n rows to compute at a time.
func (e *Engine) Band(n int) int {
	return max(e.bandFloats/(2*bandRows(n))/bandUnit, 1) * bandUnit
}

// HeadBand is how many of kvHeads KV heads of n rows to compute at a time: each is a key
// and a value of headDim numbers and the numbers of all queries that share it.
func (e *Engine) HeadBand(n, kvHeads, queries, headDim int) int {
	if queries%quant.BlockSize != 0 || e.k.Attend != nil { // that computes all at once
		return kvHeads
	}
	return min(max(e.bandFloats/(bandRows(n)*(queries+2*headDim)), 1), kvHeads)
}

// SwiGLU computes columns first.. of a's rows: silu(gate)·up. gu holds pairs
// gate, up of as many columns a row. Columns come in order, Band at a time or all.
func (e *Engine) SwiGLU(a *Acts, first int, gu []float32) {
	if a.N > 0 {
		e.eachRow(rowsArgs{op: opSwiGLU, acts: a, first: first, x: gu, dim: len(gu) / (2 * a.N)}, a.N)
	}
}

// swiGLU is SwiGLU for row r.
func (e *Engine) swiGLU(s *scratch, a *Acts, r, first int, gu []float32) {
	x := a.floats(s, r, first, len(gu)/2)
	e.k.swiGLU(x, gu)
	e.k.keep(a, r, first, x)
}

// floats is room for columns first.. of row r, count of them: their place, or scratch
// where floats are not kept.
func (a *Acts) floats(s *scratch, r, first, count int) []float32 {
	if a.x != nil {
		return a.x[r*a.Cols+first:][:count]
	}
	s.values = memory.Aligned(s.values, count)
	return s.values
}

// keep readies columns first.. of row r, which are x, for products. A row's last
// columns come last.
func (v *Variant) keep(a *Acts, r, first int, x []float32) {
	last := first+len(x) == a.Cols
	switch {
	case len(a.blocks) > 0:
		blocks := a.blocks[r*a.pitch : (r+1)*a.pitch]
		v.Quantise(&blocks[first/quant.BlockSize], &x[0], len(x)/quant.BlockSize)
		if !last {
			return
		}
		n := a.Cols / quant.BlockSize
		clear(blocks[n : ceilDiv(n, unpackGroup)*unpackGroup]) // a product takes whole groups
		if len(a.lines) > 0 {
			setLine(a.lines[r*lineBytes(a.pitch):], blocks)
		}
	case len(a.arranged) > 0 && last:
		if first > 0 {
			x = a.x[r*a.Cols : (r+1)*a.Cols]
		}
		v.arrange(a.arranged, r, x)
	}
}

// quantises tells whether rows of cols are also kept in blocks.
func (e *Engine) quantises(cols int) bool { return !e.exact && cols > 0 && cols%quant.BlockSize == 0 }

// view is rows of activations, a part of Acts or gathered from one.
type view struct {
	n, cols  int
	x        []float32
	blocks   []Block
	pitch    int
	lines    []byte // or none
	arranged []byte
}

func (a *Acts) view() view {
	return view{a.N, a.Cols, a.x, a.blocks, a.pitch, a.lines, a.arranged}
}
