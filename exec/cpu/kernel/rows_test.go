package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// requireClose checks each number within a relative and an absolute bound.
func requireClose(t *testing.T, want []float64, got []float32, relative, absolute float64) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		if g := float64(got[i]); !(math.Abs(g-w) <= relative*math.Abs(w)+absolute) {
			require.Failf(t, "too far off", "number %d of %d: got %g, want %g", i, len(want), g, w)
		}
	}
}

func TestRMSNorm(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(1, 1))
		for _, dim := range []int{1, 7, 16, 64, 100, 576, 2048} {
			const n = 9
			x, w := random(r, n*dim), random(r, dim)
			want := make([]float64, n*dim)
			for i := range n {
				sum := 0.0
				for _, f := range x[i*dim : (i+1)*dim] {
					sum += float64(f) * float64(f)
				}
				for c := range dim {
					want[i*dim+c] = float64(x[i*dim+c]) / math.Sqrt(sum/float64(dim)+1e-6) * float64(w[c])
				}
			}
			y := make([]float32, n*dim)
			e.RMSNorm(y, x, w, n, dim, 1e-6)
			requireClose(t, want, y, 2e-6, 1e-12)
			e.RMSNormHeads(x, w, 3, 3, dim, 1e-6)
			require.Equal(t, y, x)
		}
	})
}

func TestSwiGLU(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(2, 1))
		for _, inter := range []int{1, 15, 16, 100, 1536} {
			const n = 3
			gu := random(r, 2*n*inter)
			for i := range gu {
				gu[i] *= 8
			}
			gu[0] = -200
			want := make([]float64, n*inter)
			for i := range want {
				g := float64(gu[2*i])
				want[i] = g / (1 + math.Exp(-g)) * float64(gu[2*i+1])
			}
			var a Acts
			e.Room(&a, n, inter, true)
			e.SwiGLU(&a, 0, gu)
			requireClose(t, want, a.x, 3e-6, 1e-30)
		}
	})
}

// Band after band gives the bits that all columns at once give, and those that
// Prepare gives.
func TestSwiGLUInBands(t *testing.T) {
	for _, exact := range []bool{false, true} {
		RunVariants(t, Options{Threads: 2, Exact: exact}, func(t *testing.T, e *Engine) {
			r := rand.New(rand.NewPCG(2, 2))
			e.bandFloats = 1
			for _, cols := range []int{96, 128, 1024, 416} {
				for _, floats := range []bool{false, true} {
					const n = 5
					gu, w := random(r, n*2*cols), randomMatrix(t, r, quant.Q8_0, 40, cols)
					var whole, bands, prepared Acts
					e.Room(&whole, n, cols, true)
					e.SwiGLU(&whole, 0, gu)
					e.Prepare(&prepared, whole.x, n, cols)
					e.Room(&bands, n, cols, floats)
					for first, most := 0, e.Band(n); first < cols; first += most {
						pairs := min(most, cols-first)
						var band []float32
						for i := range n {
							band = append(band, gu[2*(i*cols+first):][:2*pairs]...)
						}
						e.SwiGLU(&bands, first, band)
					}
					if floats {
						require.Equal(t, whole.x, bands.x)
					}
					product := func(a *Acts) []float32 { y := make([]float32, n*w.Rows); e.MatMul(y, w, a); return y }
					require.Equal(t, product(&prepared), product(&whole))
					require.Equal(t, product(&prepared), product(&bands))
				}
			}
		})
	}
}

// A norm in one go with what products read gives the bits that both give, whether
// floats are kept or not.
func TestPrepareNorm(t *testing.T) {
	for _, exact := range []bool{false, true} {
		RunVariants(t, Options{Threads: 2, Exact: exact}, func(t *testing.T, e *Engine) {
			r := rand.New(rand.NewPCG(2, 3))
			for _, n := range []int{1, 2, 30} {
				for _, cols := range []int{32, 96, 992, 1024} {
					x, norm, w := random(r, n*cols), random(r, cols), randomMatrix(t, r, quant.Q4_1, 40, cols)
					normed := make([]float32, n*cols)
					e.RMSNorm(normed, x, norm, n, cols, 1e-5)
					product := func(w quant.Matrix, a *Acts) []float32 { y := make([]float32, n*w.Rows); e.MatMul(y, w, a); return y }
					var apart, blocks, both Acts
					e.Prepare(&apart, normed, n, cols)
					e.PrepareNorm(&blocks, x, norm, n, cols, 1e-5, false)
					e.PrepareNorm(&both, x, norm, n, cols, 1e-5, true)
					require.Equal(t, exact, blocks.Floats() != nil)
					require.Equal(t, normed, both.Floats())
					require.Equal(t, product(w, &apart), product(w, &blocks))
					require.Equal(t, product(w, &apart), product(w, &both))
					float := randomMatrix(t, r, quant.F16, 40, cols)
					require.Equal(t, product(float, &apart), product(float, &both))
				}
			}
		})
	}
}

func TestExpSumAndMax(t *testing.T) {
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(3, 1))
		for _, n := range []int{16, 32, 64, 320} {
			x := random(r, n)
			for i := range x {
				x[i] *= 30
			}
			x[3], x[5] = -500, float32(math.Inf(-1))
			top := e.k.Max(&x[0], n)
			require.Equal(t, maxReference(&x[0], n), top)
			want, sum := make([]float64, n), 0.0
			for i, f := range x {
				if f-top >= -87 {
					want[i] = math.Exp(float64(f - top))
					sum += want[i]
				}
			}
			got := e.k.ExpSum(&x[0], n, top)
			requireClose(t, want, x, 1e-6, 1e-37)
			requireClose(t, []float64{sum}, []float32{got}, 1e-6, 0)
		}
	})
}

