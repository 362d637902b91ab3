package sample

import "math"

// Plain is Vectors one number after another, on any machine.
type Plain struct{}

func (Plain) ArgMax(x []float32) int {
	best, index := float32(math.Inf(-1)), -1
	for i, f := range x {
		if f > best && f <= math.MaxFloat32 {
			best, index = f, i
		}
	}
	return index
}

func (Plain) Max(x []float32) float32 {
	largest := float32(math.Inf(-1))
	for _, f := range x {
		largest = max(largest, f)
	}
	return largest
}

func (Plain) Exps(x []float32) float32 {
	sum := 0.0
	for i, f := range x {
		e := math.Exp(float64(f))
		x[i] = float32(e)
		sum += e
	}
	return float32(sum)
}
