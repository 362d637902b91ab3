package quant

import "fmt"

// Foreign is an element type as GGUF files number them (ggml's enum). Their
// quantised types are interleaved: each block holds its scales and its quants.
type Foreign uint32

// The element types that GGUF files hold. Those that decode have a row in
// decoders; the others are known by name and size only.
const (
	ForeignF32     Foreign = 0
	ForeignF16     Foreign = 1
	ForeignQ4_0    Foreign = 2
	ForeignQ4_1    Foreign = 3
	ForeignQ5_0    Foreign = 6
	ForeignQ5_1    Foreign = 7
	ForeignQ8_0    Foreign = 8
	ForeignQ8_1    Foreign = 9
	ForeignQ2_K    Foreign = 10
	ForeignQ3_K    Foreign = 11
	ForeignQ4_K    Foreign = 12
	ForeignQ5_K    Foreign = 13
	ForeignQ6_K    Foreign = 14
	ForeignQ8_K    Foreign = 15
	ForeignIQ2_XXS Foreign = 16
	ForeignIQ2_XS  Foreign = 17
	ForeignIQ3_XXS Foreign = 18
	ForeignIQ1_S   Foreign = 19
	ForeignIQ4_NL  Foreign = 20
	ForeignIQ3_S   Foreign = 21
	ForeignIQ2_S   Foreign = 22
	ForeignIQ4_XS  Foreign = 23
	ForeignI8      Foreign = 24
	ForeignI16     Foreign = 25
	ForeignI32     Foreign = 26
	ForeignI64     Foreign = 27
	ForeignF64     Foreign = 28
	ForeignIQ1_M   Foreign = 29
	ForeignBF16    Foreign = 30
	ForeignTQ1_0   Foreign = 34
	ForeignTQ2_0   Foreign = 35
	ForeignMXFP4   Foreign = 39
	ForeignNVFP4   Foreign = 40
	ForeignQ1_0    Foreign = 41
)

type foreignInfo struct {
	name              string
	numbers, byteSize int // of one block
}

var foreignInfos = map[Foreign]foreignInfo{
	ForeignF32:     {"F32", 1, 4},
	ForeignF16:     {"F16", 1, 2},
	ForeignQ4_0:    {"Q4_0", 32, 18},
	ForeignQ4_1:    {"Q4_1", 32, 20},
	ForeignQ5_0:    {"Q5_0", 32, 22},
	ForeignQ5_1:    {"Q5_1", 32, 24},
	ForeignQ8_0:    {"Q8_0", 32, 34},
	ForeignQ8_1:    {"Q8_1", 32, 36},
	ForeignQ2_K:    {"Q2_K", 256, 84},
	ForeignQ3_K:    {"Q3_K", 256, 110},
	ForeignQ4_K:    {"Q4_K", 256, 144},
	ForeignQ5_K:    {"Q5_K", 256, 176},
	ForeignQ6_K:    {"Q6_K", 256, 210},
	ForeignQ8_K:    {"Q8_K", 256, 292},
	ForeignIQ2_XXS: {"IQ2_XXS", 256, 66},
	ForeignIQ2_XS:  {"IQ2_XS", 256, 74},
	ForeignIQ3_XXS: {"IQ3_XXS", 256, 98},
	ForeignIQ1_S:   {"IQ1_S", 256, 50},
	ForeignIQ4_NL:  {"IQ4_NL", 32, 18},
	ForeignIQ3_S:   {"IQ3_S", 256, 110},
	ForeignIQ2_S:   {"IQ2_S", 256, 82},
	ForeignIQ4_XS:  {"IQ4_XS", 256, 136},
	ForeignI8:      {"I8", 1, 1},
	ForeignI16:     {"I16", 1, 2},
	ForeignI32:     {"I32", 1, 4},
	ForeignI64:     {"I64", 1, 8},
	ForeignF64:     {"F64", 1, 8},
	ForeignIQ1_M:   {"IQ1_M", 256, 56},
	ForeignBF16:    {"BF16", 1, 2},
	ForeignTQ1_0:   {"TQ1_0", 256, 54},
	ForeignTQ2_0:   {"TQ2_0", 256, 66},
	ForeignMXFP4:   {"MXFP4", 32, 17},
	ForeignNVFP4:   {"NVFP4", 64, 36},
	ForeignQ1_0:    {"Q1_0", 128, 18},
}

