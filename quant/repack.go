package quant

import (
	"encoding/binary"
	"fmt"
)

// Repack turns rows × cols numbers of a GGUF tensor into type t in the planar
// layout; dst must hold t.Bytes(rows, cols), src exactly the tensor.
//
// Into the same type, and from Q4_0, Q4_1 and Q8_0, bytes only move. Q4_K goes
// into q4_1, Q6_K, Q5_0 and Q3_K into q6_0, with their quants unchanged; only the
// product of nested scales is rounded to f16. Other block types go into q8_0 with
// the scale that fits them best. Everything else is decoded and encoded. A weight or scale that is not
// finite is an error that says where.
func (f Foreign) Repack(t Type, rows, cols int, src, dst []byte) error {
	m, err := NewMatrix(t, rows, cols, dst)
	if err != nil {
		return err
	}
	m.clearPadding(dst)
	return m.RepackRows(0, f, src)
}

// RepackRows is Repack for whole rows of a GGUF tensor, into m from row first
// on.
func (m Matrix) RepackRows(first int, f Foreign, src []byte) error {
	if err := f.Check(); err != nil {
		return err
	}
	size, err := f.RowBytes(m.Cols)
	if err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	rows := len(src) / size
	if first < 0 || rows*size != len(src) || rows > m.Rows-first {
		return fmt.Errorf("repack %d bytes of %v into %d × %d from row %d: want whole rows of %d bytes that fit", len(src), f, m.Rows, m.Cols, first, size)
	}
	var numbers []float32
	move := movers[conversion{f, m.Type}]
	if move == nil {
		numbers = make([]float32, m.Cols)
	}
	if m.Type == Q8_0 && fitters[f] != nil {
		move = func(q, s, src []byte) int { return fitRow(f, q, s, src, numbers) }
	}
	for i := range rows {
		row := src[i*size : (i+1)*size]
		if move == nil {
			decoders[f](numbers, row)
			if err := m.EncodeRows(first+i, numbers); err != nil {
				return err
			}
			continue
		}
		if column := move(m.quantsRow(first+i), m.scalesRow(first+i), row); column >= 0 {
			numbers = make([]float32, m.Cols)
			decoders[f](numbers, row)
			return &NotFiniteError{m.Type, first + i, column, numbers[column]}
		}
	}
	return nil
}

// Interleave writes rows of m, from row first on, as the blocks of
// m.Type.Foreign(): as many rows as dst has room for. q6_0 is rounded to Q8_0 with
// the scale of least error; the others only move.
func (m Matrix) Interleave(first int, dst []byte) error {
	size, err := m.Type.Foreign().RowBytes(m.Cols)
	if err != nil || size == 0 {
		return err
	}
	rows := len(dst) / size
	if first < 0 || rows*size != len(dst) || rows > m.Rows-first {
		return fmt.Errorf("write %d bytes of %v from row %d of %d × %d: want whole rows of %d bytes", len(dst), m.Type, first, m.Rows, m.Cols, size)
	}
	m = m.RowRange(first, rows)
	switch {
	case m.Type == Q6_0:
		return m.widen(first, dst)
	case !m.Type.Quantised():
		copy(dst, m.Quants)
		return nil
	}
	q, s := m.Type.QuantsRowBytes(BlockSize), m.Type.ScalesRowBytes(BlockSize)
	for b := range rows * m.Cols / BlockSize {
		block := dst[b*(q+s):][:q+s]
		copy(block[:s], m.Scales[b*s:])
		copy(block[s:], m.Quants[b*q:])
	}
	return nil
}

// widen writes all of m, q6_0, as Q8_0; first is the number of its first row, for errors.
func (m Matrix) widen(first int, dst []byte) error {
	const block = 34 // bytes of Q8_0: f16 d, 32 int8
	var x [BlockSize]float32
	for r := range m.Rows {
		q, s := m.quantsRow(r), m.scalesRow(r)
		for b := range m.Cols / BlockSize {
			m.block(&x, q, s, b)
			if !fitQ8_0((*[32]byte)(dst[2:]), dst[:2], &x, steps{half(s[4*b:]), half(s[4*b+2:])}) {
				return &NotFiniteError{m.Type, first + r, b*BlockSize + worst(x[:]), x[worst(x[:])]}
			}
			dst = dst[block:]
		}
	}
	return nil
}

