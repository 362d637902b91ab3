// Package synth makes checkpoints of real models' shapes, without their
// weights: what converting costs depends on shapes, not on what was learned.
//
// A Shape and a seed come in; a Hugging Face folder (config.json, bf16
// safetensors in several files, their index) goes out, streamed: the same seed
// gives the same bytes, whatever else is written.
package synth

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/safetensors"
)

// A Shape is that of a GLM4_MOE without prediction layer.
type Shape struct {
	Layers, DenseFirst, Hidden, FFN  int
	Heads, KVHeads, HeadDim          int
	Experts, PerToken, Shared, Width int // Width is an expert's
	Vocab, Positions                 int
}

// Air is the shape of GLM-4.5-Air and of INTELLECT-3: 107 billion weights,
// 214 GB in bf16.
var Air = Shape{
	Layers: 46, DenseFirst: 1, Hidden: 4096, FFN: 10944, Heads: 96, KVHeads: 8, HeadDim: 128,
	Experts: 128, PerToken: 8, Shared: 1, Width: 1408, Vocab: 151552, Positions: 131072,
}

// Medium is scaled down to 0.7 billion weights, of which a token reads 0.19
// billion: what speed is measured with.
var Medium = Shape{
	Layers: 12, DenseFirst: 1, Hidden: 1024, FFN: 2816, Heads: 16, KVHeads: 4, HeadDim: 128,
	Experts: 32, PerToken: 4, Shared: 1, Width: 512, Vocab: 32768, Positions: 32768,
}

// Small has the same parts in some megabytes, for tests.
var Small = Shape{
	Layers: 3, DenseFirst: 1, Hidden: 256, FFN: 512, Heads: 8, KVHeads: 2, HeadDim: 32,
	Experts: 16, PerToken: 4, Shared: 1, Width: 128, Vocab: 4096, Positions: 2048,
}

// Options say how a checkpoint is written.
type Options struct {
	Seed uint64
	// FileBytes is the size from which the next file is begun; 0: 5 GB, as the
	// usual library does.
	FileBytes int64
	// Progress is told how many bytes are written; may be nil.
	Progress func(done, total int64)
}

// A tensor is its name and shape; floats are f32, all others bf16.
type tensor struct {
	name   string
	shape  []int64
	floats bool
	mean   float64
	spread float64
}

func (t tensor) bytes() int64 {
	n := int64(2)
	if t.floats {
		n = 4
	}
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// tensors lists all in the order in which the usual library writes them.
func (s Shape) tensors() []tensor {
	var list []tensor
	matrix := func(name string, rows, cols int) {
		list = append(list, tensor{name: name + ".weight", shape: []int64{int64(rows), int64(cols)}, spread: 1 / math.Sqrt(float64(cols))})
	}
	norm := func(name string) {
		list = append(list, tensor{name: name + ".weight", shape: []int64{int64(s.Hidden)}, mean: 1, spread: 0.1})
	}
	mlp := func(name string, width int) {
		matrix(name+".gate_proj", width, s.Hidden)
		matrix(name+".up_proj", width, s.Hidden)
		matrix(name+".down_proj", s.Hidden, width)
	}
	matrix("model.embed_tokens", s.Vocab, s.Hidden)
	for i := range s.Layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		for _, one := range []struct {
			name  string
			heads int
		}{{"q", s.Heads}, {"k", s.KVHeads}, {"v", s.KVHeads}} {
			name := layer + "self_attn." + one.name + "_proj"
			matrix(name, one.heads*s.HeadDim, s.Hidden)
			list = append(list, tensor{name: name + ".bias", shape: []int64{int64(one.heads * s.HeadDim)}, spread: 0.1})
		}
		matrix(layer+"self_attn.o_proj", s.Hidden, s.Heads*s.HeadDim)
		if i < s.DenseFirst {
			mlp(layer+"mlp", s.FFN)
		} else {
			for e := range s.Experts {
				mlp(fmt.Sprintf("%smlp.experts.%d", layer, e), s.Width)
			}
			matrix(layer+"mlp.gate", s.Experts, s.Hidden)
			list = append(list, tensor{name: layer + "mlp.gate.e_score_correction_bias", shape: []int64{int64(s.Experts)}, floats: true, spread: 0.1})
			mlp(layer+"mlp.shared_experts", s.Width*s.Shared)
		}
		norm(layer + "input_layernorm")
		norm(layer + "post_attention_layernorm")
	}
	norm("model.norm")
	matrix("lm_head", s.Vocab, s.Hidden)
	return list
}

