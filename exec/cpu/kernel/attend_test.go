package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/quant"
)

// world is some sequences' keys and values, in caches and as they came.
type world struct {
	kvHeads, headDim int
	caches           []*Cache
	k, v             [][][]float32 // of each sequence and position
}

func newWorld(e *Engine, r *rand.Rand, t quant.Type, lengths []int, kvHeads, headDim int) *world {
	w := &world{kvHeads: kvHeads, headDim: headDim}
	for i, n := range lengths {
		c := NewCache(t, n, kvHeads, headDim)
		w.k, w.v = append(w.k, nil), append(w.v, nil)
		for pos := range n {
			k, v := random(r, kvHeads*headDim), random(r, kvHeads*headDim)
			some := kvHeads / 2 * headDim
			e.Store(c, pos, 0, k[:some], v[:some])
			e.Store(c, pos, kvHeads/2, k[some:], v[some:])
			w.k[i], w.v[i] = append(w.k[i], stored(t, k)), append(w.v[i], stored(t, v))
		}
		w.caches = append(w.caches, c)
	}
	return w
}

// stored is what a cache of type t keeps of x.
func stored(t quant.Type, x []float32) []float32 {
	out := make([]float32, len(x))
	for i, f := range x {
		switch t {
		case quant.F32:
			out[i] = f
		case quant.F16:
			out[i] = quant.F16ToF32(quant.F32ToF16(f))
		default:
			var b Block
			quantiseReference(&b, &x[i/32*32], 1)
			out[i] = b.D * float32(b.Q[i%32])
		}
	}
	return out
}

// want is the attention of one row in float64.
func (w *world) want(q []float32, seq, pos, heads int, scale float64) []float64 {
	out := make([]float64, heads*w.headDim)
	for h := range heads {
		kv := h / (heads / w.kvHeads) * w.headDim
		var weights []float64
		largest, sum := math.Inf(-1), 0.0
		for p := range pos + 1 {
			s := 0.0
			for i := range w.headDim {
				s += float64(q[h*w.headDim+i]) * float64(w.k[seq][p][kv+i])
			}
			weights = append(weights, s*scale)
			largest = max(largest, s*scale)
		}
		for p, s := range weights {
			weights[p] = math.Exp(s - largest)
			sum += weights[p]
		}
		for p, weight := range weights {
			for i := range w.headDim {
				out[h*w.headDim+i] += weight / sum * float64(w.v[seq][p][kv+i])
			}
		}
	}
	return out
}

func TestAttend(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(1, 3))
		for _, typ := range []quant.Type{quant.F32, quant.F16, quant.Q8_0} {
			for _, shape := range []struct{ heads, kvHeads, headDim int }{{2, 2, 32}, {8, 1, 64}, {6, 2, 128}, {32, 1, 32}, {4, 2, 96}} {
				w := newWorld(e, r, typ, []int{150, 3, 65, 64}, shape.kvHeads, shape.headDim)
				// A prefill block, decode rows, and a block that begins in the middle.
				var seqs, pos []int32
				for p := range int32(65) {
					seqs, pos = append(seqs, 2), append(pos, p)
				}
				seqs, pos = append(seqs, 0, 1, 3), append(pos, 149, 2, 63)
				for p := int32(60); p < 90; p++ {
					seqs, pos = append(seqs, 0), append(pos, p)
				}
				var caches []*Cache
				for _, s := range seqs {
					caches = append(caches, w.caches[s])
				}
				dim := shape.heads * shape.headDim
				q, out := random(r, len(seqs)*dim), make([]float32, len(seqs)*dim)
				scale := 1 / math.Sqrt(float64(shape.headDim))
				all := Heads{Query: shape.heads, KV: shape.kvHeads}
				e.Attend(out, q, caches, pos, all, float32(scale))
				alone := make([]float32, dim)
				for i, s := range seqs {
					row := q[i*dim : (i+1)*dim]
					requireClose(t, w.want(row, int(s), int(pos[i]), shape.heads, scale), out[i*dim:(i+1)*dim], 1e-5, 1e-5)
					e.Attend(alone, row, caches[i:i+1], pos[i:i+1], all, float32(scale))
					require.Equal(t, alone, out[i*dim:(i+1)*dim], "%v %v: row %d alone and in a pass", typ, shape, i)
				}
				wide := dim / shape.kvHeads // of the queries that share a KV head
				count := e.HeadBand(1<<30, shape.kvHeads, wide, shape.headDim)
				part := make([]float32, len(seqs)*count*wide)
				for kv := 0; kv < shape.kvHeads; kv += count {
					of := func(x []float32, row int) []float32 { return x[row*dim+kv*wide:][:count*wide] }
					for i := range seqs {
						copy(part[i*count*wide:], of(q, i))
					}
					e.Attend(part, part, caches, pos, Heads{Query: shape.heads / shape.kvHeads * count, First: kv, KV: count}, float32(scale))
					for i := range seqs {
						require.Equal(t, of(out, i), part[i*count*wide:][:count*wide], "%v %v: KV heads from %d on", typ, shape, kv)
					}
				}
			}
		}
	})
}

