package model

import (
	"fmt"
	"sort"
	"strings"
)

// A Format is a way in which model files name their tensors.
type Format uint8

// The source formats.
const (
	HuggingFace Format = 1 // safetensors with config.json
	GGUF        Format = 2
)

// A Shape tells whether the source has a tensor, and its shape with all but
// the last dimension multiplied together (a vector is one row).
type Shape func(name string) (rows, cols int, ok bool)

// An architecture is one file of this package: how its configuration reads and
// what its tensors are called.
type architecture struct {
	name     string   // canonical: Config.Arch
	hf       []string // names in config.json's "architectures"
	gguf     []string // names in general.architecture
	readHF   func(raw *hfConfig) (*Config, error)
	readGGUF func(meta *ggufMeta) (*Config, error)
	names    func(f Format) names
}

var architectures []architecture

func register(a architecture) { architectures = append(architectures, a) }

// Architectures lists the canonical names of all architectures.
func Architectures() []string {
	var list []string
	for _, a := range architectures {
		list = append(list, a.name)
	}
	sort.Strings(list)
	return list
}

func find(match func(a architecture) bool, kind, name string) (architecture, error) {
	var known []string
	for _, a := range architectures {
		if match(a) {
			return a, nil
		}
		if kind == "GGUF" {
			known = append(known, a.gguf...)
		} else {
			known = append(known, a.hf...)
		}
	}
	sort.Strings(known)
	return architecture{}, fmt.Errorf("%s architecture %.80q is unknown: want one of %s", kind, name, strings.Join(known, ", "))
}

func contains(list []string, name string) bool {
	for _, s := range list {
		if s == name {
			return true
		}
	}
	return false
}

// names says what an architecture's tensors are called in one format. An empty
// name means that the format has no such tensor. Of alternatives the first
// that the source has is taken.
type names struct {
	layer string // prefix of a layer's tensors, with %d

	embed, norm, head string

	attnNorm, attnPostNorm, ffnNorm, ffnPostNorm string
	q, k, v, qkv, o                              string // stem: ".weight" and ".bias" follow
	qNorm, kNorm                                 string
	gate, up, down                               string
	gateUp                                       string // fused, the gate's half first
	router, routerBias                           string
	sharedGate, sharedUp, sharedDown             string
	expert                                       string // prefix of one expert's tensors, with %d; gate, up and down follow
	expertGate, expertUp, expertDown             string
	stackedGate, stackedUp, stackedDown          string // [experts, out, in]
	stackedGateUp                                string // [experts, 2·width, in], the gate's half first

	enorm, hnorm, ehProj, mtpNorm, mtpEmbed, mtpHead string
	permuted                                         bool // q and k rows of each head stand interleaved

	// How GGUF files are written; both spellings are read.
	writesFusedQKV, writesFusedGateUp bool
}

// hfNames are the names that most Hugging Face checkpoints use.
func hfNames() names {
	return names{
		layer: "model.layers.%d.",
		embed: "model.embed_tokens.weight", norm: "model.norm.weight", head: "lm_head.weight",
		attnNorm: "input_layernorm.weight", ffnNorm: "post_attention_layernorm.weight",
		q: "self_attn.q_proj", k: "self_attn.k_proj", v: "self_attn.v_proj", o: "self_attn.o_proj",
		qNorm: "self_attn.q_norm.weight", kNorm: "self_attn.k_norm.weight",
		gate: "mlp.gate_proj.weight", up: "mlp.up_proj.weight", down: "mlp.down_proj.weight", gateUp: "mlp.gate_up_proj.weight",
		router: "mlp.gate.weight", routerBias: "mlp.gate.e_score_correction_bias",
		sharedGate: "mlp.shared_experts.gate_proj.weight", sharedUp: "mlp.shared_experts.up_proj.weight", sharedDown: "mlp.shared_experts.down_proj.weight",
		expert: "mlp.experts.%d.", expertGate: "gate_proj.weight", expertUp: "up_proj.weight", expertDown: "down_proj.weight",
		stackedGateUp: "mlp.experts.gate_up_proj", stackedDown: "mlp.experts.down_proj",
		enorm: "enorm.weight", hnorm: "hnorm.weight", ehProj: "eh_proj.weight",
		mtpNorm: "shared_head.norm.weight", mtpEmbed: "embed_tokens.weight", mtpHead: "shared_head.head.weight",
	}
}

