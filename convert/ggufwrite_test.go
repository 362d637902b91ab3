package convert_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

func toGGUF(t *testing.T, path string, o convert.Options) (file string, report *convert.Report) {
	file = filepath.Join(t.TempDir(), "out.gguf")
	report, err := convert.ToGGUF(context.Background(), path, file, o)
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, left, 1, "only the file itself stays")
	return file, report
}

// asWritten is a configuration after GGUF's rounding to float32, and without
// what is a matter of names.
func asWritten(c *model.Config) model.Config {
	out := *c
	out.Name, out.Arch = "", strings.Replace(c.Arch, "chatglm", "glm", 1)
	out.NormEps, out.RoPE.Theta = float64(float32(c.NormEps)), float64(float32(c.RoPE.Theta))
	out.RoPE.Divisors = nil
	for _, d := range c.RoPE.Divisors {
		out.RoPE.Divisors = append(out.RoPE.Divisors, float64(float32(d)))
	}
	if c.MoE != nil {
		moe := *c.MoE
		moe.Groups, moe.TopGroups = max(1, moe.Groups), max(1, moe.TopGroups) // the same
		out.MoE = &moe
	}
	out.EOS, out.BOS, out.Pad = nil, nil, nil // the vocabulary's; TestGGUFVocabulary
	return out
}

// Whatever a model comes as, its GGUF file reads back as the same model, bit
// for bit: checkpoints, GGUF files, stores, in chunks large and small.
func TestGGUFRoundTrip(t *testing.T) {
	check := func(t *testing.T, path string, want *shard.Memory) {
		for _, chunk := range []int{4 << 20, 700} {
			restore := convert.SetGGUFChunk(chunk)
			file, _ := toGGUF(t, path, convert.Options{Threads: 3})
			restore()
			got, err := exectest.OpenGGUF(file, quant.F32)
			require.NoError(t, err)
			require.Equal(t, asWritten(want.Manifest().Model), asWritten(got.Manifest().Model))
			require.Len(t, got.Manifest().Tensors, len(want.Manifest().Tensors))
			for _, tensor := range want.Manifest().Tensors {
				require.Equal(t, floats(t, want, tensor.Name), floats(t, got, tensor.Name), tensor.Name)
			}
		}
	}
	for _, name := range exectest.ModelNames(t) {
		t.Run(name, func(t *testing.T) {
			path := exectest.Testdata("models", name)
			want, err := exectest.OpenFolder(path, quant.F32)
			require.NoError(t, err)
			check(t, path, want)
		})
		t.Run(name+" from a store", func(t *testing.T) {
			path := exectest.Testdata("models", name)
			store := t.TempDir()
			_, err := convert.Convert(context.Background(), path, store, convert.Options{Weights: "source"})
			require.NoError(t, err)
			want, err := exectest.OpenFolder(path, quant.F32)
			require.NoError(t, err)
			check(t, store, want)
		})
	}
	for name := range exectest.GGUFNames(t) {
		t.Run(name, func(t *testing.T) {
			path := exectest.Testdata("gguf", name)
			want, err := exectest.OpenGGUF(path, quant.F32)
			require.NoError(t, err)
			check(t, path, want)
		})
	}
}

// ownKeys are metadata that we write and llama.cpp's converter leaves out where
// its defaults say the same.
var ownKeys = []string{"attention.key_length", "attention.value_length", "rope.dimension_count", "expert_weights_norm", "expert_weights_scale", "expert_gating_func", "expert_group_count", "expert_group_used_count", "vocab_size"}

