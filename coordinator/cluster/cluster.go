// Package cluster is the state of a room: who is there, who holds which span,
// which sequences run and where their passes are.
//
// Step takes one event and returns what to do because of it. It holds no
// goroutine, socket or clock, so a test can replay any story; package hub owns
// those and carries the actions out. The numbers in rows are the hub's too:
// here a pass is only a name.
package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/wire"
)

// A Tick is a moment: time since the room was opened.
type Tick = time.Duration

// Options are a room's rules.
type Options struct {
	Shape      *plan.Shape
	Policy     plan.Policy
	Slots      plan.Slots
	ChunkRows  int           // prompt rows in a pass; 0: 64
	WaitLimit  time.Duration // how long a request waits for a room that lacks memory; 0: 60 s
	PassLimit  time.Duration // how long a pass may take at one worker; 0: 30 s
	LoadLimit  time.Duration // how long a worker may load without progress; 0: 5 min
	MaxWaiting int           // requests that may wait; 0: 256
}

// What a worker is doing.
const (
	Joining = "joining"
	Loading = "loading"
	Ready   = "ready"
	Leaving = "leaving"
)

// A Member is a worker in the room.
type Member struct {
	ID       string
	Name     string
	Kind     string
	Capacity wire.Capacity
	HopMs    float64 // round trip, measured
	slowdown float64 // computing, measured over claimed; 0: not measured
	spans    map[uint32]*Span
	strikes  int // failures since the last pass that it computed
}

// maxStrikes is how many failures in a row a worker may have.
const maxStrikes = 3

// A Span is a part of the model at a member.
type Span struct {
	Number uint32
	Worker string
	Range  model.Span
	Slots  plan.Slots
	Bytes  int64
	Ready  bool
	Loaded int64
	Total  int64
	moved  Tick // of its last progress
}

// A chain is spans that cover the model, one after another.
type chain struct {
	plan   *plan.Plan
	stages []*Span
	free   []int32 // slots
}

func (c *chain) ready() bool {
	for _, s := range c.stages {
		if !s.Ready {
			return false
		}
	}
	return true
}

// State is the room. Use New.
type State struct {
	o         Options
	members   map[string]*Member
	order     []string // of joining
	active    *chain
	next      *chain
	deferred  bool           // a better plan waits for the room to be idle
	wanting   *plan.Plan     // the last plan that could not serve, nil otherwise
	lacking   Tick           // since when
	strikes   map[string]int // of workers that went, for when they come back
	trouble   string         // why a part could not be loaded, since the room last served
	sequences []*sequence
	chunk     int // prompt rows in a pass, for now: fewer after one took too long
	passes    map[uint64]*pass
	lastSpan  uint32
	lastPass  uint64
	lastEpoch uint32
	now       Tick
	out       []Action

	Losses, Replays int
}

// New opens a room.
func New(o Options) *State {
	if o.ChunkRows == 0 {
		o.ChunkRows = 64
	}
	if o.WaitLimit == 0 {
		o.WaitLimit = time.Minute
	}
	if o.PassLimit == 0 {
		o.PassLimit = 30 * time.Second
	}
	if o.LoadLimit == 0 {
		o.LoadLimit = 5 * time.Minute
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = 256
	}
	return &State{o: o, chunk: o.ChunkRows, members: map[string]*Member{}, strikes: map[string]int{}, passes: map[uint64]*pass{}}
}

// Step takes one event and returns what to do because of it, in order.
func (s *State) Step(now Tick, event Event) []Action {
	s.now, s.out = now, nil
	switch e := event.(type) {
	case Joined:
		s.joined(e)
	case Left:
		s.left(e.Worker, e.Reason)
	case Progressed:
		if span := s.span(e.Worker, e.Span); span != nil {
			if e.Loaded > span.Loaded {
				span.moved = s.now
			}
			span.Loaded, span.Total = e.Loaded, e.Total
		}
	case SpanReady:
		s.spanReady(e)
	case Refused:
		s.refused(e)
	case Requested:
		s.request(e)
	case Cancelled:
		s.cancel(e.Sequence)
	case PassDone:
		s.passDone(e)
	case PassFailed:
		s.passFailed(e)
	case Sampled:
		s.sampled(e)
	case Measured:
		if m := s.members[e.Worker]; m != nil {
			m.HopMs = e.HopMs
			s.correct(s.active, e.Worker, e.ComputeMs)
		}
	case PolicyChanged:
		s.o.Policy = e.Policy
		s.replan("the policy changed")
	case Ticked:
		s.tick()
	}
	s.schedule()
	return s.out
}

