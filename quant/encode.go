package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A NotFiniteError says which number of a matrix cannot be stored: it is NaN or
// infinite, or becomes infinite in the element type.
type NotFiniteError struct {
	Type        Type
	Row, Column int     // where, counted from 0
	Value       float32 // what stands there
}

func (e *NotFiniteError) Error() string {
	why := "is not finite"
	if finite(e.Value) {
		why = fmt.Sprintf("is beyond what %v holds", e.Type)
	}
	return fmt.Sprintf("row %d, column %d: %g %s", e.Row, e.Column, e.Value, why)
}

func finite(x float32) bool { return math.Float32bits(x)&0x7f800000 != 0x7f800000 }

// Encode writes rows × cols numbers to dst in the planar layout. dst must hold
// t.Bytes(rows, cols); its padding is set to zero. Blocks get the bytes that
// ggml's reference quantiser gives them, where it has the type. A number that is not finite, or would
// not be in t, is an error (NotFiniteError).
func Encode(t Type, rows, cols int, src []float32, dst []byte) error {
	m, err := NewMatrix(t, rows, cols, dst)
	if err != nil {
		return err
	}
	if len(src) != rows*cols {
		return fmt.Errorf("encode %v matrix of %d × %d: got %d numbers, want %d", t, rows, cols, len(src), rows*cols)
	}
	m.clearPadding(dst)
	return m.EncodeRows(0, src)
}

// clearPadding zeroes what lies between and behind the planes of m in data.
func (m Matrix) clearPadding(data []byte) {
	clear(data[len(m.Quants):m.Type.ScalesOffset(m.Rows, m.Cols)])
	end := m.Type.Bytes(m.Rows, m.Cols)
	clear(data[end-(end-m.Type.ScalesOffset(m.Rows, m.Cols)-int64(len(m.Scales))) : end])
}

// EncodeRows writes whole rows of numbers into m from row first on: a large
// matrix is filled piece by piece, also by several goroutines at once.
func (m Matrix) EncodeRows(first int, src []float32) error {
	if m.Cols == 0 {
		return nil
	}
	rows := len(src) / m.Cols
	if first < 0 || rows*m.Cols != len(src) || rows > m.Rows-first {
		return fmt.Errorf("encode %d numbers into %d × %d from row %d: want whole rows that fit", len(src), m.Rows, m.Cols, first)
	}
	for i := range rows {
		row := src[i*m.Cols : (i+1)*m.Cols]
		if column := m.encodeRow(first+i, row); column >= 0 {
			return &NotFiniteError{m.Type, first + i, column, row[column]}
		}
	}
	return nil
}

// encodeRow writes one row. It returns the column of a number that the type
// cannot hold, else -1.
func (m Matrix) encodeRow(row int, src []float32) int {
	q := m.quantsRow(row)
	s := m.scalesRow(row)
	switch m.Type {
	case F32:
		EncodeF32(q, src)
		if allFiniteF32(q) {
			return -1
		}
		return firstBeyond(src, math.MaxFloat32)
	case F16:
		EncodeF16(q, src)
		if allFinite16(q, 0x7c00) {
			return -1
		}
		return firstBeyond(src, 65519.996)
	case BF16:
		EncodeBF16(q, src)
		if allFinite16(q, 0x7f80) {
			return -1
		}
		return firstBeyond(src, 0x1.fefffep127)
	}
	for b := range len(src) / BlockSize {
		x := (*[BlockSize]float32)(src[b*BlockSize:])
		ok := false
		switch m.Type {
		case Q4_0:
			ok = encodeQ4_0((*[16]byte)(q[16*b:]), s[2*b:2*b+2], x)
		case Q4_1:
			ok = encodeQ4_1((*[16]byte)(q[16*b:]), s[4*b:4*b+4], x)
		case Q6_0:
			ok = encodeQ6_0((*[24]byte)(q[24*b:]), s[4*b:4*b+4], x)
		case Q8_0:
			ok = encodeQ8_0((*[32]byte)(q[32*b:]), s[2*b:2*b+2], x)
		}
		if !ok {
			return b*BlockSize + worst(x[:])
		}
	}
	return -1
}

// firstBeyond is the index of the first number that is NaN or larger than limit.
func firstBeyond(x []float32, limit float32) int {
	for i, v := range x {
		if !(v <= limit && v >= -limit) {
			return i
		}
	}
	return worst(x)
}

// worst is the index of the first number that is not finite, else of the
// largest one: what makes a block's scale infinite.
func worst(x []float32) int {
	at, highest := 0, uint32(0)
	for i, v := range x {
		magnitude := math.Float32bits(v) & 0x7fffffff
		if magnitude >= 0x7f800000 {
			return i
		}
		if magnitude > highest {
			at, highest = i, magnitude
		}
	}
	return at
}

