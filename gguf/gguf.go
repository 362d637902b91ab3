// Package gguf reads and writes GGUF files, the format of llama.cpp.
//
// A file, or the first of a split one, comes in; its metadata, the place and
// shape of every tensor, and ranges of their bytes go out. All that the header
// says is checked when a file is opened. What keys and tensors mean is left to
// package model, decoding of blocks to package quant.
//
// A file is, little endian throughout: the magic "GGUF", the version (uint32),
// how many tensors and key-value pairs follow (uint64 each); the pairs (key,
// type, value); for each tensor its name, number of dimensions (uint32),
// dimensions (uint64, the one that runs fastest first), type (uint32) and
// offset in the data (uint64); then, at the next multiple of the alignment,
// the data. Strings are a uint64 length and bytes.
package gguf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/potluck-llm/potluck/quant"
)

const (
	magic            = "GGUF"
	defaultAlignment = 32
	maxAlignment     = 1 << 20

	alignmentKey   = "general.alignment"
	splitNumberKey = "split.no"
	splitCountKey  = "split.count"
	splitTotalKey  = "split.tensors.count"
)

// MaxHeader is how much of a file is read as its header: the largest
// vocabularies take about 20 MB.
const MaxHeader = 64 << 20

// maxParts is the largest number of files of a split model.
const maxParts = 1 << 12

// A File is an open GGUF file, or all parts of a split one. Its methods may be
// called by several goroutines at once.
type File struct {
	// Meta holds the metadata (of the first part). Unsigned integers are
	// uint64, signed ones int64, floats float64; lists are []string, []int64
	// (of any integers), []float64, []bool or, nested, []any.
	Meta map[string]any
	// Keys are Meta's keys in the order of the file.
	Keys []string
	// Tensors are in the order of the file, part after part.
	Tensors []Tensor
	// Version is 2 or 3.
	Version int

	parts   []part
	byName  map[string]int
	closers []io.Closer
}

// A Tensor is where one tensor lies.
type Tensor struct {
	Name   string
	Type   quant.Foreign
	Shape  []int64 // outermost dimension first: rows, cols
	Offset int64   // in its part
	Bytes  int64
	Part   int // the part that it lies in, counted from 0
}

// Matrix is t's shape as rows of the last dimension; a vector is one row.
func (t Tensor) Matrix() (rows, cols int) {
	rows = 1
	for _, n := range t.Shape[:len(t.Shape)-1] {
		rows *= int(n)
	}
	return rows, int(t.Shape[len(t.Shape)-1])
}

// A part is one file.
type part struct {
	name string
	r    io.ReaderAt
	size int64
}

