package shard

import (
	"context"
	"fmt"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// Recode returns a copy in memory with all weights in type t, where their
// shape allows it (f32 elsewhere). It is for small stores, and loses what t
// cannot hold.
func Recode(ctx context.Context, src Source, t quant.Type) (*Memory, error) {
	from := src.Manifest()
	typeOf := func(tensor model.Tensor) quant.Type {
		if !t.Fits(tensor.Cols) {
			return quant.F32
		}
		return t
	}
	to, err := Layout(from.Model, typeOf)
	if err != nil {
		return nil, err
	}
	to.Source, to.License, to.Weights = from.Source, from.License, t.String()
	to.Tokenizer, to.Template, to.Generation = from.Tokenizer, from.Template, from.Generation
	pieces := make([][]byte, len(to.Pieces))
	for i, p := range to.Pieces {
		pieces[i] = make([]byte, p.Bytes)
	}
	for i := range to.Tensors {
		if err := recodeTensor(ctx, src, &to.Tensors[i], pieces); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", to.Tensors[i].Name, err)
		}
	}
	for i, data := range pieces {
		to.Pieces[i].Hash = Sum(data)
	}
	return NewMemory(to, pieces)
}

func recodeTensor(ctx context.Context, src Source, to *Tensor, pieces [][]byte) error {
	from, ok := src.Manifest().Tensor(to.Name)
	if !ok {
		return fmt.Errorf("missing")
	}
	rows := make([]float32, from.Rows*from.Cols)
	for _, s := range from.Segments {
		piece, err := src.Piece(ctx, s.Piece)
		if err != nil {
			return err
		}
		m, err := quant.NewMatrix(from.Type, s.Rows, from.Cols, piece[s.Offset:])
		if err != nil {
			return err
		}
		for r := range s.Rows {
			m.Row(rows[(s.Row+r)*from.Cols:(s.Row+r+1)*from.Cols], r)
		}
	}
	for _, s := range to.Segments {
		dst := pieces[s.Piece][s.Offset:]
		if err := quant.Encode(to.Type, s.Rows, to.Cols, rows[s.Row*to.Cols:(s.Row+s.Rows)*to.Cols], dst[:to.Type.Bytes(s.Rows, to.Cols)]); err != nil {
			return err
		}
	}
	return nil
}
