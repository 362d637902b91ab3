package shard

import (
	"context"
	"fmt"
	"sync"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// A Use is a segment that a span reads: rows First..First+Rows-1 of it.
type Use struct {
	Tensor  *Tensor
	Segment Segment
	First   int // relative to the segment
	Rows    int
}

// Uses lists what a span reads, tensor by tensor in row order, and the pieces
// that it lies in, in the order of first use.
func (m *Manifest) Uses(span model.Span) (uses []Use, pieces []int, err error) {
	if err := m.Model.CheckSpan(span); err != nil {
		return nil, nil, err
	}
	byName := make(map[string]*Tensor, len(m.Tensors))
	for i := range m.Tensors {
		byName[m.Tensors[i].Name] = &m.Tensors[i]
	}
	seen := map[int]bool{}
	for _, want := range m.Model.SpanTensors(span) {
		t, ok := byName[want.Name]
		if !ok {
			return nil, nil, fmt.Errorf("manifest: tensor %s is missing", want.Name)
		}
		for _, s := range t.Segments {
			first, end := max(s.Row, want.Row), min(s.Row+s.Rows, want.Row+want.RowCount)
			if first >= end {
				continue
			}
			uses = append(uses, Use{t, s, first - s.Row, end - first})
			if !seen[s.Piece] {
				seen[s.Piece] = true
				pieces = append(pieces, s.Piece)
			}
		}
	}
	return uses, pieces, nil
}

// SpanBytes is how many bytes of pieces a span reads.
func (m *Manifest) SpanBytes(span model.Span) (int64, error) {
	_, pieces, err := m.Uses(span)
	total := int64(0)
	for _, p := range pieces {
		total += m.Pieces[p].Bytes
	}
	return total, err
}

// piecesAtOnce hides the latency of a fetch behind the others' transfer.
const piecesAtOnce = 4

// ReadSpan reads all that a span needs and returns each tensor's row ranges in
// order, as views of the pieces, with their size in bytes. report may be nil.
func ReadSpan(ctx context.Context, src Source, span model.Span, report func(loaded, total int64)) (map[string][]quant.Matrix, int64, error) {
	m := src.Manifest()
	uses, pieces, err := m.Uses(span)
	if err != nil {
		return nil, 0, err
	}
	data, total, err := readPieces(ctx, src, pieces, report)
	if err != nil {
		return nil, 0, err
	}
	found := map[string][]quant.Matrix{}
	for _, u := range uses {
		piece := data[u.Segment.Piece]
		if u.Segment.Offset > int64(len(piece)) {
			return nil, 0, fmt.Errorf("tensor %s: offset %d in a piece of %d bytes", u.Tensor.Name, u.Segment.Offset, len(piece))
		}
		matrix, err := quant.NewMatrix(u.Tensor.Type, u.Segment.Rows, u.Tensor.Cols, piece[u.Segment.Offset:])
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %s: %w", u.Tensor.Name, err)
		}
		found[u.Tensor.Name] = append(found[u.Tensor.Name], matrix.RowRange(u.First, u.Rows))
	}
	return found, total, nil
}

func readPieces(ctx context.Context, src Source, pieces []int, report func(loaded, total int64)) (map[int][]byte, int64, error) {
	var loaded, total int64
	for _, p := range pieces {
		total += src.Manifest().Pieces[p].Bytes
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu   sync.Mutex
		wait sync.WaitGroup
		data = make(map[int][]byte, len(pieces))
		next = make(chan int)
	)
	for range min(piecesAtOnce, len(pieces)) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for p := range next {
				bytes, err := src.Piece(ctx, p)
				if err != nil {
					cancel(fmt.Errorf("piece %d (%v): %w", p, src.Manifest().Pieces[p].Hash, err))
					continue
				}
				mu.Lock()
				data[p] = bytes
				loaded += int64(len(bytes))
				if report != nil {
					report(loaded, total)
				}
				mu.Unlock()
			}
		}()
	}
	for _, p := range pieces {
		select {
		case next <- p:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, 0, err
	}
	return data, total, nil
}

// Memory is a Source whose pieces lie in memory.
type Memory struct {
	manifest *Manifest
	pieces   [][]byte
}

// NewMemory returns a source of pieces after verifying each.
func NewMemory(m *Manifest, pieces [][]byte) (*Memory, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	if len(pieces) != len(m.Pieces) {
		return nil, fmt.Errorf("%d pieces, the manifest has %d", len(pieces), len(m.Pieces))
	}
	for i, p := range pieces {
		if err := Verify(m.Pieces[i], p); err != nil {
			return nil, fmt.Errorf("piece %d: %w", i, err)
		}
	}
	return &Memory{m, pieces}, nil
}

// Manifest returns the store's manifest.
func (s *Memory) Manifest() *Manifest { return s.manifest }

// Piece returns a piece, verified when the source was made.
func (s *Memory) Piece(_ context.Context, index int) ([]byte, error) {
	if index < 0 || index >= len(s.pieces) {
		return nil, fmt.Errorf("piece %d of %d", index, len(s.pieces))
	}
	return s.pieces[index], nil
}

// Verify tells whether data is the piece.
func Verify(p Piece, data []byte) error {
	if int64(len(data)) != p.Bytes {
		return fmt.Errorf("got %d bytes, the manifest says %d", len(data), p.Bytes)
	}
	if got := Sum(data); got != p.Hash {
		return fmt.Errorf("got hash %v, the manifest says %v", got, p.Hash)
	}
	return nil
}
