package quant

import (
	"encoding/binary"
	"math"
)

// decoders holds one function for each GGUF type that can be read: it turns
// whole blocks into numbers. Operations and their order are those of ggml's
// dequantize_row_*, each rounded to float32, so that the results are the same
// to the bit.
//
// It is filled in init: Check and the decoders would otherwise refer to each
// other.
var decoders map[Foreign]func(dst []float32, src []byte)

func init() {
	decoders = map[Foreign]func(dst []float32, src []byte){
		ForeignF32:    DecodeF32,
		ForeignF16:    DecodeF16,
		ForeignBF16:   DecodeBF16,
		ForeignQ4_0:   blocks32(18, foreignQ4_0),
		ForeignQ4_1:   blocks32(20, foreignQ4_1),
		ForeignQ5_0:   blocks32(22, foreignQ5_0),
		ForeignQ5_1:   blocks32(24, foreignQ5_1),
		ForeignQ8_0:   blocks32(34, foreignQ8_0),
		ForeignIQ4_NL: blocks32(18, foreignIQ4_NL),
		ForeignMXFP4:  blocks32(17, foreignMXFP4),
		ForeignQ2_K:   blocks256(84, foreignQ2_K),
		ForeignQ3_K:   blocks256(110, foreignQ3_K),
		ForeignQ4_K:   blocks256(144, foreignQ4_K),
		ForeignQ5_K:   blocks256(176, foreignQ5_K),
		ForeignQ6_K:   blocks256(210, foreignQ6_K),
		ForeignIQ4_XS: blocks256(136, foreignIQ4_XS),
	}
}

func blocks32(size int, decode func(dst *[32]float32, b []byte)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		for ; len(dst) >= 32; dst, src = dst[32:], src[size:] {
			decode((*[32]float32)(dst), src[:size:size])
		}
	}
}

func blocks256(size int, decode func(dst *[256]float32, b []byte)) func(dst []float32, src []byte) {
	return func(dst []float32, src []byte) {
		for ; len(dst) >= 256; dst, src = dst[256:], src[size:] {
			decode((*[256]float32)(dst), src[:size:size])
		}
	}
}

// Q4_0: f16 d, 16 bytes of nibbles (element i low, i+16 high). d*(q-8)
func foreignQ4_0(dst *[32]float32, b []byte) {
	decodeQ4_0(dst, half(b), (*[16]byte)(b[2:]))
}

// Q4_1: f16 d, f16 m, nibbles. d*q + m
func foreignQ4_1(dst *[32]float32, b []byte) {
	decodeQ4_1(dst, half(b), half(b[2:]), (*[16]byte)(b[4:]))
}

// Q8_0: f16 d, 32 int8. d*q
func foreignQ8_0(dst *[32]float32, b []byte) {
	decodeQ8_0(dst, half(b), (*[32]byte)(b[2:]))
}

// Q5_0: f16 d, 32 fifth bits, nibbles. d*(q-16)
func foreignQ5_0(dst *[32]float32, b []byte) {
	d, high := half(b), binary.LittleEndian.Uint32(b[2:])
	for i, q := range (*[16]byte)(b[6:]) {
		dst[i] = d * float32(int32(uint32(q&15)|high>>i<<4&16)-16)
		dst[i+16] = d * float32(int32(uint32(q>>4)|high>>(i+12)&16)-16)
	}
}

// Q5_1: f16 d, f16 m, 32 fifth bits, nibbles. d*q + m
func foreignQ5_1(dst *[32]float32, b []byte) {
	d, m, high := half(b), half(b[2:]), binary.LittleEndian.Uint32(b[4:])
	for i, q := range (*[16]byte)(b[8:]) {
		dst[i] = float32(d*float32(int32(uint32(q&15)|high>>i<<4&16))) + m
		dst[i+16] = float32(d*float32(int32(uint32(q>>4)|high>>(i+12)&16))) + m
	}
}

// levelsIQ4 is the fixed, uneven scale of the IQ4 types.
var levelsIQ4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// levelsMXFP4 are the values of a 4-bit float (e2m1), doubled.
var levelsMXFP4 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// IQ4_NL: f16 d, nibbles. d*levelsIQ4[q]
func foreignIQ4_NL(dst *[32]float32, b []byte) {
	d := half(b)
	for i, q := range (*[16]byte)(b[2:]) {
		dst[i], dst[i+16] = d*levelsIQ4[q&15], d*levelsIQ4[q>>4]
	}
}

// MXFP4: one byte e, nibbles. 2^(e-128)*levelsMXFP4[q]: the levels are doubled,
// hence 128 and not 127.
func foreignMXFP4(dst *[32]float32, b []byte) {
	d := math.Float32frombits(0x00200000 << (b[0] & 1)) // 2^-128, 2^-127: denormal
	if b[0] >= 2 {
		d = math.Float32frombits(uint32(b[0]-1) << 23)
	}
	for i, q := range (*[16]byte)(b[1:]) {
		dst[i], dst[i+16] = levelsMXFP4[q&15]*d, levelsMXFP4[q>>4]*d
	}
}

// Q2_K: 16 bytes of scales (scale low, min high nibble), 64 of 2-bit quants,
// f16 d, f16 dmin. d*scale*q - dmin*min, sixteen numbers a scale
func foreignQ2_K(dst *[256]float32, b []byte) {
	scales, quants := (*[16]byte)(b), (*[64]byte)(b[16:])
	d, dmin := half(b[80:]), half(b[82:])
	for i, s := range scales {
		scale, least := d*float32(s&15), dmin*float32(s>>4)
		// Each 128 numbers share 32 bytes; each pair of groups two of their bits.
		q, shift := quants[i/8*32+i%2*16:][:16], i%8/2*2
		out := dst[i*16:][:16]
		for l := range out {
			out[l] = float32(scale*float32(q[l]>>shift&3)) - least
		}
	}
}

