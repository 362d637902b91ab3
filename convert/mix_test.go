package convert_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// mixed writes a Llama in the types of a Q4_K_M file: Q4_K, with Q6_K for the
// head and, in every second layer, for values and down projections.
func mixed(t *testing.T) (path string) {
	c := &model.Config{
		Arch: "llama", Hidden: 256, Layers: 4, Vocab: 384, Heads: 4, KVHeads: 2, HeadDim: 64, FFN: 768,
		NormEps: 1e-5, RoPE: model.RoPE{Dims: 64, Theta: 10000}, MaxPositions: 64,
	}
	require.NoError(t, c.Check())
	meta, err := c.GGUFMeta()
	require.NoError(t, err)
	tensors, err := c.GGUFTensors()
	require.NoError(t, err)
	var pairs []gguf.Pair
	for _, p := range meta {
		pairs = append(pairs, gguf.Pair(p))
	}
	more := map[string]bool{"output.weight": true}
	for layer := 0; layer < c.Layers; layer += 2 {
		more[fmt.Sprintf("blk.%d.attn_v.weight", layer)] = true
		more[fmt.Sprintf("blk.%d.ffn_down.weight", layer)] = true
	}
	var infos []gguf.Info
	for _, tensor := range tensors {
		typ := quant.ForeignQ4_K
		switch {
		case tensor.F32:
			typ = quant.ForeignF32
		case more[tensor.Name]:
			typ = quant.ForeignQ6_K
		}
		infos = append(infos, gguf.Info{Name: tensor.Name, Type: typ, Shape: tensor.Shape})
	}
	path = filepath.Join(t.TempDir(), "mix.gguf")
	file, err := os.Create(path)
	require.NoError(t, err)
	w, err := gguf.NewWriter(file, pairs, infos)
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(4, 6))
	for i, info := range infos {
		size, err := info.Type.RowBytes(tensors[i].Cols())
		require.NoError(t, err)
		_, err = w.Write(randomBlocks(random, info.Type, size*tensors[i].Rows()))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, file.Close())
	return path
}

// randomBlocks are random quants under scales such that weights are centred and
// about 1/16 in size; f32 ones are about 1.
func randomBlocks(random *rand.Rand, typ quant.Foreign, size int) []byte {
	data := make([]byte, size)
	if typ == quant.ForeignF32 {
		values := make([]float32, size/4)
		for i := range values {
			values[i] = 0.8 + 0.4*random.Float32()
		}
		quant.EncodeF32(data, values)
		return data
	}
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	_, block := typ.Block()
	half := func(at int, v float32) { binary.LittleEndian.PutUint16(data[at:], quant.F32ToF16(v)) }
	for b := 0; b < size; b += block {
		switch typ {
		case quant.ForeignQ4_K:
			half(b, 0.00038)
			half(b+2, 7.5*0.00038)
			for i := range 4 { // six bits each: scales 33 to 40, minima alike
				data[b+4+i] = byte(33+random.IntN(8)) | 2<<6
				data[b+8+i] = byte(33+random.IntN(8)) | 2<<6
				data[b+12+i] = byte(1+random.IntN(8)) | byte(1+random.IntN(8))<<4
			}
		case quant.ForeignQ6_K:
			half(b+208, 0.00006)
			for i := range 16 {
				data[b+192+i] = byte(int8(40 + random.IntN(40)))
			}
		}
	}
	return data
}

// wholeLogits runs a store in one piece, with nothing rounded but its weights.
func wholeLogits(t *testing.T, src shard.Source, tokens []int32) []float32 {
	x := cpu.New(cpu.Options{Engine: exectest.Exact(t)})
	defer x.Close()
	c := src.Manifest().Model
	plan := exec.SlotPlan{Slots: 1, Positions: len(tokens), KV: quant.F32}
	require.NoError(t, x.Load(context.Background(), c.Whole(), plan, src, nil))
	in, out := &exec.Pass{Tokens: tokens}, &exec.Pass{}
	for i := range tokens {
		in.Rows = append(in.Rows, exec.Row{Epoch: 1, Pos: int32(i)})
		in.Want = append(in.Want, int32(i))
	}
	require.NoError(t, x.Step(context.Background(), in, out))
	return append([]float32(nil), out.Logits...)
}

// A file in the mix that most people have runs at hardly more than its own size
// and near its exact numbers.
func TestMixedBlocks(t *testing.T) {
	path := mixed(t)
	out := t.TempDir()
	report, err := convert.Convert(context.Background(), path, out, convert.Options{})
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, float64(report.Bytes), 1.12*float64(info.Size()))
	require.Positive(t, report.Types["q4_1"])
	require.Positive(t, report.Types["q6_0"])
	require.Len(t, report.Types, 3, "and f32 for norms: %v", report.Types)

	exact, err := exectest.OpenGGUF(path, quant.F32)
	require.NoError(t, err)
	var tokens []int32
	for i := range 24 {
		tokens = append(tokens, int32(i*31%384))
	}
	want, got := wholeLogits(t, exact, tokens), wholeLogits(t, open(t, out), tokens)
	e := exectest.RelativeL2(got, want)
	require.Less(t, e, 4e-3)
	require.Greater(t, e, 1e-5, "it does lose something")
}

// Going back to GGUF, a store's q6_0 becomes Q8_0, which its readers know.
func TestMixedBlocksBackToGGUF(t *testing.T) {
	ctx, store := context.Background(), t.TempDir()
	_, err := convert.Convert(ctx, mixed(t), store, convert.Options{})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "back.gguf")
	report, err := convert.ToGGUF(ctx, store, path, convert.Options{})
	require.NoError(t, err)
	require.Positive(t, report.Types["Q4_1"])
	require.Positive(t, report.Types["Q8_0"])
	require.Len(t, report.Types, 3, "and F32 for norms: %v", report.Types)
	back, err := exectest.OpenGGUF(path, quant.F32)
	require.NoError(t, err)
	tokens := []int32{1, 200, 17, 383, 0, 64}
	require.Less(t, exectest.RelativeL2(wholeLogits(t, back, tokens), wholeLogits(t, open(t, store), tokens)), 1e-2)

	_, err = convert.ToGGUF(ctx, store, path, convert.Options{Weights: "q6_0"})
	require.ErrorContains(t, err, "GGUF has no q6_0: use --weights q8_0")
}