type conversion struct {
	from Foreign
	to   Type
}

// A mover turns one row of GGUF blocks into its planes without decoding it. It
// returns the column of a block whose scale is not finite (for floats: of that
// number), else -1.
type mover func(q, s, src []byte) int

var movers = map[conversion]mover{
	{ForeignF32, F32}:   moveF32,
	{ForeignF16, F16}:   moveF16,
	{ForeignBF16, BF16}: moveBF16,
	{ForeignQ4_0, Q4_0}: moveQ4_0,
	{ForeignQ4_1, Q4_1}: moveQ4_1,
	{ForeignQ8_0, Q8_0}: moveQ8_0,
	{ForeignQ4_K, Q4_1}: moveQ4_K,
	{ForeignQ6_K, Q6_0}: moveQ6_K,
	{ForeignQ5_0, Q6_0}: moveQ5_0,
	{ForeignQ3_K, Q6_0}: moveQ3_K,
}

func moveF32(q, _, src []byte) int {
	copy(q, src)
	if allFiniteF32(src) {
		return -1
	}
	for i := 0; ; i += 4 {
		if !allFiniteF32(src[i : i+4]) {
			return i / 4
		}
	}
}

func moveF16(q, _, src []byte) int  { copy(q, src); return firstNotFinite16(src, 0x7c00) }
func moveBF16(q, _, src []byte) int { copy(q, src); return firstNotFinite16(src, 0x7f80) }

func firstNotFinite16(src []byte, exponent uint16) int {
	if allFinite16(src, exponent) {
		return -1
	}
	for i := 0; ; i += 2 {
		if !allFinite16(src[i:i+2], exponent) {
			return i / 2
		}
	}
}

// infiniteF16 tells whether the half at src is infinite or NaN.
func infiniteF16(src []byte) bool { return src[1]&0x7c == 0x7c }

func moveQ4_0(q, s, src []byte) int {
	for i := 0; len(src) >= 18; i++ {
		*(*[2]byte)(s[2*i:]) = [2]byte(src)
		*(*[16]byte)(q[16*i:]) = [16]byte(src[2:])
		if infiniteF16(src) {
			return i * 32
		}
		src = src[18:]
	}
	return -1
}

func moveQ4_1(q, s, src []byte) int {
	for i := 0; len(src) >= 20; i++ {
		*(*[4]byte)(s[4*i:]) = [4]byte(src)
		*(*[16]byte)(q[16*i:]) = [16]byte(src[4:])
		if infiniteF16(src) || infiniteF16(src[2:]) {
			return i * 32
		}
		src = src[20:]
	}
	return -1
}

func moveQ8_0(q, s, src []byte) int {
	for i := 0; len(src) >= 34; i++ {
		*(*[2]byte)(s[2*i:]) = [2]byte(src)
		*(*[32]byte)(q[32*i:]) = [32]byte(src[2:])
		if infiniteF16(src) {
			return i * 32
		}
		src = src[34:]
	}
	return -1
}

// moveQ4_K makes eight q4_1 blocks of each block of 256. The two formats pair
// different numbers in a byte: Q4_K number l of two sub-blocks, q4_1 numbers l
// and l+16 of one.
func moveQ4_K(q, s, src []byte) int {
	const low, high = 0x0f0f0f0f_0f0f0f0f, 0xf0f0f0f0_f0f0f0f0
	for i := 0; len(src) >= 144; i++ {
		d, dmin := half(src), half(src[2:])
		packed := (*[12]byte)(src[4:])
		scales := (*[32]byte)(s[32*i:])
		for j := range 8 {
			scale, least := scaleMin4(packed, j)
			sd, sm := F32ToF16(d*float32(scale)), F32ToF16(-(dmin * float32(least)))
			binary.LittleEndian.PutUint16(scales[4*j:], sd)
			binary.LittleEndian.PutUint16(scales[4*j+2:], sm)
			if sd&0x7c00 == 0x7c00 || sm&0x7c00 == 0x7c00 {
				return i*256 + j*32
			}
		}
		from, to := (*[128]byte)(src[16:]), (*[128]byte)(q[128*i:])
		for j := 0; j < 128; j += 32 {
			for l := j; l < j+16; l += 8 {
				a := binary.LittleEndian.Uint64(from[l:])
				b := binary.LittleEndian.Uint64(from[l+16:])
				binary.LittleEndian.PutUint64(to[l:], a&low|b<<4&high)
				binary.LittleEndian.PutUint64(to[l+16:], a>>4&low|b&high)
			}
		}
		src = src[144:]
	}
	return -1
}