func (s *State) do(a Action) { s.out = append(s.out, a) }

func (s *State) span(worker string, number uint32) *Span {
	if m := s.members[worker]; m != nil {
		return m.spans[number]
	}
	return nil
}

func (s *State) joined(e Joined) {
	if s.members[e.Worker] != nil {
		return
	}
	s.members[e.Worker] = &Member{ID: e.Worker, Name: e.Name, Kind: e.Kind, Capacity: e.Capacity, HopMs: e.HopMs, spans: map[uint32]*Span{}, strikes: s.strikes[e.Worker]}
	delete(s.strikes, e.Worker)
	s.order = append(s.order, e.Worker)
	s.replan(e.Name + " joined")
}

// left forgets a member. What it held is planned anew, and what it was
// computing is replayed elsewhere.
func (s *State) left(worker, reason string) {
	m := s.members[worker]
	if m == nil {
		return
	}
	delete(s.members, worker)
	s.remember(m)
	s.order = slices.DeleteFunc(s.order, func(id string) bool { return id == worker })
	lost := func(c *chain) bool {
		return c != nil && slices.ContainsFunc(c.stages, func(sp *Span) bool { return sp.Worker == worker })
	}
	if lost(s.next) {
		s.next = nil
	}
	if lost(s.active) {
		s.Losses++
		s.stop(s.active)
		s.active = nil
	}
	s.replan(m.Name + " left")
}

// maxRemembered bounds what is known of workers that went.
const maxRemembered = 1000

// remember keeps a worker's strikes: one that never computes anything must not
// hold the room up again and again by coming back.
func (s *State) remember(m *Member) {
	if m.strikes == 0 {
		return
	}
	if len(s.strikes) >= maxRemembered {
		clear(s.strikes)
	}
	s.strikes[m.ID] = m.strikes
}

// strike counts a failure and drops a worker that has too many. It tells
// whether it did.
func (s *State) strike(m *Member, format string, args ...any) bool {
	if m.strikes++; m.strikes <= maxStrikes {
		return false
	}
	s.drop(m, "removed", format, args...)
	return true
}

// drop sends a worker away: for good with code "removed", for now with "busy".
func (s *State) drop(m *Member, code, format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	s.do(Drop{Worker: m.ID, Code: code, Reason: reason})
	s.left(m.ID, reason)
}

// stop takes every sequence off a chain: each will be replayed from its tokens.
func (s *State) stop(c *chain) {
	for id := range s.passes {
		delete(s.passes, id)
	}
	for _, q := range s.sequences {
		if q.slot >= 0 {
			s.restart(q)
		}
	}
}

func (s *State) workers() []plan.Worker {
	var list []plan.Worker
	for _, id := range s.order {
		list = append(list, s.members[id].worker())
	}
	return list
}

// worker is what of a member counts for planning.
func (m *Member) worker() plan.Worker {
	return plan.Worker{ID: m.ID, Name: m.Name, Bytes: m.Capacity.Bytes, ReadGBs: m.Capacity.ReadGBs,
		DispatchMs: m.Capacity.DispatchMs, HopMs: m.HopMs + m.Capacity.ReadbackMs, Slowdown: m.slowdown}
}

// gain is how much better a plan must be before a serving chain is replaced:
// below it the replay costs more than it wins.
const gain = 1.05

// replan looks for the best chain and begins to load it.
func (s *State) replan(why string) {
	p := plan.Make(s.o.Shape, s.workers(), s.o.Policy, s.o.Slots)
	if !p.OK() {
		if s.active == nil {
			s.next = nil
			if s.wanting == nil {
				s.lacking = s.now
			}
			s.wanting = p
		}
		s.do(Planned{Plan: p, Why: why})
		return
	}
	s.wanting = nil
	current := s.active
	if s.next != nil {
		current = s.next
	}
	if current != nil && (s.o.Policy == plan.Auto && s.takes(current.plan) < p.Ms*gain || same(current.plan, p)) {
		return
	}
	if s.active != nil && same(s.active.plan, p) {
		s.next = nil
		s.releaseUnused()
		return
	}
	s.do(Planned{Plan: p, Why: why})
	s.build(p)
}

