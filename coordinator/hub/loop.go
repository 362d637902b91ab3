package hub

import (
	"fmt"
	"time"

	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/wire"
)

// tickEvery is how often the state looks for what takes too long.
const tickEvery = 250 * time.Millisecond

// payload is the rows of a pass, where they are now.
type payload struct {
	state  wire.State
	sent   time.Time // to the worker that has it
	began  time.Time
	worker string
	span   uint32
	hops   []HopTime
}

// result is a pass that came back.
type result struct {
	peer  *peer
	frame *wire.PassFrame
	bytes int
	at    time.Time
	err   error // of its numbers
}

// run is the loop that owns the state.
func (h *Hub) run() {
	defer h.running.Done()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			for _, s := range h.requests {
				s.fail(closedError())
			}
			return
		case <-tick.C:
			h.step(cluster.Ticked{})
			h.refresh()
		case e := <-h.events:
			h.handle(e)
		}
	}
}

func (h *Hub) handle(e any) {
	switch e := e.(type) {
	case *Stream:
		h.requests[e.id] = e
		h.step(cluster.Requested{Sequence: e.id, Prompt: e.request.Prompt, MaxTokens: e.request.MaxTokens, Stop: e.request.Stop})
	case cancelled:
		if s := h.requests[e.id]; s != nil {
			delete(h.requests, e.id)
			h.feed.request(s, "stopped")
			h.step(cluster.Cancelled{Sequence: e.id})
		}
	case result:
		h.took(e)
	case headDone:
		h.headDone(e)
	case cluster.Event:
		h.step(e)
	}
	h.refresh()
}

func (h *Hub) now() cluster.Tick { return time.Since(h.opened) }

func (h *Hub) step(e cluster.Event) {
	for _, a := range h.state.Step(h.now(), e) {
		h.perform(a)
	}
}

// perform carries out one action.
func (h *Hub) perform(a cluster.Action) {
	switch a := a.(type) {
	case cluster.Assign:
		h.tell(a.Worker, &wire.Assign{Span: a.Span.Number, Manifest: h.o.Manifest.String(), Range: a.Span.Range, Slots: a.Span.Slots})
	case cluster.Release:
		h.tell(a.Worker, &wire.Release{Span: a.Span})
	case cluster.Trim:
		h.tell(a.Worker, &wire.Trim{Span: a.Span, Slot: a.Slot, Length: a.Length})
	case cluster.Drop:
		if p, ok := h.peers.Load(a.Worker); ok {
			p.(*peer).refuse(a.Code, a.Reason)
		}
	case cluster.Begin:
		h.begin(a)
	case cluster.Forward:
		h.forward(a.Pass, a.Worker, a.Span)
	case cluster.Sample:
		h.sample(a)
	case cluster.Emit:
		h.emit(a)
	case cluster.Fail:
		h.fail(a)
	case cluster.Moved:
		if s := h.requests[a.Sequence]; s != nil {
			h.feed.request(s, a.State)
		}
	case cluster.Planned:
		h.o.Logger.Info("planned", "why", a.Why, "reasons", a.Plan.Reasons)
		h.planned(a.Plan)
	case cluster.Serving:
		h.o.Logger.Info("serving", "stages", len(a.Plan.Stages), "predicted_tok_s", fmt.Sprintf("%.1f", a.Plan.TokS))
		h.serving(a.Plan)
	}
}

func (h *Hub) tell(worker string, message any) {
	if p, ok := h.peers.Load(worker); ok {
		p.(*peer).tell(message)
	}
}

// begin embeds the tokens of a pass and sends its rows to the first worker.
func (h *Hub) begin(a cluster.Begin) {
	began := time.Now()
	in := &h.embedIn
	in.Rows, in.Tokens = in.Rows[:0], a.Tokens
	for i := range a.Tokens { // the embedding keeps no slots: each row begins one
		in.Rows = append(in.Rows, exec.Row{Slot: 0, Epoch: 0, Pos: int32(i)})
	}
	h.embed.Trim(0, 0)
	if err := h.embed.Step(h.ctx, in, &h.embedOut); err != nil {
		h.o.Logger.Error("embedding failed", "error", err)
		return
	}
	p := &payload{began: began}
	p.state.Rows = a.Rows
	p.state.Hidden = append([]float32(nil), h.embedOut.Hidden...)
	h.payload[a.Pass] = p
	h.forward(a.Pass, a.Worker, a.Span)
}

// forward sends a pass to a worker.
func (h *Hub) forward(pass uint64, worker string, span uint32) {
	p := h.payload[pass]
	to, ok := h.peers.Load(worker)
	if p == nil || !ok {
		return
	}
	frame := wire.PassFrame{Pass: pass, Span: span, State: p.state}
	data, err := wire.AppendPass(nil, &frame, h.o.Slots.Round)
	if err != nil {
		h.o.Logger.Error("pass not sent", "pass", pass, "error", err)
		return
	}
	p.sent, p.worker, p.span = time.Now(), worker, span
	h.view.wire.Add(int64(len(data)))
	to.(*peer).send(link.Message{Binary: true, Data: data})
}

