// Package safetensors reads and writes Hugging Face's tensor files.
//
// A file, or a folder with the parts of a checkpoint, comes in; the place and
// shape of every tensor, and ranges of its bytes, go out. Everything that the
// header says is checked when a file is opened, so that whoever reads a tensor
// can rely on its place. What the tensors mean is left to package model, and
// number formats to package quant.
//
// A file is: the header's length (uint64, little endian), the header (JSON:
// name → dtype, shape, data_offsets), then the data, which the tensors cover
// without gap or overlap.
package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/potluck-llm/potluck/quant"
)

// MaxHeader is the longest header that is read, the limit of the format's own
// library too.
const MaxHeader = 100_000_000

// A File is an open safetensors file. Its methods may be called by several
// goroutines at once.
type File struct {
	Metadata map[string]string // the header's __metadata__

	name    string
	r       io.ReaderAt
	close   func() error
	tensors map[string]Tensor
	order   []string // by offset
}

// A Tensor is where one tensor lies.
type Tensor struct {
	Name   string
	DType  string // "F32", "BF16", "I64" …
	Shape  []int64
	Offset int64 // in the file
	Bytes  int64
}

// dtypeBytes is the size of an element. Types of less than a byte are missing
// on purpose: no checkpoint that is read here has them.
var dtypeBytes = map[string]int64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8, "C64": 8,
}

// Open opens a file. The caller closes it.
func Open(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := r.Stat()
	if err != nil {
		r.Close()
		return nil, err
	}
	f, err := New(r, info.Size(), path)
	if err != nil {
		r.Close()
		return nil, err
	}
	f.close = r.Close
	return f, nil
}

// New reads the header of a file of size bytes. name is what errors call it.
// Closing r remains the caller's affair.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	header, err := readHeader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := &File{name: name, r: r}
	if f.tensors, f.Metadata, err = parseHeader(header); err != nil {
		return nil, fmt.Errorf("%s: header: %w", name, err)
	}
	if err := f.place(8+int64(len(header)), size); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	if size < 8 {
		return nil, fmt.Errorf("%d bytes: too short for a safetensors file", size)
	}
	var length [8]byte
	if err := readFull(r, length[:], 0); err != nil {
		return nil, fmt.Errorf("header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n > MaxHeader:
		return nil, fmt.Errorf("header length %d at byte 0: want at most %d; is this a safetensors file?", n, MaxHeader)
	case n > uint64(size-8):
		return nil, fmt.Errorf("header length %d at byte 0: the file has %d bytes; was it cut off?", n, size)
	}
	header := make([]byte, n)
	if err := readFull(r, header, 8); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return header, nil
}

// place turns the offsets in the data into offsets in the file, after checking
// that the tensors cover the data exactly.
func (f *File) place(dataStart, size int64) error {
	for name := range f.tensors {
		f.order = append(f.order, name)
	}
	slices.SortFunc(f.order, func(a, b string) int {
		ta, tb := f.tensors[a], f.tensors[b]
		if ta.Offset != tb.Offset {
			return compare(ta.Offset, tb.Offset)
		}
		if ta.Bytes != tb.Bytes { // an empty tensor before what begins where it ends
			return compare(ta.Bytes, tb.Bytes)
		}
		return strings.Compare(a, b)
	})
	end := int64(0)
	before := "the header"
	for _, name := range f.order {
		t := f.tensors[name]
		switch {
		case t.Offset < end:
			return fmt.Errorf("tensor %q: begins at byte %d of the data, inside %q that ends at %d", name, t.Offset, before, end)
		case t.Offset > end:
			return fmt.Errorf("tensor %q: begins at byte %d of the data, %q before it ends at %d: a gap", name, t.Offset, before, end)
		case t.Bytes > size-dataStart-end:
			return fmt.Errorf("tensor %q: bytes %d to %d of the data, the file holds %d; was it cut off?", name, t.Offset, t.Offset+t.Bytes, size-dataStart)
		}
		end, before = end+t.Bytes, name
		t.Offset += dataStart
		f.tensors[name] = t
	}
	if dataStart+end != size {
		return fmt.Errorf("tensors end at byte %d, the file has %d", dataStart+end, size)
	}
	return nil
}

func compare(a, b int64) int {
	if a < b {
		return -1
	}
	return 1
}

// Name is what errors call the file.
func (f *File) Name() string { return f.name }

// Names lists the tensors in the order in which they lie in the file.
func (f *File) Names() []string { return slices.Clone(f.order) }

// Tensor finds a tensor.
func (f *File) Tensor(name string) (Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// ReadAt fills buf with the bytes of t from byte offset on.
func (f *File) ReadAt(t Tensor, offset int64, buf []byte) error {
	if offset < 0 || int64(len(buf)) > t.Bytes-offset {
		return fmt.Errorf("%s: tensor %q: bytes %d to %d of %d", f.name, t.Name, offset, offset+int64(len(buf)), t.Bytes)
	}
	if err := readFull(f.r, buf, t.Offset+offset); err != nil {
		return fmt.Errorf("%s: tensor %q: at byte %d: %w", f.name, t.Name, t.Offset+offset, err)
	}
	return nil
}

// ReadRows fills buf with the bytes of whole rows of t, from row first on. A
// row is what the last dimension spans.
func (f *File) ReadRows(t Tensor, first int, buf []byte) error {
	_, cols := t.Matrix()
	return f.ReadAt(t, int64(first)*int64(cols)*dtypeBytes[t.DType], buf)
}

// Floats reads a whole tensor of F32, F16 or BF16.
func (f *File) Floats(name string) ([]float32, error) {
	t, ok := f.tensors[name]
	if !ok {
		return nil, fmt.Errorf("%s: tensor %q is missing", f.name, name)
	}
	element, err := t.Element()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	data := make([]byte, t.Bytes)
	if err := f.ReadAt(t, 0, data); err != nil {
		return nil, err
	}
	numbers := make([]float32, t.Bytes/dtypeBytes[t.DType])
	if err := element.Decode(numbers, data); err != nil {
		return nil, fmt.Errorf("%s: tensor %q: %w", f.name, name, err)
	}
	return numbers, nil
}

// Close closes a file that Open opened.
func (f *File) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

// Matrix is t's shape as rows of the last dimension; a vector is one row.
func (t Tensor) Matrix() (rows, cols int) {
	rows, cols = 1, 1
	for i, n := range t.Shape {
		if i == len(t.Shape)-1 {
			cols = int(n)
		} else {
			rows *= int(n)
		}
	}
	return rows, cols
}

// Element is the type of t's numbers, an error for those that are no weights.
func (t Tensor) Element() (quant.Foreign, error) {
	switch t.DType {
	case "F32":
		return quant.ForeignF32, nil
	case "F16":
		return quant.ForeignF16, nil
	case "BF16":
		return quant.ForeignBF16, nil
	}
	return 0, fmt.Errorf("tensor %q: dtype %s is not supported for weights: want F32, F16 or BF16", t.Name, t.DType)
}

// readFull fills buf; a short read is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, buf []byte, offset int64) error {
	n, err := r.ReadAt(buf, offset)
	switch {
	case n == len(buf):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
