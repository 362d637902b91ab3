package kernel

import (
	"math"
	"sync"

	"github.com/potluck-llm/potluck/sample"
)

// Logits is what a sampler does with a row of logits, on the caller's thread, by the
// variant that New takes by default.
type Logits struct{}

var _ sample.Vectors = Logits{}

// plain is for what vectors do not fit.
var plain sample.Plain

// logitsChunk is how many logits are looked at before one is looked for.
const logitsChunk = 1024

// machine is the variant that New takes by default.
var machine = sync.OnceValue(func() *Variant {
	v, err := choose("")
	if err != nil { // EnvVariant is wrong, which New tells
		v, _ = choose("reference")
	}
	return v
})

func (Logits) ArgMax(x []float32) int { return machine().argMax(x) }

func (v *Variant) argMax(x []float32) int {
	best, at := float32(math.Inf(-1)), 0
	for from := 0; from < len(x); from += logitsChunk {
		m := v.max(x[from:min(from+logitsChunk, len(x))])
		if !(m <= math.MaxFloat32) { // NaN or +Inf
			return plain.ArgMax(x)
		}
		if m > best {
			best, at = m, from
		}
	}
	if i := plain.ArgMax(x[at:min(at+logitsChunk, len(x))]); i >= 0 {
		return at + i
	}
	return -1
}

func (Logits) Max(x []float32) float32 { return machine().max(x) }

func (v *Variant) max(x []float32) float32 {
	whole, largest := len(x)&^15, float32(math.Inf(-1))
	if whole > 0 {
		largest = v.Max(&x[0], whole)
	}
	return max(largest, plain.Max(x[whole:]))
}

// Exps takes what lies below -87 for 0.
func (Logits) Exps(x []float32) float32 { return machine().exps(x) }

func (v *Variant) exps(x []float32) (sum float32) {
	whole := len(x) &^ 15
	if whole > 0 {
		sum = v.ExpSum(&x[0], whole, 0)
	}
	if whole < len(x) {
		sum += expSumReference(&x[whole], len(x)-whole, 0)
	}
	return sum
}
