package shard

import (
	"fmt"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// Layout decides where every tensor of a model lies, given the type of each:
// the manifest that results lacks nothing but the pieces' hashes. It depends
// on its arguments alone, so that a conversion can be resumed.
func Layout(c *model.Config, typeOf func(t model.Tensor) quant.Type) (*Manifest, error) {
	l := &layout{manifest: &Manifest{Version: Version, Model: c}}
	tensors := c.Tensors()
	for i := 0; i < len(tensors); {
		end := i
		for end < len(tensors) && tensors[end].Layer == tensors[i].Layer {
			end++
		}
		if err := l.layer(tensors[i:end], typeOf); err != nil {
			return nil, err
		}
		i = end
	}
	return l.manifest, nil
}

type layout struct {
	manifest *Manifest
	open     bool // whether the last piece takes more
}

// layer lays one layer's tensors into pieces of its own: small ones together,
// large ones cut by rows, experts last.
func (l *layout) layer(tensors []model.Tensor, typeOf func(t model.Tensor) quant.Type) error {
	l.open = false
	c := l.manifest.Model
	experts := map[string]int{} // by name: index in manifest.Tensors
	for _, t := range tensors {
		typ := typeOf(t)
		if t.F32 {
			typ = quant.F32
		}
		if !typ.Valid() || !typ.Fits(t.Cols) {
			return fmt.Errorf("tensor %s has %d columns: they cannot be %v", t.Name, t.Cols, typ)
		}
		l.manifest.Tensors = append(l.manifest.Tensors, Tensor{Name: t.Name, Type: typ, Rows: t.Rows, Cols: t.Cols})
		index := len(l.manifest.Tensors) - 1
		switch t.Name {
		case model.LayerName(t.Layer, "experts.gate_up"):
			experts["gate_up"] = index
			continue
		case model.LayerName(t.Layer, "experts.down"):
			experts["down"] = index
			continue
		}
		if err := l.rows(index); err != nil {
			return err
		}
	}
	if len(experts) == 2 {
		return l.experts(c.MoE.Experts, experts["gate_up"], experts["down"])
	}
	return nil
}

// rows lays a tensor: whole into the open piece where it fits, whole into a
// new one, or in even parts.
func (l *layout) rows(index int) error {
	t := &l.manifest.Tensors[index]
	size := t.Type.Bytes(t.Rows, t.Cols)
	if size <= MaxPiece {
		l.segment(index, 0, t.Rows)
		return nil
	}
	parts := int((size + MaxPiece - 1) / MaxPiece)
	for parts < t.Rows && t.Type.Bytes((t.Rows+parts-1)/parts, t.Cols) > MaxPiece {
		parts++
	}
	per := (t.Rows + parts - 1) / parts
	if t.Type.Bytes(per, t.Cols) > MaxPiece {
		return fmt.Errorf("tensor %s: one row of %d columns exceeds a piece of %d bytes", t.Name, t.Cols, MaxPiece)
	}
	for first := 0; first < t.Rows; first += per {
		l.open = false
		l.segment(index, first, min(per, t.Rows-first))
	}
	l.open = false
	return nil
}

// experts lays whole experts, as many to a piece as fit.
func (l *layout) experts(count, gateUp, down int) error {
	g, d := &l.manifest.Tensors[gateUp], &l.manifest.Tensors[down]
	gRows, dRows := g.Rows/count, d.Rows/count
	size := func(n int) int64 { return g.Type.Bytes(n*gRows, g.Cols) + d.Type.Bytes(n*dRows, d.Cols) }
	if size(1) > MaxPiece {
		return fmt.Errorf("tensor %s: one expert has %d bytes, a piece holds %d", g.Name, size(1), MaxPiece)
	}
	per := int(MaxPiece / size(1))
	for per < count && size(per+1) <= MaxPiece {
		per++
	}
	parts := (count + per - 1) / per
	per = (count + parts - 1) / parts
	for e := 0; e < count; e += per {
		n := min(per, count-e)
		l.open = false
		l.segment(gateUp, e*gRows, n*gRows)
		l.segment(down, e*dRows, n*dRows)
	}
	l.open = false
	return nil
}

// segment adds rows of a tensor to the open piece, or to a new one.
func (l *layout) segment(index, row, rows int) {
	m := l.manifest
	t := &m.Tensors[index]
	size := t.Type.Bytes(rows, t.Cols)
	if !l.open || m.Pieces[len(m.Pieces)-1].Bytes+size > MaxPiece {
		m.Pieces = append(m.Pieces, Piece{})
		l.open = true
	}
	p := &m.Pieces[len(m.Pieces)-1]
	t.Segments = append(t.Segments, Segment{Piece: len(m.Pieces) - 1, Offset: p.Bytes, Row: row, Rows: rows})
	p.Bytes += size
}
