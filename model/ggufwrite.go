package model

import (
	"fmt"
	"math"
	"strings"
)

// A Pair is one entry of GGUF metadata. The Go type of Value is the type in the
// file, which llama.cpp minds: uint32, float32, bool, string or a list of those.
type Pair struct {
	Key   string
	Value any
}

// GGUFMeta is the metadata that says in a GGUF file what c says, without the
// tokenizer's. It is an error if GGUF has no way to say it.
func (c *Config) GGUFMeta() ([]Pair, error) {
	name, err := c.ggufName()
	if err != nil {
		return nil, err
	}
	w := &ggufWriter{arch: name}
	w.pairs = append(w.pairs, Pair{"general.architecture", name}, Pair{"general.type", "model"})
	if c.Name != "" {
		w.pairs = append(w.pairs, Pair{"general.name", c.Name})
	}
	blocks := c.Layers
	if c.MTP {
		blocks++
	}
	w.number("block_count", blocks)
	w.number("context_length", c.MaxPositions)
	w.number("embedding_length", c.Hidden)
	w.number("feed_forward_length", c.FFN)
	w.number("attention.head_count", c.Heads)
	w.number("attention.head_count_kv", c.KVHeads)
	w.number("attention.key_length", c.HeadDim)
	w.number("attention.value_length", c.HeadDim)
	w.float("attention.layer_norm_rms_epsilon", c.NormEps)
	w.number("rope.dimension_count", c.RoPE.Dims)
	w.float("rope.freq_base", c.RoPE.Theta)
	if factor, ok := c.linearScaling(); ok {
		w.add("rope.scaling.type", "linear")
		w.float("rope.scaling.factor", factor)
	} else if len(c.RoPE.Divisors) > 0 && name != "llama" {
		return nil, fmt.Errorf("GGUF has frequency factors for llama only, not for %s", name)
	}
	w.number("vocab_size", c.Vocab)
	if c.MoE != nil {
		w.moe(c)
	}
	return w.pairs, nil
}

// GGUFNotes say where llama.cpp, reading such a file, computes something else:
// what its architectures of that name cannot be told.
func (c *Config) GGUFNotes() (notes []string) {
	name, _ := c.ggufName()
	if name == "qwen3moe" && !c.MoE.Normalise {
		notes = append(notes, "llama.cpp normalises the weights of chosen experts in every qwen3moe model, this one does not: its answers will differ")
	}
	if name == "chatglm" && c.QDim() != c.Hidden {
		notes = append(notes, fmt.Sprintf("llama.cpp loads chatglm models only where heads × head size (%d) is the hidden size (%d)", c.QDim(), c.Hidden))
	}
	return notes
}

// ggufName is what GGUF calls the architecture.
func (c *Config) ggufName() (string, error) {
	a, err := find(func(a architecture) bool { return a.name == c.Arch }, "", c.Arch)
	if err != nil {
		return "", err
	}
	if len(a.gguf) == 0 {
		return a.name, nil
	}
	return a.gguf[0], nil
}

// linearScaling tells whether all frequencies are divided by one factor.
func (c *Config) linearScaling() (factor float64, ok bool) {
	for _, d := range c.RoPE.Divisors {
		if d != c.RoPE.Divisors[0] {
			return 0, false
		}
		factor, ok = d, true
	}
	return factor, ok
}

// ggufWriter collects pairs below an architecture's prefix.
type ggufWriter struct {
	arch  string
	pairs []Pair
}

func (w *ggufWriter) add(key string, value any) {
	w.pairs = append(w.pairs, Pair{w.arch + "." + key, value})
}
func (w *ggufWriter) number(key string, n int)    { w.add(key, uint32(n)) }
func (w *ggufWriter) float(key string, v float64) { w.add(key, float32(v)) }

