// Package exec has the one interface by which a span of a model is run, and
// the types of a pass through it.
//
// Rows of hidden states go in and rows come out. Packages exec/cpu and
// exec/webgpu implement it, exec/exectest holds both to the same suite. Which
// span a machine runs is decided by the coordinator; how rows travel is the
// work of packages wire and worker.
package exec

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
)

// An Executor runs one span of a model. It is used by one goroutine at a time.
type Executor interface {
	// Load readies the span's weights and room for slots of KV cache, reading
	// pieces from src as they arrive. report may be nil.
	Load(ctx context.Context, span model.Span, slots SlotPlan, src shard.Source, report func(Progress)) error
	// Step runs one pass: rows of hidden states (or token ids, where the span
	// begins with the embedding) in, rows of hidden states (or logits, where it
	// ends with the head) out. It keeps neither argument; out's slices are
	// reused where they have room. After an error no slot that the pass
	// touched may be used before it is trimmed to 0.
	Step(ctx context.Context, in *Pass, out *Pass) error
	// Trim forgets a slot's positions from length on (0 frees it).
	Trim(slot int, length int)
	Stats() Stats
	Close() error
}

// ErrStaleSlot is what Step returns when a row's epoch or position does not
// continue what the executor holds of its slot: a span that computes on a hole
// gives confident nonsense.
var ErrStaleSlot = errors.New("stale slot")

// ErrNoRoom is what Load returns when the span does not fit the device.
var ErrNoRoom = errors.New("no room")

// SlotPlan and Row travel too, so they are the wire's.
type (
	// SlotPlan says how much KV cache an executor keeps.
	SlotPlan = wire.SlotPlan
	// Row says where a row of a pass belongs.
	Row = wire.Row
)

// A Pass carries rows of one or many sequences through a span.
//
// Into a span with the embedding: Tokens. Into an MTP span: Tokens (the next
// token of each row) and Hidden (the trunk's state after the final norm). Into
// any other: Hidden [rows × hidden], and where the span begins inside a layer
// also Normed, Chosen and Weights; there Hidden is the running sum.
//
// Out of a span with the head, or an MTP span: Logits [len(Want) × vocabulary]
// and Final [len(Want) × hidden], the rows after the final norm (MTP: after
// shared_head.norm). Out of any other: as into the next.
//
// Hidden between layers holds f16 values times a power of two per row where
// SlotPlan.Round is set, so that the wire carries them in 2 bytes without loss.
type Pass struct {
	wire.State
	Tokens []int32
	Want   []int32 // which rows need logits, ascending
	Logits []float32
	Final  []float32
	// Trace, where set, is called with the residual after each layer (index
	// layer+1), with the embedding (index 0) and with the state after the
	// final norm of every row (index Layers). For checks only: it may force
	// slow paths. CPU executors honour it, others may ignore it.
	Trace func(index int, hidden []float32)
}

