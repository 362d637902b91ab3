package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// A Block is 32 activations quantised to 8 bit: value = D·Q. What products need
// beside the quants lies with them, so that one address serves all.
type Block struct {
	Q   [quant.BlockSize]int8
	D   float32
	N8  int32   // -8·ΣQ: takes the offset of 4-bit weights back
	N80 int32   // -128·ΣQ: takes the offset of 8-bit weights back
	S   float32 // D·ΣQ: what a minimum is multiplied with
}

const blockBytes = 48

// Acts are rows of activations in the forms that products read. The zero value
// is ready; Prepare fills it and reuses its memory.
type Acts struct {
	N, Cols int

	x        []float32 // N × Cols, the caller's
	blocks   []Block   // N × pitch
	pitch    int       // blocks from row to row
	halves   []byte    // of blocks, where N is 1 and the variant takes them
	arranged []byte    // instead of blocks, where the variant arranges them: N rows
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

// quantiseRow turns x into blocks and clears those that fill the last group: a
// product takes whole groups.
func (v *Variant) quantiseRow(blocks []Block, x []float32) {
	n := len(x) / quant.BlockSize
	v.Quantise(&blocks[0], &x[0], n)
	clear(blocks[n : ceilDiv(n, unpackGroup)*unpackGroup])
}

// Prepare readies n rows of cols activations for products. x must stay as it is
// until the last product with a.
func (e *Engine) Prepare(a *Acts, x []float32, n, cols int) {
	a.N, a.Cols, a.x = n, cols, x[:n*cols]
	if !e.quantises(cols) {
		return
	}
	if e.k.Planar != nil {
		a.arranged = aligned(a.arranged, n*e.k.arrangedBytes(cols))
		e.eachRow(rowsArgs{op: opArrange, arranged: a.arranged, x: a.x, dim: cols}, n)
		return
	}
	a.pitch = blockPitch(cols)
	a.blocks = aligned(a.blocks, n*a.pitch)
	e.eachRow(rowsArgs{op: opQuantise, blocks: a.blocks, pitch: a.pitch, x: a.x, dim: cols}, n)
	if a.halves = a.halves[:0]; n == 1 && e.k.Sums4 != nil {
		a.halves = aligned(a.halves, a.pitch*quant.BlockSize)
		halvesOf(a.halves, a.blocks)
	}
}

// halvesOf sorts the quants of each group of blocks: 64 bytes with the first
// halves of its four blocks, then 64 with the second.
func halvesOf(dst []byte, blocks []Block) {
	for i := 0; i+unpackGroup <= len(blocks); i += unpackGroup {
		to := (*[unpackGroup * quant.BlockSize]int8)(unsafe.Pointer(&dst[i*quant.BlockSize]))
		for j := range unpackGroup {
			q := &blocks[i+j].Q
			*(*[16]int8)(to[16*j:]) = [16]int8(q[:16])
			*(*[16]int8)(to[64+16*j:]) = [16]int8(q[16:])
		}
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
	halves   []byte // of each row's blocks, or none
	arranged []byte
}

func (a *Acts) view() view {
	return view{a.N, a.Cols, a.x, a.blocks, a.pitch, a.halves, a.arranged}
}
