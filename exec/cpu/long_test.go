package cpu_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/quant"
)

// A long pass, whose attention and FFN are computed in bands, gives the bits of short
// ones.
func TestLongPassIsShortOnes(t *testing.T) {
	store, err := embedded.Open()
	require.NoError(t, err)
	config := store.Manifest().Model
	const rows = 512
	e, err := kernel.New(kernel.Options{Threads: 1, Band: 1 << 16})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	group := config.Heads / config.KVHeads
	require.Less(t, e.Band(rows), config.FFN, "or the test shows nothing")
	require.Less(t, e.HeadBand(rows, config.KVHeads, group*config.HeadDim, config.HeadDim), config.KVHeads, "or the test shows little")
	logits := func(chunk int) []float32 {
		x := cpu.New(cpu.Options{Engine: e})
		plan := exec.SlotPlan{Slots: 1, Positions: rows, KV: quant.F16, Round: true}
		require.NoError(t, x.Load(context.Background(), config.Whole(), plan, store, nil))
		var out exec.Pass
		for first := 0; first < rows; first += chunk {
			in := &exec.Pass{Want: []int32{int32(chunk - 1)}}
			for i := range chunk {
				in.Tokens = append(in.Tokens, int32((first+i)*37%config.Vocab))
				in.Rows = append(in.Rows, exec.Row{Epoch: 1, Pos: int32(first + i)})
			}
			require.NoError(t, x.Step(context.Background(), in, &out))
		}
		return out.Logits
	}
	require.Equal(t, logits(8), logits(rows))
}
