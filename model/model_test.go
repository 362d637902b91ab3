package model_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/model"
)

func readConfig(t *testing.T, name string) []byte {
	data, err := os.ReadFile(filepath.Join("..", "testdata", "models", name, "config.json"))
	require.NoError(t, err)
	return data
}

func TestFromHF(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join("..", "testdata", "models"))
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c, err := model.FromHF(readConfig(t, e.Name()))
		require.NoError(t, err, e.Name())
		require.Equal(t, 64, c.Hidden, e.Name())
		require.Equal(t, 160, c.Vocab, e.Name())
		seen[c.Arch] = true
	}
	for _, arch := range model.Architectures() {
		require.True(t, seen[arch], "no checkpoint tests %s", arch)
	}
}

func TestConfigDetails(t *testing.T) {
	c, err := model.FromHF(readConfig(t, "glm4moe-groups-qknorm"))
	require.NoError(t, err)
	require.Equal(t, model.RoPE{Dims: 16, Theta: 1e6}, c.RoPE)
	require.Equal(t, &model.MoE{Experts: 16, PerToken: 4, FFN: 32, SharedFFN: 64, Groups: 4, TopGroups: 2, Sigmoid: true, Correction: true, Normalise: true, Scale: 2.5, DenseFirst: 2}, c.MoE)
	require.True(t, c.QKNorm)
	require.Equal(t, []int32{2, 5, 7}, c.EOS)

	c, err = model.FromHF(readConfig(t, "chatglm"))
	require.NoError(t, err)
	require.Equal(t, model.RoPE{Dims: 8, Theta: 5e6, Interleaved: true}, c.RoPE)
	require.Equal(t, 1.5625e-7, c.NormEps)

	c, err = model.FromHF(readConfig(t, "llama-mha"))
	require.NoError(t, err)
	require.Equal(t, c.Heads, c.KVHeads, "a missing num_key_value_heads means one a head")
	require.Equal(t, 10000.0, c.RoPE.Theta)
}

// Each change makes the config absurd; the error must name the field.
func TestConfigRefusals(t *testing.T) {
	for change, named := range map[string]string{
		`"hidden_size": null`:                                   "hidden_size",
		`"hidden_size": -4`:                                     "hidden_size",
		`"hidden_size": 1e300`:                                  "hidden_size",
		`"hidden_size": "wide"`:                                 "hidden_size",
		`"num_hidden_layers": 99999999`:                         "num_hidden_layers",
		`"vocab_size": 0`:                                       "vocab_size",
		`"num_attention_heads": 0`:                              "num_attention_heads",
		`"num_attention_heads": 3`:                              "num_attention_heads",
		`"num_key_value_heads": 0`:                              "num_key_value_heads",
		`"head_dim": 4000000`:                                   "head_dim",
		`"rms_norm_eps": 0`:                                     "rms_norm_eps",
		`"rope_theta": null`:                                    "rope_theta",
		`"partial_rotary_factor": 7`:                            "rotary",
		`"n_routed_experts": null`:                              "n_routed_experts",
		`"n_routed_experts": 999999`:                            "n_routed_experts",
		`"num_experts_per_tok": 9`:                              "num_experts_per_tok",
		`"n_group": 3`:                                          "n_group",
		`"n_group": 4, "topk_group": 9`:                         "topk_group",
		`"first_k_dense_replace": -1`:                           "first_k_dense_replace",
		`"routed_scaling_factor": 0`:                            "routed_scaling_factor",
		`"hidden_act": "gelu"`:                                  "hidden_act",
		`"architectures": ["MambaForCausalLM"]`:                 "Glm4MoeForCausalLM",
		`"architectures": []`:                                   "architectures",
		`"rope_scaling": {"rope_type": "yarn", "factor": 4}`:    "yarn",
		`"rope_scaling": {"rope_type": "llama3", "factor": 8}`:  "low_freq_factor",
		`"rope_scaling": {"rope_type": "linear", "factor": -2}`: "divisor",
		`"eos_token_id": "</s>"`:                                "eos_token_id",
	} {
		var fields map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(readConfig(t, "glm4moe"), &fields))
		var changes map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte("{"+change+"}"), &changes))
		for key, value := range changes {
			fields[key] = value
		}
		data, err := json.Marshal(fields)
		require.NoError(t, err)
		_, err = model.FromHF(data)
		require.ErrorContains(t, err, named, change)
	}
	_, err := model.FromHF([]byte(`{"architectures`))
	require.ErrorContains(t, err, "config.json")
}

