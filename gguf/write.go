package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/potluck-llm/potluck/quant"
)

// A Pair is one entry of the metadata. The Go type of Value chooses the type in
// the file, and llama.cpp minds it: uint8 … uint64, int8 … int64, float32,
// float64, bool, string, or a slice of one of those.
type Pair struct {
	Key   string
	Value any
}

// An Info announces a tensor: rows of Shape's last dimension.
type Info struct {
	Name  string
	Type  quant.Foreign
	Shape []int64 // outermost dimension first
}

// A Writer writes a GGUF file of version 3 in one go: first, when it is made,
// the header; then, by Write, the data of the tensors, one after the other in
// the order in which they were announced. It puts the padding between them.
type Writer struct {
	w         io.Writer
	infos     []Info
	sizes     []int64
	alignment int64
	index     int   // the tensor that is being written
	left      int64 // bytes of it to come
	written   int64 // bytes of the file
	skipping  bool  // what is written is there already
}

// NewWriter writes the header. The alignment is that of the pair
// general.alignment (a uint32), or 32.
func NewWriter(w io.Writer, meta []Pair, infos []Info) (*Writer, error) {
	g := &Writer{w: w, infos: infos, alignment: defaultAlignment, index: -1}
	header, err := g.header(meta)
	if err != nil {
		return nil, fmt.Errorf("GGUF header: %w", err)
	}
	if err := g.write(header); err != nil {
		return nil, err
	}
	return g, g.advance()
}

func (g *Writer) header(meta []Pair) ([]byte, error) {
	b := []byte(magic)
	b = binary.LittleEndian.AppendUint32(b, 3)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(g.infos)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(meta)))
	seen := map[string]bool{}
	for _, p := range meta {
		if seen[p.Key] {
			return nil, fmt.Errorf("key %q comes twice", p.Key)
		}
		seen[p.Key] = true
		b = appendString(b, p.Key)
		var err error
		if b, err = appendValue(b, p.Value); err != nil {
			return nil, fmt.Errorf("key %q: %w", p.Key, err)
		}
		if p.Key == alignmentKey {
			n, ok := p.Value.(uint32)
			if !ok || n == 0 || n > maxAlignment || n&(n-1) != 0 {
				return nil, fmt.Errorf("key %s is %v: want a uint32, a power of two of at most %d", p.Key, p.Value, maxAlignment)
			}
			g.alignment = int64(n)
		}
	}
	offset := int64(0)
	clear(seen)
	for _, info := range g.infos {
		size, err := info.size()
		if err == nil && seen[info.Name] {
			err = fmt.Errorf("comes twice")
		}
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", info.Name, err)
		}
		seen[info.Name] = true
		g.sizes = append(g.sizes, size)
		b = appendString(b, info.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(info.Shape)))
		for i := range info.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(info.Shape[len(info.Shape)-1-i]))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(info.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(offset))
		offset += size + g.padding(size)
	}
	return b, nil
}

// size is the tensor's bytes; an error where it cannot be written.
func (i Info) size() (int64, error) {
	if len(i.Name) > 63 {
		return 0, fmt.Errorf("name of %d bytes: ggml reads at most 63", len(i.Name))
	}
	if len(i.Shape) < 1 || len(i.Shape) > maxDimensions {
		return 0, fmt.Errorf("%d dimensions: want 1 to %d", len(i.Shape), maxDimensions)
	}
	numbers := int64(1)
	for _, d := range i.Shape {
		if d < 1 || numbers > math.MaxInt64/8/d {
			return 0, fmt.Errorf("shape %v is impossible", i.Shape)
		}
		numbers *= d
	}
	cols := i.Shape[len(i.Shape)-1]
	row, err := i.Type.RowBytes(int(cols))
	return numbers / cols * int64(row), err
}

func (g *Writer) padding(size int64) int64 { return (g.alignment - size%g.alignment) % g.alignment }

func (g *Writer) write(p []byte) error {
	if g.skipping {
		g.written += int64(len(p))
		return nil
	}
	n, err := g.w.Write(p)
	g.written += int64(n)
	return err
}

// advance pads the file and goes on to the next tensor.
func (g *Writer) advance() error {
	g.index++
	if g.index < len(g.sizes) {
		g.left = g.sizes[g.index]
	}
	return g.write(make([]byte, g.padding(g.written)))
}