func TestCacheGrowsByPages(t *testing.T) {
	e, err := New(Options{Threads: 1})
	require.NoError(t, err)
	defer e.Close()
	c := NewCache(quant.F16, 1<<20, 2, 64)
	require.Zero(t, c.Bytes())
	kv := make([]float32, 128)
	e.Store(c, 0, 0, kv, kv)
	require.EqualValues(t, pagePositions*2*128*2, c.Bytes())
	for pos := 1; pos <= pagePositions; pos++ {
		e.Store(c, pos, 0, kv, kv)
	}
	require.EqualValues(t, 2*pagePositions*2*128*2, c.Bytes())
	e.Store(c, 0, 0, kv, kv) // a new sequence takes the slot
	require.EqualValues(t, 2*pagePositions*2*128*2, c.Bytes())
	c.Free()
	require.Zero(t, c.Bytes())
	e.Store(c, 0, 0, kv, kv)
	require.EqualValues(t, pagePositions*2*128*2, c.Bytes())
	c.Free()
	require.EqualValues(t, quant.F16, NewCache(quant.Q8_0, 1, 1, 24).t)
}

func TestExperts(t *testing.T) {
	RunVariants(t, Options{Threads: 2}, func(t *testing.T, e *Engine) {
		r := rand.New(rand.NewPCG(2, 3))
		const hidden, inter, count, k = 96, 64, 7, 3
		for _, typ := range []quant.Type{quant.Q4_0, quant.Q8_0, quant.Q4_1, quant.F16} {
			gateUp := randomMatrix(t, r, typ, count*2*inter, hidden)
			down := randomMatrix(t, r, typ, count*hidden, inter)
			for _, n := range []int{1, 2, 5, 40} {
				x := random(r, n*hidden)
				ids, weights := make([]int32, n*k), random(r, n*k)
				for i := range n {
					for j, id := range r.Perm(count + 2)[:k] { // two that are not here
						ids[i*k+j] = int32(10 + id - 1)
					}
				}
				start := random(r, n*hidden)
				acc := append([]float32(nil), start...)
				var a Acts
				e.Prepare(&a, x, n, hidden)
				e.Experts(acc, &a, gateUp, down, inter, 10, count, ids, weights, k)

				want := append([]float32(nil), start...)
				for i := range n {
					oneByOne(e, want[i*hidden:(i+1)*hidden], x[i*hidden:(i+1)*hidden], gateUp, down, inter, ids[i*k:(i+1)*k], weights[i*k:(i+1)*k])
				}
				require.Equal(t, want, acc, "%v: %d rows", typ, n)

				// The same few experts at a time.
				room := e.bandFloats
				for _, e.bandFloats = range []int{0, 10 * 2 * inter} {
					few := append([]float32(nil), start...)
					e.Experts(few, &a, gateUp, down, inter, 10, count, ids, weights, k)
					require.Equal(t, acc, few, "%v: %d rows in room for %d floats", typ, n, e.bandFloats)
				}
				e.bandFloats = room

				// The same in two parts, as two machines would.
				split := append([]float32(nil), start...)
				const half = 3
				e.Experts(split, &a, gateUp.RowRange(0, half*2*inter), down.RowRange(0, half*hidden), inter, 10, half, ids, weights, k)
				e.Experts(split, &a, gateUp.RowRange(half*2*inter, (count-half)*2*inter), down.RowRange(half*hidden, (count-half)*hidden), inter, 10+half, count-half, ids, weights, k)
				require.Equal(t, acc, split, "%v: %d rows in two parts", typ, n)
			}
		}
	})
}

// oneByOne adds a row's experts with plain products, in ascending order.
func oneByOne(e *Engine, acc, x []float32, gateUp, down quant.Matrix, inter int, ids []int32, weights []float32) {
	gu, y := make([]float32, 2*inter), make([]float32, len(acc))
	for expert := range gateUp.Rows / (2 * inter) {
		for j, id := range ids {
			if int(id)-10 != expert {
				continue
			}
			var a, b Acts
			e.Prepare(&a, x, 1, len(x))
			e.MatMul(gu, gateUp.RowRange(expert*2*inter, 2*inter), &a)
			e.Room(&b, 1, inter, true)
			e.SwiGLU(&b, 0, gu)
			e.MatMul(y, down.RowRange(expert*len(acc), len(acc)), &b)
			for i, v := range y {
				acc[i] += float32(weights[j] * v)
			}
		}
	}
}