// ggufNames are the names that most GGUF files use.
func ggufNames() names {
	return names{
		layer: "blk.%d.",
		embed: "token_embd.weight", norm: "output_norm.weight", head: "output.weight",
		attnNorm: "attn_norm.weight", ffnNorm: "ffn_norm.weight",
		q: "attn_q", k: "attn_k", v: "attn_v", qkv: "attn_qkv", o: "attn_output",
		qNorm: "attn_q_norm.weight", kNorm: "attn_k_norm.weight",
		gate: "ffn_gate.weight", up: "ffn_up.weight", down: "ffn_down.weight",
		router: "ffn_gate_inp.weight", routerBias: "exp_probs_b.bias",
		sharedGate: "ffn_gate_shexp.weight", sharedUp: "ffn_up_shexp.weight", sharedDown: "ffn_down_shexp.weight",
		stackedGate: "ffn_gate_exps.weight", stackedUp: "ffn_up_exps.weight", stackedDown: "ffn_down_exps.weight",
		enorm: "nextn.enorm.weight", hnorm: "nextn.hnorm.weight", ehProj: "nextn.eh_proj.weight",
		mtpNorm: "nextn.shared_head_norm.weight", mtpEmbed: "nextn.embed_tokens.weight", mtpHead: "nextn.shared_head_head.weight",
	}
}

func standardNames(f Format) names {
	if f == GGUF {
		return ggufNames()
	}
	return hfNames()
}

// namesOf returns the names of c's architecture in format f, for a source
// whose text model may lie below a prefix, as in vision models.
func (c *Config) namesOf(f Format, shape Shape) (names, error) {
	a, err := find(func(a architecture) bool { return a.name == c.Arch }, "", c.Arch)
	if err != nil {
		return names{}, err
	}
	n := a.names(f)
	if _, _, ok := shape(n.embed); ok || f == GGUF {
		return n, nil
	}
	for _, prefix := range []string{"model.language_model.", "language_model.model."} {
		under := strings.Replace(n.embed, "model.", prefix, 1)
		if _, _, ok := shape(under); ok {
			n.embed, n.layer, n.norm = under, strings.Replace(n.layer, "model.", prefix, 1), strings.Replace(n.norm, "model.", prefix, 1)
			if _, _, ok := shape(n.head); !ok && prefix == "language_model.model." {
				n.head = "language_model.lm_head.weight"
			}
			return n, nil
		}
	}
	return n, nil
}

// Probe corrects what a configuration says by what the source has: a
// prediction layer that was promised but left out, one's own embedding and
// head of a prediction layer, a head that is the embedding, and in GGUF files
// biases and norms of q and k.
func (c *Config) Probe(f Format, shape Shape) error {
	n, err := c.namesOf(f, shape)
	if err != nil {
		return err
	}
	has := func(name string) bool { _, _, ok := shape(name); return ok }
	mtp := fmt.Sprintf(n.layer, c.Layers)
	c.MTP = c.MTP && has(mtp+n.ehProj)
	c.MTPEmbed = c.MTP && has(mtp+n.mtpEmbed)
	c.MTPHead = c.MTP && has(mtp+n.mtpHead)
	if f == GGUF { // which says neither
		first := fmt.Sprintf(n.layer, 0)
		c.QKVBias = has(first+n.q+".bias") || n.qkv != "" && has(first+n.qkv+".bias")
		c.QKNorm = has(first + n.qNorm)
	}
	if !has(n.head) {
		if !c.Tied && f == HuggingFace {
			return fmt.Errorf("tensor %s is missing, and the config does not say that the head is tied to the embedding", n.head)
		}
		c.Tied = true
	} else if f == GGUF {
		c.Tied = false
	}
	return nil
}
