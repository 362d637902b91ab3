package shard

import (
	"encoding/json"
	"fmt"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// MaxManifest is the largest manifest that is read: a model of a thousand
// layers stays far below it.
const MaxManifest = 64 << 20

// ParseManifest reads a manifest and checks all of it, so that whoever uses it
// can rely on every number.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes: want at most %d", len(data), MaxManifest)
	}
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// Check tells whether the manifest describes a whole model: every tensor of
// its configuration, in shape and type, lying in segments that cover it and
// stay within their pieces.
func (m *Manifest) Check() error {
	if m.Version != Version {
		return fmt.Errorf("format version %d, this program reads %d", m.Version, Version)
	}
	if m.Model == nil {
		return fmt.Errorf("model is missing")
	}
	if err := m.Model.Check(); err != nil {
		return err
	}
	for i, p := range m.Pieces {
		if p.Bytes < 1 || p.Bytes > MaxPiece {
			return fmt.Errorf("piece %d has %d bytes, want 1 to %d", i, p.Bytes, MaxPiece)
		}
	}
	wanted := map[string]model.Tensor{}
	for _, t := range m.Model.Tensors() {
		wanted[t.Name] = t
	}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		want, ok := wanted[t.Name]
		if !ok {
			return fmt.Errorf("tensor %.80q is not one of the model's, or comes twice", t.Name)
		}
		delete(wanted, t.Name)
		if err := m.checkTensor(t, want); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
	}
	for name := range wanted {
		return fmt.Errorf("tensor %s is missing", name)
	}
	return nil
}

func (m *Manifest) checkTensor(t *Tensor, want model.Tensor) error {
	switch {
	case t.Rows != want.Rows || t.Cols != want.Cols:
		return fmt.Errorf("%d × %d, the model's is %d × %d", t.Rows, t.Cols, want.Rows, want.Cols)
	case !t.Type.Valid():
		return fmt.Errorf("type %v", t.Type)
	case want.F32 && t.Type != quant.F32:
		return fmt.Errorf("type %v, must be f32", t.Type)
	case !t.Type.Fits(t.Cols):
		return fmt.Errorf("type %v wants a multiple of %d columns, has %d", t.Type, quant.BlockSize, t.Cols)
	}
	row := 0
	for i, s := range t.Segments {
		switch {
		case s.Piece < 0 || s.Piece >= len(m.Pieces):
			return fmt.Errorf("segment %d: piece %d of %d", i, s.Piece, len(m.Pieces))
		case s.Row != row || s.Rows < 1 || s.Rows > t.Rows-row:
			return fmt.Errorf("segment %d: rows %d to %d, want them to go on at %d of %d", i, s.Row, s.Row+s.Rows, row, t.Rows)
		case s.Offset < 0 || s.Offset%quant.Align != 0 || s.Offset > MaxPiece:
			return fmt.Errorf("segment %d: offset %d, want a multiple of %d within the piece", i, s.Offset, quant.Align)
		case s.Offset+t.Type.Bytes(s.Rows, t.Cols) > m.Pieces[s.Piece].Bytes:
			return fmt.Errorf("segment %d: %d bytes at %d of a piece of %d", i, t.Type.Bytes(s.Rows, t.Cols), s.Offset, m.Pieces[s.Piece].Bytes)
		}
		row += s.Rows
	}
	if row != t.Rows {
		return fmt.Errorf("segments hold %d of %d rows", row, t.Rows)
	}
	return nil
}

// Tensor finds a tensor by name.
func (m *Manifest) Tensor(name string) (*Tensor, bool) {
	for i := range m.Tensors {
		if m.Tensors[i].Name == name {
			return &m.Tensors[i], true
		}
	}
	return nil, false
}
