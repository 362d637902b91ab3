package embedded_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/safetensors"
	"github.com/potluck-llm/potluck/shard"
)

// golden is what the reference computes on the published weights in f32.
type golden struct {
	t *testing.T
	f *safetensors.File
}

func openGolden(t *testing.T) golden {
	f, err := safetensors.Open(exectest.Testdata("potluck-tiny", "golden.safetensors"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return golden{t, f}
}

func (g golden) floats(prompt int, name string) []float32 {
	values, err := g.f.Floats(fmt.Sprintf("prompt.%d.%s", prompt, name))
	require.NoError(g.t, err)
	return values
}

func (g golden) ids(prompt int, name string) []int32 {
	t, ok := g.f.Tensor(fmt.Sprintf("prompt.%d.%s", prompt, name))
	require.True(g.t, ok)
	raw := make([]byte, t.Bytes)
	require.NoError(g.t, g.f.ReadAt(t, 0, raw))
	ids := make([]int32, len(raw)/8)
	for i := range ids {
		ids[i] = int32(raw[8*i]) | int32(raw[8*i+1])<<8 | int32(raw[8*i+2])<<16
	}
	return ids
}

const prompts = 4

var exact = exec.SlotPlan{Slots: 1, Positions: 128, KV: quant.F32}

func load(t *testing.T, src shard.Source, span model.Span) exec.Executor {
	x := cpu.New(cpu.Options{Engine: exectest.Exact(t)})
	require.NoError(t, x.Load(context.Background(), span, exact, src, nil))
	t.Cleanup(func() { _ = x.Close() })
	return x
}

func run(t *testing.T, x exec.Executor, epoch uint32, ids []int32, hidden []float32, trace func(int, []float32)) *exec.Pass {
	in, out := &exec.Pass{Tokens: ids, Trace: trace}, &exec.Pass{}
	in.Hidden = hidden
	for i := range ids {
		in.Rows = append(in.Rows, exec.Row{Epoch: epoch, Pos: int32(i)})
		in.Want = append(in.Want, int32(i))
	}
	require.NoError(t, x.Step(context.Background(), in, out))
	return out
}

// perPosition is the largest relative L2 error of a row.
func perPosition(got, want []float32, width int) (worst, mean float64) {
	rows := len(want) / width
	for i := range rows {
		e := exectest.RelativeL2(got[i*width:(i+1)*width], want[i*width:(i+1)*width])
		worst = max(worst, e)
		mean += e / float64(rows)
	}
	return worst, mean
}

// The published weights, where a checkout has them beside it: every logit,
// every layer's state and the prediction layer's, per position.
func TestPublishedWeights(t *testing.T) {
	folder := os.Getenv("POTLUCK_TINY")
	if goldens := os.Getenv("POTLUCK_GOLDENS"); folder == "" && goldens != "" {
		folder = filepath.Join(filepath.Dir(filepath.Clean(goldens)), "potluck-tiny")
	}
	if folder == "" {
		t.Log("POTLUCK_TINY is unset: the 32 MB checkpoint of the embedded model is not compared with the reference here, its q4_0 store is")
		return
	}
	src, err := exectest.OpenFolder(folder, quant.F32)
	require.NoError(t, err)
	c := src.Manifest().Model
	require.True(t, c.MTP)
	last := model.Cut{Layer: c.Layers}
	trunk, mtp := load(t, src, c.Whole()), load(t, src, model.Span{From: last, To: last, MTP: true})
	g := openGolden(t)
	for p := range prompts {
		ids := g.ids(p, "input_ids")
		out := run(t, trunk, uint32(p+1), ids, nil, func(i int, hidden []float32) {
			worst, _ := perPosition(hidden, g.floats(p, fmt.Sprintf("hidden.%d", i)), c.Hidden)
			require.LessOrEqual(t, worst, 1e-3, "prompt %d: hidden state %d", p, i)
		})
		worst, _ := perPosition(out.Logits, g.floats(p, "logits"), c.Vocab)
		require.LessOrEqual(t, worst, 1e-3, "prompt %d: logits", p)
		n := len(ids) - 1
		predicted := run(t, mtp, uint32(p+1), ids[1:], out.Final[:n*c.Hidden], nil)
		state, _ := perPosition(predicted.Final, g.floats(p, "mtp_hidden"), c.Hidden)
		require.LessOrEqual(t, state, 1e-3, "prompt %d: prediction layer's state", p)
		logits, _ := perPosition(predicted.Logits, g.floats(p, "mtp_logits"), c.Vocab)
		require.LessOrEqual(t, logits, 1e-3, "prompt %d: prediction layer's logits", p)
		t.Logf("prompt %d: worst relative L2 per position: logits %.1e, prediction layer %.1e", p, worst, logits)
	}
}

// What 4-bit weights cost the embedded model: printed, and bounded.
func TestEmbeddedStore(t *testing.T) {
	src, err := embedded.Open()
	require.NoError(t, err)
	m := src.Manifest()
	require.Equal(t, embedded.Name, m.Model.Name)
	require.Equal(t, embedded.Weights, m.Weights)
	require.NotEmpty(t, m.Tokenizer)
	require.NotEmpty(t, m.Template)
	g := openGolden(t)
	c := m.Model
	x := load(t, src, c.Whole())
	agree, total, sum := 0, 0, 0.0
	for p := range prompts {
		prompt, greedy := g.ids(p, "input_ids"), g.ids(p, "greedy")
		want := g.floats(p, "logits")
		got := run(t, x, uint32(p+1), prompt, nil, nil).Logits
		_, mean := perPosition(got, want, c.Vocab)
		sum += mean / prompts
		all := append(append([]int32(nil), prompt...), greedy...)
		logits := run(t, x, uint32(p+100), all[:len(all)-1], nil, nil).Logits
		for i, id := range greedy {
			row := logits[(len(prompt)-1+i)*c.Vocab:]
			best := 0
			for v, l := range row[:c.Vocab] {
				if l > row[best] {
					best = v
				}
			}
			if total++; int32(best) == id {
				agree++
			}
		}
	}
	t.Logf("q4_0 against f32: mean relative L2 of logits %.3f; %d of %d greedy tokens the same", sum, agree, total)
	require.False(t, math.IsNaN(sum))
	require.Less(t, sum, 0.25)
	require.Greater(t, agree, total*85/100)
}
