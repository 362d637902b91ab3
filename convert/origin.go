package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// An origin is a model that a GGUF file is made of, row by row: a store, or
// model files. Its methods may be called by several goroutines at once.
type origin interface {
	name() string
	facts() facts
	stamps() ([]string, error) // tell these versions of its files from others
	// elements are the types in which the origin has the rows of a part.
	elements(p *model.GGUFPart) ([]quant.Foreign, error)
	// rows hands out rows in order, as blocks of the type that they have there.
	rows(refs []rowRef, put func(i int, from quant.Foreign, raw []byte) error) error
	// vector decodes a tensor of one row.
	vector(t *model.Tensor) ([]float32, error)
	close() error
}

// facts are what an origin says beside its weights.
type facts struct {
	config                *model.Config
	tokenizer, generation json.RawMessage
	template, license     string
	vocabulary, general   []model.Pair // a GGUF file's own tokenizer and notes, nil: none
}

// openOrigin opens a store, a Hugging Face folder or a GGUF file.
func openOrigin(ctx context.Context, path string) (origin, error) {
	if _, err := os.Stat(filepath.Join(path, shard.ManifestFile)); err == nil {
		return openStoreOrigin(ctx, path)
	}
	src, err := openSource(ctx, path)
	if err != nil {
		return nil, err
	}
	o, err := newFileOrigin(src)
	if err != nil {
		return nil, errors.Join(err, src.folder.close())
	}
	return o, nil
}

func newFileOrigin(src *source) (*fileOrigin, error) {
	o := &fileOrigin{src: src, tensors: map[string]*model.Tensor{}}
	if err := src.config.Probe(src.format, src.shape); err != nil {
		return nil, fmt.Errorf("%s: %w", src.place, err)
	}
	tensors, err := src.config.Sources(src.format, src.shape)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.place, err)
	}
	for i, t := range tensors {
		o.tensors[t.Name] = &tensors[i]
	}
	return o, nil
}

// A fileOrigin is a Hugging Face folder or a GGUF file.
type fileOrigin struct {
	src     *source
	tensors map[string]*model.Tensor // with their parts in the source
}

func (o *fileOrigin) name() string { return o.src.place }
func (o *fileOrigin) close() error { return o.src.folder.close() }

func (o *fileOrigin) stamps() ([]string, error) { return o.src.folder.stamps() }

func (o *fileOrigin) facts() facts {
	s := o.src
	return facts{s.config, s.tokenizer, s.generation, s.template, s.license, s.vocabulary, s.general}
}

func (o *fileOrigin) elements(p *model.GGUFPart) ([]quant.Foreign, error) {
	var kinds []quant.Foreign
	for _, from := range o.tensors[p.Of.Name].Parts {
		// Two ranges of every or every second row meet where one begins, if at all.
		start := max(from.To, p.To)
		if !meets(from, p.Part, start) && !meets(from, p.Part, start+1) {
			continue
		}
		f, err := o.src.element(from.Source)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, f)
	}
	return kinds, nil
}

// meets tells whether two parts of one tensor both fill its row.
func meets(a, b model.Part, row int) bool { return fills(a, row) && fills(b, row) }

func fills(p model.Part, row int) bool {
	i := row - p.To
	return i >= 0 && i%p.Stride == 0 && i/p.Stride < p.Rows
}

// maxGap is how many rows may be read between two that are wanted: with a
// permutation or a fused tensor, one long read is faster than many short ones.
const maxGap = 4

func (o *fileOrigin) rows(refs []rowRef, put func(i int, from quant.Foreign, raw []byte) error) error {
	places := make([]place, len(refs))
	at := 0
	for i, r := range refs {
		var err error
		if places[i], err = locate(o.tensors[r.of.Name], r.row, &at); err != nil {
			return err
		}
	}
	var raw []byte
	for first := 0; first < len(places); {
		run := together(places[first:])
		var err error
		if raw, err = o.run(places[first:first+run], refs[first].of.Cols, raw, func(i int, from quant.Foreign, row []byte) error { return put(first+i, from, row) }); err != nil {
			return fmt.Errorf("from %s: %w", places[first].source, err)
		}
		first += run
	}
	return nil
}

// A place is a row of one of the source's tensors.
type place struct {
	source string
	row    int
}

// locate finds where a row lies. at is the part to look in first, and becomes
// the one where it was: neighbours mostly lie together.
func locate(t *model.Tensor, row int, at *int) (place, error) {
	for range t.Parts {
		*at %= len(t.Parts)
		if p := t.Parts[*at]; fills(p, row) {
			return place{p.Source, p.SourceRow((row - p.To) / p.Stride)}, nil
		}
		*at++
	}
	return place{}, fmt.Errorf("tensor %s: row %d has no source", t.Name, row)
}

// together is how many of the first places are worth one read.
func together(places []place) int {
	low, high := places[0].row, places[0].row
	for i, p := range places {
		low, high = min(low, p.row), max(high, p.row)
		if p.source != places[0].source {
			return i
		}
	}
	if high-low < maxGap*len(places) {
		return len(places)
	}
	n := 1
	for n < len(places) && places[n].row == places[n-1].row+1 {
		n++
	}
	return n
}