// Open opens a file, and with any part of a split one all the others, which lie
// beside it and are named PREFIX-00001-of-00002.gguf. The caller closes it.
func Open(path string) (*File, error) {
	f, err := openPath(path)
	if err != nil {
		return nil, err
	}
	number, count := f.split()
	if count <= 1 {
		if err := f.finish(); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	whole, err := openParts(path, number, count, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return whole, nil
}

// openPath opens one file as it is.
func openPath(path string) (*File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := r.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder, want a GGUF file", path)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	f, err := read(r, info.Size(), path)
	if err != nil {
		r.Close()
		return nil, err
	}
	f.closers = []io.Closer{r}
	return f, nil
}

var splitName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// SplitNames returns the names of all parts, given the name of one; nil where
// it is not the name of a part.
func SplitNames(name string) []string {
	match := splitName.FindStringSubmatch(name)
	if match == nil {
		return nil
	}
	count, _ := strconv.Atoi(match[3]) // five digits
	if count > maxParts {
		return nil
	}
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%05d-of-%s.gguf", match[1], i+1, match[3])
	}
	return names
}

// openParts opens the parts beside the one that is open already, and makes one
// file of all. Closing opened remains the caller's affair if it fails.
func openParts(path string, number, count int, opened *File) (*File, error) {
	names := SplitNames(filepath.Base(path))
	if len(names) != count || number >= count || names[number] != filepath.Base(path) {
		return nil, fmt.Errorf("%s: says it is part %d of %d: want it named PREFIX-%05d-of-%05d.gguf, beside the others", path, number+1, count, number+1, count)
	}
	parts := make([]*File, count)
	closeAll := func() {
		for i, p := range parts {
			if p != nil && i != number {
				p.Close()
			}
		}
	}
	for i, name := range names {
		if i == number {
			parts[i] = opened
			continue
		}
		var err error
		if parts[i], err = openPath(filepath.Join(filepath.Dir(path), name)); err != nil {
			closeAll()
			return nil, fmt.Errorf("part %d of %d: %w", i+1, count, err)
		}
	}
	f, err := join(parts)
	if err != nil {
		closeAll()
		return nil, err
	}
	return f, nil
}

// A Reader is one file of a model: what it is called, its bytes, its size.
type Reader struct {
	Name string
	io.ReaderAt
	Size int64
}

// New reads a file of size bytes. name is what errors call it. Closing r
// remains the caller's affair.
func New(r io.ReaderAt, size int64, name string) (*File, error) {
	return NewSplit([]Reader{{name, r, size}})
}

// NewSplit reads a model from all its parts, in order.
func NewSplit(readers []Reader) (*File, error) {
	parts := make([]*File, len(readers))
	for i, r := range readers {
		var err error
		if parts[i], err = read(r.ReaderAt, r.Size, r.Name); err != nil {
			return nil, err
		}
	}
	if len(parts) == 0 {
		return nil, errors.New("no GGUF file given")
	}
	if _, count := parts[0].split(); len(parts) == 1 && count <= 1 {
		if err := parts[0].finish(); err != nil {
			return nil, err
		}
		return parts[0], nil
	}
	return join(parts)
}

// split returns what the metadata says about splitting: which part this is,
// counted from 0, of how many.
func (f *File) split() (number, count int) {
	n, _ := f.Meta[splitNumberKey].(uint64)
	c, _ := f.Meta[splitCountKey].(uint64)
	return int(min(n, math.MaxInt32)), int(min(c, math.MaxInt32))
}

// join makes one file of parts after checking that they belong together.
func join(parts []*File) (*File, error) {
	first := parts[0]
	f := &File{Meta: first.Meta, Keys: first.Keys, Version: first.Version}
	for i, p := range parts {
		number, count := p.split()
		if number != i || count != len(parts) {
			return nil, fmt.Errorf("%s: says it is part %d of %d, want part %d of %d", p.parts[0].name, number+1, count, i+1, len(parts))
		}
		for _, t := range p.Tensors {
			t.Part = i
			f.Tensors = append(f.Tensors, t)
		}
		f.parts = append(f.parts, p.parts[0])
		f.closers = append(f.closers, p.closers...)
	}
	if total, err := f.Uint(splitTotalKey); err == nil && total != uint64(len(f.Tensors)) {
		return nil, fmt.Errorf("%s: says that the parts hold %d tensors, they hold %d", f.parts[0].name, total, len(f.Tensors))
	}
	if err := f.finish(); err != nil {
		return nil, err
	}
	return f, nil
}

// finish indexes the tensors by name.
func (f *File) finish() error {
	f.byName = make(map[string]int, len(f.Tensors))
	for i, t := range f.Tensors {
		if before, twice := f.byName[t.Name]; twice {
			return fmt.Errorf("%s: tensor %q is in %s too", f.parts[t.Part].name, t.Name, f.parts[f.Tensors[before].Part].name)
		}
		f.byName[t.Name] = i
	}
	return nil
}

// place checks where the tensors of one file lie, and turns offsets in the data
// into offsets in the file.
func (f *File) place(dataStart, alignment int64) error {
	file := f.parts[0]
	order := make([]int, len(f.Tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(f.Tensors[a].Offset, f.Tensors[b].Offset)
	})
	end, before := int64(0), ""
	for _, i := range order {
		t := &f.Tensors[i]
		switch {
		case t.Offset%alignment != 0:
			return fmt.Errorf("%s: tensor %q: offset %d is not a multiple of the alignment, %d", file.name, t.Name, t.Offset, alignment)
		case t.Offset < end:
			return fmt.Errorf("%s: tensor %q: begins at byte %d of the data, inside %q that ends at %d", file.name, t.Name, t.Offset, before, end)
		case t.Offset > file.size-dataStart || t.Bytes > file.size-dataStart-t.Offset:
			return fmt.Errorf("%s: tensor %q: %d bytes at byte %d, the file has %d; was it cut off?", file.name, t.Name, t.Bytes, dataStart+t.Offset, file.size)
		}
		end, before = t.Offset+t.Bytes, t.Name
		t.Offset += dataStart
	}
	return nil
}

// Name is what errors call the file, or its first part.
func (f *File) Name() string { return f.parts[0].name }

// PartName is what errors call the file that a tensor lies in.
func (f *File) PartName(t Tensor) string { return f.parts[t.Part].name }

// Tensor finds a tensor.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

// Bytes is the size of all tensors.
func (f *File) Bytes() (total int64) {
	for _, t := range f.Tensors {
		total += t.Bytes
	}
	return total
}

// ReadAt fills buf with the bytes of t from byte offset on.
func (f *File) ReadAt(t Tensor, offset int64, buf []byte) error {
	p := f.parts[t.Part]
	if offset < 0 || int64(len(buf)) > t.Bytes-offset {
		return fmt.Errorf("%s: tensor %q: bytes %d to %d of %d", p.name, t.Name, offset, offset+int64(len(buf)), t.Bytes)
	}
	n, err := p.r.ReadAt(buf, t.Offset+offset)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s: tensor %q: at byte %d: %w", p.name, t.Name, t.Offset+offset, err)
}

// ReadTensor returns the bytes of a whole tensor.
func (f *File) ReadTensor(t Tensor) ([]byte, error) {
	data := make([]byte, t.Bytes)
	return data, f.ReadAt(t, 0, data)
}

// Floats decodes a whole tensor.
func (f *File) Floats(name string) ([]float32, error) {
	t, ok := f.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("%s: tensor %q is missing", f.Name(), name)
	}
	if err := f.CheckType(t); err != nil {
		return nil, err
	}
	data, err := f.ReadTensor(t)
	if err != nil {
		return nil, err
	}
	rows, cols := t.Matrix()
	numbers := make([]float32, rows*cols)
	if err := t.Type.Decode(numbers, data); err != nil {
		return nil, fmt.Errorf("%s: tensor %q: %w", f.parts[t.Part].name, t.Name, err)
	}
	return numbers, nil
}