func (w *ggufWriter) moe(c *Config) {
	m := c.MoE
	gating := 1
	if m.Sigmoid {
		gating = 2
	}
	w.number("expert_count", m.Experts)
	w.number("expert_used_count", m.PerToken)
	w.number("expert_feed_forward_length", m.FFN)
	w.number("expert_gating_func", gating)
	w.add("expert_weights_norm", m.Normalise)
	w.float("expert_weights_scale", m.Scale)
	if m.Groups > 0 {
		w.number("expert_group_count", m.Groups)
		w.number("expert_group_used_count", m.TopGroups)
	}
	if m.SharedFFN > 0 {
		w.number("expert_shared_count", m.SharedFFN/m.FFN)
	}
	if m.Sigmoid {
		w.number("leading_dense_block_count", m.DenseFirst)
		predict := 0
		if c.MTP {
			predict = 1
		}
		w.number("nextn_predict_layers", predict)
	}
}

// A GGUFTensor is a tensor of a GGUF file with the parts of the model's tensors
// that it is made of.
type GGUFTensor struct {
	Name  string
	Shape []int64 // outermost dimension first
	F32   bool    // kept in f32 whatever the recipe
	// Values are the tensor itself where the configuration holds it; else Parts
	// say where it comes from.
	Values []float32
	Parts  []GGUFPart
}

// A GGUFPart turns a Part round: its rows of the GGUF tensor come from the
// model's tensor Of.
type GGUFPart struct {
	Of *Tensor
	Part
}

// Rows and Cols are the shape as a matrix, of a vector one row.
func (t *GGUFTensor) Rows() int {
	rows := 1
	for _, n := range t.Shape[:len(t.Shape)-1] {
		rows *= int(n)
	}
	return rows
}

// Cols is the last dimension.
func (t *GGUFTensor) Cols() int { return int(t.Shape[len(t.Shape)-1]) }

// Row is the part's inverse: the row of Of (of a vector: the element) that row
// source of the GGUF tensor comes from; false where it comes from another part.
func (p *GGUFPart) Row(source int) (row int, ok bool) {
	i := source - p.From
	if i < 0 || i >= p.Rows {
		return 0, false
	}
	if p.Heads > 0 { // SourceRow's permutation, turned round
		dim := p.Rows / p.Heads
		head, r := i/dim, i%dim
		i = head*dim + r%2*(dim/2) + r/2
	}
	return p.To + i*p.Stride, true
}

// GGUFTensors lists the tensors of a GGUF file of this model, as llama.cpp
// names, stacks, fuses and permutes them. The parts are those by which such a
// file is read (see Sources), so that both directions agree.
func (c *Config) GGUFTensors() ([]GGUFTensor, error) {
	a, err := find(func(a architecture) bool { return a.name == c.Arch }, "", c.Arch)
	if err != nil {
		return nil, err
	}
	l := &ggufList{config: c, names: a.names(GGUF)}
	for _, t := range c.Tensors() {
		l.tensor(t)
	}
	if _, linear := c.linearScaling(); len(c.RoPE.Divisors) > 0 && !linear {
		factors := make([]float32, len(c.RoPE.Divisors))
		for i, d := range c.RoPE.Divisors {
			factors[i] = float32(d)
		}
		l.list = append(l.list, GGUFTensor{Name: "rope_freqs.weight", Shape: []int64{int64(len(factors))}, F32: true, Values: factors})
	}
	return l.list, l.connect()
}

// ggufList collects the tensors of a GGUF file.
type ggufList struct {
	config *Config
	names  names
	list   []GGUFTensor
}

func (l *ggufList) add(name string, f32 bool, shape ...int) {
	t := GGUFTensor{Name: name, F32: f32 || len(shape) == 1}
	for _, n := range shape {
		t.Shape = append(t.Shape, int64(n))
	}
	l.list = append(l.list, t)
}

