package cluster_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/wire"
)

// next is the toy model: a token that depends on all before it.
func next(tokens []int32) int32 {
	h := uint32(2166136261)
	for _, t := range tokens {
		h = (h ^ uint32(t)) * 16777619
	}
	return int32(h%1000) + 10
}

// slotState is what a worker's slot holds.
type slotState struct {
	epoch  uint32
	tokens []int32
}

// worker is a member of the simulated room: it checks every row as a real
// executor does, and remembers which tokens its cache was made of.
type simWorker struct {
	id    string
	spans map[uint32]*simSpan
	inbox []func()
	gone  bool
}

type simSpan struct {
	rule   *exec.Slots
	tokens map[int32]*slotState
}

// simulation is a room of such workers, with messages on their way.
type simulation struct {
	t       *testing.T
	r       *rand.Rand
	state   *cluster.State
	now     cluster.Tick
	workers map[string]*simWorker
	pending []cluster.Event // sampled later
	passes  map[uint64]*simPass
	prompts map[string][]int32
	limits  map[string]int
	got     map[string][]int32
	ended   map[string]string
	joined  int
	calm    bool // workers have no bad luck
}

func newSimulation(t *testing.T, seed uint64, policy plan.Policy) *simulation {
	s := &simulation{t: t, r: rand.New(rand.NewPCG(seed, 7)), workers: map[string]*simWorker{}, passes: map[uint64]*simPass{},
		prompts: map[string][]int32{}, limits: map[string]int{}, got: map[string][]int32{}, ended: map[string]string{}}
	s.state = cluster.New(cluster.Options{Shape: shape(), Policy: policy, ChunkRows: 5, WaitLimit: time.Hour,
		Slots: plan.Slots{Slots: 3, Positions: 64, KV: quant.F16, Round: true}})
	return s
}

type simPass struct {
	rows   []wire.Row
	tokens []int32
}

func (s *simulation) step(e cluster.Event) {
	for _, a := range s.state.Step(s.now, e) {
		s.perform(a)
	}
}

func (s *simulation) perform(a cluster.Action) {
	switch a := a.(type) {
	case cluster.Assign:
		w := s.workers[a.Worker]
		w.inbox = append(w.inbox, func() {
			w.spans[a.Span.Number] = &simSpan{exec.NewSlots(a.Span.Slots.Slots), map[int32]*slotState{}}
			if !s.calm && s.r.IntN(20) == 0 {
				delete(w.spans, a.Span.Number)
				s.step(cluster.Refused{Worker: w.id, Span: a.Span.Number, Code: "load_failed", Reason: "bad luck"})
				return
			}
			s.step(cluster.SpanReady{Worker: w.id, Span: a.Span.Number})
		})
	case cluster.Release:
		if w := s.workers[a.Worker]; w != nil {
			w.inbox = append(w.inbox, func() { delete(w.spans, a.Span) })
		}
	case cluster.Trim:
		if w := s.workers[a.Worker]; w != nil {
			w.inbox = append(w.inbox, func() {
				if sp := w.spans[a.Span]; sp != nil {
					sp.rule.Trim(int(a.Slot), int(a.Length))
				}
			})
		}
	case cluster.Begin:
		s.passes[a.Pass] = &simPass{a.Rows, a.Tokens}
		s.send(a.Worker, a.Pass, a.Span)
	case cluster.Forward:
		s.send(a.Worker, a.Pass, a.Span)
	case cluster.Sample:
		s.sample(a)
	case cluster.Emit:
		require.Empty(s.t, s.ended[a.Sequence], "%s goes on after its end", a.Sequence)
		if a.Token >= 0 {
			s.got[a.Sequence] = append(s.got[a.Sequence], a.Token)
		}
		if a.Last {
			s.ended[a.Sequence] = a.Finish
		}
	case cluster.Fail:
		s.ended[a.Sequence] = a.Code
	case cluster.Drop:
		s.kill(a.Worker)
	}
}

// send puts a pass into a worker's inbox: when its turn comes, every row must
// continue what the slot holds.
func (s *simulation) send(worker string, pass uint64, span uint32) {
	w, p := s.workers[worker], s.passes[pass]
	if w == nil {
		return
	}
	w.inbox = append(w.inbox, func() {
		sp := w.spans[span]
		if sp == nil {
			s.step(cluster.PassFailed{Worker: w.id, Pass: pass, Code: "unknown_span"})
			return
		}
		if !s.calm && s.r.IntN(200) == 0 {
			s.step(cluster.PassFailed{Worker: w.id, Pass: pass, Code: "internal", Reason: "bad luck"})
			return
		}
		err := sp.rule.Admit(p.rows, func(slot int) { delete(sp.tokens, int32(slot)) })
		if err != nil {
			s.step(cluster.PassFailed{Worker: w.id, Pass: pass, Code: "stale_slot", Reason: err.Error()})
			return
		}
		for i, row := range p.rows {
			st := sp.tokens[row.Slot]
			if st == nil || st.epoch != row.Epoch || row.Pos == 0 {
				st = &slotState{epoch: row.Epoch}
				sp.tokens[row.Slot] = st
			}
			st.tokens = append(st.tokens[:row.Pos], p.tokens[i])
		}
		s.step(cluster.PassDone{Worker: w.id, Pass: pass})
	})
}