// GLM-4.5-Air has 803 tensors in GGUF with its prediction layer and 18,329 in
// Hugging Face's form; here are those that a store has.
func TestAirShape(t *testing.T) {
	c := air()
	require.NoError(t, c.Check())
	var weights, f32 int64
	for _, tensor := range c.Tensors() {
		if tensor.F32 {
			f32 += int64(tensor.Rows) * int64(tensor.Cols)
		} else {
			weights += int64(tensor.Rows) * int64(tensor.Cols)
		}
	}
	require.InDelta(t, 106.852e9, float64(weights+f32), 0.001e9, "parameters of the trunk")
	require.InDelta(t, 60.19e9, float64(weights)*18/32+float64(f32)*4, 0.01e9, "bytes at q4_0")
	require.EqualValues(t, 188416, int64(c.Layers)*c.KVBytes(2), "KV bytes a token")
}

func air() *model.Config {
	return &model.Config{Arch: "glm4moe", Hidden: 4096, Layers: 46, Vocab: 151552, Heads: 96, KVHeads: 8, HeadDim: 128, FFN: 10944, NormEps: 1e-5,
		RoPE: model.RoPE{Dims: 64, Theta: 1e6}, QKVBias: true, MaxPositions: 131072,
		MoE: &model.MoE{Experts: 128, PerToken: 8, FFN: 1408, SharedFFN: 1408, Groups: 1, TopGroups: 1, Sigmoid: true, Correction: true, Normalise: true, Scale: 1, DenseFirst: 1}}
}

func cut(layer, expert int) model.Cut { return model.Cut{Layer: layer, Expert: expert} }

func TestParts(t *testing.T) {
	c := air()
	require.Equal(t, []model.LayerPart{
		{Layer: 0, Begins: true, Ends: true},
		{Layer: 1, Begins: true, ExpertCount: 5},
	}, c.Parts(model.Span{To: cut(1, 5)}))
	require.Equal(t, []model.LayerPart{
		{Layer: 1, ExpertFirst: 5, ExpertCount: 123, Ends: true},
		{Layer: 2, Begins: true, ExpertCount: 128, Ends: true},
	}, c.Parts(model.Span{From: cut(1, 5), To: cut(3, 0)}))
	require.Equal(t, []model.LayerPart{{Layer: 7, ExpertFirst: 5, ExpertCount: 4}}, c.Parts(model.Span{From: cut(7, 5), To: cut(7, 9)}))
	require.Empty(t, c.Parts(model.Span{Embed: true}))
	require.Empty(t, c.Parts(model.Span{From: cut(46, 0), To: cut(46, 0), Head: true}))
	require.Len(t, c.Parts(c.Whole()), 46)
}

func TestCheckSpan(t *testing.T) {
	c := air()
	for _, s := range []model.Span{c.Whole(), {From: cut(3, 127), To: cut(46, 0), Head: true}, {Embed: true}} {
		require.NoError(t, c.CheckSpan(s), "%v", s)
	}
	for _, s := range []model.Span{
		{To: cut(47, 0)}, {From: cut(-1, 0)}, {To: cut(0, 1)}, {To: cut(5, 128)}, {To: cut(46, 1)}, {From: cut(5, 3), To: cut(5, 2)},
		{From: cut(1, 0), To: cut(2, 0), Embed: true}, {To: cut(2, 0), Head: true}, {From: cut(46, 0), To: cut(46, 0), MTP: true},
	} {
		require.Error(t, c.CheckSpan(s), "%v", s)
	}
}

