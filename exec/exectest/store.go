package exectest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/safetensors"
	"github.com/potluck-llm/potluck/shard"
)

// OpenFolder reads a small Hugging Face checkpoint into a store in memory,
// with weights in type t (f32: as they are) where their shape allows it and
// f32 elsewhere. It is written for clearness, row by row, and so also checks
// package convert, which does the same for big models.
func OpenFolder(folder string, t quant.Type) (*shard.Memory, error) {
	config, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if err != nil {
		return nil, err
	}
	c, err := model.FromHF(config)
	if err != nil {
		return nil, err
	}
	set, err := safetensors.OpenFolder(folder)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	shape := func(name string) (rows, cols int, ok bool) {
		tensor, _, ok := set.Tensor(name)
		if !ok {
			return 0, 0, false
		}
		rows, cols = tensor.Matrix()
		return rows, cols, true
	}
	return buildStore(c, model.HuggingFace, shape, set.Floats, t)
}

// OpenGGUF does the same for a GGUF file (the first of them, where it is split).
func OpenGGUF(path string, t quant.Type) (*shard.Memory, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var freqs []float32
	if _, ok := f.Tensor("rope_freqs.weight"); ok {
		if freqs, err = f.Floats("rope_freqs.weight"); err != nil {
			return nil, err
		}
	}
	c, err := model.FromGGUF(f.Meta, freqs)
	if err != nil {
		return nil, err
	}
	shape := func(name string) (rows, cols int, ok bool) {
		tensor, ok := f.Tensor(name)
		if !ok {
			return 0, 0, false
		}
		rows, cols = tensor.Matrix()
		return rows, cols, true
	}
	return buildStore(c, model.GGUF, shape, f.Floats, t)
}

func buildStore(c *model.Config, f model.Format, shape model.Shape, floats func(string) ([]float32, error), t quant.Type) (*shard.Memory, error) {
	if err := c.Probe(f, shape); err != nil {
		return nil, err
	}
	tensors, err := c.Sources(f, shape)
	if err != nil {
		return nil, err
	}
	b := &storeBuilder{manifest: shard.Manifest{Version: shard.Version, Model: c, Weights: t.String()}}
	for _, tensor := range tensors {
		values, err := assemble(tensor, floats)
		if err != nil {
			return nil, err
		}
		typ := t
		if tensor.F32 || !t.Fits(tensor.Cols) {
			typ = quant.F32
		}
		if err := b.add(tensor, typ, values); err != nil {
			return nil, err
		}
	}
	return shard.NewMemory(&b.manifest, b.pieces)
}

// assemble fills a tensor from its parts, row by row.
func assemble(t model.Tensor, floats func(string) ([]float32, error)) ([]float32, error) {
	values := make([]float32, t.Rows*t.Cols)
	width := t.Cols
	if t.Rows == 1 {
		width = 1
	}
	filled := 0
	for _, p := range t.Parts {
		source, err := floats(p.Source)
		if err != nil {
			return nil, err
		}
		for i := range p.Rows {
			from, to := p.SourceRow(i)*width, (p.To+i*p.Stride)*width
			filled += copy(values[to:to+width], source[from:from+width])
		}
	}
	if filled != len(values) {
		return nil, fmt.Errorf("tensor %s: parts fill %d of %d values", t.Name, filled, len(values))
	}
	return values, nil
}

type storeBuilder struct {
	manifest shard.Manifest
	pieces   [][]byte
}

// add makes the tensor a piece of its own; of experts' tensors two pieces, so
// that more than one segment occurs.
func (b *storeBuilder) add(t model.Tensor, typ quant.Type, values []float32) error {
	entry := shard.Tensor{Name: t.Name, Type: typ, Rows: t.Rows, Cols: t.Cols}
	cuts := []int{0, t.Rows}
	if experts := b.manifest.Model.Experts(t.Layer); t.Layer >= 0 && experts > 2 && t.Rows%experts == 0 && t.Rows > experts {
		cuts = []int{0, t.Rows / experts * (experts/2 + 1), t.Rows}
	}
	for i, first := range cuts[:len(cuts)-1] {
		rows := cuts[i+1] - first
		data := make([]byte, typ.Bytes(rows, t.Cols))
		if err := quant.Encode(typ, rows, t.Cols, values[first*t.Cols:(first+rows)*t.Cols], data); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		entry.Segments = append(entry.Segments, shard.Segment{Piece: len(b.pieces), Row: first, Rows: rows})
		b.pieces = append(b.pieces, data)
		b.manifest.Pieces = append(b.manifest.Pieces, shard.Piece{Hash: shard.Sum(data), Bytes: int64(len(data))})
	}
	b.manifest.Tensors = append(b.manifest.Tensors, entry)
	return nil
}

// A Golden is what the reference computed for a checkpoint.
type Golden struct {
	Inputs    [][]int32     // sequences of token ids
	Logits    [][]float32   // per sequence: positions × vocabulary
	Hidden    [][][]float32 // per state (0: embeddings, last: after the final norm), per sequence: positions × hidden
	MTPHidden [][]float32   // per sequence: positions-1 × hidden, nil where there is none
	MTPLogits [][]float32
}

// OpenGolden reads golden.safetensors.
func OpenGolden(path string, layers int) (*Golden, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ids, ok := f.Tensor("input_ids")
	if !ok || len(ids.Shape) != 2 {
		return nil, fmt.Errorf("%s: input_ids is missing or not two-dimensional", path)
	}
	raw := make([]byte, ids.Bytes)
	if err := f.ReadAt(ids, 0, raw); err != nil {
		return nil, err
	}
	sequences, length := int(ids.Shape[0]), int(ids.Shape[1])
	g := &Golden{}
	for s := range sequences {
		row := make([]int32, length)
		for i := range row {
			row[i] = int32(binary.LittleEndian.Uint64(raw[8*(s*length+i):]))
		}
		g.Inputs = append(g.Inputs, row)
	}
	split := func(name string) (parts [][]float32, err error) {
		values, err := f.Floats(name)
		if err != nil {
			return nil, err
		}
		size := len(values) / sequences
		for s := range sequences {
			parts = append(parts, values[s*size:(s+1)*size])
		}
		return parts, nil
	}
	if g.Logits, err = split("logits"); err != nil {
		return nil, err
	}
	for i := 0; i <= layers; i++ {
		h, err := split(fmt.Sprintf("hidden.%d", i))
		if err != nil {
			return nil, err
		}
		g.Hidden = append(g.Hidden, h)
	}
	if _, ok := f.Tensor("mtp_logits"); ok {
		if g.MTPHidden, err = split("mtp_hidden"); err != nil {
			return nil, err
		}
		if g.MTPLogits, err = split("mtp_logits"); err != nil {
			return nil, err
		}
	}
	return g, nil
}
