// Package model knows the architectures: what a configuration means, which
// tensors a model has and what they are called in each source format, and how
// a model is cut into spans.
//
// It takes configuration values (a Hugging Face config.json, GGUF metadata)
// and gives a Config, from which an executor reads the layer program, the
// converter reads where each tensor comes from, and the planner reads sizes.
// It does no I/O; opening files is the work of packages safetensors and gguf.
package model

import "fmt"

// A Config is a model's shape and the options of its layer program. One layer
// computes, with every norm an RMSNorm in f32,
//
//	a = Attention(Norm(x))            QKV bias and per-head QK norm where set
//	h = x + a                         x + Norm(a) where Sandwich is set
//	f = FFN(Norm(h))                  dense SwiGLU or a mixture of experts
//	y = h + f                         h + Norm(f) where Sandwich is set
type Config struct {
	Arch   string `json:"arch"` // canonical name, as in Architectures
	Name   string `json:"name,omitempty"`
	Hidden int    `json:"hidden"`
	Layers int    `json:"layers"`
	Vocab  int    `json:"vocab"`

	Heads   int `json:"heads"`
	KVHeads int `json:"kv_heads"`
	HeadDim int `json:"head_dim"`

	FFN     int     `json:"ffn"` // width of a dense layer's SwiGLU
	NormEps float64 `json:"norm_eps"`
	RoPE    RoPE    `json:"rope"`

	QKVBias  bool `json:"qkv_bias,omitempty"`
	QKNorm   bool `json:"qk_norm,omitempty"`  // RMSNorm over each head of q and k, before RoPE
	Sandwich bool `json:"sandwich,omitempty"` // norms also after attention and after the FFN (GLM-4-0414)
	Tied     bool `json:"tied,omitempty"`     // the head is the embedding

	MoE *MoE `json:"moe,omitempty"`
	MTP bool `json:"mtp,omitempty"` // has a prediction layer, at index Layers
	// MTPEmbed and MTPHead tell whether the prediction layer has its own
	// embedding and head; otherwise the trunk's are meant.
	MTPEmbed bool `json:"mtp_embed,omitempty"`
	MTPHead  bool `json:"mtp_head,omitempty"`

	MaxPositions int     `json:"max_positions"`
	EOS          []int32 `json:"eos,omitempty"`
	BOS          *int32  `json:"bos,omitempty"`
	Pad          *int32  `json:"pad,omitempty"`
}

// RoPE says how positions turn the heads. Pair i of Dims/2 turns by
// position · Theta^(-2i/Dims), divided by Divisors[i] where those are given.
type RoPE struct {
	Dims  int     `json:"dims"` // the first Dims of each head turn, the rest pass
	Theta float64 `json:"theta"`
	// Interleaved pairs are (2i, 2i+1); otherwise (i, i+Dims/2).
	Interleaved bool      `json:"interleaved,omitempty"`
	Divisors    []float64 `json:"divisors,omitempty"`
}

// MoE is a mixture-of-experts FFN. The router scores s = Sigmoid or softmax of
// its logits; the PerToken experts with the largest s + correction bias are
// chosen, within the TopGroups best of Groups; their weights are s itself,
// normalised to sum 1 where Normalise is set, times Scale. Shared experts are
// always added, unscaled.
type MoE struct {
	Experts    int     `json:"experts"`
	PerToken   int     `json:"per_token"`
	FFN        int     `json:"ffn"`
	SharedFFN  int     `json:"shared_ffn,omitempty"` // width of all shared experts together, 0: none
	Groups     int     `json:"groups,omitempty"`     // 0 or 1: no groups
	TopGroups  int     `json:"top_groups,omitempty"`
	Sigmoid    bool    `json:"sigmoid,omitempty"`
	Correction bool    `json:"correction,omitempty"` // has a correction bias
	Normalise  bool    `json:"normalise,omitempty"`
	Scale      float64 `json:"scale"`
	DenseFirst int     `json:"dense_first,omitempty"` // the first layers are dense
}

// IsMoE tells whether a layer's FFN is a mixture of experts. The prediction
// layer (index Layers) is one wherever the last layer is.
func (c *Config) IsMoE(layer int) bool { return c.MoE != nil && layer >= c.MoE.DenseFirst }

// Experts is the number of experts of a layer, 0 for a dense one.
func (c *Config) Experts(layer int) int {
	if !c.IsMoE(layer) {
		return 0
	}
	return c.MoE.Experts
}