// Spans that follow one another read every tensor of the model once, and an
// inner cut divides nothing but experts.
func TestSpanTensorsCoverTheModel(t *testing.T) {
	c := air()
	got := map[string]int{}
	ends := []model.Cut{cut(0, 0), cut(1, 40), cut(1, 41), cut(20, 0), cut(33, 127), cut(46, 0)}
	for i := 1; i < len(ends); i++ {
		for _, u := range c.SpanTensors(model.Span{From: ends[i-1], To: ends[i], Embed: i == 1, Head: i == len(ends)-1}) {
			got[u.Name] += u.RowCount
			if u.RowCount != u.Rows {
				require.Contains(t, u.Name, "experts")
			}
		}
	}
	for _, tensor := range c.Tensors() {
		require.Equal(t, tensor.Rows, got[tensor.Name], tensor.Name)
	}
}

func TestSourcesNameWhatIsMissing(t *testing.T) {
	c, err := model.FromHF(readConfig(t, "glm4moe"))
	require.NoError(t, err)
	_, err = c.Sources(model.HuggingFace, func(name string) (int, int, bool) { return 1, 1, !strings.Contains(name, "embed_tokens") })
	require.ErrorContains(t, err, "model.embed_tokens.weight is missing")
	_, err = c.Sources(model.HuggingFace, func(string) (int, int, bool) { return 7, 9, true })
	require.ErrorContains(t, err, "is 7 × 9, the config wants 160 × 64")
}

func TestUnpermute(t *testing.T) {
	// Two heads of four rows, as GGUF files of Llama have them: 0 2 1 3, 4 6 5 7.
	p := model.Part{Rows: 8, Stride: 1, Heads: 2}
	stored := []int{0, 2, 1, 3, 4, 6, 5, 7}
	for i := range 8 {
		require.Equal(t, i, stored[p.SourceRow(i)])
	}
}

func FuzzFromHF(f *testing.F) {
	f.Add([]byte(`{"architectures":["Glm4MoeForCausalLM"],"hidden_size":64}`))
	data, err := os.ReadFile(filepath.Join("..", "testdata", "models", "glm4moe-fused-experts", "config.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := model.FromHF(data); err == nil {
			require.NoError(t, c.Check())
		}
	})
}

// Metadata of a GGUF file is an error or a configuration that says the same when
// it is written again.
func FuzzFromGGUF(f *testing.F) {
	f.Add("llama", "rope.scaling.type", "linear", 8.0, uint64(64), uint64(4), uint64(2), int64(160), 1e-5)
	f.Add("glm4moe", "expert_count", "", 16.0, uint64(64), uint64(4), uint64(4), int64(160), 1e-6)
	f.Add("qwen3moe", "expert_gating_func", "x", 2.0, uint64(1<<40), uint64(0), uint64(1<<63), int64(-1), 0.0)
	f.Fuzz(func(t *testing.T, arch, key, text string, number float64, hidden, heads, layers uint64, vocab int64, eps float64) {
		meta := map[string]any{"general.architecture": arch}
		for name, value := range map[string]any{
			"embedding_length": hidden, "block_count": layers, "vocab_size": vocab, "attention.head_count": heads, "feed_forward_length": hidden,
			"attention.layer_norm_rms_epsilon": eps, "context_length": uint64(512), "rope.freq_base": 1e4,
			"expert_count": heads, "expert_used_count": uint64(1), "expert_feed_forward_length": hidden, "rope.scaling.factor": number,
		} {
			meta[arch+"."+name] = value
		}
		meta[arch+"."+key] = number
		if text != "" {
			meta[arch+"."+key] = text
		}
		c, err := model.FromGGUF(meta, nil)
		if err != nil {
			return
		}
		require.NoError(t, c.Check())
		pairs, err := c.GGUFMeta()
		require.NoError(t, err)
		again := map[string]any{}
		for _, p := range pairs {
			again[p.Key] = p.Value
			switch v := p.Value.(type) { // as a reader gives them
			case uint32:
				again[p.Key] = uint64(v)
			case float32:
				again[p.Key] = float64(v)
			}
		}
		d, err := model.FromGGUF(again, nil)
		if err != nil { // a number that a float32 does not hold
			return
		}
		require.Equal(t, [4]int{c.Hidden, c.Layers, c.Heads, c.Vocab}, [4]int{d.Hidden, d.Layers, d.Heads, d.Vocab})
		require.Equal(t, c.RoPE.Dims, d.RoPE.Dims)
	})
}
