// Package webgpu runs a span of a model on a graphics device.
//
// Loading copies the span's weights into buffers and records every dispatch
// once; a pass then writes its rows, replays the list and reads rows back. The
// kernels are those of package shaders, the device is a gpu.Device. Embedding,
// head and prediction layer stay with the coordinator.
package webgpu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/gpu"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// MaxRows is how many rows a list takes: longer passes run in several turns.
const MaxRows = 64

// An Executor runs one span. Use New.
type Executor struct {
	device gpu.Device
	config *model.Config
	span   model.Span
	plan   exec.SlotPlan
	slots  *exec.Slots
	list   gpu.List
	owned  []gpu.Buffer
	stats  exec.Stats
	in     []byte
	out    []byte
	lanes  int
	passes int64
}

var _ exec.Executor = (*Executor)(nil)

// New returns an executor without a span. The device stays the caller's, and
// may be shared by executors that are not used at the same time.
func New(device gpu.Device) *Executor {
	x := &Executor{device: device, lanes: 16, stats: exec.Stats{Backend: "webgpu " + device.Info().Name}}
	if device.Info().Software {
		x.lanes = 1
	}
	return x
}

// Load copies the weights of span to the device and records its dispatches.
func (x *Executor) Load(ctx context.Context, span model.Span, slots exec.SlotPlan, src shard.Source, report func(exec.Progress)) error {
	config := src.Manifest().Model
	if err := config.CheckSpan(span); err != nil {
		return err
	}
	switch {
	case span.Embed || span.Head || span.MTP:
		return fmt.Errorf("%v: embedding, head and prediction layer do not run on the graphics device", span)
	case slots.Slots < 1 || slots.Positions < 1:
		return fmt.Errorf("slot plan of %d slots with %d positions: want at least one of each", slots.Slots, slots.Positions)
	case slots.KV != quant.F32 && slots.KV != quant.F16:
		return fmt.Errorf("slot plan: KV cache of %v: want f32 or f16", slots.KV)
	case slots.KV == quant.F16 && config.KVDim()%2 != 0, config.HeadDim > 256:
		return fmt.Errorf("heads of %d do not run on the graphics device: at most 256", config.HeadDim)
	}
	x.free()
	found, size, err := shard.ReadSpan(ctx, src, span, func(loaded, total int64) {
		if report != nil {
			report(exec.Progress{Loaded: loaded, Total: total})
		}
	})
	if err != nil {
		return err
	}
	x.config, x.span, x.plan = config, span, slots
	r := &recorder{Executor: x, ctx: ctx, found: found}
	r.record()
	if r.err == nil {
		x.list, r.err = x.device.Record(ctx, r.recording)
	}
	if r.err != nil {
		x.config = nil
		x.free()
		if errors.Is(r.err, gpu.ErrMemory) {
			return fmt.Errorf("%w: %w", exec.ErrNoRoom, r.err)
		}
		return r.err
	}
	x.slots = exec.NewSlots(slots.Slots)
	x.stats = exec.Stats{Backend: x.stats.Backend, WeightBytes: size, KVBytes: r.kvBytes, Dispatches: len(r.recording.Dispatches)}
	return nil
}

// rowBytes is a row's size on its way in or out, at a cut.
func (x *Executor) rowBytes(cut model.Cut) int {
	n := 4 * x.config.Hidden
	if cut.Inside() {
		n += 4*x.config.Hidden + 8*x.config.MoE.PerToken
	}
	return n
}

// Step runs one pass, in turns of at most MaxRows rows.
func (x *Executor) Step(ctx context.Context, in, out *exec.Pass) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.config == nil {
		return errors.New("no span is loaded")
	}
	if err := in.Check(x.config, x.span, x.plan); err != nil {
		return err
	}
	if err := x.slots.Admit(in.Rows, func(int) {}); err != nil {
		return err
	}
	start := time.Now()
	n := len(in.Rows)
	out.Rows = append(out.Rows[:0], in.Rows...)
	out.Hidden, out.Normed, out.Chosen, out.Weights = out.Hidden[:0], out.Normed[:0], out.Chosen[:0], out.Weights[:0]
	out.Logits, out.Final, out.Want = out.Logits[:0], out.Final[:0], out.Want[:0]
	for first := 0; first < n; first += MaxRows {
		rows := min(MaxRows, n-first)
		x.pack(in, first, rows)
		bytes := rows * x.rowBytes(x.span.To)
		x.out = grow(x.out, bytes)
		if err := x.device.Run(ctx, x.list, rows, x.in, x.out); err != nil {
			return err
		}
		x.unpack(out, rows)
	}
	x.passes++
	x.stats.Passes++
	x.stats.Rows += int64(n)
	x.stats.Compute = time.Since(start)
	return nil
}

func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// pack writes rows as the list's inputs want them: places, residual, and at a
// cut inside a layer normed rows, ids and weights.
func (x *Executor) pack(in *exec.Pass, first, rows int) {
	h := x.config.Hidden
	x.in = grow(x.in, rows*(16+x.rowBytes(x.span.From)))
	at := 0
	word := func(v uint32) {
		binary.LittleEndian.PutUint32(x.in[at:], v)
		at += 4
	}
	for _, r := range in.Rows[first : first+rows] {
		word(uint32(r.Slot))
		word(uint32(r.Pos))
		word(0)
		word(0)
	}
	floats := func(list []float32) {
		quant.EncodeF32(x.in[at:at+4*len(list)], list)
		at += 4 * len(list)
	}
	floats(in.Hidden[first*h : (first+rows)*h])
	if x.span.From.Inside() {
		k := x.config.MoE.PerToken
		floats(in.Normed[first*h : (first+rows)*h])
		for _, id := range in.Chosen[first*k : (first+rows)*k] {
			word(uint32(id))
		}
		floats(in.Weights[first*k : (first+rows)*k])
	}
}

func (x *Executor) unpack(out *exec.Pass, rows int) {
	data := x.out
	floats := func(into []float32, n int) []float32 {
		from := len(into)
		into = append(into, make([]float32, n)...)
		quant.DecodeF32(into[from:], data[:4*n])
		data = data[4*n:]
		return into
	}
	h := x.config.Hidden
	out.Hidden = floats(out.Hidden, rows*h)
	if x.span.To.Inside() {
		k := x.config.MoE.PerToken
		out.Normed = floats(out.Normed, rows*h)
		for range rows * k {
			out.Chosen = append(out.Chosen, int32(binary.LittleEndian.Uint32(data)))
			data = data[4:]
		}
		out.Weights = floats(out.Weights, rows*k)
	}
}

// Trim forgets a slot's positions from length on.
func (x *Executor) Trim(slot, length int) {
	if x.slots != nil {
		x.slots.Trim(slot, length)
	}
}

// Stats returns what has been done since Load.
func (x *Executor) Stats() exec.Stats { return x.stats }

// Close frees the weights. The device stays.
func (x *Executor) Close() error {
	x.config, x.slots = nil, nil
	x.free()
	return nil
}

func (x *Executor) free() {
	if x.list != 0 {
		x.device.FreeList(x.list)
		x.list = 0
	}
	for _, b := range x.owned {
		x.device.Free(b)
	}
	x.owned = nil
}

func bits(f float64) uint32 { return math.Float32bits(float32(f)) }

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
