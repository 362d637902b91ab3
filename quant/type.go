// Package quant holds the element types of weights: how a row of numbers is
// encoded, decoded and multiplied.
//
// It takes float32 rows and gives bytes, or bytes and gives float32 rows and
// dot products. Where tensors lie in files and how they travel is left to
// packages gguf, safetensors and shard; which tensors a model has, to package
// model.
//
// Seven types are native: they are what a shard store holds and what kernels
// read. All others (the block types of GGUF files) are only decoded.
//
// # Planar layout
//
// Quantised matrices are stored planar, not as interleaved blocks: for a range
// of rows first all quants, row after row, then all scales, row after row, each
// plane padded with zeros to a multiple of 16 bytes. A block is 32 consecutive
// numbers of one row.
//
//	type   quants plane                          scales plane
//	q4_0   16 B a block: byte i holds element i   2 B a block: f16 d
//	       in the low, i+16 in the high nibble    value = d*(q-8)
//	q4_1   as q4_0                                4 B a block: f16 d, f16 m
//	                                              value = d*q + m
//	q6_0   24 B a block: 16 as q4_0, then byte i  4 B a block: f16 d of elements
//	       holds the two high bits of elements    0..15, f16 d of 16..31
//	       i, i+8, i+16 and i+24, lowest first    value = d*(q-32)
//	q8_0   32 B a block: int8                     2 B a block: f16 d
//	                                              value = d*q
//	f16, bf16, f32: the numbers, little endian; no scales plane
//
// The nibble order is GGUF's, so converting from it moves bytes and never
// rounds. q6_0 holds what GGUF's Q6_K, Q5_0 and Q3_K hold, which have a scale for
// 16 or 32 numbers: their quants are whole, and only the product of nested scales
// is rounded.
package quant

import "fmt"

// BlockSize is how many consecutive numbers of a row share one scale.
const BlockSize = 32

// Align is the alignment of a plane in bytes: what a vec4<u32> load needs.
const Align = 16

// Type is a native element type. The zero value is invalid.
type Type uint8

// The native element types. The numbers appear in files; never reuse one.
const (
	F32  Type = 1
	F16  Type = 2
	BF16 Type = 3
	Q8_0 Type = 4
	Q4_1 Type = 5
	Q4_0 Type = 6
	Q6_0 Type = 7
)

type typeInfo struct {
	name                    string
	quantsBytes, scaleBytes int // bytes a block of BlockSize numbers has in each plane
}

var typeInfos = map[Type]typeInfo{
	F32:  {"f32", 4 * BlockSize, 0},
	F16:  {"f16", 2 * BlockSize, 0},
	BF16: {"bf16", 2 * BlockSize, 0},
	Q8_0: {"q8_0", 32, 2},
	Q6_0: {"q6_0", 24, 4},
	Q4_1: {"q4_1", 16, 4},
	Q4_0: {"q4_0", 16, 2},
}

// Types lists the native types from widest to narrowest.
func Types() []Type { return []Type{F32, F16, BF16, Q8_0, Q6_0, Q4_1, Q4_0} }

// Common returns the type that holds numbers of both best: the wider one, or q8_0
// where neither's levels are among the other's. The zero Type has none.
func Common(a, b Type) Type {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	wide := func(t Type) int { return t.QuantsRowBytes(BlockSize) + t.ScalesRowBytes(BlockSize) }
	if wide(a) < wide(b) {
		a, b = b, a
	}
	if a == Q6_0 && b != Q6_0 {
		return Q8_0
	}
	return a
}

// ParseType returns the type of that name ("q4_0").
func ParseType(name string) (Type, error) {
	for t, info := range typeInfos {
		if info.name == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("element type %q is unknown: f32, f16, bf16, q8_0, q6_0, q4_1 or q4_0", name)
}

// String returns the type's name as files and flags spell it.
func (t Type) String() string {
	if info, ok := typeInfos[t]; ok {
		return info.name
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// Valid tells whether t is one of the native types.
func (t Type) Valid() bool { _, ok := typeInfos[t]; return ok }

// Quantised tells whether the type has blocks with scales.
func (t Type) Quantised() bool { return typeInfos[t].scaleBytes > 0 }

// Fits tells whether rows of cols numbers can have this type: quantised rows
// are whole blocks.
func (t Type) Fits(cols int) bool { return !t.Quantised() || cols%BlockSize == 0 }

// QuantsRowBytes is how many bytes a row of cols numbers has in the quants plane.
func (t Type) QuantsRowBytes(cols int) int { return cols * typeInfos[t].quantsBytes / BlockSize }

// ScalesRowBytes is how many bytes a row of cols numbers has in the scales plane.
func (t Type) ScalesRowBytes(cols int) int { return cols / BlockSize * typeInfos[t].scaleBytes }

// ScalesOffset is where the scales plane of rows × cols begins: after the
// padded quants plane.
func (t Type) ScalesOffset(rows, cols int) int64 {
	return alignUp(int64(rows) * int64(t.QuantsRowBytes(cols)))
}

// Bytes is the size of rows × cols numbers, both planes padded.
func (t Type) Bytes(rows, cols int) int64 {
	return t.ScalesOffset(rows, cols) + alignUp(int64(rows)*int64(t.ScalesRowBytes(cols)))
}

func alignUp(n int64) int64 { return (n + Align - 1) / Align * Align }

// A Matrix is rows × cols weights of one type in the planar layout. It does not
// own its memory: the planes are views of a piece (or of a mapped file).
type Matrix struct {
	Type       Type
	Rows, Cols int
	Quants     []byte // rows × QuantsRowBytes(cols)
	Scales     []byte // rows × ScalesRowBytes(cols); empty for floats
}

// NewMatrix views data as a matrix. data must hold at least Type.Bytes(rows, cols).
func NewMatrix(t Type, rows, cols int, data []byte) (Matrix, error) {
	switch {
	case !t.Valid():
		return Matrix{}, fmt.Errorf("matrix of %v: no such element type", t)
	case rows < 0 || cols < 0 || int64(rows) > 1<<31 || int64(cols) > 1<<31:
		return Matrix{}, fmt.Errorf("matrix of %d × %d: absurd shape", rows, cols)
	case !t.Fits(cols):
		return Matrix{}, fmt.Errorf("%v matrix of %d columns: want a multiple of %d", t, cols, BlockSize)
	case int64(len(data)) < t.Bytes(rows, cols):
		return Matrix{}, fmt.Errorf("%v matrix of %d × %d: got %d bytes, want %d", t, rows, cols, len(data), t.Bytes(rows, cols))
	}
	q := int64(rows) * int64(t.QuantsRowBytes(cols))
	s := t.ScalesOffset(rows, cols)
	return Matrix{t, rows, cols, data[:q], data[s : s+int64(rows)*int64(t.ScalesRowBytes(cols))]}, nil
}

// RowRange views rows first..first+rows-1 of m.
func (m Matrix) RowRange(first, rows int) Matrix {
	q, s := m.Type.QuantsRowBytes(m.Cols), m.Type.ScalesRowBytes(m.Cols)
	return Matrix{m.Type, rows, m.Cols, m.Quants[first*q : (first+rows)*q], m.Scales[first*s : (first+rows)*s]}
}

// MarshalText is the type's name: its form in JSON and in flags.
func (t Type) MarshalText() ([]byte, error) {
	if !t.Valid() {
		return nil, fmt.Errorf("%v has no name", t)
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads a type's name.
func (t *Type) UnmarshalText(text []byte) (err error) {
	*t, err = ParseType(string(text))
	return err
}