// tensor adds what one tensor of the model becomes. Of fused ones the first
// brings the whole.
func (l *ggufList) tensor(t Tensor) {
	c, n := l.config, l.names
	layer := fmt.Sprintf(n.layer, t.Layer)
	local := strings.TrimPrefix(t.Name, LayerName(t.Layer, ""))
	qkv := c.QDim() + 2*c.KVDim()
	half := t.Rows / 2
	switch local {
	case "q", "q_bias":
		stem, rows := n.q, c.QDim()
		if n.writesFusedQKV {
			stem, rows = n.qkv, qkv
		}
		l.projection(layer+stem, local == "q_bias", rows)
	case "k", "v", "k_bias", "v_bias":
		if !n.writesFusedQKV {
			l.projection(layer+map[byte]string{'k': n.k, 'v': n.v}[local[0]], len(local) > 1, c.KVDim())
		}
	case "o":
		l.add(layer+n.o+".weight", false, t.Rows, t.Cols)
	case "gate_up":
		if n.writesFusedGateUp {
			l.add(layer+n.up, false, t.Rows, t.Cols)
			return
		}
		l.add(layer+n.gate, false, half, t.Cols)
		l.add(layer+n.up, false, half, t.Cols)
	case "shared.gate_up":
		l.add(layer+n.sharedGate, false, half, t.Cols)
		l.add(layer+n.sharedUp, false, half, t.Cols)
	case "experts.gate_up":
		l.add(layer+n.stackedGate, false, c.MoE.Experts, c.MoE.FFN, t.Cols)
		l.add(layer+n.stackedUp, false, c.MoE.Experts, c.MoE.FFN, t.Cols)
	case "experts.down":
		l.add(layer+n.stackedDown, false, c.MoE.Experts, c.Hidden, t.Cols)
	default:
		l.plain(local, layer, t)
	}
}

func (l *ggufList) projection(stem string, bias bool, rows int) {
	if bias {
		l.add(stem+".bias", true, rows)
		return
	}
	l.add(stem+".weight", false, rows, l.config.Hidden)
}

// plain adds a tensor that is the same in both worlds.
func (l *ggufList) plain(local, layer string, t Tensor) {
	n := l.names
	name := map[string]string{
		"embed": n.embed, "norm": n.norm, "head": n.head,
		"attn_norm": layer + n.attnNorm, "attn_post_norm": layer + n.attnPostNorm,
		"ffn_norm": layer + n.ffnNorm, "ffn_post_norm": layer + n.ffnPostNorm,
		"q_norm": layer + n.qNorm, "k_norm": layer + n.kNorm,
		"down": layer + n.down, "shared.down": layer + n.sharedDown,
		"router": layer + n.router, "router_bias": layer + n.routerBias,
		"mtp.enorm": layer + n.enorm, "mtp.hnorm": layer + n.hnorm, "mtp.eh_proj": layer + n.ehProj,
		"mtp.norm": layer + n.mtpNorm, "mtp.embed": layer + n.mtpEmbed, "mtp.head": layer + n.mtpHead,
	}[local]
	if t.Rows == 1 {
		l.add(name, true, t.Cols)
		return
	}
	l.add(name, t.F32, t.Rows, t.Cols)
}

// connect finds the parts: those by which a file with these tensors would be
// read.
func (l *ggufList) connect() error {
	index := make(map[string]int, len(l.list))
	for i, t := range l.list {
		index[t.Name] = i
	}
	tensors, err := l.config.Sources(GGUF, func(name string) (rows, cols int, ok bool) {
		i, ok := index[name]
		if !ok {
			return 0, 0, false
		}
		return l.list[i].Rows(), l.list[i].Cols(), true
	})
	if err != nil {
		return err
	}
	for i := range tensors {
		for _, p := range tensors[i].Parts {
			t := &l.list[index[p.Source]]
			t.Parts = append(t.Parts, GGUFPart{&tensors[i], p})
		}
	}
	return l.check()
}

// check makes sure that the parts make up every tensor.
func (l *ggufList) check() error {
	for _, t := range l.list {
		units, have := t.Rows(), 0
		if len(t.Shape) == 1 {
			units = t.Cols()
		}
		for _, p := range t.Parts {
			have += p.Rows
		}
		if t.Values == nil && have != units {
			return fmt.Errorf("GGUF tensor %s: parts make up %d of %d rows", t.Name, have, units)
		}
		if units > math.MaxInt32 {
			return fmt.Errorf("GGUF tensor %s: %d rows", t.Name, units)
		}
	}
	return nil
}
