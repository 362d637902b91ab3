package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/wire"
)

// A sequence is one request's tokens. Prompt and answer are treated alike: the
// tokens up to fed have been sent through the chain, and when all have been and
// the last row is back, the next one is sampled. So a lost chain costs nothing
// but sending them again.
type sequence struct {
	id        string
	tokens    []int32
	prompt    int // how many of tokens are the prompt
	max       int // tokens to generate
	stop      []int32
	slot      int32 // -1: none yet
	epoch     uint32
	fed       int
	inFlight  int // passes on their way with rows of it
	state     string
	since     Tick // of its request, or of the room's last ability to serve
	replays   int
	failures  int // passes of it that a worker could not compute
	cancelled bool
}

// maxFailures is how many passes of one sequence may fail at workers: more
// than one bad worker causes before it is dropped.
const maxFailures = 2*maxStrikes + 2

// A pass is rows on their way through the chain.
type pass struct {
	id    uint64
	stage int
	parts []part
	sent  Tick
	rows  int
	final bool // the head is at work
}

// A part of a pass is consecutive rows of one sequence.
type part struct {
	q     *sequence
	epoch uint32
	first int // row in the pass
	count int
	want  bool // the last row decides the next token
}

func (s *State) request(e Requested) {
	q := &sequence{id: e.Sequence, tokens: slices.Clone(e.Prompt), prompt: len(e.Prompt), max: e.MaxTokens, stop: e.Stop, slot: -1, since: s.now}
	positions := s.o.Slots.Positions
	if s.active != nil {
		positions = s.active.plan.Slots.Positions
	}
	switch {
	case len(e.Prompt) == 0 || e.MaxTokens < 1:
		s.do(Fail{Sequence: q.id, Code: "too_long", Reason: "nothing to compute: the prompt or max_tokens is empty"})
		return
	case len(e.Prompt) >= positions:
		s.do(Fail{Sequence: q.id, Code: "too_long", Reason: fmt.Sprintf("the prompt has %d tokens, a conversation here has room for %d", len(e.Prompt), positions)})
		return
	case len(s.sequences) >= s.o.MaxWaiting:
		s.do(Fail{Sequence: q.id, Code: "busy", Reason: fmt.Sprintf("%d requests are waiting already", len(s.sequences))})
		return
	}
	s.sequences = append(s.sequences, q)
	if s.active == nil && s.next == nil && s.wanting == nil {
		s.replan("a request came to an empty room") // the clock of its waiting starts
	}
	if s.active == nil {
		s.become(q, "waiting")
	} else {
		s.become(q, "queued")
	}
}

func (s *State) become(q *sequence, state string) {
	if q.state != state {
		q.state = state
		s.do(Moved{Sequence: q.id, State: state})
	}
}

func (s *State) find(id string) *sequence {
	for _, q := range s.sequences {
		if q.id == id {
			return q
		}
	}
	return nil
}

func (s *State) cancel(id string) {
	if q := s.find(id); q != nil {
		s.remove(q)
	}
}

// remove forgets a sequence and frees its slot, once its passes have landed.
func (s *State) remove(q *sequence) {
	q.cancelled = true
	s.sequences = slices.DeleteFunc(s.sequences, func(o *sequence) bool { return o == q })
	s.free(q)
}

// free gives back the slot of a sequence that is gone. A pass with rows of it may
// be on its way to a worker: there, an empty slot would fail the pass, and with it
// everybody's rows.
func (s *State) free(q *sequence) {
	if q.slot < 0 || q.inFlight > 0 || s.active == nil {
		return
	}
	for _, sp := range s.active.stages {
		s.do(Trim{Worker: sp.Worker, Span: sp.Number, Slot: q.slot, Length: 0})
	}
	s.active.free = append(s.active.free, q.slot)
	q.slot = -1
}

// restart sends a sequence through the chain from its first token again.
func (s *State) restart(q *sequence) {
	if q.slot >= 0 && s.active != nil {
		s.active.free = append(s.active.free, q.slot)
	}
	q.slot, q.fed, q.inFlight = -1, 0, 0
	q.replays++
	s.Replays++
	s.become(q, "moving")
}

// schedule fills the chain with passes: the rows of all sequences that decode
// ride together, and prompts go in chunks beside them.
func (s *State) schedule() {
	if s.active == nil {
		return
	}
	if s.deferred && !s.busy() {
		s.deferred = false
		s.replan("the room is idle")
		if s.active == nil {
			return
		}
	}
	limit := len(s.active.stages)
	for _, sp := range s.active.stages {
		if m := s.members[sp.Worker]; m != nil && m.Capacity.Credit > 0 {
			limit = min(limit, max(1, m.Capacity.Credit))
		}
	}
	for len(s.passes) < limit {
		if !s.begin() {
			return
		}
	}
}