// A checkpoint becomes the file that llama.cpp's converter makes of it: every
// tensor's name, type, shape and bytes, and every key.
func TestGGUFEqualsReference(t *testing.T) {
	var index struct {
		Files map[string]struct{ Arch, Golden, Weights string }
	}
	data, err := os.ReadFile(exectest.Testdata("gguf", "files.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &index))
	for file := range exectest.GGUFNames(t) {
		name, _, _ := strings.Cut(strings.TrimSuffix(file, ".gguf"), "-00001-of")
		about := index.Files[name]
		if !strings.HasPrefix(about.Golden, "models/") {
			continue // made of decoded weights, no checkpoint: TestGGUFKeepsBlocks
		}
		t.Run(name, func(t *testing.T) {
			want, err := gguf.Open(exectest.Testdata("gguf", file))
			require.NoError(t, err)
			defer want.Close()
			path, _ := toGGUF(t, exectest.Testdata(about.Golden), convert.Options{Weights: strings.ToLower(about.Weights)})
			got, err := gguf.Open(path)
			require.NoError(t, err)
			defer got.Close()
			sameTensors(t, want, got)
			for _, key := range want.Keys {
				switch {
				case strings.HasPrefix(key, "tokenizer."), strings.HasPrefix(key, "split."), key == "general.name", key == "general.alignment":
				case name == "glm4moe-no-mtp-but-config-says-so" && key == about.Arch+".block_count":
					require.Equal(t, want.Meta[key].(uint64)-1, got.Meta[key], "the layer that the config promises is not there")
				case name == "glm4moe-no-mtp-but-config-says-so" && key == about.Arch+".nextn_predict_layers":
					require.Zero(t, got.Meta[key])
				default:
					require.Equal(t, want.Meta[key], got.Meta[key], key)
				}
			}
			for _, key := range got.Keys {
				if _, ok := want.Meta[key]; !ok && strings.HasPrefix(key, about.Arch+".") {
					require.Contains(t, ownKeys, strings.TrimPrefix(key, about.Arch+"."))
				}
			}
		})
	}
}

func sameTensors(t *testing.T, want, got *gguf.File) {
	require.Len(t, got.Tensors, len(want.Tensors))
	for _, w := range want.Tensors {
		g, ok := got.Tensor(w.Name)
		require.True(t, ok, w.Name)
		require.Equal(t, w.Type, g.Type, w.Name)
		require.Equal(t, w.Shape, g.Shape, w.Name)
		a, err := want.ReadTensor(w)
		require.NoError(t, err)
		b, err := got.ReadTensor(g)
		require.NoError(t, err)
		require.Equal(t, a, b, w.Name)
	}
}

// A GGUF file that is written again keeps its blocks, of whatever type, and its
// tokenizer.
func TestGGUFKeepsBlocks(t *testing.T) {
	for name := range exectest.GGUFNames(t) {
		want, err := gguf.Open(exectest.Testdata("gguf", name))
		require.NoError(t, err)
		path, _ := toGGUF(t, exectest.Testdata("gguf", name), convert.Options{})
		got, err := gguf.Open(path)
		require.NoError(t, err)
		sameTensors(t, want, got)
		for _, key := range want.Keys {
			if strings.HasPrefix(key, "tokenizer.") || strings.HasPrefix(key, "general.") && key != "general.alignment" && key != "general.file_type" {
				require.Equal(t, want.Meta[key], got.Meta[key], "%s: %s", name, key)
			}
		}
		require.NoError(t, want.Close())
		require.NoError(t, got.Close())
	}
}

// Every recipe's weights are near the source's, and the report says which types
// they have.
func TestGGUFRecipes(t *testing.T) {
	path := exectest.Testdata("models", "glm4moe-mtp")
	want, err := exectest.OpenFolder(path, quant.F32)
	require.NoError(t, err)
	for recipe, tolerance := range map[string]float64{"f32": 0, "f16": 1e-3, "bf16": 0, "q8_0": 1e-2, "q4_1": 0.1, "q4_0": 0.12, "mixed": 0.12} {
		file, report := toGGUF(t, path, convert.Options{Weights: recipe})
		got, err := exectest.OpenGGUF(file, quant.F32)
		require.NoError(t, err)
		for _, tensor := range want.Manifest().Tensors {
			e := exectest.RelativeL2(floats(t, got, tensor.Name), floats(t, want, tensor.Name))
			require.LessOrEqual(t, e, tolerance, "%s: %s", recipe, tensor.Name)
		}
		require.Positive(t, report.Types["F32"], "norms and routers")
		if recipe != "mixed" {
			require.Positive(t, report.Types[strings.ToUpper(recipe)])
		}
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.Equal(t, info.Size(), report.Bytes)
	}
}

// What llama.cpp would compute otherwise is said.
func TestGGUFNotes(t *testing.T) {
	for name, note := range map[string]string{"qwen3moe-nonorm": "normalises", "glm-v5": "hidden size", "qwen3moe": "", "glm": ""} {
		_, report := toGGUF(t, exectest.Testdata("models", name), convert.Options{})
		if note == "" {
			require.Empty(t, report.Notes, name)
			continue
		}
		require.Len(t, report.Notes, 1, name)
		require.Contains(t, report.Notes[0], note)
	}
}

// Stopped after any chunk, the file's name stays free, and the next call goes
// on to the same bytes.
func TestGGUFResume(t *testing.T) {
	defer convert.SetGGUFChunk(4096)()
	source := exectest.Testdata("models", "glm4moe-mtp")
	whole, _ := toGGUF(t, source, convert.Options{Weights: "q8_0"})
	want, err := os.ReadFile(whole)
	require.NoError(t, err)

	folder := t.TempDir()
	out := filepath.Join(folder, "out.gguf")
	runs := 0
	for {
		ctx, cancel := context.WithCancel(context.Background())
		reports := 0
		report, err := convert.ToGGUF(ctx, source, out, convert.Options{Weights: "q8_0", Threads: 2, Progress: func(convert.Progress) {
			if reports++; reports > 9 {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			require.Positive(t, report.Resumed)
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		require.NoFileExists(t, out)
		partial, err := filepath.Glob(filepath.Join(folder, ".*.partial"))
		require.NoError(t, err)
		require.Len(t, partial, 1)
		if runs++; runs == 2 { // as if killed in the middle of a write
			info, err := os.Stat(partial[0])
			require.NoError(t, err)
			require.NoError(t, os.Truncate(partial[0], info.Size()-5))
		}
		require.Less(t, runs, 100)
	}
	require.Greater(t, runs, 2)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))

	// Another recipe does not go on with what there is, and replaces the file.
	_, err = convert.ToGGUF(context.Background(), source, out, convert.Options{Weights: "f16"})
	require.NoError(t, err)
	other, err := os.ReadFile(out)
	require.NoError(t, err)
	require.NotEqual(t, len(want), len(other))
}

// A tokenizer, a template and end tokens reach the file in the form in which
// our own reader, and llama.cpp, find them.
func TestGGUFVocabulary(t *testing.T) {
	tiny := exectest.Testdata("models", "qwen3")
	folder := t.TempDir()
	vocab := map[string]int{}
	for i := range 90 {
		vocab[string(rune('!'+i))] = i
	}
	vocab["ab"] = 90
	tokenizer := map[string]any{
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
		"decoder":       map[string]any{"type": "ByteLevel"},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{"a b"}},
		"added_tokens":  []map[string]any{{"id": 91, "content": "<end>", "special": true}, {"id": 92, "content": "<think>"}},
	}
	write := func(name string, value any) {
		data, ok := value.([]byte)
		if !ok {
			var err error
			data, err = json.Marshal(value)
			require.NoError(t, err)
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), data, 0o644))
	}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(tiny, name))
		require.NoError(t, err)
		write(name, data)
	}
	write("tokenizer.json", tokenizer)
	write("generation_config.json", map[string]any{"eos_token_id": []int{91, 7}, "temperature": 0.6, "top_k": 20, "top_p": 0.95})
	write("chat_template.jinja", []byte("{{ messages }}"))
	file, _ := toGGUF(t, folder, convert.Options{})
	f, err := gguf.Open(file)
	require.NoError(t, err)
	defer f.Close()
	tokens, err := f.Strings("tokenizer.ggml.tokens")
	require.NoError(t, err)
	require.Len(t, tokens, 160, "one for each row of the embedding")
	require.Equal(t, []string{"ab", "<end>", "<think>", "[PAD93]"}, tokens[90:94])
	require.Equal(t, []int64{1, 3, 4, 5}, f.Meta["tokenizer.ggml.token_type"].([]int64)[90:94])
	require.Equal(t, []string{"a b"}, f.Meta["tokenizer.ggml.merges"])
	for key, want := range map[string]any{
		"model": "gpt2", "pre": "gpt-2", "eos_token_id": uint64(91), "eot_token_id": uint64(7), "add_bos_token": false,
	} {
		require.Equal(t, want, f.Meta["tokenizer.ggml."+key], key)
	}
	require.Equal(t, "{{ messages }}", f.Meta["tokenizer.chat_template"])
	c, err := model.FromGGUF(f.Meta, nil)
	require.NoError(t, err)
	require.Equal(t, []int32{91, 7}, c.EOS[:2])
	store := t.TempDir()
	_, err = convert.Convert(context.Background(), file, store, convert.Options{})
	require.NoError(t, err)
	require.JSONEq(t, `{"temperature": 0.6, "top_k": 20, "top_p": 0.95}`, string(open(t, store).Manifest().Generation), "sampling settings come back")
}

