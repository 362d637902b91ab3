package model

import (
	"fmt"
	"math"
)

// FromGGUF reads a GGUF file's metadata. ropeFreqs is the tensor
// rope_freqs.weight, nil where there is none. Values of meta are string, bool,
// uint64, int64, float64, or slices of those.
func FromGGUF(meta map[string]any, ropeFreqs []float32) (*Config, error) {
	name, _ := meta["general.architecture"].(string)
	a, err := find(func(a architecture) bool { return contains(a.gguf, name) }, "GGUF", name)
	if err != nil {
		return nil, err
	}
	m := &ggufMeta{meta: meta, arch: name}
	c, err := a.readGGUF(m)
	if err == nil {
		err = m.err
	}
	if err != nil {
		return nil, err
	}
	c.Arch = a.name
	c.Name, _ = meta["general.name"].(string)
	for _, f := range ropeFreqs {
		c.RoPE.Divisors = append(c.RoPE.Divisors, float64(f))
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// ggufMeta reads metadata and keeps the first error.
type ggufMeta struct {
	meta map[string]any
	arch string
	err  error
}

func (m *ggufMeta) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf("GGUF metadata: "+format, args...)
	}
}

// number reads a number below the architecture's prefix. A list (one value a
// layer) counts where all its values are the same.
func (m *ggufMeta) number(key string, otherwise float64, required bool) float64 {
	full := m.arch + "." + key
	value, ok := m.meta[full]
	if !ok {
		if required {
			m.fail("%s is missing", full)
		}
		return otherwise
	}
	switch v := value.(type) {
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	case float64:
		return v
	case bool:
		if v {
			return 1
		}
		return 0
	case []int64:
		return same(m, full, v)
	case []uint64:
		return same(m, full, v)
	case []float64:
		return same(m, full, v)
	}
	m.fail("%s is a %T, want a number", full, value)
	return otherwise
}

func same[T int64 | uint64 | float64](m *ggufMeta, key string, list []T) float64 {
	if len(list) == 0 {
		m.fail("%s is an empty list", key)
		return 0
	}
	for i, v := range list {
		if v != list[0] {
			m.fail("%s differs from layer to layer: %v, and %v in layer %d", key, list[0], v, i)
		}
	}
	return float64(list[0])
}

func (m *ggufMeta) int(key string) int { return clampInt(m.number(key, 0, true)) }
func (m *ggufMeta) intOr(key string, otherwise int) int {
	return clampInt(m.number(key, float64(otherwise), false))
}

// clampInt keeps an absurd number absurd without overflowing: Check refuses it.
func clampInt(v float64) int {
	if math.IsNaN(v) || v < 0 {
		return -1
	}
	return int(math.Min(v, 1<<31-1))
}

func (m *ggufMeta) id(key string) *int32 {
	value, ok := m.meta["tokenizer.ggml."+key].(uint64)
	if !ok || value > math.MaxInt32 {
		return nil
	}
	id := int32(value)
	return &id
}

// common reads what every architecture's metadata calls by the same name.
func (m *ggufMeta) common(interleaved bool) *Config {
	c := &Config{
		Hidden: m.int("embedding_length"), Layers: m.int("block_count"), Vocab: m.vocab(),
		Heads: m.int("attention.head_count"), FFN: m.intOr("feed_forward_length", 0),
		NormEps: m.number("attention.layer_norm_rms_epsilon", 0, true), MaxPositions: m.int("context_length"),
		BOS: m.id("bos_token_id"), Pad: m.id("padding_token_id"), Tied: true, // until Probe finds a head
	}
	for _, key := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		if id := m.id(key); id != nil && !containsID(c.EOS, *id) {
			c.EOS = append(c.EOS, *id)
		}
	}
	c.KVHeads = m.intOr("attention.head_count_kv", c.Heads)
	if c.Heads > 0 {
		c.HeadDim = m.intOr("attention.key_length", c.Hidden/c.Heads)
	}
	if v := m.intOr("attention.value_length", c.HeadDim); v != c.HeadDim {
		m.fail("%s.attention.value_length is %d, key_length %d: only equal lengths are known", m.arch, v, c.HeadDim)
	}
	c.RoPE = RoPE{Dims: m.intOr("rope.dimension_count", c.HeadDim), Theta: m.number("rope.freq_base", 10000, false), Interleaved: interleaved}
	switch kind, _ := m.meta[m.arch+".rope.scaling.type"].(string); kind {
	case "", "none":
	case "linear":
		factor := m.number("rope.scaling.factor", 0, true)
		for range min(c.RoPE.Dims, maxDim) / 2 {
			c.RoPE.Divisors = append(c.RoPE.Divisors, factor)
		}
	default:
		m.fail("%s.rope.scaling.type %.40q is unknown: none or linear", m.arch, kind)
	}
	if window := m.intOr("attention.sliding_window", 0); window > 0 {
		c.MaxPositions = min(c.MaxPositions, window)
	}
	return c
}

func containsID(list []int32, id int32) bool {
	for _, v := range list {
		if v == id {
			return true
		}
	}
	return false
}

// vocab is the size of the vocabulary: of the list of tokens where there is one.
func (m *ggufMeta) vocab() int {
	if tokens, ok := m.meta["tokenizer.ggml.tokens"].([]string); ok && len(tokens) > 0 {
		return len(tokens)
	}
	return m.int("vocab_size")
}

// moe reads the keys of a mixture of experts.
func (m *ggufMeta) moe(sigmoid, normalise bool) *MoE {
	gating := 1.0
	if sigmoid {
		gating = 2
	}
	asNumber := map[bool]float64{true: 1}
	e := &MoE{
		Experts: m.int("expert_count"), PerToken: m.int("expert_used_count"), FFN: m.int("expert_feed_forward_length"),
		Groups: m.intOr("expert_group_count", 0), TopGroups: m.intOr("expert_group_used_count", 0),
		Normalise: m.number("expert_weights_norm", asNumber[normalise], false) != 0,
		Scale:     m.number("expert_weights_scale", 1, false), DenseFirst: m.intOr("leading_dense_block_count", 0),
	}
	if e.Scale == 0 {
		e.Scale = 1 // written by old converters for "not scaled"
	}
	e.SharedFFN = m.intOr("expert_shared_count", 0) * e.FFN
	switch gating = m.number("expert_gating_func", gating, false); gating {
	case 1:
	case 2:
		e.Sigmoid = true
	default:
		m.fail("%s.expert_gating_func is %g: 1 (softmax) or 2 (sigmoid)", m.arch, gating)
	}
	return e
}
