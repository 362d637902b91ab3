package kernel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/potluck-llm/potluck/quant"
)

// In a tab, Go's runtime keeps a goroutine for events.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("runtime.handleEvent"))
}

// RunVariants runs f once with every variant that this machine has.
func RunVariants(t *testing.T, o Options, f func(t *testing.T, e *Engine)) {
	for _, name := range Variants() {
		t.Run(name, func(t *testing.T) {
			o.Variant = name
			e, err := New(o)
			require.NoError(t, err)
			defer e.Close()
			f(t, e)
		})
	}
}

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// randomMatrix encodes random weights; its planes are views at odd addresses.
func randomMatrix(t testing.TB, r *rand.Rand, typ quant.Type, rows, cols int) quant.Matrix {
	size := int(typ.Bytes(rows, cols))
	data := make([]byte, size+17)
	require.NoError(t, quant.Encode(typ, rows, cols, random(r, rows*cols), data[1:1+size]))
	m, err := quant.NewMatrix(typ, rows, cols, data[1:1+size])
	require.NoError(t, err)
	shift := r.IntN(16)
	m.Quants = shifted(m.Quants, shift)
	m.Scales = shifted(m.Scales, (shift*7+3)%16)
	return m
}

func shifted(b []byte, by int) []byte {
	out := make([]byte, len(b)+by)
	copy(out[by:], b)
	return out[by:len(out):len(out)]
}

// seen is a row as products see it: quantised to 8 bit unless exact, or the
// weights are floats.
func seen(e *Engine, typ quant.Type, x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	if typ.Quantised() && e.quantises(len(x)) {
		for i := 0; i < len(x); i += quant.BlockSize {
			var b Block
			quantiseReference(&b, &x[i], 1)
			for j, q := range b.Q {
				out[i+j] = float64(b.D) * float64(q)
			}
		}
	}
	return out
}

// requireProduct checks y = x·wᵀ against float64: within 1e-5 of the sum of the
// terms' sizes, for q4_1 also of its minimums.
func requireProduct(t testing.TB, e *Engine, y []float32, w quant.Matrix, x []float32, n int) {
	t.Helper()
	row := make([]float32, w.Cols)
	for i := range n {
		in := seen(e, w.Type, x[i*w.Cols:(i+1)*w.Cols])
		for r := range w.Rows {
			w.Row(row, r)
			want, size := 0.0, 0.0
			for c, v := range row {
				want += float64(v) * in[c]
				size += (math.Abs(float64(v)) + 1) * math.Abs(in[c])
			}
			got := float64(y[i*w.Rows+r])
			if !(math.Abs(got-want) <= 1e-5*size+1e-30) {
				require.Failf(t, "wrong product", "%v %d × %d: row %d of %d, output %d: got %g, want %g ± %g", w.Type, w.Rows, w.Cols, i, n, r, got, want, 1e-5*size)
			}
		}
	}
}

func TestProducts(t *testing.T) {
	for _, exact := range []bool{false, true} {
		RunVariants(t, Options{Threads: 2, Exact: exact}, func(t *testing.T, e *Engine) {
			r := rand.New(rand.NewPCG(1, 2))
			var a Acts
			for range 80 {
				for _, typ := range quant.Types() {
					rows, cols, n := 1+r.IntN(70), quant.BlockSize*(1+r.IntN(9)), 1+r.IntN(40)
					if !typ.Quantised() {
						cols = 1 + r.IntN(600)
						if r.IntN(2) == 0 {
							cols = ceilDiv(cols, floatGroup) * floatGroup
						}
					}
					if r.IntN(2) == 0 {
						n = 1 + r.IntN(9)
					}
					w, x := randomMatrix(t, r, typ, rows, cols), random(r, n*cols)
					y := make([]float32, n*rows+1)
					y[n*rows] = 42
					e.Prepare(&a, x, n, cols)
					e.MatMul(y[:n*rows], w, &a)
					requireProduct(t, e, y, w, x, n)
					require.EqualValues(t, 42, y[n*rows], "written beyond the end")
				}
			}
		})
	}
}