// Write adds data of the tensors. It may span several of them.
func (g *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if g.index >= len(g.sizes) {
			return n, fmt.Errorf("GGUF data: %d bytes after the last tensor", len(p))
		}
		now := int(min(int64(len(p)), g.left))
		if err := g.write(p[:now]); err != nil {
			return n, fmt.Errorf("GGUF tensor %q: %w", g.infos[g.index].Name, err)
		}
		n, p, g.left = n+now, p[now:], g.left-int64(now)
		if g.left == 0 {
			if err := g.advance(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Skip goes n bytes of data on without writing them, nor padding after them: a
// file that was begun before has them already. Offset tells where to go on.
func (g *Writer) Skip(n int64) error {
	g.skipping = true
	defer func() { g.skipping = false }()
	for n > 0 {
		if g.index >= len(g.sizes) {
			return fmt.Errorf("GGUF data: %d bytes to skip after the last tensor", n)
		}
		now := min(n, g.left)
		g.written, g.left, n = g.written+now, g.left-now, n-now
		if g.left == 0 {
			if err := g.advance(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Offset is how far the file has come: where its next byte goes.
func (g *Writer) Offset() int64 { return g.written }

// Size is the size that the whole file will have.
func (g *Writer) Size() int64 {
	if g.index >= len(g.sizes) {
		return g.written
	}
	end := g.written + g.left + g.padding(g.sizes[g.index])
	for _, size := range g.sizes[g.index+1:] {
		end += size + g.padding(size)
	}
	return end
}

// Close tells whether all data came. It does not close the underlying writer.
func (g *Writer) Close() error {
	if g.index < len(g.sizes) {
		return fmt.Errorf("GGUF tensor %q: %d of its %d bytes are missing, and %d tensors after it", g.infos[g.index].Name, g.left, g.sizes[g.index], len(g.sizes)-g.index-1)
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// appendValue appends type and value.
func appendValue(b []byte, value any) ([]byte, error) {
	if s, ok := value.(string); ok {
		return appendString(binary.LittleEndian.AppendUint32(b, typeString), s), nil
	}
	if list, ok := value.([]string); ok {
		b = appendListHead(b, typeString, len(list))
		for _, s := range list {
			b = appendString(b, s)
		}
		return b, nil
	}
	// Fixed-size values and slices of them: what encoding/binary writes.
	kind, length := fixedType(value)
	if kind < 0 {
		return nil, fmt.Errorf("value of type %T cannot be written", value)
	}
	if length < 0 {
		b = binary.LittleEndian.AppendUint32(b, uint32(kind))
	} else {
		b = appendListHead(b, kind, length)
	}
	buffer := bytes.NewBuffer(b)
	if err := binary.Write(buffer, binary.LittleEndian, value); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

func appendListHead(b []byte, kind, length int) []byte {
	b = binary.LittleEndian.AppendUint32(b, typeArray)
	b = binary.LittleEndian.AppendUint32(b, uint32(kind))
	return binary.LittleEndian.AppendUint64(b, uint64(length))
}

// fixedType returns the value type of v, or of its elements, and the number of
// those, -1 where v is no slice. An unknown type is -1.
func fixedType(v any) (kind, length int) {
	switch v := v.(type) {
	case uint8:
		return typeUint8, -1
	case int8:
		return typeInt8, -1
	case uint16:
		return typeUint16, -1
	case int16:
		return typeInt16, -1
	case uint32:
		return typeUint32, -1
	case int32:
		return typeInt32, -1
	case uint64:
		return typeUint64, -1
	case int64:
		return typeInt64, -1
	case float32:
		return typeFloat32, -1
	case float64:
		return typeFloat64, -1
	case bool:
		return typeBool, -1
	case []uint8:
		return typeUint8, len(v)
	case []int8:
		return typeInt8, len(v)
	case []uint16:
		return typeUint16, len(v)
	case []int16:
		return typeInt16, len(v)
	case []uint32:
		return typeUint32, len(v)
	case []int32:
		return typeInt32, len(v)
	case []uint64:
		return typeUint64, len(v)
	case []int64:
		return typeInt64, len(v)
	case []float32:
		return typeFloat32, len(v)
	case []float64:
		return typeFloat64, len(v)
	case []bool:
		return typeBool, len(v)
	}
	return -1, -1
}