// Errors name the file and the tensor, and leave nothing under the file's name.
func TestGGUFRefusals(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.gguf")
	run := func(path, weights string) error {
		_, err := convert.ToGGUF(context.Background(), path, out, convert.Options{Weights: weights})
		require.NoFileExists(t, out)
		return err
	}
	require.ErrorContains(t, run("no/such/model", ""), "no/such/model")
	require.ErrorContains(t, run(exectest.Testdata("models", "llama-gqa"), "q9_9"), "q9_9")

	// Scaled frequencies outside Llama have no place in the format.
	c := model.Config{Arch: "qwen2", RoPE: model.RoPE{Dims: 4, Divisors: []float64{1, 8}}}
	_, err := c.GGUFMeta()
	require.ErrorContains(t, err, "qwen2")
}

func ExampleToGGUF() {
	folder, err := os.MkdirTemp("", "gguf")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	report, err := convert.ToGGUF(context.Background(), exectest.Testdata("models", "qwen3"), filepath.Join(folder, "qwen3.gguf"), convert.Options{Weights: "q8_0"})
	if err != nil {
		panic(err)
	}
	var types []string
	for name := range report.Types {
		types = append(types, name)
	}
	slices.Sort(types)
	fmt.Println(types)
	// Output: [F32 Q8_0]
}
