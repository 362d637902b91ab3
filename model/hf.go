package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
)

// FromHF reads a Hugging Face config.json, in the old spelling or that of
// transformers v5. Whether the checkpoint has what the config promises is
// found by Probe.
func FromHF(config []byte) (*Config, error) {
	raw := &hfConfig{}
	decoder := json.NewDecoder(bytes.NewReader(config))
	if err := decoder.Decode(&raw.fields); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if text, ok := raw.fields["text_config"]; ok { // vision models
		var inner map[string]json.RawMessage
		if err := json.Unmarshal(text, &inner); err != nil {
			return nil, fmt.Errorf("config.json: text_config: %w", err)
		}
		for key, value := range inner {
			if key != "architectures" {
				raw.fields[key] = value
			}
		}
	}
	var list []string
	raw.read("architectures", &list, true)
	if raw.err != nil {
		return nil, raw.err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("config.json: architectures lists %d names, want 1", len(list))
	}
	a, err := find(func(a architecture) bool { return contains(a.hf, list[0]) }, "Hugging Face", list[0])
	if err != nil {
		return nil, err
	}
	c, err := a.readHF(raw)
	if err == nil {
		err = raw.err
	}
	if err != nil {
		return nil, err
	}
	c.Arch = a.name
	if err := c.Check(); err != nil {
		return nil, err
	}
	return c, nil
}

// hfConfig reads fields of a config.json and keeps the first error.
type hfConfig struct {
	fields map[string]json.RawMessage
	err    error
}

func (r *hfConfig) has(name string) bool {
	value, ok := r.fields[name]
	return ok && string(value) != "null"
}

func (r *hfConfig) read(name string, into any, required bool) {
	if r.err != nil {
		return
	}
	if !r.has(name) {
		if required {
			r.err = fmt.Errorf("config.json: %s is missing", name)
		}
		return
	}
	if err := json.Unmarshal(r.fields[name], into); err != nil {
		r.err = fmt.Errorf("config.json: %s is %.60s: %w", name, r.fields[name], err)
	}
}

func (r *hfConfig) int(name string) (v int) {
	r.read(name, &v, true)
	return v
}

func (r *hfConfig) intOr(name string, otherwise int) int {
	r.read(name, &otherwise, false)
	return otherwise
}

func (r *hfConfig) float(name string) (v float64) {
	r.read(name, &v, true)
	return v
}

func (r *hfConfig) floatOr(name string, otherwise float64) float64 {
	r.read(name, &otherwise, false)
	return otherwise
}

func (r *hfConfig) boolOr(name string, otherwise bool) bool {
	r.read(name, &otherwise, false)
	return otherwise
}

func (r *hfConfig) ids(name string) []int32 {
	if !r.has(name) {
		return nil
	}
	var one int32
	if json.Unmarshal(r.fields[name], &one) == nil {
		return []int32{one}
	}
	var list []int32
	r.read(name, &list, true)
	return list
}

func (r *hfConfig) id(name string) *int32 {
	if list := r.ids(name); len(list) > 0 {
		return &list[0]
	}
	return nil
}

// fail notes an error of the caller's own.
func (r *hfConfig) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("config.json: "+format, args...)
	}
}

// common reads what every architecture's config calls by the same name. A
// missing key/value head count or head size means what transformers means.
func (r *hfConfig) common() *Config {
	c := &Config{
		Hidden: r.int("hidden_size"), Layers: r.int("num_hidden_layers"), Vocab: r.int("vocab_size"),
		Heads: r.int("num_attention_heads"), FFN: r.intOr("intermediate_size", 0),
		NormEps: r.floatOr("rms_norm_eps", 1e-6), Tied: r.boolOr("tie_word_embeddings", false),
		MaxPositions: r.intOr("max_position_embeddings", 2048),
		EOS:          r.ids("eos_token_id"), BOS: r.id("bos_token_id"), Pad: r.id("pad_token_id"),
	}
	c.KVHeads = r.intOr("num_key_value_heads", c.Heads)
	if c.Heads > 0 {
		c.HeadDim = r.intOr("head_dim", c.Hidden/c.Heads)
	}
	act := "silu"
	r.read("hidden_act", &act, false)
	if act != "silu" {
		r.fail("hidden_act is %q, only silu is known", act)
	}
	c.capWindow(r)
	return c
}

// capWindow limits the context of a model with sliding-window attention to its
// window: up to there the window changes nothing, and beyond it we would be wrong.
func (c *Config) capWindow(r *hfConfig) {
	window := r.intOr("sliding_window", 0)
	if window > 0 && r.boolOr("use_sliding_window", true) {
		c.MaxPositions = min(c.MaxPositions, window)
	}
}

// rope reads theta, partial rotation and scaling, at the top level or in
// rope_parameters (transformers v5).
func (r *hfConfig) rope(c *Config, partial float64, interleaved, thetaRequired bool) {
	inner := &hfConfig{fields: map[string]json.RawMessage{}}
	for _, name := range []string{"rope_scaling", "rope_parameters"} {
		if r.has(name) {
			r.read(name, &inner.fields, true)
		}
	}
	theta := r.floatOr("rope_theta", inner.floatOr("rope_theta", 0))
	if theta == 0 {
		theta = 10000
		if thetaRequired {
			r.fail("rope_theta is missing")
		}
	}
	partial = r.floatOr("partial_rotary_factor", inner.floatOr("partial_rotary_factor", partial))
	c.RoPE = RoPE{Dims: int(float64(c.HeadDim) * partial), Theta: theta, Interleaved: interleaved}
	c.RoPE.Divisors = inner.scaling(c)
	if r.err == nil && inner.err != nil {
		r.err = inner.err
	}
}

// scaling gives the divisors of the scaling that rope_scaling names, or nil.
func (r *hfConfig) scaling(c *Config) []float64 {
	kind := "default"
	r.read("type", &kind, false)
	r.read("rope_type", &kind, false)
	pairs := c.RoPE.Dims / 2
	if pairs < 1 || pairs > maxDim {
		return nil
	}
	switch kind {
	case "default", "":
		return nil
	case "linear":
		divisors := make([]float64, pairs)
		factor := r.float("factor")
		for i := range divisors {
			divisors[i] = factor
		}
		return divisors
	case "llama3":
		return llama3Divisors(c.RoPE, r.float("factor"), r.float("low_freq_factor"), r.float("high_freq_factor"),
			r.float("original_max_position_embeddings"))
	}
	r.fail("rope_type %.40q is unknown: default, linear or llama3", kind)
	return nil
}

// llama3Divisors is Llama 3.1's frequency scaling as divisors: wavelengths
// under original/high stay, those over original/low are stretched by factor,
// between them the frequency is interpolated.
func llama3Divisors(rope RoPE, factor, low, high, original float64) []float64 {
	divisors := make([]float64, rope.Dims/2)
	for i := range divisors {
		frequency := math.Pow(rope.Theta, -2*float64(i)/float64(rope.Dims))
		switch wavelength := 2 * math.Pi / frequency; {
		case wavelength < original/high:
			divisors[i] = 1
		case wavelength > original/low:
			divisors[i] = factor
		default:
			s := (original/wavelength - low) / (high - low)
			divisors[i] = 1 / ((1-s)/factor + s)
		}
	}
	return divisors
}
