package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/potluck-llm/potluck/quant"
)

// The value types of the metadata.
const (
	typeUint8   = 0
	typeInt8    = 1
	typeUint16  = 2
	typeInt16   = 3
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
	typeString  = 8
	typeArray   = 9
	typeUint64  = 10
	typeInt64   = 11
	typeFloat64 = 12
)

// valueBytes is the least number of bytes that a value of each type takes.
var valueBytes = [13]int64{
	typeUint8: 1, typeInt8: 1, typeBool: 1, typeUint16: 2, typeInt16: 2,
	typeUint32: 4, typeInt32: 4, typeFloat32: 4, typeUint64: 8, typeInt64: 8, typeFloat64: 8,
	typeString: 8, typeArray: 12,
}

const (
	maxKey        = 1<<16 - 1
	maxTensorName = 1 << 10
	maxDimensions = 4 // ggml's
	maxDepth      = 4 // of lists in lists

	// The least that a pair takes: an empty key, its type, a byte. And a tensor:
	// an empty name, one dimension, type, offset.
	leastPair, leastTensor = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8
)

// A header reads a file's header from its start. Every count is checked against
// the bytes that are left before anything is allocated for it, so that a file
// cannot ask for more than a small multiple of its own header. The first error
// stays; after it all reads give zero.
type header struct {
	r      *bufio.Reader
	offset int64 // of the next byte in the file
	limit  int64 // min(size of the file, MaxHeader)
	size   int64
	err    error
	number [8]byte // the bytes of the number that is being read
}

// read reads one file.
func read(r io.ReaderAt, size int64, name string) (*File, error) {
	limit := min(size, MaxHeader)
	h := &header{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, limit), 1<<16), limit: limit, size: size}
	f := &File{Meta: map[string]any{}, parts: []part{{name, r, size}}}
	alignment := h.file(f)
	if h.err != nil {
		return nil, fmt.Errorf("%s: %w", name, h.err)
	}
	dataStart := (h.offset + alignment - 1) / alignment * alignment
	if err := f.place(dataStart, alignment); err != nil {
		return nil, err
	}
	return f, nil
}

func (h *header) fail(format string, args ...any) {
	if h.err == nil {
		h.err = fmt.Errorf(format, args...)
	}
}

// file reads the whole header into f and returns the alignment of the data.
func (h *header) file(f *File) (alignment int64) {
	var start [4]byte
	h.bytes(start[:])
	if h.err == nil && string(start[:]) != magic {
		h.fail("begins with %q, not with %q: not a GGUF file", start, magic)
	}
	version := h.uint32()
	switch {
	case h.err != nil:
	case version == 2 || version == 3:
		f.Version = int(version)
	case version == 2<<24 || version == 3<<24:
		h.fail("big-endian GGUF file: convert it to little-endian")
	default:
		h.fail("GGUF version %d: want 2 or 3", version)
	}
	tensors := h.count("tensors", leastTensor)
	pairs := h.count("key-value pairs", leastPair)
	for i := int64(0); i < pairs && h.err == nil; i++ {
		h.pair(f, i)
	}
	alignment = h.alignment(f)
	if h.err != nil {
		return alignment
	}
	// Pairs took their share of what was left when the count was checked.
	if tensors > (h.limit-h.offset)/leastTensor {
		h.tooMany("tensors", uint64(tensors))
		return alignment
	}
	f.Tensors = make([]Tensor, 0, tensors)
	seen := make(map[string]bool, tensors)
	for i := int64(0); i < tensors && h.err == nil; i++ {
		t := h.tensor(i)
		if h.err == nil && seen[t.Name] {
			h.fail("tensor %q comes twice, again before byte %d", t.Name, h.offset)
		}
		seen[t.Name] = true
		f.Tensors = append(f.Tensors, t)
	}
	return alignment
}

