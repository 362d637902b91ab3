package quant

import "encoding/binary"

func (m Matrix) quantsRow(row int) []byte {
	n := m.Type.QuantsRowBytes(m.Cols)
	return m.Quants[row*n : (row+1)*n : (row+1)*n]
}

func (m Matrix) scalesRow(row int) []byte {
	n := m.Type.ScalesRowBytes(m.Cols)
	return m.Scales[row*n : (row+1)*n : (row+1)*n]
}

// Row decodes a row into dst, which holds Cols numbers.
func (m Matrix) Row(dst []float32, row int) {
	dst = dst[:m.Cols]
	q, s := m.quantsRow(row), m.scalesRow(row)
	switch m.Type {
	case F32:
		DecodeF32(dst, q)
	case F16:
		DecodeF16(dst, q)
	case BF16:
		DecodeBF16(dst, q)
	default:
		for b := range m.Cols / BlockSize {
			m.block((*[BlockSize]float32)(dst[b*BlockSize:]), q, s, b)
		}
	}
}

// block decodes block b of a quantised row.
func (m Matrix) block(dst *[BlockSize]float32, q, s []byte, b int) {
	switch m.Type {
	case Q4_0:
		decodeQ4_0(dst, half(s[2*b:]), (*[16]byte)(q[16*b:]))
	case Q4_1:
		decodeQ4_1(dst, half(s[4*b:]), half(s[4*b+2:]), (*[16]byte)(q[16*b:]))
	case Q6_0:
		decodeQ6_0(dst, half(s[4*b:]), half(s[4*b+2:]), (*[24]byte)(q[24*b:]))
	case Q8_0:
		decodeQ8_0(dst, half(s[2*b:]), (*[32]byte)(q[32*b:]))
	}
}

func half(src []byte) float32 { return F16ToF32(binary.LittleEndian.Uint16(src)) }

func decodeQ4_0(dst *[BlockSize]float32, d float32, q *[16]byte) {
	for i, b := range q {
		dst[i] = d * float32(int32(b&15)-8)
		dst[i+16] = d * float32(int32(b>>4)-8)
	}
}

func decodeQ4_1(dst *[BlockSize]float32, d, m float32, q *[16]byte) {
	for i, b := range q {
		dst[i] = float32(d*float32(int32(b&15))) + m
		dst[i+16] = float32(d*float32(int32(b>>4))) + m
	}
}

func decodeQ6_0(dst *[BlockSize]float32, d, e float32, q *[24]byte) {
	for i, b := range q[:16] {
		high := q[16+i%8] >> (i / 8 * 2)
		dst[i] = d * float32(int32(b&15|high&3<<4)-32)
		dst[i+16] = e * float32(int32(b>>4|high&48)-32)
	}
}

func decodeQ8_0(dst *[BlockSize]float32, d float32, q *[32]byte) {
	for i, b := range q {
		dst[i] = d * float32(int8(b))
	}
}

// Dot multiplies a row of m with x (Cols numbers). It is the reference for the
// kernels: one product after the other, summed in float64.
func Dot(m Matrix, row int, x []float32) float32 {
	w := make([]float32, m.Cols)
	m.Row(w, row)
	var sum float64
	for i, v := range w {
		sum += float64(v) * float64(x[i])
	}
	return float32(sum)
}