// String returns the name that GGUF tools print ("Q4_K").
func (f Foreign) String() string {
	if info, ok := foreignInfos[f]; ok {
		return info.name
	}
	return fmt.Sprintf("type %d", uint32(f))
}

// Known tells whether the type's block size is known, so that its tensors can
// at least be found in a file.
func (f Foreign) Known() bool { _, ok := foreignInfos[f]; return ok }

// Check returns nil if the type can be decoded, else an error that names it.
func (f Foreign) Check() error {
	switch {
	case !f.Known():
		return fmt.Errorf("element %v is unknown: the file is newer than this program, or damaged", f)
	case decoders[f] == nil:
		return fmt.Errorf("element type %v is not supported: use a file of F32, F16, BF16, Q4_0 … Q8_0, Q2_K … Q6_K, IQ4_NL, IQ4_XS or MXFP4", f)
	}
	return nil
}

// Block returns how many numbers and how many bytes a block has; 0, 0 for an
// unknown type.
func (f Foreign) Block() (numbers, bytes int) {
	info := foreignInfos[f]
	return info.numbers, info.byteSize
}

// RowBytes is the size of a row of cols numbers. A row is whole blocks: of
// others, and of unknown types, it is an error that says so.
func (f Foreign) RowBytes(cols int) (int, error) {
	info, ok := foreignInfos[f]
	switch {
	case !ok:
		return 0, f.Check()
	case cols < 0 || cols%info.numbers != 0:
		return 0, fmt.Errorf("row of %d numbers: %v has blocks of %d", cols, f, info.numbers)
	}
	return cols / info.numbers * info.byteSize, nil
}

// Native returns the native type that holds f's numbers best: the same for
// floats and for Q4_0, Q4_1 and Q8_0, q4_1 for Q4_K and q6_0 for Q6_K, Q5_0 and
// Q3_K (their forms but for the nesting of scales), q8_0 for all other blocks. False: f cannot be decoded.
func (f Foreign) Native() (Type, bool) {
	if decoders[f] == nil {
		return 0, false
	}
	switch f {
	case ForeignF32:
		return F32, true
	case ForeignF16:
		return F16, true
	case ForeignBF16:
		return BF16, true
	case ForeignQ4_0:
		return Q4_0, true
	case ForeignQ4_1, ForeignQ4_K:
		return Q4_1, true
	case ForeignQ6_K, ForeignQ5_0, ForeignQ3_K:
		return Q6_0, true
	default:
		return Q8_0, true
	}
}

// Foreign returns the GGUF type that has t's numbers, for q6_0 the next wider one
// that rows of any number of blocks can have: Interleave writes it.
func (t Type) Foreign() Foreign {
	switch t {
	case F16:
		return ForeignF16
	case BF16:
		return ForeignBF16
	case Q8_0, Q6_0:
		return ForeignQ8_0
	case Q4_1:
		return ForeignQ4_1
	case Q4_0:
		return ForeignQ4_0
	default:
		return ForeignF32
	}
}

// Decode reads len(dst) numbers from src, which must be exactly their blocks.
func (f Foreign) Decode(dst []float32, src []byte) error {
	if err := f.Check(); err != nil {
		return err
	}
	size, err := f.RowBytes(len(dst))
	if err != nil {
		return err
	}
	if len(src) != size {
		return fmt.Errorf("decode %d numbers of %v: got %d bytes, want %d", len(dst), f, len(src), size)
	}
	decoders[f](dst, src)
	return nil
}

// Encode writes src to dst, which must have exactly the size of its blocks, for
// the types with a native counterpart: F32, F16, BF16, Q4_0, Q4_1, Q8_0. Like
// the function Encode it refuses what is not finite.
func (f Foreign) Encode(dst []byte, src []float32) error {
	t, ok := f.Native()
	if !ok || t.Foreign() != f {
		return fmt.Errorf("element type %v is not written: use F32, F16, BF16, Q4_0, Q4_1 or Q8_0", f)
	}
	size, err := f.RowBytes(len(src))
	if err != nil {
		return err
	}
	if len(dst) != size {
		return fmt.Errorf("encode %d numbers as %v: got %d bytes, want %d", len(src), f, len(dst), size)
	}
	planar := make([]byte, t.Bytes(1, len(src)))
	m, err := NewMatrix(t, 1, len(src), planar)
	if err != nil {
		return err
	}
	if err := m.EncodeRows(0, src); err != nil {
		return err
	}
	return m.Interleave(0, dst)
}