func (h *header) pair(f *File, i int64) {
	at := h.offset
	key := h.string("key", maxKey)
	if h.err != nil {
		return
	}
	if _, twice := f.Meta[key]; twice {
		h.fail("key %.200q comes twice, again at byte %d", key, at)
		return
	}
	value := h.value(h.uint32(), maxDepth)
	if h.err != nil {
		h.err = fmt.Errorf("key %.200q (number %d, at byte %d): %w", key, i, at, h.err)
		return
	}
	f.Keys = append(f.Keys, key)
	f.Meta[key] = value
}

func (h *header) alignment(f *File) int64 {
	value, ok := f.Meta[alignmentKey]
	if h.err != nil || !ok {
		return defaultAlignment
	}
	n, _ := value.(uint64)
	if n == 0 || n > maxAlignment || n&(n-1) != 0 {
		h.fail("key %s is %v: want a power of two of at most %d", alignmentKey, value, maxAlignment)
		return defaultAlignment
	}
	return int64(n)
}

func (h *header) value(kind uint32, depth int) any {
	switch kind {
	case typeUint8:
		return uint64(h.uint8())
	case typeInt8:
		return int64(int8(h.uint8()))
	case typeUint16:
		return uint64(h.uint16())
	case typeInt16:
		return int64(int16(h.uint16()))
	case typeUint32:
		return uint64(h.uint32())
	case typeInt32:
		return int64(int32(h.uint32()))
	case typeUint64:
		return h.uint64()
	case typeInt64:
		return int64(h.uint64())
	case typeFloat32:
		return float64(math.Float32frombits(h.uint32()))
	case typeFloat64:
		return math.Float64frombits(h.uint64())
	case typeBool:
		return h.bool()
	case typeString:
		return h.string("string", h.limit)
	case typeArray:
		return h.array(depth)
	}
	h.fail("value type %d before byte %d is unknown", kind, h.offset)
	return nil
}

func (h *header) bool() bool {
	b := h.uint8()
	if b > 1 {
		h.fail("bool is %d before byte %d: want 0 or 1", b, h.offset)
	}
	return b == 1
}

func (h *header) array(depth int) any {
	kind := h.uint32()
	if h.err == nil && kind >= uint32(len(valueBytes)) {
		h.fail("list of value type %d before byte %d: unknown", kind, h.offset)
	}
	if h.err == nil && kind == typeArray && depth <= 1 {
		h.fail("lists in lists more than %d deep at byte %d", maxDepth, h.offset)
	}
	if h.err != nil {
		return nil
	}
	n := h.count("list elements", valueBytes[kind])
	switch kind {
	case typeString:
		return list(h, n, func() string { return h.string("string", h.limit) })
	case typeBool:
		return list(h, n, h.bool)
	case typeFloat32:
		return list(h, n, func() float64 { return float64(math.Float32frombits(h.uint32())) })
	case typeFloat64:
		return list(h, n, func() float64 { return math.Float64frombits(h.uint64()) })
	case typeArray:
		return list(h, n, func() any { return h.array(depth - 1) })
	case typeUint64:
		return list(h, n, func() int64 {
			v := h.uint64()
			if v > math.MaxInt64 {
				h.fail("list element %d before byte %d is beyond 63 bits", v, h.offset)
			}
			return int64(v)
		})
	}
	return list(h, n, func() int64 {
		switch v := h.value(kind, depth).(type) {
		case uint64:
			return int64(v)
		case int64:
			return v
		}
		return 0
	})
}

func list[T any](h *header, n int64, element func() T) []T {
	values := make([]T, 0, n)
	for i := int64(0); i < n && h.err == nil; i++ {
		values = append(values, element())
	}
	return values
}

func (h *header) tensor(i int64) Tensor {
	at := h.offset
	t := Tensor{Name: h.string("tensor name", maxTensorName)}
	h.shape(&t)
	t.Type = quant.Foreign(h.uint32())
	offset := h.uint64()
	if h.err == nil {
		h.sizeOf(&t)
	}
	if h.err == nil && offset > math.MaxInt64/2 {
		h.fail("offset %d is beyond any file", offset)
	}
	t.Offset = int64(offset & math.MaxInt64)
	if h.err != nil {
		h.err = fmt.Errorf("tensor %.200q (number %d, at byte %d): %w", t.Name, i, at, h.err)
	}
	return t
}