// Check tells whether p has what span needs of config's shape: every size is
// exact, every id in range.
func (p *Pass) Check(config *model.Config, span model.Span, slots SlotPlan) error {
	n := len(p.Rows)
	wantTokens, wantHidden, wantInner := 0, n*config.Hidden, 0
	if span.Embed || span.MTP {
		wantTokens = n
	}
	if span.Embed {
		wantHidden = 0
	}
	if span.From.Inside() {
		wantInner = n
	}
	perToken := 0
	if config.MoE != nil {
		perToken = config.MoE.PerToken
	}
	for _, f := range []struct {
		name      string
		got, want int
	}{
		{"tokens", len(p.Tokens), wantTokens}, {"hidden values", len(p.Hidden), wantHidden},
		{"normed values", len(p.Normed), wantInner * config.Hidden},
		{"chosen experts", len(p.Chosen), wantInner * perToken}, {"expert weights", len(p.Weights), wantInner * perToken},
	} {
		if f.got != f.want {
			return fmt.Errorf("pass of %d rows: %d %s, want %d", n, f.got, f.name, f.want)
		}
	}
	for i, t := range p.Tokens {
		if t < 0 || int(t) >= config.Vocab {
			return fmt.Errorf("pass: row %d: token %d is outside the vocabulary of %d", i, t, config.Vocab)
		}
	}
	for i, e := range p.Chosen {
		if e < 0 || int(e) >= config.MoE.Experts {
			return fmt.Errorf("pass: row %d: expert %d of %d", i/perToken, e, config.MoE.Experts)
		}
	}
	for i, w := range p.Want {
		if w < 0 || int(w) >= n || i > 0 && w <= p.Want[i-1] {
			return fmt.Errorf("pass: row %d of %d is wanted, after row %d", w, n, p.Want[max(i-1, 0)])
		}
	}
	for i, r := range p.Rows {
		if r.Slot < 0 || int(r.Slot) >= slots.Slots || r.Pos < 0 || int(r.Pos) >= slots.Positions {
			return fmt.Errorf("pass: row %d: slot %d position %d, have %d slots of %d positions", i, r.Slot, r.Pos, slots.Slots, slots.Positions)
		}
	}
	return nil
}

// Progress is how far a Load has come. Loaded counts each verified byte once.
type Progress struct {
	Loaded, Total int64
	Cached        int64 // of Loaded, what was found in the cache
}

// Stats is what an executor has done since Load.
type Stats struct {
	Backend     string // "cpu avx512vnni", "webgpu google/swiftshader"
	WeightBytes int64  // resident weights
	KVBytes     int64  // room for KV cache in use
	Passes      int64
	Rows        int64
	Compute     time.Duration // of the last pass
	Readback    time.Duration // of the last pass: waiting for results to leave the device
	Dispatches  int           // of the last pass, 0 on a CPU
}

// Slots keeps the epochs and lengths of an executor's slots: the rule of
// ErrStaleSlot, once for all backends.
type Slots struct {
	epoch  []uint32
	length []int32
}

// NewSlots returns n free slots.
func NewSlots(n int) *Slots { return &Slots{make([]uint32, n), make([]int32, n)} }

// Admit checks the rows of a pass against what is held and then counts them in.
// It changes nothing when it fails. reset is called for each slot that a new
// sequence takes.
func (s *Slots) Admit(rows []Row, reset func(slot int)) error {
	next := make(map[int32]Row, 4)
	for i, r := range rows {
		held, seen := next[r.Slot]
		if !seen {
			held = Row{Slot: r.Slot, Epoch: s.epoch[r.Slot], Pos: s.length[r.Slot]}
		}
		begins := !seen && r.Pos == 0 && (r.Epoch != held.Epoch || held.Pos == 0)
		if !begins && (r.Epoch != held.Epoch || r.Pos != held.Pos) {
			return fmt.Errorf("%w: row %d: slot %d epoch %d position %d, have epoch %d length %d", ErrStaleSlot, i, r.Slot, r.Epoch, r.Pos, held.Epoch, held.Pos)
		}
		next[r.Slot] = Row{Slot: r.Slot, Epoch: r.Epoch, Pos: r.Pos + 1}
	}
	for i, r := range rows {
		if r.Pos == 0 && (i == 0 || rows[i-1].Slot != r.Slot) && s.epoch[r.Slot] != r.Epoch {
			reset(int(r.Slot))
		}
	}
	for slot, r := range next {
		s.epoch[slot], s.length[slot] = r.Epoch, r.Pos
	}
	return nil
}

// Trim shortens a slot to length positions; 0 frees it. It tells whether the
// slot held more than that.
func (s *Slots) Trim(slot, length int) bool {
	if slot < 0 || slot >= len(s.length) || length < 0 || int(s.length[slot]) <= length {
		return false
	}
	s.length[slot] = int32(length)
	return true
}

// Length is how many positions a slot holds.
func (s *Slots) Length(slot int) int { return int(s.length[slot]) }
