package cpu_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/quant"
)

// The slot plan, which a room's coordinator sends to every worker, decides
// whether activations are multiplied as they are: on one engine, span by span.
func TestPlanDecidesExactness(t *testing.T) {
	store, err := exectest.OpenFolder(exectest.Testdata("models", "llama-gqa"), quant.Q8_0)
	require.NoError(t, err)
	tokens := []int32{1, 5, 9, 2, 7, 3}
	logits := func(e *kernel.Engine, exact bool) []float32 {
		x := cpu.New(cpu.Options{Engine: e})
		plan := exec.SlotPlan{Slots: 1, Positions: 16, KV: quant.F32, Exact: exact}
		require.NoError(t, x.Load(context.Background(), store.Manifest().Model.Whole(), plan, store, nil))
		in, out := &exec.Pass{Tokens: tokens, Want: []int32{5}}, &exec.Pass{}
		for i := range tokens {
			in.Rows = append(in.Rows, exec.Row{Epoch: 1, Pos: int32(i)})
		}
		require.NoError(t, x.Step(context.Background(), in, out))
		return out.Logits
	}
	engine, err := kernel.New(kernel.Options{Threads: 1, Variant: "reference"})
	require.NoError(t, err)
	t.Cleanup(engine.Close)
	want := logits(exectest.Exact(t), false)
	quantised := logits(engine, false)
	require.Equal(t, want, logits(engine, true))
	require.Equal(t, quantised, logits(engine, false), "and off again")
	require.Equal(t, want, logits(exectest.Exact(t), true))
	e := exectest.RelativeL2(quantised, want)
	require.Greater(t, e, 1e-6, "8-bit activations must differ, or the test shows nothing")
	require.Less(t, e, 5e-2)
}