// moveQ6_K makes eight q6_0 blocks of each block of 256. Of each 128 numbers, 32
// lie in the low or high nibbles of 32 bytes, and their high bits in two bits of
// 32 more.
func moveQ6_K(q, s, src []byte) int {
	const low, pair = 0x0f0f0f0f_0f0f0f0f, 0x03030303_03030303
	for i := 0; len(src) >= 210; i++ {
		d, scales := half(src[208:]), (*[16]byte)(src[192:])
		for j := range 16 {
			h := F32ToF16(d * float32(int8(scales[j])))
			binary.LittleEndian.PutUint16(s[32*i+2*j:], h)
			if h&0x7c00 == 0x7c00 {
				return i*256 + j*16
			}
		}
		for b := range 8 {
			from, high, to := (*[32]byte)(src[b/4*64+b%2*32:]), (*[32]byte)(src[128+b/4*32:]), (*[24]byte)(q[24*(8*i+b):])
			shift, highShift := b%4/2*4, b%4*2
			var tops uint64
			for k := range 2 {
				a := binary.LittleEndian.Uint64(from[8*k:]) >> shift & low
				c := binary.LittleEndian.Uint64(from[16+8*k:]) >> shift & low
				binary.LittleEndian.PutUint64(to[8*k:], a|c<<4)
				tops |= binary.LittleEndian.Uint64(high[8*k:]) >> highShift & pair << (2 * k)
				tops |= binary.LittleEndian.Uint64(high[16+8*k:]) >> highShift & pair << (4 + 2*k)
			}
			binary.LittleEndian.PutUint64(to[16:], tops)
		}
		src = src[210:]
	}
	return -1
}

// moveQ5_0: its levels from -16 on are ours from 16 on, so that the nibbles stay
// and the fifth bit chooses between high bits 1 and 2.
func moveQ5_0(q, s, src []byte) int {
	for i := 0; len(src) >= 22; i++ {
		to := (*[24]byte)(q[24*i:])
		copy(s[4*i:], src[:2])
		copy(s[4*i+2:], src[:2])
		copy(to[:16], src[6:22])
		fifth := binary.LittleEndian.Uint32(src[2:])
		for k := range 8 {
			var top byte
			for j := range 4 {
				top |= byte(1+fifth>>(k+8*j)&1) << (2 * j)
			}
			to[16+k] = top
		}
		if infiniteF16(src) {
			return i * 32
		}
		src = src[22:]
	}
	return -1
}

// moveQ3_K: its levels from -4 to 3 are ours from 28 to 35.
func moveQ3_K(q, s, src []byte) int {
	for i := 0; len(src) >= 110; i++ {
		for b := range 8 {
			var levels [BlockSize]byte
			for h := range 2 {
				scale, third := scaleQ3_K(src, 2*b+h)
				f16 := F32ToF16(half(src[108:]) * float32(scale))
				binary.LittleEndian.PutUint16(s[4*(8*i+b)+2*h:], f16)
				if f16&0x7c00 == 0x7c00 {
					return i*256 + b*32 + h*16
				}
				for l, v := range third {
					levels[16*h+l] = byte(v + 32)
				}
			}
			packQ6_0((*[24]byte)(q[24*(8*i+b):]), &levels)
		}
		src = src[110:]
	}
	return -1
}
