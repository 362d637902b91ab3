package cpu

import (
	"time"

	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/quant"
)

// Measure times the engine at what decoding is: a 4-bit matrix, larger than
// any cache, times one row. It returns bytes of weights a second (10^9) and
// the fixed cost of a layer in milliseconds.
func Measure(e *kernel.Engine, limit time.Duration) (readGBs, layerMs float64) {
	const cols = 2048
	rows := 32 << 10 // 38 MB
	var room memory.Buffer[byte]
	defer room.Free()
	weights := room.Room(int(quant.Q4_0.Bytes(rows, cols)))
	for i := range weights {
		weights[i] = byte(i*7) & 0x3b // small f16 scales, any nibbles
	}
	m, err := quant.NewMatrix(quant.Q4_0, rows, cols, weights)
	if err != nil {
		return 0, 0
	}
	x, y := make([]float32, cols), make([]float32, rows)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	var a kernel.Acts
	e.Prepare(&a, x, 1, cols)
	run := func(part quant.Matrix) time.Duration {
		start := time.Now()
		e.MatMul(y, part, &a)
		return time.Since(start)
	}
	tiny := run(m.RowRange(0, 32)) // also warms up
	for range 16 {
		tiny = min(tiny, run(m.RowRange(0, 32)))
	}
	trial := run(m.RowRange(0, 1024))
	if whole := trial * time.Duration(rows/1024); whole > limit && trial > 0 {
		rows = max(1024, int(limit/trial)*1024)
	}
	best := run(m.RowRange(0, rows))
	for begin := time.Now(); time.Since(begin) < limit; {
		best = min(best, run(m.RowRange(0, rows)))
	}
	const dispatches = 8 // of a layer
	return float64(quant.Q4_0.Bytes(rows, cols)) / best.Seconds() / 1e9, dispatches * float64(tiny) / 1e6
}