// QDim and KVDim are the widths of the query and of one of key and value.
func (c *Config) QDim() int  { return c.Heads * c.HeadDim }
func (c *Config) KVDim() int { return c.KVHeads * c.HeadDim }

// KVBytes is the size of one layer's keys and values for one position, at
// elementBytes a number.
func (c *Config) KVBytes(elementBytes int) int64 { return int64(2 * c.KVDim() * elementBytes) }

// limits of a configuration: far above any model, far below an overflow.
const (
	maxDim     = 1 << 20
	maxLayers  = 1 << 12
	maxVocab   = 1 << 24
	maxExperts = 1 << 14
)

// Check tells whether the configuration makes sense, naming the field that
// does not.
func (c *Config) Check() error {
	type field struct {
		name       string
		value, max int
	}
	fields := []field{
		{"hidden_size", c.Hidden, maxDim}, {"num_hidden_layers", c.Layers, maxLayers}, {"vocab_size", c.Vocab, maxVocab},
		{"num_attention_heads", c.Heads, maxDim}, {"num_key_value_heads", c.KVHeads, maxDim}, {"head_dim", c.HeadDim, maxDim},
		{"max_position_embeddings", c.MaxPositions, 1 << 30},
	}
	if c.MoE == nil || c.MoE.DenseFirst > 0 {
		fields = append(fields, field{"intermediate_size", c.FFN, maxDim})
	}
	if m := c.MoE; m != nil {
		fields = append(fields, field{"n_routed_experts", m.Experts, maxExperts}, field{"num_experts_per_tok", m.PerToken, m.Experts},
			field{"moe_intermediate_size", m.FFN, maxDim})
	}
	for _, f := range fields {
		if f.value < 1 || f.value > f.max {
			return fmt.Errorf("config: %s is %d, want 1 to %d", f.name, f.value, f.max)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("config: num_attention_heads %d is no multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.QDim() > maxDim || c.KVDim() > maxDim:
		return fmt.Errorf("config: num_attention_heads %d × head_dim %d is absurd", c.Heads, c.HeadDim)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return fmt.Errorf("config: rms_norm_eps is %g, want above 0 and below 1", c.NormEps)
	case c.RoPE.Dims < 2 || c.RoPE.Dims > c.HeadDim || c.RoPE.Dims%2 != 0:
		return fmt.Errorf("config: %d rotary dimensions in heads of %d, want an even number from 2 to %d", c.RoPE.Dims, c.HeadDim, c.HeadDim)
	case !(c.RoPE.Theta > 0 && c.RoPE.Theta < 1e15):
		return fmt.Errorf("config: rope_theta is %g", c.RoPE.Theta)
	case len(c.RoPE.Divisors) != 0 && len(c.RoPE.Divisors) != c.RoPE.Dims/2:
		return fmt.Errorf("config: %d rope divisors for %d rotary pairs", len(c.RoPE.Divisors), c.RoPE.Dims/2)
	}
	for i, d := range c.RoPE.Divisors {
		if !(d > 0 && d < 1e9) {
			return fmt.Errorf("config: rope divisor %d is %g", i, d)
		}
	}
	return c.checkMoE()
}

func (c *Config) checkMoE() error {
	m := c.MoE
	if m == nil {
		return nil
	}
	groups := max(m.Groups, 1)
	switch {
	case m.DenseFirst < 0 || m.DenseFirst > c.Layers:
		return fmt.Errorf("config: first_k_dense_replace is %d of %d layers", m.DenseFirst, c.Layers)
	case m.SharedFFN < 0 || m.SharedFFN > maxDim:
		return fmt.Errorf("config: shared experts are %d wide", m.SharedFFN)
	case m.Experts%groups != 0:
		return fmt.Errorf("config: n_routed_experts %d is no multiple of n_group %d", m.Experts, groups)
	case groups > 1 && (m.TopGroups < 1 || m.TopGroups > groups):
		return fmt.Errorf("config: topk_group is %d of %d groups", m.TopGroups, groups)
	case groups > 1 && m.TopGroups*(m.Experts/groups) < m.PerToken:
		return fmt.Errorf("config: %d groups of %d experts hold fewer than num_experts_per_tok %d", m.TopGroups, m.Experts/groups, m.PerToken)
	case groups > 1 && m.Experts/groups < 2:
		return fmt.Errorf("config: groups of %d expert: a group's score is the sum of its best two", m.Experts/groups)
	case !(m.Scale > 0 && m.Scale < 1e4):
		return fmt.Errorf("config: routed_scaling_factor is %g", m.Scale)
	}
	return nil
}