func (s *State) busy() bool { return len(s.sequences) > 0 }

// begin sends one pass, if there are rows to send.
func (s *State) begin() bool {
	p := &pass{sent: s.now}
	var rows []wire.Row
	var tokens []int32
	room := s.chunk
	add := func(q *sequence, count int) {
		first := len(rows)
		for i := range count {
			rows = append(rows, wire.Row{Slot: q.slot, Epoch: q.epoch, Pos: int32(q.fed + i)})
		}
		tokens = append(tokens, q.tokens[q.fed:q.fed+count]...)
		q.fed += count
		q.inFlight++
		p.parts = append(p.parts, part{q: q, epoch: q.epoch, first: first, count: count, want: q.fed == len(q.tokens)})
	}
	var long []*sequence
	for _, q := range s.sequences {
		s.admit(q)
		switch left := len(q.tokens) - q.fed; {
		case q.slot < 0 || left == 0:
		case left == 1 && q.inFlight == 0:
			add(q, 1)
			s.become(q, "decode")
		default:
			long = append(long, q)
		}
	}
	for _, q := range long {
		if room <= 0 {
			break
		}
		count := min(room, len(q.tokens)-q.fed)
		add(q, count)
		room -= count
		s.become(q, "prefill")
	}
	if len(rows) == 0 {
		return false
	}
	s.lastPass++
	p.id, p.rows = s.lastPass, len(rows)
	s.passes[p.id] = p
	first := s.active.stages[0]
	s.do(Begin{Pass: p.id, Worker: first.Worker, Span: first.Number, Rows: rows, Tokens: tokens})
	return true
}

// admit gives a waiting sequence a slot, where one is free.
func (s *State) admit(q *sequence) {
	c := s.active
	if q.slot >= 0 {
		return
	}
	if len(c.free) == 0 {
		s.become(q, "queued")
		return
	}
	if len(q.tokens) >= c.plan.Slots.Positions { // a smaller room than it began in
		s.finishOrFail(q)
		return
	}
	s.lastEpoch++
	q.slot, q.epoch, q.fed = c.free[len(c.free)-1], s.lastEpoch, 0
	c.free = c.free[:len(c.free)-1]
}

func (s *State) finishOrFail(q *sequence) {
	if len(q.tokens) == q.prompt {
		s.do(Fail{Sequence: q.id, Code: "too_long", Reason: fmt.Sprintf("the room now has space for conversations of %d tokens, this has %d", s.active.plan.Slots.Positions, len(q.tokens))})
	} else {
		s.do(Emit{Sequence: q.id, Token: -1, Last: true, Finish: "length"})
	}
	q.cancelled = true
	s.sequences = slices.DeleteFunc(slices.Clone(s.sequences), func(o *sequence) bool { return o == q })
}

func (s *State) passDone(e PassDone) {
	p := s.passes[e.Pass]
	if p == nil || s.active == nil || p.final || p.stage >= len(s.active.stages) || s.active.stages[p.stage].Worker != e.Worker {
		return
	}
	if m := s.members[e.Worker]; m != nil {
		m.strikes = 0
	}
	if p.rows >= s.chunk && s.now-p.sent < s.o.PassLimit/8 {
		s.chunk = min(2*s.chunk, s.o.ChunkRows)
	}
	p.stage++
	p.sent = s.now
	if p.stage < len(s.active.stages) {
		next := s.active.stages[p.stage]
		s.do(Forward{Pass: p.id, Worker: next.Worker, Span: next.Number})
		return
	}
	p.final = true
	var want []Want
	for _, part := range p.parts {
		if part.want && !part.q.cancelled && part.q.epoch == part.epoch {
			want = append(want, Want{Row: part.first + part.count - 1, Sequence: part.q.id, Position: len(part.q.tokens)})
		}
	}
	s.do(Sample{Pass: p.id, Want: want})
	if len(want) == 0 {
		s.landed(p)
	}
}

// landed ends a pass, whatever became of it.
func (s *State) landed(p *pass) {
	delete(s.passes, p.id)
	for _, part := range p.parts {
		q := part.q
		if q.epoch == part.epoch && q.inFlight > 0 {
			q.inFlight--
		}
		if q.cancelled {
			s.free(q)
		}
	}
}

func (s *State) sampled(e Sampled) {
	p := s.passes[e.Pass]
	if p == nil {
		return
	}
	s.landed(p)
	for _, t := range e.Tokens {
		for _, part := range p.parts {
			if part.want && part.q.id == t.Sequence && part.q.epoch == part.epoch && !part.q.cancelled {
				s.token(part.q, t.Token)
			}
		}
	}
}