// took takes the result of a pass.
func (h *Hub) took(r result) {
	p := h.payload[r.frame.Pass]
	if p == nil || p.worker != r.peer.id || p.span != r.frame.Span {
		return // of a chain that is gone
	}
	if len(r.frame.Rows) != len(p.state.Rows) {
		r.peer.refuse("protocol", fmt.Sprintf("the result of pass %d has %d rows, want %d", r.frame.Pass, len(r.frame.Rows), len(p.state.Rows)))
		return
	}
	if r.err != nil { // perhaps a passing weakness: the pass is tried again, a few times
		h.o.Logger.Warn("bad result", "worker", r.peer.id, "pass", r.frame.Pass, "error", r.err)
		h.step(cluster.PassFailed{Worker: r.peer.id, Pass: r.frame.Pass, Code: "bad_result", Reason: r.err.Error()})
		return
	}
	round := r.at.Sub(p.sent)
	t := HopTime{ID: r.peer.id, HopMs: HopMs{
		Queue: float64(r.frame.QueueUs) / 1e3, Compute: float64(r.frame.ComputeUs) / 1e3, Readback: float64(r.frame.ReadbackUs) / 1e3}}
	t.HopMs.Wire = max(0, float64(round.Microseconds())/1e3-t.HopMs.Queue-t.HopMs.Compute-t.HopMs.Readback)
	rows := len(p.state.Rows)
	rowsOf := p.state.Rows
	p.state = r.frame.State
	p.state.Rows = rowsOf // the coordinator's own: a worker cannot move rows to other slots
	p.hops = append(p.hops, t)
	h.view.wire.Add(int64(r.bytes))
	r.peer.measured(t.HopMs, rows)
	h.step(cluster.PassDone{Worker: r.peer.id, Pass: r.frame.Pass})
}

// a headJob is rows whose next tokens are wanted.
type headJob struct {
	pass    uint64
	hidden  []float32
	wants   []headWant
	began   time.Time
	hops    []HopTime
	rows    int
	started time.Time
}

type headWant struct {
	stream  *Stream
	history []int32
}

type headDone struct {
	job    headJob
	tokens []Token
	errs   []error
	took   time.Duration
}

func (h *Hub) sample(a cluster.Sample) {
	p := h.payload[a.Pass]
	delete(h.payload, a.Pass)
	if p == nil || len(a.Want) == 0 {
		return
	}
	job := headJob{pass: a.Pass, began: p.began, hops: p.hops, rows: len(p.state.Rows), started: time.Now()}
	size := h.config.Hidden
	for _, w := range a.Want {
		s := h.requests[w.Sequence]
		if s == nil {
			continue
		}
		job.hidden = append(job.hidden, p.state.Hidden[w.Row*size:(w.Row+1)*size]...)
		job.wants = append(job.wants, headWant{s, s.history})
	}
	if len(job.wants) == 0 {
		h.step(cluster.Sampled{Pass: a.Pass})
		return
	}
	select {
	case h.head <- job:
	case <-h.ctx.Done():
	}
}

// runHead applies the final norm, the head and the samplers.
func (h *Hub) runHead() {
	defer h.running.Done()
	var in, out exec.Pass
	for {
		var job headJob
		select {
		case <-h.ctx.Done():
			return
		case job = <-h.head:
		}
		start := time.Now()
		in.Rows, in.Want, in.Hidden = in.Rows[:0], in.Want[:0], job.hidden
		for i := range job.wants {
			in.Rows, in.Want = append(in.Rows, exec.Row{Pos: int32(i)}), append(in.Want, int32(i))
		}
		h.o.Head.Trim(0, 0)
		done := headDone{job: job, tokens: make([]Token, len(job.wants)), errs: make([]error, len(job.wants))}
		err := h.o.Head.Step(h.ctx, &in, &out)
		for i, w := range job.wants {
			if err != nil {
				done.errs[i] = err
				continue
			}
			done.tokens[i], done.errs[i] = w.stream.request.next(out.Logits[i*h.config.Vocab:(i+1)*h.config.Vocab], w.history)
		}
		done.took = time.Since(start)
		h.post(done)
	}
}

func (h *Hub) headDone(d headDone) {
	e := cluster.Sampled{Pass: d.job.pass}
	for i, w := range d.job.wants {
		s := w.stream
		if h.requests[s.id] != s {
			continue
		}
		if d.errs[i] != nil {
			delete(h.requests, s.id)
			s.fail(&RequestError{Code: "sampling", Reason: d.errs[i].Error()})
			h.step(cluster.Cancelled{Sequence: s.id})
			continue
		}
		s.sampled = d.tokens[i]
		e.Tokens = append(e.Tokens, cluster.SampledToken{Sequence: s.id, Token: d.tokens[i].ID})
	}
	h.tokenTimes(d)
	h.step(e)
}

// emit gives a token to the reader of a request.
func (h *Hub) emit(a cluster.Emit) {
	s := h.requests[a.Sequence]
	if s == nil {
		return
	}
	if a.Token >= 0 {
		s.history = append(s.history, a.Token)
		s.generated++
		h.view.tokens.Add(1)
	}
	if a.Token >= 0 && !(a.Last && a.Finish == "stop") {
		s.put(s.sampled)
	}
	if a.Last {
		delete(h.requests, s.id)
		s.finish(a.Finish)
		h.feed.request(s, "done")
	}
}

func (h *Hub) fail(a cluster.Fail) {
	if s := h.requests[a.Sequence]; s != nil {
		delete(h.requests, s.id)
		h.feed.request(s, "failed")
		s.fail(&RequestError{Code: a.Code, Reason: a.Reason, Missing: a.Missing})
	}
}