// sample answers from what the last span's slots were made of: so a hole, or
// another sequence's tokens, give a wrong answer.
func (s *simulation) sample(a cluster.Sample) {
	p := s.passes[a.Pass]
	e := cluster.Sampled{Pass: a.Pass}
	for _, want := range a.Want {
		row := p.rows[want.Row]
		var tokens []int32
		for _, w := range s.workers {
			for _, sp := range w.spans {
				if st := sp.tokens[row.Slot]; st != nil && st.epoch == row.Epoch && len(st.tokens) > int(row.Pos) {
					tokens = st.tokens[:row.Pos+1]
				}
			}
		}
		e.Tokens = append(e.Tokens, cluster.SampledToken{Sequence: want.Sequence, Token: next(tokens)})
	}
	delete(s.passes, a.Pass)
	s.pending = append(s.pending, e)
}

func (s *simulation) join() {
	s.joined++
	id := fmt.Sprint("w", s.joined)
	s.workers[id] = &simWorker{id: id, spans: map[uint32]*simSpan{}}
	s.step(cluster.Joined{Worker: id, Name: id, Kind: "native", HopMs: 1, Capacity: wire.Capacity{Bytes: int64(30+s.r.IntN(60)) << 20, ReadGBs: 1 + s.r.Float64()*20, Credit: 1 + s.r.IntN(4)}})
}

func (s *simulation) kill(id string) {
	if w := s.workers[id]; w != nil {
		w.gone = true
		delete(s.workers, id)
	}
}

func (s *simulation) ids() []string {
	var ids []string
	for id := range s.workers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// deliver lets one message, or one sampling, happen.
func (s *simulation) deliver() bool {
	var ready []string
	for _, id := range s.ids() {
		if len(s.workers[id].inbox) > 0 {
			ready = append(ready, id)
		}
	}
	if n := len(s.pending); n > 0 && (len(ready) == 0 || s.r.IntN(3) == 0) {
		e := s.pending[0]
		s.pending = s.pending[1:]
		s.step(e)
		return true
	}
	if len(ready) == 0 {
		return false
	}
	w := s.workers[ready[s.r.IntN(len(ready))]]
	first := w.inbox[0]
	w.inbox = w.inbox[1:]
	first()
	return true
}

func (s *simulation) request() {
	id := fmt.Sprint("q", len(s.prompts))
	prompt := make([]int32, 1+s.r.IntN(12))
	for i := range prompt {
		prompt[i] = s.r.Int32N(1000) + 10
	}
	s.prompts[id], s.limits[id] = prompt, 1+s.r.IntN(12)
	s.step(cluster.Requested{Sequence: id, Prompt: prompt, MaxTokens: s.limits[id]})
}

// cancel lets the client of some request go.
func (s *simulation) cancel(cancelled map[string]bool) {
	id := fmt.Sprint("q", s.r.IntN(len(s.prompts)))
	cancelled[id] = s.ended[id] == ""
	s.step(cluster.Cancelled{Sequence: id})
}

// check compares all answers but the cancelled ones, and tells how many those were.
func (s *simulation) check(seed uint64, cancelled map[string]bool) (answered int) {
	for id, prompt := range s.prompts {
		if cancelled[id] {
			continue
		}
		require.NotEmpty(s.t, s.ended[id], "seed %d: %s never ended", seed, id)
		require.Equal(s.t, "length", s.ended[id], "seed %d: %s", seed, id)
		want := slices.Clone(prompt)
		for range s.limits[id] {
			want = append(want, next(want))
		}
		require.Equal(s.t, want[len(prompt):], s.got[id], "seed %d: %s", seed, id)
		answered++
	}
	return answered
}

// A client that goes takes nobody's pass with it, and leaves its slot to others.
func TestLeavingDisturbsNobody(t *testing.T) {
	for seed := range uint64(60) {
		s := newSimulation(t, seed, plan.Spread)
		s.calm = true
		for range 3 {
			s.join()
		}
		for s.deliver() {
		}
		cancelled := map[string]bool{}
		for range 1500 {
			switch n := s.r.IntN(100); {
			case n < 10 && len(s.prompts) < 40:
				s.request()
			case n < 13 && len(s.prompts) > 0:
				s.cancel(cancelled)
			default:
				s.deliver()
			}
			s.now += time.Millisecond
		}
		for s.deliver() {
		}
		require.Positive(t, s.check(seed, cancelled), "seed %d", seed)
		require.Zero(t, s.state.Replays, "seed %d: a pass failed", seed)
	}
}

// TestSimulation: whatever happens to the workers, every request that is not
// cancelled ends with the tokens of the model, each once.
func TestSimulation(t *testing.T) {
	answered, replays := 0, 0
	for seed := range uint64(60) {
		policy := []plan.Policy{plan.Auto, plan.Spread}[seed%2]
		s := newSimulation(t, seed, policy)
		cancelled := map[string]bool{}
		for range 600 {
			switch n := s.r.IntN(100); {
			case n < 4 && len(s.workers) < 6:
				s.join()
			case n < 6 && len(s.workers) > 0:
				id := s.ids()[s.r.IntN(len(s.workers))]
				s.kill(id)
				s.step(cluster.Left{Worker: id, Reason: "bad luck"})
			case n < 12 && len(s.prompts) < 12:
				s.request()
			case n == 12 && len(s.prompts) > 0:
				s.cancel(cancelled)
			default:
				s.deliver()
			}
			s.now += time.Millisecond
		}
		for i := 0; len(s.workers) < 3 && i < 10; i++ { // the room recovers
			s.join()
		}
		for i := 0; i < 20000 && (s.deliver() || len(s.workers) < 3); i++ {
			if len(s.workers) < 3 {
				s.join()
			}
		}
		answered += s.check(seed, cancelled)
		replays += s.state.Replays
	}
	require.Greater(t, answered, 300)
	require.Greater(t, replays, 100, "nothing ever went wrong")
}
