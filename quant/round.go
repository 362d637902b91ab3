package quant

import "math"

// The residual stream is rounded after every layer to halves times a power of
// two that belongs to the row, so that a row can travel without loss and a
// chain of machines computes what one machine computes.

// RowScale is the exponent s of a row of activations: 0 when all |x| < 32768,
// else such that max|x|·2^-s lies in [16384, 32768).
func RowScale(x []float32) int {
	var highest uint32
	for _, v := range x {
		highest = max(highest, math.Float32bits(v)&0x7fffffff)
	}
	if highest < 0x47000000 { // 32768
		return 0
	}
	return int(highest>>23) - 127 - 14
}

// RoundRow rounds a row in place to what PackRow would send, to the nearest
// f16(x·2^-s)·2^s, and returns s. Infinities and NaN stay what they are.
func RoundRow(x []float32) (scale int) {
	scale = RowScale(x)
	if scale == 0 {
		for i, v := range x {
			x[i] = F16ToF32(F32ToF16(v))
		}
		return 0
	}
	down, up := powerOfTwo(-scale), powerOfTwo(scale)
	for i, v := range x {
		x[i] = F16ToF32(F32ToF16(v*down)) * up
	}
	return scale
}

// PackRow writes a row as little-endian halves of x·2^-s and returns s. A row
// that RoundRow rounded loses nothing.
func PackRow(dst []byte, x []float32) (scale int) {
	scale = RowScale(x)
	down := powerOfTwo(-scale)
	dst = dst[: 2*len(x) : 2*len(x)]
	for i, v := range x {
		h := F32ToF16(v * down)
		dst[2*i], dst[2*i+1] = byte(h), byte(h>>8)
	}
	return scale
}

// UnpackRow reads len(dst) halves that PackRow wrote with that scale. A scale
// that PackRow never gives (it comes from a peer) gives finite or infinite
// numbers, never a panic.
func UnpackRow(dst []float32, src []byte, scale int) {
	DecodeF16(dst, src)
	if scale == 0 {
		return
	}
	up := powerOfTwo(scale)
	for i := range dst {
		dst[i] *= up
	}
}

// powerOfTwo is 2^e, 0 or infinite where float32 has none.
func powerOfTwo(e int) float32 { return float32(math.Ldexp(1, e)) }