// Q3_K: 32 bytes of third bits, 64 of 2-bit quants, 12 of 6-bit scales, f16 d.
// d*(scale-32)*(q-4), sixteen numbers a scale
func foreignQ3_K(dst *[256]float32, b []byte) {
	d := half(b[108:])
	for i := range 16 {
		s, levels := scaleQ3_K(b, i)
		scale := d * float32(s)
		out := dst[i*16:][:16]
		for l, v := range levels {
			out[l] = scale * float32(v)
		}
	}
}

// scaleQ3_K unpacks sub-block i (0..15) of a Q3_K block: its scale and levels,
// both with their offsets taken off.
func scaleQ3_K(b []byte, i int) (scale int32, levels [16]int32) {
	high, quants, packed := (*[32]byte)(b), (*[64]byte)(b[32:]), (*[12]byte)(b[96:])
	// The low 4 bits of scales i and i+8 share a byte, the high 2 bits of
	// scales i, i+4, i+8 and i+12 another.
	s := packed[i%8]>>(i/8*4)&15 | packed[8+i%4]>>(i/4*2)&3<<4
	q, shift := quants[i/8*32+i%2*16:][:16], i%8/2*2
	h, bit := high[i%2*16:][:16], i/2
	for l := range levels {
		levels[l] = int32(q[l]>>shift&3) | int32(h[l]>>bit&1)<<2 - 4
	}
	return int32(s) - 32, levels
}

// scaleMin4 unpacks the 6-bit scale and minimum of sub-block i (0..7) of a Q4_K
// or Q5_K block: the first four of each lie in the low six bits of bytes 0..7,
// the others in the nibbles of bytes 8..11 and the top bits of 0..7.
func scaleMin4(packed *[12]byte, i int) (scale, least byte) {
	if i < 4 {
		return packed[i] & 63, packed[i+4] & 63
	}
	return packed[i+4]&15 | packed[i-4]>>6<<4, packed[i+4]>>4 | packed[i]>>6<<4
}

// Q4_K: f16 d, f16 dmin, 12 bytes of scales and minima, 128 of nibbles (of each
// 64 numbers the first 32 low). d*scale*q - dmin*min, 32 numbers a scale
func foreignQ4_K(dst *[256]float32, b []byte) {
	d, dmin := half(b), half(b[2:])
	packed, quants := (*[12]byte)(b[4:]), (*[128]byte)(b[16:])
	for i := range 8 {
		s, m := scaleMin4(packed, i)
		scale, least := d*float32(s), dmin*float32(m)
		q, shift := quants[i/2*32:][:32], i%2*4
		out := dst[i*32:][:32]
		for l := range out {
			out[l] = float32(scale*float32(q[l]>>shift&15)) - least
		}
	}
}

// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles (bit i for
// sub-block i)
func foreignQ5_K(dst *[256]float32, b []byte) {
	d, dmin := half(b), half(b[2:])
	packed, high, quants := (*[12]byte)(b[4:]), (*[32]byte)(b[16:]), (*[128]byte)(b[48:])
	for i := range 8 {
		s, m := scaleMin4(packed, i)
		scale, least := d*float32(s), dmin*float32(m)
		q, shift := quants[i/2*32:][:32], i%2*4
		out := dst[i*32:][:32]
		for l := range out {
			v := q[l]>>shift&15 | high[l]>>i&1<<4
			out[l] = float32(scale*float32(v)) - least
		}
	}
}

// Q6_K: 128 bytes of low nibbles, 64 of high 2-bit parts, 16 int8 scales, f16 d.
// d*scale*(q-32), sixteen numbers a scale
func foreignQ6_K(dst *[256]float32, b []byte) {
	low, high, scales := (*[128]byte)(b), (*[64]byte)(b[128:]), (*[16]byte)(b[192:])
	d := half(b[208:])
	for i := range 16 {
		scale := d * float32(int8(scales[i]))
		// Of each 128 numbers the first 64 lie in the low nibbles of 64 bytes,
		// the others in the high ones; their top bits in 32 bytes, 2 bits for
		// each 32 numbers.
		q, shift := low[i/8*64+i%4*16:][:16], i%8/4*4
		h, highShift := high[i/8*32+i%2*16:][:16], i%8/2*2
		out := dst[i*16:][:16]
		for l := range out {
			v := int32(q[l]>>shift&15) | int32(h[l]>>highShift&3)<<4
			out[l] = scale * float32(v-32)
		}
	}
}

// IQ4_XS: f16 d, 8 high 2-bit parts and 8 low nibbles of scales, 128 bytes of
// nibbles. d*(scale-32)*levelsIQ4[q], 32 numbers a scale
func foreignIQ4_XS(dst *[256]float32, b []byte) {
	d, high := half(b), binary.LittleEndian.Uint16(b[2:])
	low, quants := (*[4]byte)(b[4:]), (*[128]byte)(b[8:])
	for i := range 8 {
		s := int32(low[i/2]>>(i%2*4)&15) | int32(high>>(2*i)&3)<<4
		scale := d * float32(s-32)
		out := (*[32]float32)(dst[i*32:])
		for l, q := range quants[i*16:][:16] {
			out[l], out[l+16] = scale*levelsIQ4[q&15], scale*levelsIQ4[q>>4]
		}
	}
}