// Bytes is the size of a checkpoint's tensors.
func (s Shape) Bytes() (total int64) {
	for _, t := range s.tensors() {
		total += t.bytes()
	}
	return total
}

// Config is the shape's config.json.
func (s Shape) Config() map[string]any {
	return map[string]any{
		"architectures": []string{"Glm4MoeForCausalLM"}, "model_type": "glm4_moe", "hidden_act": "silu", "torch_dtype": "bfloat16",
		"vocab_size": s.Vocab, "hidden_size": s.Hidden, "intermediate_size": s.FFN, "moe_intermediate_size": s.Width,
		"num_hidden_layers": s.Layers, "num_attention_heads": s.Heads, "num_key_value_heads": s.KVHeads, "head_dim": s.HeadDim,
		"partial_rotary_factor": 0.5, "rope_theta": 1000000, "rms_norm_eps": 1e-5, "attention_bias": true, "use_qk_norm": false,
		"first_k_dense_replace": s.DenseFirst, "n_routed_experts": s.Experts, "num_experts_per_tok": s.PerToken, "n_shared_experts": s.Shared,
		"n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
		"num_nextn_predict_layers": 0, "max_position_embeddings": s.Positions, "tie_word_embeddings": false,
	}
}

// Write writes a checkpoint into a folder, which it makes, and returns how many
// bytes its tensors have.
func Write(folder string, s Shape, o Options) (int64, error) {
	if o.FileBytes <= 0 {
		o.FileBytes = 5e9
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return 0, err
	}
	var files [][]tensor
	var inFile int64
	for _, t := range s.tensors() {
		if len(files) == 0 || inFile+t.bytes() > o.FileBytes {
			files, inFile = append(files, nil), 0
		}
		files[len(files)-1] = append(files[len(files)-1], t)
		inFile += t.bytes()
	}
	total := s.Bytes()
	w := &writer{o: o, total: total}
	index := map[string]string{}
	for i, list := range files {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(files))
		if err := w.file(filepath.Join(folder, name), list); err != nil {
			return 0, err
		}
		for _, t := range list {
			index[t.name] = name
		}
	}
	err := writeJSON(filepath.Join(folder, safetensors.IndexName), map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": index})
	return total, errors.Join(err, writeJSON(filepath.Join(folder, "config.json"), s.Config()))
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

type writer struct {
	o           Options
	done, total int64
}

func (w *writer) file(path string, list []tensor) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	named := make([]safetensors.Named, len(list))
	for i, t := range list {
		named[i] = safetensors.Named{Name: t.name, DType: "BF16", Shape: t.shape, Data: t.data(w.o.Seed)}
		if t.floats {
			named[i].DType = "F32"
		}
	}
	buffered := bufio.NewWriterSize(&counting{f, w}, 4<<20)
	err = safetensors.Write(buffered, named, map[string]string{"format": "pt"})
	return errors.Join(err, buffered.Flush(), f.Close())
}

type counting struct {
	io.Writer
	w *writer
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.w.done += int64(n)
	if c.w.o.Progress != nil {
		c.w.o.Progress(min(c.w.done, c.w.total), c.w.total)
	}
	return n, err
}

// data is a stream of normally distributed numbers. It depends on the seed and
// the tensor's name alone.
func (t tensor) data(seed uint64) io.Reader {
	key := sha256.Sum256(fmt.Appendf(nil, "%d %s", seed, t.name))
	source := rand.NewChaCha8(key)
	if t.floats {
		var b bytes.Buffer
		r := rand.New(source)
		for range t.bytes() / 4 {
			_ = binary.Write(&b, binary.LittleEndian, float32(t.mean+t.spread*r.NormFloat64()))
		}
		return &b
	}
	return &normal{source: source, table: table(t.mean, t.spread), left: t.bytes()}
}

// normal turns random pairs of bytes into bf16 numbers by a table of quantiles.
type normal struct {
	source *rand.ChaCha8
	table  *[1 << 12]uint16
	left   int64
}

func (n *normal) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.left)&^1]
	_, _ = n.source.Read(p) // cannot fail
	for i := 0; i+1 < len(p); i += 2 {
		u := binary.LittleEndian.Uint16(p[i:])
		binary.LittleEndian.PutUint16(p[i:], n.table[u>>4])
	}
	n.left -= int64(len(p))
	return len(p), nil
}

// table is the normal distribution's quantiles.
func table(mean, spread float64) *[1 << 12]uint16 {
	t := new([1 << 12]uint16)
	for i := range t {
		q := math.Sqrt2 * math.Erfinv(2*(float64(i)+0.5)/float64(len(t))-1)
		t[i] = quant.F32ToBF16(float32(mean + spread*q))
	}
	return t
}
