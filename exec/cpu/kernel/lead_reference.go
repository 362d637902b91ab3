// Package kernel computes the products, norms and attentions of a layer.
package kernel

import (
	"fmt"
	"math"
	"runtime"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

type Options struct {
	Threads int
	Variant string
	Exact   bool
}

type Engine struct {
	threads int
	row     []float32
}

func New(o Options) (*Engine, error) {
	if o.Variant != "" && o.Variant != "reference" {
		return nil, fmt.Errorf("kernel variant %q is unknown", o.Variant)
	}
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	return &Engine{threads: o.Threads}, nil
}

func (e *Engine) Close()          {}
func (e *Engine) Variant() string { return "reference" }
func (e *Engine) Threads() int    { return e.threads }

type Acts struct {
	N, Cols int
	x       []float32
}

func (e *Engine) Prepare(a *Acts, x []float32, n, cols int) {
	a.N, a.Cols = n, cols
	a.x = append(a.x[:0], x[:n*cols]...)
}

func (e *Engine) MatMul(y []float32, w quant.Matrix, a *Acts) {
	if cap(e.row) < w.Cols {
		e.row = make([]float32, w.Cols)
	}
	row := e.row[:w.Cols]
	for r := range w.Rows {
		w.Row(row, r)
		for i := range a.N {
			x := a.x[i*a.Cols : (i+1)*a.Cols]
			var s0, s1, s2, s3 float32
			c := 0
			for ; c+4 <= len(row); c += 4 {
				s0 += row[c] * x[c]
				s1 += row[c+1] * x[c+1]
				s2 += row[c+2] * x[c+2]
				s3 += row[c+3] * x[c+3]
			}
			for ; c < len(row); c++ {
				s0 += row[c] * x[c]
			}
			y[i*w.Rows+r] = s0 + s1 + s2 + s3
		}
	}
}

func (e *Engine) MatMulMany(ys [][]float32, ws []quant.Matrix, a *Acts) {
	for i := range ws {
		e.MatMul(ys[i], ws[i], a)
	}
}

func (e *Engine) Experts(acc []float32, a *Acts, gateUp, down quant.Matrix, inter, first, count int, ids []int32, weights []float32, k int) {
	hidden := down.Rows / count
	gu, f, y := make([]float32, 2*inter), make([]float32, inter), make([]float32, hidden)
	var one, in Acts
	for r := range a.N {
		e.Prepare(&one, a.x[r*a.Cols:(r+1)*a.Cols], 1, a.Cols)
		for j := range k {
			id := int(ids[r*k+j]) - first
			if id < 0 || id >= count {
				continue
			}
			e.MatMul(gu, gateUp.RowRange(id*2*inter, 2*inter), &one)
			e.SwiGLU(f, gu, 1, inter)
			e.Prepare(&in, f, 1, inter)
			e.MatMul(y, down.RowRange(id*hidden, hidden), &in)
			for i, v := range y {
				acc[r*hidden+i] += weights[r*k+j] * v
			}
		}
	}
}

func (e *Engine) RMSNorm(y, x, w []float32, n, dim int, eps float32) {
	for i := range n {
		sum := 0.0
		for _, v := range x[i*dim : (i+1)*dim] {
			sum += float64(v) * float64(v)
		}
		scale := float32(1 / math.Sqrt(sum/float64(dim)+float64(eps)))
		for c := range dim {
			y[i*dim+c] = x[i*dim+c] * scale * w[c]
		}
	}
}

func (e *Engine) RMSNormHeads(x, w []float32, n, heads, headDim int, eps float32) {
	e.RMSNorm(x, x, w, n*heads, headDim, eps)
}

type Rope struct {
	dims        int
	interleaved bool
	frequency   []float64
}

func NewRope(r model.RoPE) *Rope {
	t := &Rope{dims: r.Dims, interleaved: r.Interleaved}
	for i := range r.Dims / 2 {
		f := math.Pow(r.Theta, -2*float64(i)/float64(r.Dims))
		if len(r.Divisors) > 0 {
			f /= r.Divisors[i]
		}
		t.frequency = append(t.frequency, f)
	}
	return t
}

func (e *Engine) Rope(x []float32, n, heads, headDim int, rope *Rope, pos []int32) {
	for r := range n {
		for i, f := range rope.frequency {
			sin, cos := math.Sincos(float64(pos[r]) * f)
			s, c := float32(sin), float32(cos)
			a, b := i, i+rope.dims/2
			if rope.interleaved {
				a, b = 2*i, 2*i+1
			}
			for h := range heads {
				v := x[(r*heads+h)*headDim:]
				v[a], v[b] = v[a]*c-v[b]*s, v[a]*s+v[b]*c
			}
		}
	}
}

func (e *Engine) SwiGLU(y, gu []float32, n, inter int) {
	for i := range n * inter {
		g, u := gu[2*i], gu[2*i+1]
		y[i] = float32(float64(g)/(1+math.Exp(-float64(g)))) * u
	}
}

func (e *Engine) Add(y, x []float32) {
	for i := range y {
		y[i] += x[i]
	}
}

func (e *Engine) AddBias(y, b []float32, n, dim int) {
	for i := range n {
		for c := range dim {
			y[i*dim+c] += b[c]
		}
	}
}

func (e *Engine) RoundF16(x []float32, n, dim int) {
	for i := range n {
		quant.RoundRow(x[i*dim : (i+1)*dim])
	}
}

type Cache struct {
	t                quant.Type
	kvHeads, headDim int
	k, v             []float32
}

func NewCache(t quant.Type, positions, kvHeads, headDim int) *Cache {
	return &Cache{t: t, kvHeads: kvHeads, headDim: headDim}
}

func (c *Cache) Bytes() int64 { return int64(4 * (cap(c.k) + cap(c.v))) }

func (c *Cache) Store(pos int, k, v []float32) {
	w := c.kvHeads * c.headDim
	c.k, c.v = append(c.k[:pos*w], k...), append(c.v[:pos*w], v...)
	if c.t != quant.F32 {
		for i := pos * w; i < len(c.k); i++ {
			c.k[i], c.v[i] = quant.F16ToF32(quant.F32ToF16(c.k[i])), quant.F16ToF32(quant.F32ToF16(c.v[i]))
		}
	}
}

func (e *Engine) Attend(out, q []float32, caches []*Cache, pos []int32, heads int, scale float32) {
	for r, cache := range caches {
		d := cache.headDim
		w := cache.kvHeads * d
		scores := make([]float64, pos[r]+1)
		for h := range heads {
			kv := h / (heads / cache.kvHeads)
			qh := q[(r*heads+h)*d : (r*heads+h+1)*d]
			largest := math.Inf(-1)
			for p := range scores {
				s := float32(0)
				for i, v := range cache.k[p*w+kv*d : p*w+(kv+1)*d] {
					s += v * qh[i]
				}
				scores[p] = float64(s * scale)
				largest = max(largest, scores[p])
			}
			sum := 0.0
			o := out[(r*heads+h)*d : (r*heads+h+1)*d]
			clear(o)
			for p := range scores {
				weight := math.Exp(scores[p] - largest)
				sum += weight
				for i, v := range cache.v[p*w+kv*d : p*w+(kv+1)*d] {
					o[i] += float32(weight) * v
				}
			}
			for i := range o {
				o[i] /= float32(sum)
			}
		}
	}
}
