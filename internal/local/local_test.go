package local_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/local"
	"github.com/potluck-llm/potluck/quant"
)

var prompt = []int32{3242, 3244, 302, 419, 264, 392, 11, 428, 272, 264, 391, 427, 481, 379, 13}

func open(t *testing.T, positions int) *local.Runner {
	src, err := embedded.Open()
	require.NoError(t, err)
	engine, err := kernel.New(kernel.Options{Threads: 1})
	require.NoError(t, err)
	t.Cleanup(engine.Close)
	var last exec.Progress
	r, err := local.Open(t.Context(), src, engine, exec.SlotPlan{Slots: 1, Positions: positions, KV: quant.F16, Round: true}, func(p exec.Progress) { last = p })
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	require.Positive(t, last.Total)
	require.Equal(t, last.Total, last.Loaded)
	return r
}

func best(logits []float32) (int32, error) {
	top := 0
	for i, v := range logits {
		if v > logits[top] {
			top = i
		}
	}
	return int32(top), nil
}

// A prompt in chunks, whole or token by token is the same prompt.
func TestPrefillIsTheSameInAnyPieces(t *testing.T) {
	r := open(t, 1024)
	long := slices.Repeat(prompt, 40) // more than a chunk
	require.Greater(t, len(long), local.ChunkRows)
	want, err := r.Prefill(t.Context(), long)
	require.NoError(t, err)
	want = slices.Clone(want)
	r.Reset()
	var got []float32
	for i, id := range long {
		got, err = r.Step(t.Context(), i, []int32{id}, []int32{0}, nil)
		require.NoError(t, err)
	}
	a, _ := best(want)
	b, _ := best(got)
	require.Equal(t, a, b)
	again, err := r.Prefill(t.Context(), long) // a new sequence in the same slot
	require.NoError(t, err)
	require.Equal(t, want, again)
}

func TestGenerate(t *testing.T) {
	r := open(t, len(prompt)+6)
	generate := func(n int) (ids []int32) {
		require.NoError(t, r.Generate(t.Context(), prompt, best, func(id int32) bool { ids = append(ids, id); return len(ids) < n }))
		return ids
	}
	three := generate(3)
	require.Len(t, three, 3)
	all := generate(100)
	require.Equal(t, three, all[:3])
	require.Len(t, all, 7, "an answer ends where the room does: six positions, and the token after the last")
}

func TestRefusals(t *testing.T) {
	r := open(t, 10)
	_, err := r.Prefill(t.Context(), nil)
	require.ErrorContains(t, err, "empty")
	_, err = r.Prefill(t.Context(), prompt)
	require.ErrorContains(t, err, "room for 9")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Prefill(ctx, prompt[:4])
	require.ErrorIs(t, err, context.Canceled)
	_, err = r.Step(t.Context(), 5, prompt[:1], nil, nil) // a hole
	require.ErrorIs(t, err, exec.ErrStaleSlot)
}