func same(a, b *plan.Plan) bool {
	if a.Slots != b.Slots || len(a.Stages) != len(b.Stages) {
		return false
	}
	for i := range a.Stages {
		if a.Stages[i].Worker != b.Stages[i].Worker || a.Stages[i].Span != b.Stages[i].Span {
			return false
		}
	}
	return true
}

// build assigns the spans of a plan, keeping those that are there already. A
// worker without room for old and new at once gets its part when the old chain
// has been given up.
func (s *State) build(p *plan.Plan) {
	c := &chain{plan: p}
	for slot := range p.Slots.Slots {
		c.free = append(c.free, int32(p.Slots.Slots-1-slot))
	}
	s.next = c
	if s.active != nil && !s.roomForBoth(p) {
		if s.busy() {
			s.next, s.deferred = nil, true // the old chain serves on
			return
		}
		s.stop(s.active)
		s.active = nil
	}
	for _, st := range p.Stages {
		m := s.members[st.Worker]
		span := m.find(st.Span, p.Slots)
		if span == nil {
			s.lastSpan++
			span = &Span{Number: s.lastSpan, Worker: m.ID, Range: st.Span, Slots: p.Slots, Bytes: st.Bytes}
			m.spans[span.Number] = span
			c.stages = append(c.stages, span)
			continue
		}
		c.stages = append(c.stages, span)
	}
	s.releaseUnused()
	for _, span := range c.stages {
		if span.Total == 0 && !span.Ready && !slices.ContainsFunc(s.out, func(a Action) bool { x, ok := a.(Assign); return ok && x.Span.Number == span.Number }) {
			span.Total, span.moved = span.Bytes, s.now
			s.do(Assign{Worker: span.Worker, Span: *span})
		}
	}
	s.promote()
}

func (m *Member) find(r model.Span, slots plan.Slots) *Span {
	numbers := make([]uint32, 0, len(m.spans))
	for n := range m.spans {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		if sp := m.spans[n]; sp.Range == r && sp.Slots == slots {
			return sp
		}
	}
	return nil
}

func (s *State) roomForBoth(p *plan.Plan) bool {
	for _, st := range p.Stages {
		m := s.members[st.Worker]
		total := int64(0)
		if m.find(st.Span, p.Slots) == nil {
			total = st.Bytes
		}
		for _, sp := range s.active.stages {
			if sp.Worker == m.ID {
				total += sp.Bytes
			}
		}
		if total > m.Capacity.Bytes {
			return false
		}
	}
	return true
}

// releaseUnused drops spans that neither chain needs.
func (s *State) releaseUnused() {
	used := map[uint32]bool{}
	for _, c := range []*chain{s.active, s.next} {
		if c != nil {
			for _, sp := range c.stages {
				used[sp.Number] = true
			}
		}
	}
	for _, id := range s.order {
		m := s.members[id]
		var drop []uint32
		for n := range m.spans {
			if !used[n] {
				drop = append(drop, n)
			}
		}
		slices.Sort(drop)
		for _, n := range drop {
			delete(m.spans, n)
			s.do(Release{Worker: id, Span: n})
		}
	}
}

func (s *State) spanReady(e SpanReady) {
	if span := s.span(e.Worker, e.Span); span != nil {
		span.Ready, span.Loaded = true, span.Total
		s.correct(s.next, e.Worker, e.StepMs)
		s.promote()
	}
}

// promote puts the next chain into service once all of it is ready. Running
// answers move to it by replay.
func (s *State) promote() {
	if s.next == nil || !s.next.ready() {
		return
	}
	if s.active != nil {
		s.stop(s.active)
	}
	s.active, s.next, s.trouble = s.next, nil, ""
	s.releaseUnused()
	s.do(Serving{Plan: s.active.plan})
}

// refused lowers what is asked of a member that could not load its part.
func (s *State) refused(e Refused) {
	m, span := s.members[e.Worker], s.span(e.Worker, e.Span)
	if m == nil || span == nil {
		return
	}
	delete(m.spans, e.Span)
	s.trouble = fmt.Sprintf("%s could not load its part: %s", m.Name, e.Reason)
	s.next = nil
	if s.active != nil && slices.Contains(s.active.stages, span) {
		s.Losses++
		s.stop(s.active)
		s.active = nil
	}
	if s.strike(m, "could not load its part %d times: %s", m.strikes+1, e.Reason) {
		return
	}
	if e.Code == "no_room" {
		m.Capacity.Bytes = min(m.Capacity.Bytes, span.Bytes) * 3 / 4
	}
	s.replan(s.trouble)
}
