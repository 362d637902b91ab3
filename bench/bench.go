// Package bench measures a model's speed as users meet it: prefill, decode,
// time to first token, and where the milliseconds of a token go, in this
// process or through a chain of workers over real sockets.
//
// It takes a shard store and gives a Result. What the machine could at best do
// is measured by other programs; README.md here has the commands.
package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/local"
	"github.com/potluck-llm/potluck/internal/version"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// Options say what to measure.
type Options struct {
	Threads int // 0: all cores; with workers, of all of them together
	Prompt  int // tokens of the prompt
	Gen     int // tokens to decode; 0: none, only without workers
	Depth   int // tokens before those that are decoded; below 0: the prompt
	Workers int // 0: in this process
	Runs    int // measured runs after one that warms up
	KV      quant.Type
	Exact   bool // f32 activations
	Log     io.Writer
}

func (o *Options) depth() int {
	if o.Depth < 0 {
		return o.Prompt
	}
	return o.Depth
}

// positions is how many positions a decoded token attends to, on average.
func (o *Options) positions() int { return o.depth() + (o.Gen+1)/2 }

// A Result holds medians over the runs.
type Result struct {
	Model   string `json:"model"`
	Weights string `json:"weights"`
	Build   string `json:"build"`
	Machine string `json:"machine"` // operating system, architecture, kernels
	Threads int    `json:"threads"`
	Prompt  int    `json:"prompt"`
	Gen     int    `json:"gen"`
	Depth   int    `json:"depth"`
	Workers int    `json:"workers"`
	Runs    int    `json:"runs"`

	LoadMs        float64 `json:"load_ms"`
	FirstTokenMs  float64 `json:"first_token_ms"` // of a prompt of Prompt tokens
	PrefillTokS   float64 `json:"prefill_tok_s"`
	DecodeTokS    float64 `json:"decode_tok_s"`
	PrefillSpread Spread  `json:"prefill_spread"`
	DecodeSpread  Spread  `json:"decode_spread"`

	WeightBytes       int64   `json:"weight_bytes"`
	KVBytes           int64   `json:"kv_bytes"`
	PeakBytes         int64   `json:"peak_bytes"` // most resident memory of this process so far; 0: the system does not tell
	PeakRatio         float64 `json:"peak_ratio"` // of weights + KV cache; 0: not known, as with workers
	BytesPerToken     int64   `json:"bytes_read_per_token"`
	WireBytesPerToken float64 `json:"wire_bytes_per_token"` // both ways, all hops
	Hops              []Hop   `json:"hops,omitempty"`
	CoordinatorMs     float64 `json:"coordinator_ms,omitempty"` // embedding, head, sampling, bookkeeping of one token
}

// Spread is the lowest and highest of the runs, in tok/s.
type Spread struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// A Hop is one worker's part of a decoded token, in milliseconds.
type Hop struct {
	Worker   string  `json:"worker"`
	Layers   string  `json:"layers"`
	Queue    float64 `json:"queue_ms"`
	Wire     float64 `json:"wire_ms"`
	Compute  float64 `json:"compute_ms"`
	Readback float64 `json:"readback_ms"`
}

// sampleRun is one measured run.
type sampleRun struct {
	first, decode time.Duration // time to the first token; of all tokens after it
}

// Run measures.
func Run(ctx context.Context, src shard.Source, o Options) (*Result, error) {
	c := src.Manifest().Model
	if o.Runs < 1 || o.Prompt < 1 || o.Gen < 0 || o.Gen == 0 && o.Workers > 0 {
		return nil, fmt.Errorf("%d runs of a prompt of %d and %d generated tokens: want at least 1 of each", o.Runs, o.Prompt, o.Gen)
	}
	o.Depth = o.depth()
	if o.Depth != o.Prompt && o.Workers > 0 {
		return nil, fmt.Errorf("decoding after %d tokens: workers decode after the prompt", o.Depth)
	}
	if max(o.Prompt, o.Depth)+o.Gen >= c.MaxPositions {
		return nil, fmt.Errorf("%d tokens + gen %d exceed the model's context of %d", max(o.Prompt, o.Depth), o.Gen, c.MaxPositions)
	}
	r := &Result{
		Model: cmp.Or(c.Name, c.Arch), Weights: src.Manifest().Weights, Build: version.String(),
		Threads: cmp.Or(o.Threads, runtime.GOMAXPROCS(0)), Prompt: o.Prompt, Gen: o.Gen, Depth: o.Depth, Workers: o.Workers, Runs: o.Runs,
	}
	var runs []sampleRun
	var err error
	if o.Workers == 0 {
		runs, err = runLocal(ctx, src, o, r)
	} else {
		runs, err = runRoom(ctx, src, o, r)
	}
	if err != nil {
		return nil, err
	}
	r.summarise(runs)
	r.PeakBytes = ownPeak()
	if r.KVBytes > 0 {
		r.PeakRatio = float64(r.PeakBytes) / float64(r.WeightBytes+r.KVBytes)
	}
	return r, nil
}