// CheckType returns an error that names the tensor and its type if that cannot
// be decoded.
func (f *File) CheckType(t Tensor) error {
	if err := t.Type.Check(); err != nil {
		return fmt.Errorf("%s: tensor %q: %w", f.parts[t.Part].name, t.Name, err)
	}
	return nil
}

// Close closes the files that Open opened.
func (f *File) Close() error {
	var errs []error
	for _, c := range f.closers {
		errs = append(errs, c.Close())
	}
	f.closers = nil
	return errors.Join(errs...)
}

// Uint returns an integer ≥ 0 of the metadata.
func (f *File) Uint(key string) (uint64, error) {
	if n, ok := f.Meta[key].(int64); ok && n >= 0 {
		return uint64(n), nil
	}
	return get[uint64](f, key)
}

// String returns a string of the metadata.
func (f *File) String(key string) (string, error) { return get[string](f, key) }

// Strings returns a list of strings of the metadata.
func (f *File) Strings(key string) ([]string, error) { return get[[]string](f, key) }

func get[T any](f *File, key string) (T, error) {
	value, ok := f.Meta[key]
	if typed, is := value.(T); is {
		return typed, nil
	}
	var want T
	if !ok {
		return want, fmt.Errorf("%s: key %s is missing", f.Name(), key)
	}
	return want, fmt.Errorf("%s: key %s is a %T, want %T", f.Name(), key, value, want)
}
