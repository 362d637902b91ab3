// Package local runs a whole model in this process: what `potluck run` and
// `potluck bench` do without a room, and what tests compare a room with.
package local

import (
	"context"
	"fmt"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/shard"
)

// ChunkRows is how many prompt tokens go into one pass at most.
const ChunkRows = 512

// smallBytes are the weights of a model that takes half as many: the activations of
// ChunkRows would be a twentieth of its memory, and are worth more than the three
// percent of a prompt's time that reading its weights twice as often costs.
const smallBytes = 200 << 20

// A Runner holds one model and one sequence at a time.
type Runner struct {
	Config *model.Config
	x      *cpu.Executor
	plan   exec.SlotPlan
	chunk  int // rows of a pass
	epoch  uint32
	out    exec.Pass
}

// Open loads the whole model from src.
func Open(ctx context.Context, src shard.Source, engine *kernel.Engine, plan exec.SlotPlan, report func(exec.Progress)) (*Runner, error) {
	r := &Runner{Config: src.Manifest().Model, x: cpu.New(cpu.Options{Engine: engine}), plan: plan, chunk: ChunkRows}
	if err := r.x.Load(ctx, r.Config.Whole(), plan, src, report); err != nil {
		return nil, err
	}
	if r.Stats().WeightBytes < smallBytes {
		r.chunk = ChunkRows / 2
	}
	return r, nil
}

// Close drops the weights.
func (r *Runner) Close() error { return r.x.Close() }

// Stats tells what the executor has done.
func (r *Runner) Stats() exec.Stats { return r.x.Stats() }

// Reset begins a new sequence, in the last one's memory.
func (r *Runner) Reset() { r.epoch++ }

// Step runs tokens from position first on as one pass and returns the logits
// of the rows that are wanted. They are valid until the next call.
func (r *Runner) Step(ctx context.Context, first int, tokens, want []int32, trace func(int, []float32)) ([]float32, error) {
	in := exec.Pass{Tokens: tokens, Want: want, Trace: trace}
	in.Rows = make([]exec.Row, len(tokens))
	for i := range in.Rows {
		in.Rows[i] = exec.Row{Epoch: r.epoch, Pos: int32(first + i)}
	}
	if err := r.x.Step(ctx, &in, &r.out); err != nil {
		return nil, err
	}
	return r.out.Logits, nil
}

// Prefill runs a prompt from position 0 on and returns the last row's logits.
func (r *Runner) Prefill(ctx context.Context, prompt []int32) (logits []float32, err error) {
	if len(prompt) == 0 {
		return nil, fmt.Errorf("the prompt is empty")
	}
	if len(prompt) >= r.plan.Positions {
		return nil, fmt.Errorf("the prompt has %d tokens, there is room for %d", len(prompt), r.plan.Positions-1)
	}
	r.Reset()
	for first := 0; first < len(prompt); first += r.chunk {
		end := min(first+r.chunk, len(prompt))
		var want []int32
		if end == len(prompt) {
			want = []int32{int32(end - first - 1)}
		}
		if logits, err = r.Step(ctx, first, prompt[first:end], want, nil); err != nil {
			return nil, err
		}
	}
	return logits, nil
}

// Generate continues prompt: pick chooses each token from logits that it may
// not keep, emit takes it and says whether to go on.
func (r *Runner) Generate(ctx context.Context, prompt []int32, pick func(logits []float32) (int32, error), emit func(id int32) (more bool)) error {
	logits, err := r.Prefill(ctx, prompt)
	if err != nil {
		return err
	}
	for pos := len(prompt); ; pos++ {
		id, err := pick(logits)
		if err != nil {
			return err
		}
		if !emit(id) || pos >= r.plan.Positions {
			return nil
		}
		if logits, err = r.Step(ctx, pos, []int32{id}, []int32{0}, nil); err != nil {
			return err
		}
	}
}