// run reads rows of one tensor at once and hands them out.
func (o *fileOrigin) run(places []place, cols int, raw []byte, put func(i int, from quant.Foreign, raw []byte) error) ([]byte, error) {
	source := places[0].source
	element, err := o.src.element(source)
	if err != nil {
		return raw, err
	}
	size, err := element.RowBytes(cols)
	if err != nil {
		return raw, err
	}
	low, high := places[0].row, places[0].row
	for _, p := range places {
		low, high = min(low, p.row), max(high, p.row)
	}
	raw = grow(raw, (high-low+1)*size)
	if err := o.src.readAt(source, int64(low)*int64(size), raw); err != nil {
		return raw, err
	}
	for i, p := range places {
		at := (p.row - low) * size
		if err := put(i, element, raw[at:at+size]); err != nil {
			return raw, o.src.located(err, source, p.row, cols)
		}
	}
	return raw, nil
}

func (o *fileOrigin) vector(t *model.Tensor) ([]float32, error) {
	values := make([]float32, t.Cols)
	for _, p := range o.tensors[t.Name].Parts {
		element, err := o.src.element(p.Source)
		if err != nil {
			return nil, err
		}
		rows, cols, _ := o.src.shape(p.Source)
		size, err := element.RowBytes(rows * cols)
		if err != nil {
			return nil, err
		}
		raw, whole := make([]byte, size), make([]float32, rows*cols)
		if err := o.src.readAt(p.Source, 0, raw); err != nil {
			return nil, err
		}
		if err := element.Decode(whole, raw); err != nil {
			return nil, err
		}
		if err := o.src.finiteVector(p.Source, whole); err != nil {
			return nil, err
		}
		for i := range p.Rows {
			values[p.To+i*p.Stride] = whole[p.SourceRow(i)]
		}
	}
	return values, nil
}

// A storeOrigin is a store in a folder.
type storeOrigin struct {
	ctx     context.Context
	folder  string
	dir     *shard.Dir
	tensors map[string]*shard.Tensor
}

func openStoreOrigin(ctx context.Context, path string) (*storeOrigin, error) {
	dir, err := shard.OpenDir(path)
	if err != nil {
		return nil, err
	}
	o := &storeOrigin{ctx, path, dir, map[string]*shard.Tensor{}}
	for i, t := range dir.Manifest().Tensors {
		o.tensors[t.Name] = &dir.Manifest().Tensors[i]
	}
	return o, nil
}

func (o *storeOrigin) name() string { return o.folder }

func (o *storeOrigin) stamps() ([]string, error) {
	info, err := os.Stat(filepath.Join(o.folder, shard.ManifestFile))
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("%s %d %d", shard.ManifestFile, info.Size(), info.ModTime().UnixNano())}, nil
}

func (o *storeOrigin) close() error { return o.dir.Close() }

func (o *storeOrigin) facts() facts {
	m := o.dir.Manifest()
	return facts{m.Model, m.Tokenizer, m.Generation, m.Template, m.License, nil, nil}
}

func (o *storeOrigin) tensor(name string) (*shard.Tensor, error) {
	t, ok := o.tensors[name]
	if !ok {
		return nil, fmt.Errorf("tensor %s is missing", name)
	}
	return t, nil
}

func (o *storeOrigin) elements(p *model.GGUFPart) ([]quant.Foreign, error) {
	t, err := o.tensor(p.Of.Name)
	if err != nil {
		return nil, err
	}
	return []quant.Foreign{t.Type.Foreign()}, nil
}

func (o *storeOrigin) rows(refs []rowRef, put func(i int, from quant.Foreign, raw []byte) error) error {
	var raw []byte
	for i, r := range refs {
		m, row, err := o.row(r.of.Name, r.row)
		if err != nil {
			return err
		}
		size, err := m.Type.Foreign().RowBytes(m.Cols)
		if err != nil {
			return err
		}
		raw = grow(raw, size)
		if err := m.Interleave(row, raw); err != nil {
			return err
		}
		if err := put(i, m.Type.Foreign(), raw); err != nil {
			return err
		}
	}
	return nil
}

// row finds the segment with a row, and the row in it.
func (o *storeOrigin) row(name string, row int) (quant.Matrix, int, error) {
	t, err := o.tensor(name)
	if err != nil {
		return quant.Matrix{}, 0, err
	}
	for _, s := range t.Segments {
		if row < s.Row || row >= s.Row+s.Rows {
			continue
		}
		piece, err := o.dir.Piece(o.ctx, s.Piece)
		if err != nil {
			return quant.Matrix{}, 0, err
		}
		m, err := quant.NewMatrix(t.Type, s.Rows, t.Cols, piece[s.Offset:])
		return m, row - s.Row, err
	}
	return quant.Matrix{}, 0, fmt.Errorf("tensor %s: row %d of %d is in no piece", name, row, t.Rows)
}

func (o *storeOrigin) vector(t *model.Tensor) ([]float32, error) {
	m, row, err := o.row(t.Name, 0)
	if err != nil {
		return nil, err
	}
	values := make([]float32, m.Cols)
	m.Row(values, row)
	return values, nil
}
