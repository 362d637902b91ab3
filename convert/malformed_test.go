package convert_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/safetensors"
)

// refused converts to a store and to a GGUF file, in several types, and returns
// the errors. Neither may leave a result.
func refused(t *testing.T, path string) (errs []string) {
	for _, weights := range []string{"source", "q4_0", "q4_1", "q8_0", "f16", "f32"} {
		o := convert.Options{Weights: weights, Threads: 2}
		out := t.TempDir()
		_, err := convert.Convert(context.Background(), path, filepath.Join(out, "store"), o)
		require.Error(t, err, weights)
		require.NoFileExists(t, filepath.Join(out, "store", "manifest.json"))
		errs = append(errs, err.Error())
		_, err = convert.ToGGUF(context.Background(), path, filepath.Join(out, "out.gguf"), o)
		require.Error(t, err, weights)
		require.NoFileExists(t, filepath.Join(out, "out.gguf"))
		errs = append(errs, err.Error())
	}
	return errs
}

func copyFiles(t *testing.T, from, to string, names ...string) {
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(from, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(to, name), data, 0o644))
	}
}

// Weights that are no numbers, in matrices, interleaved and permuted ones too,
// and in vectors: every error names file, tensor, byte, row and column.
func TestNaNInCheckpoints(t *testing.T) {
	source := exectest.Testdata("models", "llama-mha")
	set, err := safetensors.OpenFolder(source)
	require.NoError(t, err)
	defer set.Close()
	for name, row := range map[string]int{
		"model.layers.1.self_attn.k_proj.weight": 5, "model.layers.0.mlp.up_proj.weight": 3, "model.layers.0.mlp.down_proj.weight": 60,
		"model.embed_tokens.weight": 159, "model.layers.1.input_layernorm.weight": 0,
	} {
		folder := t.TempDir()
		copyFiles(t, source, folder, "config.json")
		var tensors []safetensors.Named
		column := 7
		for _, other := range set.Names() {
			tensor, _, _ := set.Tensor(other)
			values, err := set.Floats(other)
			require.NoError(t, err)
			if other == name {
				_, cols := tensor.Matrix()
				values[row*cols+column] = float32(math.NaN())
			}
			tensors = append(tensors, safetensors.F32(other, tensor.Shape, values))
		}
		var data bytes.Buffer
		require.NoError(t, safetensors.Write(&data, tensors, nil))
		file := filepath.Join(folder, "model.safetensors")
		require.NoError(t, os.WriteFile(file, data.Bytes(), 0o644))
		f, err := safetensors.Open(file)
		require.NoError(t, err)
		tensor, _ := f.Tensor(name)
		_, cols := tensor.Matrix()
		require.NoError(t, f.Close())
		for _, text := range refused(t, folder) {
			require.Contains(t, text, folder)
			require.Contains(t, text, name)
			require.Contains(t, text, `model.safetensors, byte `+itoa(tensor.Offset+4*int64(row*cols+column))+`: row `+itoa(int64(row))+`, column 7: NaN`)
		}
	}
}

// The same in blocks of a GGUF file: the byte is the block's.
func TestNaNInGGUF(t *testing.T) {
	path := mixed(t)
	f, err := gguf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, scale := range map[string]int64{"blk.1.attn_q.weight": 0, "blk.2.ffn_down.weight": 208, "blk.3.attn_norm.weight": 2} {
		tensor, ok := f.Tensor(name)
		require.True(t, ok)
		_, size := tensor.Type.Block()
		at := tensor.Offset + int64(9*size)
		bad := bytes.Clone(data)
		binary.LittleEndian.PutUint16(bad[at+scale:], 0x7fc0) // a NaN, and the upper half of a float32 one
		file := filepath.Join(t.TempDir(), "bad.gguf")
		require.NoError(t, os.WriteFile(file, bad, 0o644))
		for _, text := range refused(t, file) {
			require.Contains(t, text, file)
			require.Contains(t, text, name)
			require.Contains(t, text, "byte "+itoa(at))
			require.Contains(t, text, "NaN")
		}
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Files cut off anywhere, and tensors of other shapes than the configuration
// says, name what is wrong before anything is written.
func TestMalformedCheckpoints(t *testing.T) {
	source := exectest.Testdata("models", "llama-mha")
	weights, err := os.ReadFile(filepath.Join(source, "model.safetensors"))
	require.NoError(t, err)
	config, err := os.ReadFile(filepath.Join(source, "config.json"))
	require.NoError(t, err)
	header := int(binary.LittleEndian.Uint64(weights)) + 8
	for _, n := range []int{0, 7, 8, 9, header - 1, header, header + 1, len(weights) - 1} {
		folder := t.TempDir()
		copyFiles(t, source, folder, "config.json")
		require.NoError(t, os.WriteFile(filepath.Join(folder, "model.safetensors"), weights[:n], 0o644))
		for _, text := range refused(t, folder) {
			require.Contains(t, text, folder+": model.safetensors: ", "%d bytes", n)
		}
	}
	for from, want := range map[string]string{
		`"vocab_size": 160`: "embed_tokens.weight is 160 × ", `"num_hidden_layers": `: "is missing",
	} {
		folder := t.TempDir()
		copyFiles(t, source, folder, "model.safetensors")
		require.Contains(t, string(config), from)
		to := strings.Replace(from, "160", "161", 1)
		if to == from {
			to += "9" // ninety-odd layers
		}
		changed := strings.Replace(string(config), from, to, 1)
		require.NoError(t, os.WriteFile(filepath.Join(folder, "config.json"), []byte(changed), 0o644))
		for _, text := range refused(t, folder) {
			require.Contains(t, text, folder)
			require.Contains(t, text, want)
		}
	}
	// A tensor of integers is no weight.
	folder := t.TempDir()
	copyFiles(t, source, folder, "config.json")
	integers := bytes.ReplaceAll(weights, []byte(`"F32"`), []byte(`"I32"`))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "model.safetensors"), integers, 0o644))
	for _, text := range refused(t, folder) {
		require.Contains(t, text, "I32")
		require.Contains(t, text, folder)
	}
	// A type that nothing decodes is named.
	for _, text := range refused(t, exectest.Testdata("gguf", "types_unknown.gguf")) {
		require.Contains(t, text, `tensor "strange"`)
		require.Contains(t, text, "99")
	}
}
