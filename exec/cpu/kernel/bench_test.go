package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/quant"
)

// BenchmarkMatMul multiplies matrices of the shapes of llama-1.1b, qwen3-0.6b and
// glm4moe-0.7b. Each shape is as many matrices as exceed the caches, as a model's
// layers do. One row is bound by reading weights (GB/s: compare with what the
// machine reads), 512 rows by 8-bit multiply-adds (Gmac/s).
func BenchmarkMatMul(b *testing.B) {
	const bytes = 192 << 20
	for _, name := range Variants() {
		for _, threads := range []int{1, 2} {
			e, err := New(Options{Threads: threads, Variant: name})
			require.NoError(b, err)
			for _, typ := range []quant.Type{quant.Q4_0, quant.Q8_0, quant.Q4_1, quant.Q6_0, quant.F16} {
				for _, shape := range [][2]int{{2048, 2048}, {5632, 2048}, {2048, 5632}, {32000, 2048}, {3072, 1024}} {
					rows, cols := shape[0], shape[1]
					size := int(typ.Bytes(rows, cols))
					data := randomWeights(bytes)
					for _, n := range []int{1, 2, 3, 4, 8, 512} {
						b.Run(fmt.Sprintf("%s/threads=%d/%v/%dx%d/rows=%d", name, threads, typ, rows, cols, n), func(b *testing.B) {
							x := random(rand.New(rand.NewPCG(1, 1)), n*cols)
							y := make([]float32, n*rows)
							var a Acts
							e.Prepare(&a, x, n, cols)
							for i := 0; b.Loop(); i++ {
								at := i % (bytes / size) * size
								w, err := quant.NewMatrix(typ, rows, cols, data[at:at+size])
								if err != nil {
									b.Fatal(err)
								}
								e.MatMul(y, w, &a)
							}
							seconds := b.Elapsed().Seconds() / float64(b.N)
							b.ReportMetric(float64(size)/seconds/1e9, "GB/s")
							b.ReportMetric(float64(rows)*float64(cols)*float64(n)/seconds/1e9, "Gmac/s")
						})
					}
				}
			}
			e.Close()
		}
	}
}

var weights []byte

// randomWeights are bytes without f16 infinities among them.
func randomWeights(n int) []byte {
	if len(weights) < n {
		weights = make([]byte, n)
		r := rand.New(rand.NewPCG(11, 12))
		for i := range weights {
			weights[i] = byte(r.Uint32()) &^ 0x40
		}
	}
	return weights[:n]
}