// The block encoders follow ggml's quantize_row_*_ref to the bit: the same
// operations in the same order, each rounded to float32 (the conversions keep
// the compiler from fusing them). They return false when the scale is not
// finite, which it is not as soon as a number is not.

// largest returns the bits of the number of largest magnitude, and of that magnitude.
func largest(x []float32) (top, magnitude uint32) {
	for _, v := range x {
		bits := math.Float32bits(v)
		if m := bits & 0x7fffffff; m > magnitude {
			magnitude, top = m, bits
		}
	}
	return top, magnitude
}

// encodeQ4_0 scales by the number of largest magnitude, which becomes -8: of
// the sixteen levels, the one without a counterpart is so always used.
func encodeQ4_0(q *[16]byte, scale []byte, x *[BlockSize]float32) bool {
	top, highest := largest(x[:])
	d := math.Float32frombits(top) / -8
	inverse := inverseOf(d)
	h := F32ToF16(d)
	binary.LittleEndian.PutUint16(scale, h)
	for i := range q {
		low := int32(float32(x[i]*inverse) + 8.5)
		high := int32(float32(x[i+16]*inverse) + 8.5)
		q[i] = byte(min(low, 15) | min(high, 15)<<4)
	}
	return highest < 0x7f800000 && h&0x7c00 != 0x7c00
}

// encodeQ4_1 spreads sixteen levels from the smallest to the largest number.
func encodeQ4_1(q *[16]byte, scale []byte, x *[BlockSize]float32) bool {
	lowest, highest := float32(math.MaxFloat32), float32(-math.MaxFloat32)
	var notFinite uint32
	for _, v := range x {
		notFinite |= math.Float32bits(v)&0x7fffffff + 0x00800000 // carries into the sign
		if v < lowest {
			lowest = v
		}
		if v > highest {
			highest = v
		}
	}
	d := (highest - lowest) / 15
	inverse := inverseOf(d)
	h, m := F32ToF16(d), F32ToF16(lowest)
	binary.LittleEndian.PutUint16(scale, h)
	binary.LittleEndian.PutUint16(scale[2:], m)
	for i := range q {
		low := int32(float32((x[i]-lowest)*inverse) + 0.5)
		high := int32(float32((x[i+16]-lowest)*inverse) + 0.5)
		q[i] = byte(min(low, 15) | min(high, 15)<<4)
	}
	return notFinite>>31 == 0 && h&0x7c00 != 0x7c00 && m&0x7c00 != 0x7c00
}

// encodeQ6_0 scales each half of a block as encodeQ4_0 does a block: the number
// of largest magnitude becomes -32.
func encodeQ6_0(q *[24]byte, scales []byte, x *[BlockSize]float32) bool {
	var levels [BlockSize]byte
	ok := true
	for h := range 2 {
		part := x[16*h : 16*h+16]
		top, highest := largest(part)
		d := math.Float32frombits(top) / -32
		inverse := inverseOf(d)
		f16 := F32ToF16(d)
		binary.LittleEndian.PutUint16(scales[2*h:], f16)
		for i, v := range part {
			levels[16*h+i] = byte(min(int32(float32(v*inverse)+32.5), 63))
		}
		ok = ok && highest < 0x7f800000 && f16&0x7c00 != 0x7c00
	}
	packQ6_0(q, &levels)
	return ok
}

// packQ6_0 lays out 32 quants of 0..63.
func packQ6_0(q *[24]byte, levels *[BlockSize]byte) {
	for i := range 16 {
		q[i] = levels[i]&15 | levels[i+16]<<4
	}
	for i := range 8 {
		q[16+i] = levels[i]>>4 | levels[i+8]>>4<<2 | levels[i+16]>>4<<4 | levels[i+24]>>4<<6
	}
}

// encodeQ8_0 scales the largest magnitude to 127; halves round away from zero.
func encodeQ8_0(q *[32]byte, scale []byte, x *[BlockSize]float32) bool {
	var highest uint32
	for _, v := range x {
		highest = max(highest, math.Float32bits(v)&0x7fffffff)
	}
	d := math.Float32frombits(highest) / 127
	inverse := inverseOf(d)
	h := F32ToF16(d)
	binary.LittleEndian.PutUint16(scale, h)
	for i, v := range x {
		scaled := v * inverse
		half := math.Float32frombits(0x3f000000 | math.Float32bits(scaled)&0x80000000)
		// In float64 the sum is exact, so that truncating it rounds.
		q[i] = byte(int32(float64(scaled) + float64(half)))
	}
	return highest < 0x7f800000 && h&0x7c00 != 0x7c00
}

// inverseOf is 1/d, and 0 where there is none: such a scale is 0 as a half, so
// that the quants do not matter, but they must be the same on every machine.
func inverseOf(d float32) float32 {
	if inverse := 1 / d; finite(inverse) {
		return inverse
	}
	return 0
}