// A row's result has the same bits whatever rides along.
func TestRowsDoNotInfluenceEachOther(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(3, 4))
		const rows, cols, n = 100, 12 * quant.BlockSize, 37
		for _, typ := range quant.Types() {
			w, x := randomMatrix(t, r, typ, rows, cols), random(r, n*cols)
			var a Acts
			alone, all := make([]float32, n*rows), make([]float32, n*rows)
			for i := range n {
				e.Prepare(&a, x[i*cols:(i+1)*cols], 1, cols)
				e.MatMul(alone[i*rows:(i+1)*rows], w, &a)
			}
			for _, m := range []int{2, 3, 7, 8, 16, 17, n} {
				e.Prepare(&a, x, m, cols)
				e.MatMul(all[:m*rows], w, &a)
				require.Equal(t, alone[:m*rows], all[:m*rows], "%v: %d rows", typ, m)
			}
		}
	})
}

func TestMatMulMany(t *testing.T) {
	RunVariants(t, Options{Threads: 3}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(5, 6))
		const cols, n = 64, 5
		x := random(r, n*cols)
		var a Acts
		e.Prepare(&a, x, n, cols)
		var apart, beside []Job
		pitch := 0
		for i, typ := range quant.Types() {
			w := randomMatrix(t, r, typ, 40*i, cols)
			apart = append(apart, Job{Y: make([]float32, n*w.Rows), Pitch: w.Rows, W: w})
			pitch += w.Rows + 1
		}
		e.MatMulMany(apart, &a)
		for _, p := range apart {
			requireProduct(t, e, p.Y, p.W, x, n)
		}
		all, want := random(r, n*pitch), []float32(nil) // beside each other, with a number between
		for i, to := 0, 0; i < len(apart); i++ {
			w := apart[i].W
			beside = append(beside, Job{Y: all[to:], Pitch: pitch, W: w})
			to += w.Rows + 1
		}
		for r := range n {
			to := r * pitch
			for _, p := range apart {
				want = append(append(want, p.Y[r*p.W.Rows:(r+1)*p.W.Rows]...), all[to+p.W.Rows])
				to += p.W.Rows + 1
			}
		}
		e.MatMulMany(beside, &a)
		require.Equal(t, want, all)
		for i := range beside { // and once more on top of that
			beside[i].Add = true
		}
		for i := range want {
			if at := i % pitch; !slices.ContainsFunc(beside, func(j Job) bool { return len(all)-len(j.Y)+j.W.Rows == at }) {
				want[i] += want[i]
			}
		}
		e.MatMulMany(beside, &a)
		require.Equal(t, want, all)
	})
}

// A product that is added gives the bits of one that is added later.
func TestProductsAreAdded(t *testing.T) {
	for _, threads := range []int{1, 2} {
		RunVariants(t, Options{Threads: threads}, func(t *testing.T, e *Engine) {
			r := rand.New(rand.NewPCG(5, 7))
			for _, n := range []int{1, 3, 40} {
				for _, rows := range []int{5, 200} {
					const cols = 576
					x, w, y := random(r, n*cols), randomMatrix(t, r, quant.Q4_1, rows, cols), random(r, n*rows)
					var a Acts
					e.Prepare(&a, x, n, cols)
					product, want := make([]float32, n*rows), append([]float32(nil), y...)
					e.MatMul(product, w, &a)
					e.Add(want, product)
					e.MatMulMany([]Job{{Y: y, Pitch: rows, W: w, Add: true}}, &a)
					require.Equal(t, want, y)
				}
			}
		})
	}
}

// Products that are large enough for a variant that has threads of its own, more
// than it takes at a time, with rows that fill nothing.
func TestLargeProducts(t *testing.T) {
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(15, 16))
		const cols = 18 * quant.BlockSize
		types := []quant.Type{quant.Q4_0, quant.Q4_1, quant.Q6_0, quant.Q8_0}
		for _, n := range []int{1, 2, 9} {
			x := random(r, n*cols)
			var a Acts
			e.Prepare(&a, x, n, cols)
			var list []Job
			for i := range 10 {
				rows := []int{203, 64, 1, 97, 30}[i%5]
				list = append(list, Job{Y: make([]float32, n*rows+1), Pitch: rows, W: randomMatrix(t, r, types[i%len(types)], rows, cols)})
				list[i].Y[n*rows] = 42
			}
			e.MatMulMany(list, &a)
			for _, j := range list {
				requireProduct(t, e, j.Y, j.W, x, n)
				require.EqualValues(t, 42, j.Y[n*j.W.Rows], "written beyond the end")
			}
		}
	})
}

