package kernel

import (
	"math"
	"sync/atomic"

	"github.com/potluck-llm/potluck/model"
)

// A Rope rotates pairs of a head's numbers by angles that grow with the
// position: the first dims of each head, as halves (i, i+dims/2) or neighbours
// (2i, 2i+1). Angles are computed in float64 and kept per position.
type Rope struct {
	dims        int
	interleaved bool
	frequency   []float64
	cached      [ropeCached]atomic.Pointer[turns]
}

// ropeCached positions are kept at a time, the latest of each residue.
const ropeCached = 1024

// turns are a position's cosines and sines.
type turns struct {
	pos      int
	cos, sin []float32
}

// NewRope makes the table of r's frequencies.
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

// Rope rotates the heads of n rows in place; row r is at position pos[r].
func (e *Engine) Rope(x []float32, n, heads, headDim int, rope *Rope, pos []int32) {
	e.eachRow(rowsArgs{op: opRope, x: x, dim: heads * headDim, heads: heads, rope: rope, pos: pos}, n)
}

func (t *Rope) at(pos int) *turns {
	slot := &t.cached[uint(pos)%ropeCached]
	if have := slot.Load(); have != nil && have.pos == pos {
		return have
	}
	made := &turns{pos: pos, cos: make([]float32, len(t.frequency)), sin: make([]float32, len(t.frequency))}
	for i, f := range t.frequency {
		sin, cos := math.Sincos(float64(pos) * f)
		made.cos[i], made.sin[i] = float32(cos), float32(sin)
	}
	slot.Store(made)
	return made
}

func (t *Rope) rotate(x []float32, heads, pos int) {
	at, half := t.at(pos), len(t.frequency)
	headDim := len(x) / heads
	for ; len(x) > 0; x = x[headDim:] {
		if t.interleaved {
			for i, c := range at.cos {
				a, b, s := x[2*i], x[2*i+1], at.sin[i]
				x[2*i], x[2*i+1] = a*c-b*s, a*s+b*c
			}
			continue
		}
		lo, hi, cos, sin := x[:half:half], x[half:2*half:2*half], at.cos[:half], at.sin[:half]
		for i, a := range lo {
			b, c, s := hi[i], cos[i], sin[i]
			lo[i], hi[i] = a*c-b*s, a*s+b*c
		}
	}
}
