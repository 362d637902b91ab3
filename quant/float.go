package quant

import (
	"encoding/binary"
	"math"
)

// F16ToF32 converts an IEEE 754 half to float32: exact for every value, a NaN
// keeps its payload.
func F16ToF32(h uint16) float32 {
	magnitude := uint32(h&0x7fff) << 13
	if magnitude-1<<23 < 30<<23 { // neither zero, denormal, infinite nor NaN
		return math.Float32frombits(uint32(h&0x8000)<<16 | (magnitude + 112<<23))
	}
	return f16Special(h)
}

// f16Special converts what does not have a normal exponent.
func f16Special(h uint16) float32 {
	sign, magnitude := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	if magnitude >= 0x7c00 {
		return math.Float32frombits(sign | 0x7f800000 | (magnitude&0x3ff)<<13)
	}
	return math.Float32frombits(sign | math.Float32bits(float32(magnitude)*0x1p-24))
}

// F32ToF16 rounds to the nearest half, ties to even. What lies beyond 65504
// (from 65520 on) becomes infinite; a NaN stays a quiet NaN.
func F32ToF16(x float32) uint16 {
	bits := math.Float32bits(x)
	magnitude := bits & 0x7fffffff
	if magnitude-0x38800000 < 0x47800000-0x38800000 { // 2^-14 ≤ |x| < 2^16
		return uint16(bits>>16&0x8000 | (magnitude-112<<23+0xfff+magnitude>>13&1)>>13)
	}
	return f16Rare(bits)
}

// f16Rare rounds what is denormal or infinite as a half.
func f16Rare(bits uint32) uint16 {
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000:
		return sign | 0x7e00 | uint16(magnitude>>13&0x1ff)
	case magnitude >= 0x47800000:
		return sign | 0x7c00
	default:
		// 0.5 has an ulp of 2^-24, the unit of denormal halves, so that the
		// addition rounds to it.
		return sign | uint16(math.Float32bits(math.Float32frombits(magnitude)+0.5)-0x3f000000)
	}
}

// BF16ToF32 converts a bfloat16 to float32: exact.
func BF16ToF32(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// F32ToBF16 rounds to the nearest bfloat16, ties to even. A NaN stays a quiet
// NaN.
func F32ToBF16(x float32) uint16 {
	bits := math.Float32bits(x)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// DecodeF16 reads len(dst) little-endian halves from src.
func DecodeF16(dst []float32, src []byte) {
	src = src[: 2*len(dst) : 2*len(dst)]
	for len(dst) >= 4 && len(src) >= 8 {
		four := binary.LittleEndian.Uint64(src)
		dst[0] = F16ToF32(uint16(four))
		dst[1] = F16ToF32(uint16(four >> 16))
		dst[2] = F16ToF32(uint16(four >> 32))
		dst[3] = F16ToF32(uint16(four >> 48))
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// EncodeF16 writes src to dst as little-endian halves, as F32ToF16 rounds.
func EncodeF16(dst []byte, src []float32) {
	dst = dst[: 2*len(src) : 2*len(src)]
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(x))
	}
}

// DecodeBF16 reads len(dst) little-endian bfloat16 from src.
func DecodeBF16(dst []float32, src []byte) {
	src = src[: 2*len(dst) : 2*len(dst)]
	for len(dst) >= 4 && len(src) >= 8 {
		four := binary.LittleEndian.Uint64(src)
		dst[0] = math.Float32frombits(uint32(four) << 16)
		dst[1] = math.Float32frombits(uint32(four) & 0xffff0000)
		dst[2] = math.Float32frombits(uint32(four>>32) << 16)
		dst[3] = math.Float32frombits(uint32(four>>32) & 0xffff0000)
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// EncodeBF16 writes src to dst as little-endian bfloat16, as F32ToBF16 rounds.
func EncodeBF16(dst []byte, src []float32) {
	dst = dst[: 2*len(src) : 2*len(src)]
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(x))
	}
}

// DecodeF32 reads len(dst) little-endian floats from src.
func DecodeF32(dst []float32, src []byte) {
	src = src[: 4*len(dst) : 4*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// EncodeF32 writes src to dst as little-endian floats.
func EncodeF32(dst []byte, src []float32) {
	dst = dst[: 4*len(src) : 4*len(src)]
	for i, x := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}