// token adds a sampled token to a sequence.
func (s *State) token(q *sequence, id int32) {
	q.tokens = append(q.tokens, id)
	generated := len(q.tokens) - q.prompt
	emit := Emit{Sequence: q.id, Token: id}
	switch {
	case slices.Contains(q.stop, id):
		emit.Last, emit.Finish = true, "stop"
	case generated >= q.max || len(q.tokens) >= s.active.plan.Slots.Positions:
		emit.Last, emit.Finish = true, "length"
	}
	s.do(emit)
	if emit.Last {
		s.remove(q)
	}
}

// current tells whether the sequence has not been sent through the chain again since.
func (p part) current() bool { return p.q.slot >= 0 && p.q.epoch == p.epoch }

// overtaken tells whether a part of the pass is not current. Its rows continue what
// no worker holds, so a worker refuses the pass, through no fault of its own or of
// those that ride along.
func (p *pass) overtaken() bool {
	return slices.ContainsFunc(p.parts, func(part part) bool { return !part.q.cancelled && !part.current() })
}

// passFailed replays what the pass carried. A worker that keeps failing goes.
func (s *State) passFailed(e PassFailed) {
	p := s.passes[e.Pass]
	if p == nil || s.active == nil || p.final || s.active.stages[p.stage].Worker != e.Worker {
		return
	}
	blameless := e.Code == "cancelled" || e.Code == "stale_slot" && p.overtaken()
	s.landed(p)
	for _, part := range p.parts {
		q := part.q
		if q.cancelled || !part.current() {
			continue
		}
		if !blameless {
			q.failures++
		}
		if q.failures > maxFailures {
			s.do(Fail{Sequence: q.id, Code: "failed", Reason: fmt.Sprintf("%d passes failed at workers, the last one: %s", q.failures, e.Reason)})
			s.remove(q)
			continue
		}
		s.restart(q)
	}
	m := s.members[e.Worker]
	switch {
	case blameless || m == nil:
	case e.Code == "device_lost":
		s.drop(m, "removed", "passes failed: %s", e.Reason)
	default:
		s.strike(m, "passes failed: %s", e.Reason)
	}
}

// oldest is the pass that has been at one worker longest.
func (s *State) oldest() (oldest *pass) {
	for _, p := range s.passes {
		if !p.final && (oldest == nil || p.sent < oldest.sent || p.sent == oldest.sent && p.id < oldest.id) {
			oldest = p
		}
	}
	return oldest
}

// tick looks for what took too long.
func (s *State) tick() {
	if p := s.oldest(); p != nil && s.active != nil && s.now-p.sent > s.o.PassLimit {
		// A slow computer would fail at as many rows again, and for ever.
		s.chunk = max(1, min(s.chunk, p.rows/4))
		s.slow(s.active.stages[p.stage].Worker, "pass %d unanswered for %v", p.id, s.o.PassLimit)
		return
	}
	if span := s.stuck(); span != nil {
		s.slow(span.Worker, "no progress in loading for %v", s.o.LoadLimit)
		return
	}
	if s.active != nil || s.wanting == nil || s.now-s.lacking < s.o.WaitLimit {
		return
	}
	for _, q := range slices.Clone(s.sequences) {
		if s.now-max(q.since, s.lacking) >= s.o.WaitLimit {
			s.do(Fail{Sequence: q.id, Code: "no_room", Missing: s.wanting.Missing, Reason: s.lack()})
			s.remove(q)
		}
	}
}

// slow drops a worker that let others wait, so that it may come back a few
// times.
func (s *State) slow(worker string, format string, args ...any) {
	if m := s.members[worker]; m != nil && !s.strike(m, format, args...) {
		s.drop(m, "busy", format, args...)
	}
}

// stuck is a span that is waited for and does not get on.
func (s *State) stuck() *Span {
	if s.next == nil {
		return nil
	}
	for _, sp := range s.next.stages {
		if !sp.Ready && s.now-sp.moved > s.o.LoadLimit {
			return sp
		}
	}
	return nil
}

// lack says what a request waited for in vain, and what would help.
func (s *State) lack() string {
	text := fmt.Sprintf("the room lacks %s: %s", plan.GB(s.wanting.Missing), strings.Join(s.wanting.Reasons, "; "))
	if len(s.members) == 0 {
		text = fmt.Sprintf("nobody lends a computer to this room: open its join link in a browser or run potluck worker --join (the model's layers need %s)", plan.GB(s.wanting.Missing))
	}
	if s.trouble != "" {
		text += "; " + s.trouble
	}
	return text
}
