package bench

import (
	"context"
	"fmt"
	"math"

	"github.com/potluck-llm/potluck/internal/local"
)

// scoredRows is how many rows of logits are held at once: 4 bytes × vocabulary
// each, 50 MB for 49,152 tokens.
const scoredRows = 256

// A Perplexity says how well a model foretells a text.
type Perplexity struct {
	Tokens int     `json:"tokens"` // that were foretold: all but the first
	NLL    float64 `json:"nll"`    // mean negative log likelihood, in nats a token
	Error  float64 `json:"error"`  // standard error of that mean
	Value  float64 `json:"perplexity"`
}

// MeasurePerplexity foretells each token of a text from all tokens before it, in
// one sequence. report may be nil.
func MeasurePerplexity(ctx context.Context, runner *local.Runner, tokens []int32, report func(done, total int)) (*Perplexity, error) {
	n := len(tokens) - 1
	if n < 2 {
		return nil, fmt.Errorf("a text of %d tokens foretells nothing: want at least 3", len(tokens))
	}
	var sum, squares float64
	vocab := runner.Config.Vocab
	runner.Reset()
	for first := 0; first < n; first += scoredRows {
		end := min(first+scoredRows, n)
		want := make([]int32, end-first)
		for i := range want {
			want[i] = int32(i)
		}
		logits, err := runner.Step(ctx, first, tokens[first:end], want, nil)
		if err != nil {
			return nil, err
		}
		for i := range want {
			nll := -logProb(logits[i*vocab:(i+1)*vocab], tokens[first+i+1])
			sum += nll
			squares += nll * nll
		}
		if report != nil {
			report(end, n)
		}
	}
	mean := sum / float64(n)
	variance := max(0, squares/float64(n)-mean*mean)
	return &Perplexity{Tokens: n, NLL: mean, Error: math.Sqrt(variance / float64(n-1)), Value: math.Exp(mean)}, nil
}

// logProb is the logarithm of id's share in softmax(logits).
func logProb(logits []float32, id int32) float64 {
	top := logits[0]
	for _, l := range logits {
		top = max(top, l)
	}
	var sum float64
	for _, l := range logits {
		sum += math.Exp(float64(l - top))
	}
	return float64(logits[id]-top) - math.Log(sum)
}
