// Package plan decides which worker holds which layers and experts.
//
// It takes a model's shape and what each worker can do, and returns a Plan
// with its predicted speed and the reasons for it. Same input, same Plan: no
// clock, no network, no randomness. Handing the spans out is the work of
// package cluster.
package plan

import (
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// A Shape is what of a model counts for planning, in bytes.
type Shape struct {
	Config *model.Config
	Layers []Layer
	Ends   int64 // embedding, final norm and head: they stay with the coordinator
	MTP    int64 // the prediction layer
}

// A Layer's bytes: Begin is all but the routed experts.
type Layer struct {
	Begin, Expert int64 // Expert: one of them
	Experts       int
	PerToken      int // experts read for one token
}

// Bytes is the layer whole.
func (l Layer) Bytes() int64 { return l.Begin + l.Expert*int64(l.Experts) }

// Read is what decoding one token reads of it.
func (l Layer) Read() int64 { return l.Begin + l.Expert*int64(l.PerToken) }

// ShapeOf returns the shape of a store.
func ShapeOf(m *shard.Manifest) *Shape {
	types := map[string]quant.Type{}
	for _, t := range m.Tensors {
		types[t.Name] = t.Type
	}
	return NewShape(m.Model, func(t model.Tensor) quant.Type { return types[t.Name] })
}

// NewShape returns the shape of a model whose weights have the given types;
// norms, biases and routers are f32.
func NewShape(c *model.Config, typeOf func(t model.Tensor) quant.Type) *Shape {
	s := &Shape{Config: c, Layers: make([]Layer, c.Layers)}
	for i := range s.Layers {
		if c.IsMoE(i) {
			s.Layers[i].Experts, s.Layers[i].PerToken = c.MoE.Experts, c.MoE.PerToken
		}
	}
	for _, t := range c.Tensors() {
		typ := typeOf(t)
		if t.F32 || !typ.Fits(t.Cols) {
			typ = quant.F32
		}
		size := typ.Bytes(t.Rows, t.Cols)
		switch {
		case t.Layer < 0 || t.Layer > c.Layers:
			s.Ends += size
		case t.Layer == c.Layers:
			s.MTP += size
		case t.Name == model.LayerName(t.Layer, "experts.gate_up"), t.Name == model.LayerName(t.Layer, "experts.down"):
			s.Layers[t.Layer].Expert += size / int64(c.MoE.Experts)
		default:
			s.Layers[t.Layer].Begin += size
		}
	}
	return s
}

// Bytes is all that workers must hold together, without KV cache.
func (s *Shape) Bytes() (total int64) {
	for _, l := range s.Layers {
		total += l.Bytes()
	}
	return total
}

// ReadPerToken is what decoding one token reads, the coordinator's head with it.
func (s *Shape) ReadPerToken() int64 {
	total := int64(0)
	for _, l := range s.Layers {
		total += l.Read()
	}
	return total
}

// kvBytes is the KV cache of one layer.
func (s *Shape) kvBytes(slots Slots) int64 {
	element := int64(slots.KV.QuantsRowBytes(quant.BlockSize)+slots.KV.ScalesRowBytes(quant.BlockSize)) * int64(2*s.Config.KVDim()) / quant.BlockSize
	return element * int64(slots.Slots) * int64(slots.Positions)
}
