package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// A variant as one from outside this package would be: the reference with
// products over planes. Every test runs with it too.
func init() {
	v := Reference()
	v.Name, v.Rank, v.Planar, v.Arrange = "planar", -2, planarProducts, planarArrange
	v.ArrangedBytes = func(blocks int) int { return blocks * blockBytes }
	Register(v)
}

func planarArrange(dst *byte, x *float32, blocks int) {
	quantiseReference((*Block)(unsafe.Pointer(dst)), x, blocks)
}

func planarProducts(products []Product, blocks int, x *byte, ldx, n int) {
	for _, p := range products {
		planarProduct(p.Y, p.LDY, p.Type, p.Quants, p.Scales, p.Rows, blocks, x, ldx, n)
	}
}

func planarProduct(y *float32, ldy int, t quant.Type, q, d *byte, rows, blocks int, x *byte, ldx, n int) {
	cols := blocks * quant.BlockSize
	w := quant.Matrix{Type: t, Rows: rows, Cols: cols,
		Quants: unsafe.Slice(q, rows*t.QuantsRowBytes(cols)), Scales: unsafe.Slice(d, rows*t.ScalesRowBytes(cols))}
	var decoded [1024]float32
	out, row := unsafe.Slice(y, (n-1)*ldy+rows), decoded[:cols]
	for r := range rows {
		w.Row(row, r)
		for i := range n {
			sum := 0.0
			in := unsafe.Slice((*Block)(unsafe.Add(unsafe.Pointer(x), i*ldx)), blocks)
			for c, f := range row {
				b := &in[c/quant.BlockSize]
				sum += float64(f) * float64(b.D) * float64(b.Q[c%quant.BlockSize])
			}
			out[i*ldy+r] = float32(sum)
		}
	}
}
