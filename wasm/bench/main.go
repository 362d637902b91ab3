//go:build js && wasm

// Command bench measures a whole model in a browser's tab: how fast its
// processor reads a prompt and writes an answer. Package bench/tab serves it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall/js"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/wasm/pieces"
	"github.com/potluck-llm/potluck/wasm/simd"
)

type options struct {
	Base     string `json:"base"`
	Manifest string `json:"manifest"`
	Prompt   int    `json:"prompt"`
	Depth    int    `json:"depth"` // tokens before those that are decoded
	Gen      int    `json:"gen"`
	Runs     int    `json:"runs"`
}

type result struct {
	Kernels string    `json:"kernels"`
	Threads int       `json:"threads"`
	LoadMs  float64   `json:"load_ms"`
	Prefill []float64 `json:"prefill"` // tok/s of each run
	Decode  []float64 `json:"decode"`
}

func main() {
	r, err := run()
	answer := map[string]any{"result": r}
	if err != nil {
		answer = map[string]any{"error": err.Error()}
	}
	data, _ := json.Marshal(answer)
	js.Global().Call("potluckPost", string(data))
}

func run() (*result, error) {
	var o options
	if err := json.Unmarshal([]byte(js.Global().Get("potluckOptions").String()), &o); err != nil {
		return nil, err
	}
	simd.Register()
	engine, err := kernel.New(kernel.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	b := &bench{options: o, executor: cpu.New(cpu.Options{Engine: engine})}
	r := &result{Kernels: engine.Variant(), Threads: simd.Threads()}
	start := time.Now()
	if err := b.load(); err != nil {
		return nil, err
	}
	r.LoadMs = milliseconds(start)
	for i := range o.Runs + 1 { // the first warms up
		prefill, decode, err := b.measure()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			r.Prefill, r.Decode = append(r.Prefill, prefill), append(r.Decode, decode)
		}
	}
	return r, nil
}

type bench struct {
	options
	executor *cpu.Executor
	config   *model.Config
}

func (b *bench) load() error {
	ctx := context.Background()
	source, err := pieces.Open(ctx, b.Base, b.Manifest)
	if err != nil {
		return err
	}
	b.config = source.Manifest().Model
	span := model.Span{To: model.Cut{Layer: b.config.Layers}, Embed: true, Head: true}
	plan := exec.SlotPlan{Slots: 1, Positions: max(b.Prompt, b.Depth) + b.Gen + 8, KV: quant.F16}
	return b.executor.Load(ctx, span, plan, source, func(exec.Progress) {})
}

// measure reads a prompt and, behind depth tokens of an empty context again,
// decodes; both in tok/s.
func (b *bench) measure() (prefill, decode float64, err error) {
	start := time.Now()
	if err := b.step(0, b.Prompt); err != nil {
		return 0, 0, err
	}
	prefill = float64(b.Prompt) / milliseconds(start) * 1000
	b.executor.Trim(0, 0)
	if err := b.step(0, b.Depth); err != nil {
		return 0, 0, err
	}
	start = time.Now()
	for i := range b.Gen {
		if err := b.step(b.Depth+i, 1); err != nil {
			return 0, 0, err
		}
	}
	decode = float64(b.Gen) / milliseconds(start) * 1000
	b.executor.Trim(0, 0)
	return prefill, decode, nil
}

// step computes n rows from a position on and the last one's logits.
func (b *bench) step(first, n int) error {
	in, out := exec.Pass{Want: []int32{int32(n - 1)}}, exec.Pass{}
	for i := range n {
		in.Rows = append(in.Rows, exec.Row{Pos: int32(first + i)})
		in.Tokens = append(in.Tokens, int32((first+i)*7919%b.config.Vocab))
	}
	if err := b.executor.Step(context.Background(), &in, &out); err != nil {
		return fmt.Errorf("rows %d to %d: %w", first, first+n-1, err)
	}
	return nil
}

func milliseconds(since time.Time) float64 { return float64(time.Since(since)) / 1e6 }
