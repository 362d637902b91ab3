package model

import "fmt"

// A Tensor is one tensor of a model as a store holds it and executors use it:
// fused and ordered as kernels want it, whatever the source looked like.
//
//	embed                    vocabulary × hidden
//	layers.N.attn_norm       1 × hidden, F32
//	layers.N.q, k, v         q width (k and v: kv width) × hidden
//	layers.N.q_bias, …       1 × width, F32
//	layers.N.q_norm, k_norm  1 × head_dim, F32
//	layers.N.o               hidden × q width
//	layers.N.attn_post_norm  1 × hidden, F32 (sandwich)
//	layers.N.ffn_norm        1 × hidden, F32
//	layers.N.gate_up         2·ffn × hidden, rows interleaved: gate 0, up 0, gate 1, …
//	layers.N.down            hidden × ffn
//	layers.N.ffn_post_norm   1 × hidden, F32 (sandwich)
//	layers.N.router          experts × hidden, F32
//	layers.N.router_bias     1 × experts, F32
//	layers.N.shared.gate_up, layers.N.shared.down      as gate_up, down
//	layers.N.experts.gate_up experts·2·width × hidden, expert after expert
//	layers.N.experts.down    experts·hidden × width
//	norm                     1 × hidden, F32
//	head                     vocabulary × hidden (absent where tied)
//	mtp.enorm, mtp.hnorm     1 × hidden, F32
//	mtp.eh_proj              hidden × 2·hidden, the embedding's half first
//	mtp.norm                 1 × hidden, F32
//	mtp.embed, mtp.head      as embed, head, where it has its own
//
// The prediction layer's block is layers.N with N = Layers.
type Tensor struct {
	Name       string
	Rows, Cols int
	F32        bool // kept in f32 whatever the recipe: norms, biases, routers
	Layer      int  // its layer; -1: before the layers, Layers: prediction layer, Layers+1: after all
	Parts      []Part
}

// A Part says where some rows of a Tensor (or elements, where that is a single
// row) come from: row i of the part, of
// Rows, is row From+i of tensor Source (flattened to two dimensions) and
// becomes row To+i·Stride.
type Part struct {
	Source   string
	From, To int
	Rows     int
	Stride   int
	// Heads > 0 undoes the permutation that GGUF files of Llama have: the
	// part's rows are Heads heads whose two halves stand interleaved.
	Heads int
}

// SourceRow is the row of Source that row i of the part comes from.
func (p Part) SourceRow(i int) int {
	if p.Heads > 0 {
		dim := p.Rows / p.Heads
		head, j := i/dim, i%dim
		half := dim / 2
		i = head*dim + 2*(j%half) + j/half
	}
	return p.From + i
}

// LayerName is the store's name of a tensor of a layer.
func LayerName(layer int, name string) string { return fmt.Sprintf("layers.%d.%s", layer, name) }

// shape lists the tensors of the model without their parts.
func (c *Config) shape() []Tensor {
	list := []Tensor{{Name: "embed", Rows: c.Vocab, Cols: c.Hidden, Layer: -1}}
	for layer := 0; layer < c.Layers; layer++ {
		list = append(list, c.layerShape(layer)...)
	}
	after := c.Layers + 1
	list = append(list, Tensor{Name: "norm", Rows: 1, Cols: c.Hidden, F32: true, Layer: after})
	if !c.Tied {
		list = append(list, Tensor{Name: "head", Rows: c.Vocab, Cols: c.Hidden, Layer: after})
	}
	if c.MTP {
		list = append(list, c.mtpShape()...)
	}
	return list
}

