package bench

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/local"
	"github.com/potluck-llm/potluck/quant"
	tokens "github.com/potluck-llm/potluck/token"
)

func TestLogProb(t *testing.T) {
	logits := []float32{1, 2, 3, 1e4, -1e4}
	var sum float64
	for i := range 3 {
		sum += math.Exp(logProb(logits[:3], int32(i)))
	}
	require.InDelta(t, 1, sum, 1e-12)
	require.InDelta(t, -math.Log(1+math.Exp(-1)+math.Exp(-2)), logProb(logits[:3], 2), 1e-12)
	require.InDelta(t, 0, logProb(logits, 3), 1e-12, "no overflow")
	require.InDelta(t, -2e4, logProb(logits, 4), 1e-3)
}

// Perplexity is that of one token after the other, and a text has less
// of it than the same backwards.
func TestPerplexity(t *testing.T) {
	src, err := embedded.Open()
	require.NoError(t, err)
	tokenizer, err := tokens.FromJSON(src.Manifest().Tokenizer)
	require.NoError(t, err)
	engine, err := kernel.New(kernel.Options{})
	require.NoError(t, err)
	defer engine.Close()
	runner, err := local.Open(context.Background(), src, engine, exec.SlotPlan{Slots: 1, Positions: 512, KV: quant.F16, Round: true}, nil)
	require.NoError(t, err)
	defer runner.Close()

	text := tokenizer.Encode("[gMASK]<sop>Once upon a time, there was a little fox named Ada. She lived in the forest with her mother.", tokens.EncodeOptions{})
	got, err := MeasurePerplexity(context.Background(), runner, text, nil)
	require.NoError(t, err)
	require.Equal(t, len(text)-1, got.Tokens)
	var nll float64
	runner.Reset()
	for i, id := range text[:len(text)-1] {
		logits, err := runner.Step(context.Background(), i, []int32{id}, []int32{0}, nil)
		require.NoError(t, err)
		nll -= logProb(logits, text[i+1])
	}
	require.InDelta(t, nll/float64(len(text)-1), got.NLL, 1e-9)
	require.InDelta(t, math.Exp(got.NLL), got.Value, 1e-9)
	require.Greater(t, got.Error, 0.0)

	long := tokenizer.Encode(strings.Repeat(" Ada lived in the forest.", 60), tokens.EncodeOptions{})[:scoredRows+20] // two passes
	calls := 0
	again, err := MeasurePerplexity(context.Background(), runner, long, func(done, total int) {
		calls++
		require.Equal(t, len(long)-1, total)
		require.LessOrEqual(t, done, total)
	})
	require.NoError(t, err)
	require.Equal(t, 2, calls)
	require.False(t, math.IsNaN(again.NLL))

	backwards := slices.Clone(text)
	slices.Reverse(backwards)
	worse, err := MeasurePerplexity(context.Background(), runner, backwards, nil)
	require.NoError(t, err)
	require.Greater(t, worse.NLL, got.NLL+1, "no model foretells a text backwards as well")

	_, err = MeasurePerplexity(context.Background(), runner, text[:2], nil)
	require.ErrorContains(t, err, "at least 3")
}