// Sums of the largest weights and activations overflow nothing on their way.
func TestLargestNumbers(t *testing.T) {
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		const rows, cols = 32, 8 * quant.BlockSize
		var a Acts
		for _, typ := range []quant.Type{quant.Q4_0, quant.Q4_1, quant.Q6_0, quant.Q8_0} {
			for _, quants := range []byte{0, 0x7f, 0x80, 0xff} {
				w := quant.Matrix{Type: typ, Rows: rows, Cols: cols,
					Quants: bytes.Repeat([]byte{quants}, rows*typ.QuantsRowBytes(cols)),
					Scales: bytes.Repeat([]byte{0, 0x3c}, rows*typ.ScalesRowBytes(cols)/2)}
				for _, n := range []int{1, 4, 9} {
					x, y := make([]float32, n*cols), make([]float32, n*rows)
					for i := range x {
						x[i] = float32(1 - i/cols%2*2)
					}
					e.Prepare(&a, x, n, cols)
					e.MatMul(y, w, &a)
					requireProduct(t, e, y, w, x, n)
				}
			}
		}
	})
}

func TestQuantise(t *testing.T) {
	RunVariants(t, Options{Threads: 1}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(7, 8))
		for range 200 {
			n := 1 + r.IntN(9)
			x := random(r, n*quant.BlockSize)
			for i := range x {
				x[i] *= float32(math.Exp2(float64(r.IntN(40) - 20)))
			}
			clear(x[:r.IntN(len(x))])
			got, want := make([]Block, n), make([]Block, n)
			e.k.Quantise(&got[0], &x[0], n)
			quantiseReference(&want[0], &x[0], n)
			require.Equal(t, want, got)
		}
	})
}

func TestEngineRefuses(t *testing.T) {
	_, err := New(Options{Variant: "none such"})
	require.ErrorContains(t, err, `kernel variant "none such" is unknown here`)
	_, err = New(Options{Threads: -1})
	require.ErrorContains(t, err, "-1 threads, want 1 to 1024")
	Register(Variant{Name: "impossible", Rank: -1, Missing: func() string { return "flux" }, Lanes: 4, Panel: 1,
		Dot4: reference(t).Dot4, Dot6: reference(t).Dot6, Dot8: reference(t).Dot8, DotMin: reference(t).DotMin, DotFloat: reference(t).DotFloat})
	_, err = New(Options{Variant: "impossible"})
	require.ErrorContains(t, err, `"impossible": this machine has no flux`)
	require.NotContains(t, Variants(), "impossible")
	t.Setenv(EnvVariant, "reference")
	e, err := New(Options{})
	require.NoError(t, err)
	defer e.Close()
	require.Equal(t, "reference", e.Variant())
	require.Equal(t, runtime.GOMAXPROCS(0), e.Threads())
}

func reference(t *testing.T) *Variant {
	v, err := choose("reference")
	require.NoError(t, err)
	return v
}

// Once its memory has grown a pass allocates nothing.
func TestNoAllocations(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(9, 10))
		for _, cols := range []int{256, 288} { // the second is no whole group of blocks
			const rows = 300
			w := randomMatrix(t, r, quant.Q4_0, rows, cols)
			for _, n := range []int{1, 20} {
				x, y := random(r, n*cols), make([]float32, n*rows)
				var a Acts
				pass := func() { e.Prepare(&a, x, n, cols); e.MatMul(y, w, &a); e.RMSNorm(x, x, x[:cols], n, cols, 1e-5) }
				pass()
				require.Zero(t, testing.AllocsPerRun(20, pass), fmt.Sprint(n, " rows of ", cols))
			}
		}
	})
}