func TestDecodeF16(t *testing.T) {
	halves := make([]uint16, 0x7c00+9)
	want := make([]float32, len(halves))
	for i := range halves {
		halves[i] = uint16(i) // every finite half, and an infinity
		if i > 0x7c00 {
			halves[i] = uint16(i) & 15 << 11
		}
		want[i] = quant.F16ToF32(halves[i])
	}
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		got := make([]float32, len(halves))
		e.k.DecodeF16(&got[0], &halves[0], len(halves))
		require.Equal(t, want, got)
	})
}

func TestRope(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		const n, heads, headDim, dims = 40, 3, 16, 12
		for _, interleaved := range []bool{false, true} {
			x := random(rand.New(rand.NewPCG(4, 1)), n*heads*headDim)
			pos := make([]int32, n)
			want := make([]float64, len(x))
			for r := range n {
				pos[r] = int32(r * r * 40)
				for h := range heads {
					row := x[(r*heads+h)*headDim:][:headDim]
					out := want[(r*heads+h)*headDim:][:headDim]
					for i, f := range row {
						out[i] = float64(f)
					}
					for i := range dims / 2 {
						a, b := i, i+dims/2
						if interleaved {
							a, b = 2*i, 2*i+1
						}
						sin, cos := math.Sincos(float64(pos[r]) * math.Pow(1e4, -2*float64(i)/dims))
						out[a], out[b] = float64(row[a])*cos-float64(row[b])*sin, float64(row[a])*sin+float64(row[b])*cos
					}
				}
			}
			rope := NewRope(model.RoPE{Dims: dims, Theta: 1e4, Interleaved: interleaved})
			e.Rope(x, n, heads, headDim, rope, pos)
			requireClose(t, want, x, 1e-6, 1e-6)
		}
	})
}

func TestAddAndRound(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(5, 1))
		const n, dim = 30, 1111
		x, y, b := random(r, n*dim), random(r, n*dim), random(r, dim)
		x[7] = 1e6
		want := make([]float32, n*dim)
		for i := range want {
			want[i] = float32(y[i]+x[i]) + b[i%dim]
		}
		e.Add(y, x)
		e.AddBias(y, b, n, dim)
		require.Equal(t, want, y)
		for i := range n {
			quant.RoundRow(want[i*dim : (i+1)*dim])
		}
		e.RoundF16(y, n, dim)
		require.Equal(t, want, y)
	})
}

// Halves are rounded as package quant rounds them, rare numbers too.
func TestHalves(t *testing.T) {
	rare := []float32{0, float32(math.Copysign(0, -1)), 0x1p-14, 0x1.ffcp-15, 0x1p-24, 0x1p-25, -0x1.8p-25, 0x1p-40, 65504, 65519, -65520, 32767.9, -32768, 1e9,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 1 + 0x1p-11, 1 + 0x1.8p-10, 2049, 2051, math.SmallestNonzeroFloat32}
	bits := func(x []float32) (out []uint32) {
		for _, f := range x {
			out = append(out, math.Float32bits(f))
		}
		return out
	}
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(6, 1))
		for _, few := range []bool{true, false} { // rare numbers: one in a row, or many
			for range 50 {
				x := random(r, 16+r.IntN(40))
				for i := range x {
					if r.IntN(len(x)) == 0 || !few {
						x[i] = rare[r.IntN(len(rare))]
					}
				}
				want, got := make([]uint16, len(x)), make([]uint16, len(x))
				for i, f := range x {
					want[i] = quant.F32ToF16(f)
				}
				e.k.encodeF16(got, x)
				require.Equal(t, want, got, "%v", x)
				rounded := append([]float32(nil), x...)
				quant.RoundRow(rounded)
				e.RoundF16(x, 1, len(x))
				require.Equal(t, bits(rounded), bits(x))
			}
		}
	})
}

// A row of logits of any length, whatever stands in it.
func TestLogits(t *testing.T) {
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(4, 1))
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for range 300 {
			x := make([]float32, 1+r.IntN(5000))
			for i := range x {
				x[i] = float32(r.IntN(2000)) - 2500
			}
			for range r.IntN(4) {
				x[r.IntN(len(x))] = []float32{nan, inf, -inf, 9, 0, float32(math.Copysign(0, -1))}[r.IntN(6)]
			}
			require.Equal(t, plain.ArgMax(x), e.k.argMax(x))
			best := e.k.argMax(x)
			if best < 0 {
				continue
			}
			want, top := make([]float64, len(x)), x[best]
			for i, f := range x {
				if x[i] = (f - top) / 64; !(x[i] <= 0) {
					x[i] = -inf
				}
				want[i] = math.Exp(float64(x[i]))
			}
			require.LessOrEqual(t, e.k.max(x), float32(0))
			total := 0.0
			for _, f := range want {
				total += f
			}
			require.InEpsilon(t, total, e.k.exps(x), 1e-5)
			requireClose(t, want, x, 1e-6, 1e-30)
		}
		require.Equal(t, -1, e.k.argMax(nil))
		require.Equal(t, -1, e.k.argMax([]float32{nan, -inf, inf}))
	})
}
