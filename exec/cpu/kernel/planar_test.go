package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// A variant as one from outside this package would be: the reference with
// products over planes. Every test runs with it too.
func init() {
	v := Reference()
	v.Name, v.Rank, v.Planar = "planar", -2, planarProduct
	Register(v)
}

func planarProduct(y *float32, ldy int, t quant.Type, q, d *byte, rows, blocks int, xq *int8, xd, xs *float32, n int) {
	cols := blocks * quant.BlockSize
	w := quant.Matrix{Type: t, Rows: rows, Cols: cols,
		Quants: unsafe.Slice(q, rows*t.QuantsRowBytes(cols)), Scales: unsafe.Slice(d, rows*t.ScalesRowBytes(cols))}
	var decoded [1024]float32
	out, row := unsafe.Slice(y, (n-1)*ldy+rows), decoded[:cols]
	quants, scales := unsafe.Slice(xq, n*cols), unsafe.Slice(xd, n*blocks)
	for r := range rows {
		w.Row(row, r)
		for i := range n {
			sum := 0.0
			for c, f := range row {
				sum += float64(f) * float64(scales[i*blocks+c/quant.BlockSize]) * float64(quants[i*cols+c])
			}
			out[i*ldy+r] = float32(sum)
		}
	}
}
