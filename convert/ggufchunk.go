package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// A chunk is some rows of a tensor: what one thread makes at once.
type chunk struct {
	index       int // of the tensor
	first, rows int
	bytes       int64
}

// ggufChunk is how many bytes a chunk has at most, but whole rows and heads.
var ggufChunk = chunkBytes

// chunks lists them in the order of the file.
func (e *export) chunks(yield func(chunk) bool) {
	for i := range e.tensors {
		t := &e.tensors[i]
		row := int(e.bytes(i)) / t.Rows()
		step := max(1, ggufChunk/row)
		for _, p := range t.Parts {
			if p.Heads > 0 { // rows are shuffled within heads: take whole ones
				head := p.Rows / p.Heads
				step = max(1, step/head) * head
			}
		}
		for first := 0; first < t.Rows(); first += step {
			n := min(step, t.Rows()-first)
			if !yield(chunk{i, first, n, int64(n) * int64(row)}) {
				return
			}
		}
	}
}

// A made chunk is its bytes, or why there are none.
type made struct {
	chunk
	data []byte
	err  error
}

// run makes the chunks that are missing, several at once, and writes them in
// order.
func (e *export) run(ctx context.Context, start time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total := e.writer.Size()
	report := func() {
		if e.o.Progress != nil {
			e.o.Progress(Progress{Done: e.writer.Offset(), Total: total, Resumed: e.resumed, Elapsed: time.Since(start)})
		}
	}
	report()
	ordered := make(chan chan made, e.o.Threads) // bounds what waits in memory
	var wait sync.WaitGroup
	wait.Add(1)
	go func() {
		defer wait.Done()
		e.makeAll(ctx, ordered)
	}()
	var failed error
	for next := range ordered {
		m := <-next
		if failed != nil {
			continue
		}
		if failed = m.err; failed == nil {
			_, failed = e.writer.Write(m.data)
		}
		if failed != nil {
			cancel()
			continue
		}
		report()
	}
	wait.Wait()
	if failed == nil {
		failed = context.Cause(ctx)
	}
	if failed == nil {
		failed = e.writer.Close()
	}
	return failed
}

// makeAll starts a goroutine a chunk, as many at once as ordered holds.
func (e *export) makeAll(ctx context.Context, ordered chan<- chan made) {
	defer close(ordered)
	plan, err := gguf.NewWriter(io.Discard, e.meta, e.infos)
	if err != nil {
		return // NewWriter accepted them before
	}
	begin := e.writer.Offset()
	for c := range e.chunks {
		if ctx.Err() != nil {
			return
		}
		at := plan.Offset()
		if err := plan.Skip(c.bytes); err != nil {
			return
		}
		if at < begin {
			continue
		}
		result := make(chan made, 1)
		ordered <- result
		go func() {
			data, err := e.chunk(ctx, c)
			if err != nil {
				err = fmt.Errorf("%s: tensor %s: %w", e.origin.name(), e.tensors[c.index].Name, err)
			}
			result <- made{c, data, err}
		}()
	}
}

// chunk makes the bytes of a chunk.
func (e *export) chunk(ctx context.Context, c chunk) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, typ := &e.tensors[c.index], e.infos[c.index].Type
	data := make([]byte, c.bytes)
	switch {
	case t.Values != nil:
		return data, typ.Encode(data, t.Values)
	case len(t.Shape) == 1:
		return data, e.vector(data, t)
	}
	refs, err := rowsOf(t, c.first, c.rows)
	if err != nil {
		return nil, err
	}
	b := &rowWriter{typ: typ, cols: t.Cols(), data: data, errors: &e.errors, tensor: t.Name}
	return data, e.origin.rows(refs, b.put)
}

// A rowRef is a row of one of the model's tensors.
type rowRef struct {
	of  *model.Tensor
	row int
}

// rowsOf lists where rows of a GGUF tensor come from.
func rowsOf(t *model.GGUFTensor, first, rows int) ([]rowRef, error) {
	refs := make([]rowRef, 0, rows)
	at := 0 // the part that had the row before
	for r := first; r < first+rows; r++ {
		found := false
		for range t.Parts {
			if row, ok := t.Parts[at].Row(r); ok {
				refs, found = append(refs, rowRef{t.Parts[at].Of, row}), true
				break
			}
			at = (at + 1) % len(t.Parts)
		}
		if !found {
			return nil, fmt.Errorf("row %d has no source", r)
		}
	}
	return refs, nil
}

// vector fills a tensor of one dimension, whose parts count elements.
func (e *export) vector(data []byte, t *model.GGUFTensor) error {
	values := make([]float32, t.Cols())
	for _, p := range t.Parts {
		whole, err := e.origin.vector(p.Of)
		if err != nil {
			return err
		}
		for i := range values {
			if from, ok := p.Row(i); ok {
				values[i] = whole[from]
			}
		}
	}
	return quant.ForeignF32.Encode(data, values)
}

// A rowWriter puts rows of any type into a chunk of one type.
type rowWriter struct {
	typ    quant.Foreign
	cols   int
	data   []byte
	errors *classErrors
	tensor string

	planar []byte
	floats []float32
	back   []float32
}

// put writes row i.
func (w *rowWriter) put(i int, from quant.Foreign, raw []byte) error {
	size := len(w.data) / max(1, w.rows())
	dst := w.data[i*size : (i+1)*size]
	w.floats = grow(w.floats, w.cols)
	if from == w.typ && w.moves() {
		// Blocks that nothing here encodes: check that they are numbers.
		if err := from.Decode(w.floats, raw); err != nil {
			return err
		}
		for column, v := range w.floats {
			if v-v != 0 {
				return &quant.NotFiniteError{Row: i, Column: column, Value: v}
			}
		}
		copy(dst, raw)
		return nil
	}
	if err := w.encode(dst, from, raw); err != nil {
		return err
	}
	if i%sampleEvery != 0 {
		return nil
	}
	w.back = grow(w.back, w.cols)
	if err := errors.Join(from.Decode(w.floats, raw), w.typ.Decode(w.back, dst)); err != nil {
		return err
	}
	w.errors.add(w.tensor, w.floats, w.back)
	return nil
}

// sampleEvery is how many rows there are to one whose loss is measured.
const sampleEvery = 256

// rows is how many rows the chunk has.
func (w *rowWriter) rows() int {
	row, err := w.typ.RowBytes(w.cols)
	if err != nil || row == 0 {
		return 1
	}
	return len(w.data) / row
}

// moves tells whether rows of the type can only be moved.
func (w *rowWriter) moves() bool {
	native, ok := w.typ.Native()
	return ok && native.Foreign() != w.typ
}

// encode turns one row into the chunk's type: by moving bytes where both have
// the same form.
func (w *rowWriter) encode(dst []byte, from quant.Foreign, raw []byte) error {
	native, ok := w.typ.Native()
	if !ok || native.Foreign() != w.typ {
		return fmt.Errorf("element type %v is not written", w.typ)
	}
	w.planar = grow(w.planar, int(native.Bytes(1, w.cols)))
	m, err := quant.NewMatrix(native, 1, w.cols, w.planar)
	if err != nil {
		return err
	}
	if err := m.RepackRows(0, from, raw); err != nil {
		return err
	}
	return m.Interleave(0, dst)
}