// shape reads the dimensions and turns them round.
func (h *header) shape(t *Tensor) {
	n := h.uint32()
	if h.err == nil && (n < 1 || n > maxDimensions) {
		h.fail("%d dimensions: want 1 to %d", n, maxDimensions)
	}
	if h.err != nil {
		return
	}
	t.Shape = make([]int64, n)
	for i := range t.Shape {
		d := h.uint64()
		if h.err == nil && (d < 1 || d > math.MaxInt64) {
			h.fail("dimension %d is %d: want a number from 1 on", i, d)
		}
		t.Shape[len(t.Shape)-1-i] = int64(d)
	}
}

// sizeOf computes the tensor's bytes from type and shape.
func (h *header) sizeOf(t *Tensor) {
	if !t.Type.Known() {
		h.err = t.Type.Check()
		return
	}
	numbers := int64(1)
	for _, d := range t.Shape {
		if numbers > math.MaxInt64/8/d { // no type has more than 8 bytes a number
			h.fail("shape %v is larger than any file", t.Shape)
			return
		}
		numbers *= d
	}
	blockNumbers, blockBytes := t.Type.Block()
	if cols := t.Shape[len(t.Shape)-1]; cols%int64(blockNumbers) != 0 {
		h.fail("rows of %d numbers: %v has blocks of %d", cols, t.Type, blockNumbers)
		return
	}
	t.Bytes = numbers / int64(blockNumbers) * int64(blockBytes)
}

// count reads a number of things that take at least that many bytes each.
func (h *header) count(of string, least int64) int64 {
	n := h.uint64()
	if h.err == nil && n > uint64((h.limit-h.offset)/least) {
		h.tooMany(of, n)
	}
	if h.err != nil {
		return 0
	}
	return int64(n)
}

func (h *header) tooMany(of string, n uint64) {
	if h.limit < h.size {
		h.fail("%d %s before byte %d: want a header of at most %d bytes", n, of, h.offset, h.limit)
		return
	}
	h.fail("%d %s before byte %d, the file has %d bytes; was it cut off?", n, of, h.offset, h.size)
}

func (h *header) string(what string, limit int64) string {
	at := h.offset
	n := h.uint64()
	if h.err == nil && n > uint64(limit) {
		h.fail("%s of %d bytes at byte %d: want at most %d", what, n, at, limit)
	}
	if h.err == nil && n > uint64(h.limit-h.offset) {
		h.tooMany("bytes of a "+what, n)
	}
	if h.err != nil {
		return ""
	}
	text := make([]byte, n)
	h.bytes(text)
	return string(text)
}

func (h *header) uint8() uint8 {
	b := h.number[:1]
	h.bytes(b)
	return b[0]
}

func (h *header) uint16() uint16 {
	b := h.number[:2]
	h.bytes(b)
	return binary.LittleEndian.Uint16(b)
}

func (h *header) uint32() uint32 {
	b := h.number[:4]
	h.bytes(b)
	return binary.LittleEndian.Uint32(b)
}

func (h *header) uint64() uint64 {
	b := h.number[:8]
	h.bytes(b)
	return binary.LittleEndian.Uint64(b)
}

// bytes fills b, with zeros after an error.
func (h *header) bytes(b []byte) {
	if h.err != nil {
		clear(b)
		return
	}
	n, err := io.ReadFull(h.r, b)
	h.offset += int64(n)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		h.fail("at byte %d: %w", h.offset, err)
	case h.limit < h.size:
		h.fail("the header goes on at byte %d: want at most %d", h.offset, h.limit)
	default:
		h.fail("the file ends at byte %d, inside its header: %w", h.offset, io.ErrUnexpectedEOF)
	}
	if err != nil {
		clear(b)
	}
}
