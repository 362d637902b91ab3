package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names that Hugging Face checkpoints have.
const (
	SingleName = "model.safetensors"
	IndexName  = "model.safetensors.index.json"
)

// A Set is a checkpoint: one file, or the parts that an index lists.
type Set struct {
	files   []*File
	names   []string // sorted
	tensors map[string]located
	closers []io.Closer
}

type located struct {
	file   *File
	tensor Tensor
}

// An Opener opens a file of a checkpoint by its name. A reader that is also an
// io.Closer is closed with the set. A file that is not there gives an error
// that is fs.ErrNotExist.
type Opener func(name string) (r io.ReaderAt, size int64, err error)

// OpenFolder opens the checkpoint in a folder. The caller closes it.
func OpenFolder(path string) (*Set, error) {
	return NewSet(path, func(name string) (io.ReaderAt, int64, error) {
		f, err := os.Open(filepath.Join(path, name))
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		return f, info.Size(), nil
	})
}

// NewSet opens a checkpoint: SingleName, or where that is missing each part in
// IndexName, once. place is what errors call it.
func NewSet(place string, open Opener) (_ *Set, err error) {
	s := &Set{tensors: map[string]located{}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	single, err := s.open(SingleName, open)
	if err == nil {
		for _, name := range single.order {
			s.add(single, single.tensors[name])
		}
		return s.sorted(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	index, err := readIndex(open)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has neither %s nor %s: %w", place, SingleName, IndexName, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	if err := s.openParts(index, open); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return s.sorted(), nil
}

func (s *Set) open(name string, open Opener) (*File, error) {
	r, size, err := open(name)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		s.closers = append(s.closers, c)
	}
	f, err := New(r, size, name)
	if err != nil {
		return nil, err
	}
	s.files = append(s.files, f)
	return f, nil
}

// readIndex returns which part each tensor lies in.
func readIndex(open Opener) (map[string]string, error) {
	r, size, err := open(IndexName)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if size > MaxHeader {
		return nil, fmt.Errorf("%s has %d bytes: want at most %d", IndexName, size, MaxHeader)
	}
	data := make([]byte, size)
	if err := readFull(r, data, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", IndexName, err)
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", IndexName, err)
	}
	if len(index.WeightMap) == 0 {
		return nil, fmt.Errorf("%s: weight_map is missing or empty", IndexName)
	}
	return index.WeightMap, nil
}

func (s *Set) openParts(index map[string]string, open Opener) error {
	names := make([]string, 0, len(index))
	for name := range index {
		names = append(names, name)
	}
	slices.Sort(names) // so that the first error is always the same one
	parts := map[string]*File{}
	for _, name := range names {
		part := index[name]
		f := parts[part]
		if f == nil {
			// A part lies beside the index: no other place is the index's to name.
			if !filepath.IsLocal(part) || strings.ContainsAny(part, `/\:`) || part == "." {
				return fmt.Errorf("%s: tensor %q: part %.200q is not the name of a file beside the index", IndexName, name, part)
			}
			var err error
			if f, err = s.open(part, open); err != nil {
				return fmt.Errorf("%s: tensor %q: part %s: %w", IndexName, name, part, err)
			}
			parts[part] = f
		}
		t, ok := f.tensors[name]
		if !ok {
			return fmt.Errorf("%s: tensor %q is not in %s", IndexName, name, part)
		}
		s.add(f, t)
	}
	return nil
}

func (s *Set) add(f *File, t Tensor) {
	s.tensors[t.Name] = located{f, t}
	s.names = append(s.names, t.Name)
}

func (s *Set) sorted() *Set {
	slices.Sort(s.names)
	return s
}

// Names lists the tensors of all parts, sorted.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Tensor finds a tensor and the part that it lies in.
func (s *Set) Tensor(name string) (Tensor, *File, bool) {
	at, ok := s.tensors[name]
	return at.tensor, at.file, ok
}

// ReadAt fills buf with the bytes of a tensor from byte offset on.
func (s *Set) ReadAt(name string, offset int64, buf []byte) error {
	at, ok := s.tensors[name]
	if !ok {
		return fmt.Errorf("tensor %q is missing", name)
	}
	return at.file.ReadAt(at.tensor, offset, buf)
}

// Floats reads a whole tensor of F32, F16 or BF16.
func (s *Set) Floats(name string) ([]float32, error) {
	at, ok := s.tensors[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q is missing", name)
	}
	return at.file.Floats(name)
}

// Bytes is the size of all tensors.
func (s *Set) Bytes() (total int64) {
	for _, at := range s.tensors {
		total += at.tensor.Bytes
	}
	return total
}

// Close closes the parts.
func (s *Set) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}