func (c *Config) layerShape(layer int) []Tensor {
	var list []Tensor
	add := func(name string, rows, cols int) {
		list = append(list, Tensor{Name: LayerName(layer, name), Rows: rows, Cols: cols, Layer: layer})
	}
	vector := func(name string, cols int) {
		list = append(list, Tensor{Name: LayerName(layer, name), Rows: 1, Cols: cols, F32: true, Layer: layer})
	}
	vector("attn_norm", c.Hidden)
	add("q", c.QDim(), c.Hidden)
	add("k", c.KVDim(), c.Hidden)
	add("v", c.KVDim(), c.Hidden)
	if c.QKVBias {
		vector("q_bias", c.QDim())
		vector("k_bias", c.KVDim())
		vector("v_bias", c.KVDim())
	}
	if c.QKNorm {
		vector("q_norm", c.HeadDim)
		vector("k_norm", c.HeadDim)
	}
	add("o", c.Hidden, c.QDim())
	if c.Sandwich {
		vector("attn_post_norm", c.Hidden)
	}
	vector("ffn_norm", c.Hidden)
	if !c.IsMoE(layer) {
		add("gate_up", 2*c.FFN, c.Hidden)
		add("down", c.Hidden, c.FFN)
	} else {
		m := c.MoE
		list = append(list, Tensor{Name: LayerName(layer, "router"), Rows: m.Experts, Cols: c.Hidden, F32: true, Layer: layer})
		if m.Correction {
			vector("router_bias", m.Experts)
		}
		if m.SharedFFN > 0 {
			add("shared.gate_up", 2*m.SharedFFN, c.Hidden)
			add("shared.down", c.Hidden, m.SharedFFN)
		}
		add("experts.gate_up", m.Experts*2*m.FFN, c.Hidden)
		add("experts.down", m.Experts*c.Hidden, m.FFN)
	}
	if c.Sandwich {
		vector("ffn_post_norm", c.Hidden)
	}
	return list
}

func (c *Config) mtpShape() []Tensor {
	layer := c.Layers
	list := []Tensor{
		{Name: "mtp.enorm", Rows: 1, Cols: c.Hidden, F32: true, Layer: layer},
		{Name: "mtp.hnorm", Rows: 1, Cols: c.Hidden, F32: true, Layer: layer},
		{Name: "mtp.eh_proj", Rows: c.Hidden, Cols: 2 * c.Hidden, Layer: layer},
		{Name: "mtp.norm", Rows: 1, Cols: c.Hidden, F32: true, Layer: layer},
	}
	if c.MTPEmbed {
		list = append(list, Tensor{Name: "mtp.embed", Rows: c.Vocab, Cols: c.Hidden, Layer: layer})
	}
	if c.MTPHead {
		list = append(list, Tensor{Name: "mtp.head", Rows: c.Vocab, Cols: c.Hidden, Layer: layer})
	}
	return append(list, c.layerShape(layer)...)
}

// Tensors lists every tensor of the model, in the order in which a token
// travels. Parts is empty: see Sources.
func (c *Config) Tensors() []Tensor { return c.shape() }

// SpanTensors lists the tensors that a span reads, each with the range of rows
// it needs: all of them but for experts.
func (c *Config) SpanTensors(s Span) []SpanTensor {
	var list []SpanTensor
	whole := func(tensors ...Tensor) {
		for _, t := range tensors {
			list = append(list, SpanTensor{t, 0, t.Rows})
		}
	}
	shapes := map[string]Tensor{}
	for _, t := range c.shape() {
		if t.Layer < 0 || t.Layer > c.Layers {
			shapes[t.Name] = t
		}
	}
	head := shapes["head"]
	if c.Tied {
		head = shapes["embed"]
	}
	if s.Embed || s.MTP && !c.MTPEmbed {
		whole(shapes["embed"])
	}
	if s.MTP {
		for _, t := range c.mtpShape() {
			if t.Name[:4] == "mtp." {
				whole(t)
			}
		}
		if !c.MTPHead && !(c.Tied && !c.MTPEmbed) {
			whole(head)
		}
	}
	for _, part := range c.Parts(s) {
		for _, t := range c.layerShape(part.Layer) {
			perExpert := 0
			if c.IsMoE(part.Layer) {
				switch t.Name {
				case LayerName(part.Layer, "experts.gate_up"), LayerName(part.Layer, "experts.down"):
					perExpert = t.Rows / c.MoE.Experts
				}
			}
			switch {
			case perExpert > 0:
				list = append(list, SpanTensor{t, part.ExpertFirst * perExpert, part.ExpertCount * perExpert})
			case part.Begins || part.Ends && t.Name == LayerName(part.Layer, "ffn_post_norm"):
				whole(t)
			}
		}
	}
	if s.Head {
		whole(shapes["norm"])
		if !(c.Tied && s.Embed) {
			whole(head)
		}
	}
	return list
}

// A SpanTensor is the rows Row..Row+Rows-1 of a tensor that a span reads.
type SpanTensor struct {
	Tensor
	Row, RowCount int
}
