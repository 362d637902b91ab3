// Package cpu runs a span of a model on the processor.
//
// It takes a span's weights as pieces of a shard store, used where they lie
// (mapped files stay mapped), and computes passes with the kernels of package
// exec/cpu/kernel. The layer program is here, one step after another, the same
// for every architecture; how a product or an attention is computed fast is
// the work of the kernels.
package cpu

import (
	"context"
	"fmt"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// Options choose how an Executor computes.
type Options struct {
	// Engine computes, and may be shared by executors that are not used at the
	// same time. It stays the caller's.
	Engine *kernel.Engine
}

// An Executor runs one span. Use New.
type Executor struct {
	engine *kernel.Engine
	config *model.Config
	span   model.Span
	plan   exec.SlotPlan
	slots  *exec.Slots
	rope   *kernel.Rope

	embed  *tensor // also for an MTP span
	head   *tensor
	norm   []float32
	mtp    *mtpWeights
	layers []*layer

	buf   buffers
	stats exec.Stats
}

var _ exec.Executor = (*Executor)(nil)

// New returns an executor without a span.
func New(o Options) *Executor {
	return &Executor{engine: o.Engine, stats: exec.Stats{Backend: "cpu " + o.Engine.Variant()}}
}

// Load reads the weights of span and readies its slots.
func (x *Executor) Load(ctx context.Context, span model.Span, slots exec.SlotPlan, src shard.Source, report func(exec.Progress)) error {
	manifest := src.Manifest()
	config := manifest.Model
	if err := config.CheckSpan(span); err != nil {
		return err
	}
	if slots.Slots < 1 || slots.Positions < 1 {
		return fmt.Errorf("slot plan of %d slots with %d positions: want at least one of each", slots.Slots, slots.Positions)
	}
	switch slots.KV {
	case quant.F32, quant.F16, quant.Q8_0:
	default:
		return fmt.Errorf("slot plan: KV cache of %v: want f32, f16 or q8_0", slots.KV)
	}
	weights, err := loadWeights(ctx, config, span, src, report)
	if err != nil {
		return err
	}
	_ = x.Close() // what was loaded before
	x.config, x.span, x.plan = config, span, slots
	x.slots = exec.NewSlots(slots.Slots)
	x.rope = kernel.NewRope(config.RoPE)
	x.embed, x.head, x.norm, x.mtp, x.layers = weights.embed, weights.head, weights.norm, weights.mtp, weights.layers
	x.stats = exec.Stats{Backend: x.stats.Backend, WeightBytes: weights.bytes}
	for _, l := range x.layers {
		if l.part.Begins {
			l.caches = make([]*kernel.Cache, slots.Slots)
		}
	}
	memory.Settle() // passes make too little garbage to have it collected soon
	return nil
}

// Step runs one pass.
func (x *Executor) Step(ctx context.Context, in, out *exec.Pass) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.config == nil {
		return fmt.Errorf("no span is loaded")
	}
	if err := in.Check(x.config, x.span, x.plan); err != nil {
		return err
	}
	// A sequence that begins where another was writes over its caches.
	if err := x.slots.Admit(in.Rows, func(int) {}); err != nil {
		return err
	}
	start := time.Now()
	x.engine.Exact(x.plan.Exact)
	n := len(in.Rows)
	s := x.begin(in)
	for _, l := range x.layers {
		x.runLayer(l, s)
		if in.Trace != nil && l.part.Ends && !x.span.MTP && !(x.span.Head && l.part.Layer == x.config.Layers-1) {
			in.Trace(l.part.Layer+1, s.hidden)
		}
	}
	x.finish(s, in, out)
	x.stats.Passes++
	x.stats.Rows += int64(n)
	x.stats.Compute = time.Since(start)
	return nil
}

// Trim forgets a slot's positions from length on. Freeing a slot also gives
// its memory back.
func (x *Executor) Trim(slot, length int) {
	if x.slots == nil || !x.slots.Trim(slot, length) || length > 0 {
		return
	}
	for _, l := range x.layers {
		l.free(slot)
	}
}

// Stats returns what has been done since Load.
func (x *Executor) Stats() exec.Stats {
	stats := x.stats
	for _, l := range x.layers {
		for _, c := range l.caches {
			if c != nil {
				stats.KVBytes += c.Bytes()
			}
		}
	}
	return stats
}

// Close drops the weights and frees what passes need. The engine stays.
func (x *Executor) Close() error {
	for _, l := range x.layers {
		for slot := range l.caches {
			l.free(slot)
		}
	}
	x.buf.free()
	x.config, x.slots, x.layers, x.embed, x.head, x.mtp = nil, nil, nil, nil, nil, nil
	return nil
}