// summarise turns the runs into medians.
func (r *Result) summarise(runs []sampleRun) {
	var first, prefill, decode []float64
	for _, run := range runs {
		first = append(first, milliseconds(run.first))
		prefill = append(prefill, float64(r.Prompt)/run.first.Seconds())
		if r.Gen > 0 {
			decode = append(decode, float64(r.Gen)/run.decode.Seconds())
		}
	}
	r.FirstTokenMs, r.PrefillTokS, r.DecodeTokS = median(first), median(prefill), median(decode)
	r.PrefillSpread = Spread{slices.Min(prefill), slices.Max(prefill)}
	if r.Gen > 0 {
		r.DecodeSpread = Spread{slices.Min(decode), slices.Max(decode)}
	}
	if len(r.Hops) > 0 { // what the chain leaves of a token's time
		rest := 1000 / r.DecodeTokS
		for _, h := range r.Hops {
			rest -= h.Queue + h.Wire + h.Compute + h.Readback
		}
		r.CoordinatorMs = max(0, rest)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// prompt is tokens that spread over the vocabulary; speed does not depend on
// what they say.
func prompt(count, vocab int) []int32 {
	tokens := make([]int32, count)
	state := uint32(1)
	for i := range tokens {
		state = state*1664525 + 1013904223
		tokens[i] = int32(state>>8) % int32(vocab)
	}
	return tokens
}

// runLocal measures the whole model in this process. As other programs do,
// decoding is measured without sampling: the next token is the last one's
// argmax.
func runLocal(ctx context.Context, src shard.Source, o Options, r *Result) ([]sampleRun, error) {
	engine, err := kernel.New(kernel.Options{Threads: o.Threads, Exact: o.Exact})
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	r.Machine = fmt.Sprintf("%s/%s %s", runtime.GOOS, runtime.GOARCH, engine.Variant())
	plan := exec.SlotPlan{Slots: 1, Positions: max(o.Prompt, o.Depth) + o.Gen + 1, KV: o.KV, Round: !o.Exact}
	src.Manifest().DropText() // of text there is none here
	start := time.Now()
	runner, err := local.Open(ctx, src, engine, plan, nil)
	if err != nil {
		return nil, err
	}
	defer runner.Close()
	r.LoadMs = milliseconds(time.Since(start))
	vocab := src.Manifest().Model.Vocab
	tokens, before := prompt(o.Prompt, vocab), prompt(o.Depth, vocab)
	var runs []sampleRun
	for i := 0; i <= o.Runs; i++ {
		run, err := timeLocal(ctx, runner, tokens, before, o.Gen)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first warms up
			runs = append(runs, run)
			report(o.Log, i, o, run)
		}
	}
	stats := runner.Stats()
	r.WeightBytes, r.KVBytes, r.BytesPerToken = stats.WeightBytes, stats.KVBytes, BytesPerToken(src.Manifest(), o.KV, o.positions())
	return runs, nil
}

// timeLocal reads tokens, and decodes gen tokens after those before.
func timeLocal(ctx context.Context, runner *local.Runner, tokens, before []int32, gen int) (run sampleRun, err error) {
	start := time.Now()
	logits, err := runner.Prefill(ctx, tokens)
	if err != nil {
		return run, err
	}
	next := int32(kernel.Logits{}.ArgMax(logits))
	run.first = time.Since(start)
	if len(before) != len(tokens) {
		if runner.Reset(); len(before) > 0 {
			if _, err := runner.Prefill(ctx, before); err != nil {
				return run, err
			}
		}
	}
	start = time.Now()
	for i := range gen {
		if logits, err = runner.Step(ctx, len(before)+i, []int32{next}, []int32{0}, nil); err != nil {
			return run, err
		}
		next = int32(kernel.Logits{}.ArgMax(logits))
	}
	run.decode = time.Since(start)
	return run, nil
}

func report(w io.Writer, i int, o Options, run sampleRun) {
	if w != nil && o.Gen > 0 {
		fmt.Fprintf(w, "run %d of %d: prefill %.1f tok/s, decode %.1f tok/s\n", i, o.Runs, float64(o.Prompt)/run.first.Seconds(), float64(o.Gen)/run.decode.Seconds())
	}
}
