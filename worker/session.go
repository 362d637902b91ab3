package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
)

// Intervals of a session.
const (
	welcomeTimeout   = 15 * time.Second
	defaultHeartbeat = 5 * time.Second
	progressEvery    = 250 * time.Millisecond
	statsEvery       = time.Second
	leaveTimeout     = time.Second
)

// A session is one connection. All that computes or changes spans happens on
// its run loop; receiving and loading have goroutines of their own.
type session struct {
	w         *worker
	l         link.Link
	heartbeat time.Duration
	events    chan any
	spans     map[uint32]*loaded
	loading   map[uint32]context.CancelFunc
	pending   int // loads whose loadDone is still to come
	cancelled map[uint64]bool
	frame     wire.PassFrame
	out       exec.Pass
	rows      int64
	passes    int64
	served    []served
	last      time.Time // of the last message received
}

// served is rows at a time, for tok/s.
type served struct {
	at   time.Time
	rows int64
}

// what arrives on the run loop beside control messages
type (
	passIn struct {
		data []byte
		at   time.Time
	}
	closed   struct{ err error }
	loadDone struct {
		assign *wire.Assign
		span   *loaded
		err    error
	}
	loadProgress struct {
		span uint32
		p    exec.Progress
	}
)

// session joins and serves until the connection or ctx ends. joined tells
// whether the coordinator welcomed us.
func (w *worker) session(ctx context.Context) (joined bool, err error) {
	l, err := w.Link(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &session{w: w, l: l, events: make(chan any, 64), spans: map[uint32]*loaded{}, loading: map[uint32]context.CancelFunc{}, cancelled: map[uint64]bool{}}
	received := make(chan struct{})
	defer func() {
		cancel()
		_ = l.Close("bye")
		s.drain(received)
		for _, span := range s.spans {
			w.shelf.put(span)
		}
	}()
	if err := s.hello(ctx); err != nil {
		close(received)
		return false, err
	}
	go s.receive(ctx, received)
	return true, s.run(ctx)
}

// drain lets the goroutines of an ended session finish.
func (s *session) drain(received chan struct{}) {
	for {
		select {
		case e := <-s.events:
			if d, ok := e.(loadDone); ok {
				s.pending--
				if d.span != nil {
					s.w.shelf.put(d.span)
				}
			}
		case <-received:
			received = nil
		}
		if received == nil && s.pending == 0 {
			return
		}
	}
}

// hello introduces us and waits for the welcome.
func (s *session) hello(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, welcomeTimeout)
	defer cancel()
	h := s.w.Hello
	h.Version, h.Resume = wire.Version, s.w.resume
	if err := s.send(ctx, &h); err != nil {
		return err
	}
	m, err := s.l.Receive(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the welcome: %w", err)
	}
	if m.Binary {
		return errors.New("the coordinator answers hello with a pass")
	}
	message, err := wire.DecodeControl(m.Data)
	if err != nil {
		return err
	}
	switch message := message.(type) {
	case *wire.Welcome:
		if message.Version != wire.Version {
			return &Refused{Code: "version", Message: fmt.Sprintf("the coordinator speaks version %d, this worker %d", message.Version, wire.Version)}
		}
		s.w.resume = message.Resume
		s.heartbeat = defaultHeartbeat
		if message.HeartbeatMs > 0 {
			s.heartbeat = time.Duration(message.HeartbeatMs) * time.Millisecond
		}
		s.w.Logger.Info("joined", "worker", message.Worker, "build", message.Build)
		s.w.report(func(st *Status) { st.State, st.Worker = "idle", message.Worker })
		return nil
	case *wire.Error:
		return refused(message)
	}
	return fmt.Errorf("the coordinator answers hello with %s", wire.TypeOf(message))
}

func refused(e *wire.Error) error {
	return &Refused{Code: e.Code, Message: e.Message, RetryMs: e.RetryMs}
}

func (s *session) send(ctx context.Context, message any) error {
	data, err := wire.EncodeControl(message)
	if err != nil {
		return err
	}
	return s.l.Send(ctx, link.Message{Data: data})
}

// receive hands messages to the run loop.
func (s *session) receive(ctx context.Context, done chan struct{}) {
	defer close(done)
	deliver := func(e any) bool {
		select {
		case s.events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		m, err := s.l.Receive(ctx)
		if err != nil {
			deliver(closed{err})
			return
		}
		if m.Binary {
			if !deliver(passIn{m.Data, time.Now()}) {
				return
			}
			continue
		}
		message, err := wire.DecodeControl(m.Data)
		if err != nil {
			deliver(closed{err})
			return
		}
		if ping, ok := message.(*wire.Ping); ok { // answered here: a long pass must not look like silence
			_ = s.send(ctx, &wire.Pong{Nonce: ping.Nonce})
		}
		if c, ok := message.(*wire.Cancel); ok {
			message = *c
		}
		if !deliver(message) {
			return
		}
	}
}

// run is the session's loop.
func (s *session) run(ctx context.Context) error {
	tick := time.NewTicker(s.heartbeat)
	defer tick.Stop()
	stats := time.NewTicker(statsEvery)
	defer stats.Stop()
	s.last = time.Now()
	for {
		select {
		case <-ctx.Done():
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
			defer cancel()
			_ = s.send(leaving, &wire.Leave{Reason: "stopped"})
			return ctx.Err()
		case <-tick.C:
			if silent := time.Since(s.last); silent > 3*s.heartbeat {
				return fmt.Errorf("the coordinator is silent for %v", silent.Round(time.Second))
			}
			if err := s.send(ctx, &wire.Ping{Nonce: uint64(time.Now().UnixNano())}); err != nil {
				return err
			}
		case <-stats.C:
			if err := s.stats(ctx); err != nil {
				return err
			}
		case e := <-s.events:
			if err := s.handle(ctx, e); err != nil {
				return err
			}
		}
	}
}

func (s *session) handle(ctx context.Context, e any) error {
	switch e := e.(type) {
	case closed:
		if errors.Is(e.err, io.EOF) {
			return errors.New("the coordinator closed the connection")
		}
		return e.err
	case loadProgress:
		s.w.report(func(st *Status) {
			st.State, st.Loaded, st.Total, st.Cached = "loading", e.p.Loaded, e.p.Total, e.p.Cached
		})
		return s.send(ctx, &wire.Progress{Span: e.span, Loaded: e.p.Loaded, Total: e.p.Total, Cached: e.p.Cached})
	case loadDone:
		return s.loaded(ctx, e)
	}
	s.last = time.Now()
	switch e := e.(type) {
	case passIn:
		return s.pass(ctx, e)
	case *wire.Assign:
		return s.assign(ctx, e)
	case *wire.Release:
		s.release(e.Span)
		return nil
	case *wire.Trim:
		if span := s.spans[e.Span]; span != nil {
			span.x.Trim(int(e.Slot), int(e.Length))
		}
		return nil
	case wire.Cancel:
		if len(s.cancelled) < 1024 {
			s.cancelled[e.Pass] = true
		}
		return nil
	case *wire.Ping, *wire.Pong, *wire.Welcome:
		return nil
	case *wire.Leave:
		return fmt.Errorf("the coordinator leaves: %s", e.Reason)
	case *wire.Error:
		return refused(e)
	}
	return fmt.Errorf("the coordinator sends a %s", wire.TypeOf(e))
}

// assign begins to load a span, beside those that serve.
func (s *session) assign(ctx context.Context, a *wire.Assign) error {
	if s.spans[a.Span] != nil || s.loading[a.Span] != nil {
		return fmt.Errorf("the coordinator assigns span %d twice", a.Span)
	}
	span := s.w.shelf.take(keyOf(a))
	s.w.shelf.clear()
	loadCtx, cancel := context.WithCancel(ctx)
	s.loading[a.Span] = cancel
	s.w.report(func(st *Status) { st.State, st.Loaded, st.Total, st.Cached = "loading", 0, 0, 0 })
	s.pending++
	go func() {
		var err error
		if span == nil {
			span, err = s.load(loadCtx, a)
		}
		s.events <- loadDone{a, span, err} // the session drains what it began
	}()
	return nil
}

func (s *session) load(ctx context.Context, a *wire.Assign) (*loaded, error) {
	src, closed, err := s.w.Open(ctx, a.Manifest)
	if err != nil {
		return nil, err
	}
	l := &loaded{key: keyOf(a), assign: *a, closed: closed}
	if err := s.fill(ctx, l, src); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// fill loads a span from its store.
func (s *session) fill(ctx context.Context, l *loaded, src shard.Source) (err error) {
	a, config := &l.assign, src.Manifest().Model
	if err := config.CheckSpan(a.Range); err != nil {
		return err
	}
	if l.x, err = s.w.NewExecutor(); err != nil {
		return err
	}
	l.hidden = config.Hidden
	if config.MoE != nil && a.Range.From.Inside() {
		l.perToken = config.MoE.PerToken
	}
	var last time.Time
	return l.x.Load(ctx, a.Range, a.Slots, src, func(p exec.Progress) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			select {
			case s.events <- loadProgress{a.Span, p}:
			default: // the next one says more
			}
		}
	})
}

// loaded puts a finished load into service.
func (s *session) loaded(ctx context.Context, d loadDone) error {
	s.pending--
	number := d.assign.Span
	cancel := s.loading[number]
	delete(s.loading, number)
	if cancel == nil { // released meanwhile
		if d.span != nil {
			d.span.close()
		}
		return nil
	}
	defer cancel()
	if d.err != nil {
		code := "load_failed"
		if errors.Is(d.err, exec.ErrNoRoom) {
			code = "no_room"
		}
		s.w.Logger.Error("span not loaded", "span", d.assign.Range.String(), "error", d.err)
		s.w.report(func(st *Status) { st.State, st.Error = "idle", d.err.Error() })
		return s.send(ctx, &wire.Refuse{Span: number, Code: code, Reason: limit(d.err.Error(), 500)})
	}
	s.spans[number] = d.span
	step, err := s.measure(ctx, d.span)
	if err != nil {
		s.release(number)
		return s.send(ctx, &wire.Refuse{Span: number, Code: "load_failed", Reason: limit(err.Error(), 500)})
	}
	weights := d.span.x.Stats().WeightBytes
	s.w.Logger.Info("ready", "span", d.assign.Range.String(), "bytes", weights, "step", step)
	s.showSpans("ready")
	return s.send(ctx, &wire.Ready{Span: number, WeightBytes: weights, StepMs: float64(step) / 1e6})
}

// measure times a pass of one row through the span: the best of some after one
// that warms pages and caches.
func (s *session) measure(ctx context.Context, span *loaded) (d time.Duration, err error) {
	in := &exec.Pass{}
	in.Rows = []exec.Row{{Slot: 0, Epoch: ^uint32(0)}}
	in.Hidden = make([]float32, span.hidden)
	for i := range in.Hidden {
		in.Hidden[i] = float32(i%5) - 2
	}
	if span.assign.Range.From.Inside() {
		in.Normed = in.Hidden
		for i := range span.perToken {
			in.Chosen, in.Weights = append(in.Chosen, int32(i)), append(in.Weights, 1)
		}
	}
	for i := range 4 {
		start := time.Now()
		if err := span.x.Step(ctx, in, &s.out); err != nil {
			return 0, fmt.Errorf("trial pass: %w", err)
		}
		if took := time.Since(start); i == 1 || i > 1 && took < d {
			d = took
		}
		span.x.Trim(0, 0)
	}
	return d, nil
}

func (s *session) release(number uint32) {
	if cancel := s.loading[number]; cancel != nil {
		cancel()
		delete(s.loading, number)
		return
	}
	if span := s.spans[number]; span != nil {
		delete(s.spans, number)
		span.close()
		s.showSpans("idle")
	}
}

// showSpans reports which layers are held.
func (s *session) showSpans(state string) {
	first, end := 0, 0
	var bytes int64
	for _, span := range s.spans {
		r := span.assign.Range
		last := r.To.Layer
		if r.To.Inside() {
			last++
		}
		if end == 0 || r.From.Layer < first {
			first = r.From.Layer
		}
		end = max(end, last)
		bytes += span.x.Stats().WeightBytes
	}
	if len(s.spans) > 0 {
		state = "ready"
	}
	s.w.report(func(st *Status) {
		st.State, st.LayerFirst, st.LayerCount, st.WeightBytes = state, first, end-first, bytes
	})
}

// pass runs a pass and answers it.
func (s *session) pass(ctx context.Context, p passIn) error {
	if err := wire.DecodePass(p.data, &s.frame); err != nil {
		return err
	}
	f := &s.frame
	if f.Result {
		return errors.New("the coordinator sends a result")
	}
	if s.cancelled[f.Pass] {
		delete(s.cancelled, f.Pass)
		return s.fail(ctx, f, "cancelled", errors.New("cancelled"))
	}
	span := s.spans[f.Span]
	if span == nil {
		return s.fail(ctx, f, "unknown_span", fmt.Errorf("span %d is not ready here", f.Span))
	}
	queued := time.Since(p.at)
	in := exec.Pass{State: f.State}
	start := time.Now()
	err := span.x.Step(ctx, &in, &s.out)
	took := time.Since(start)
	switch {
	case errors.Is(err, exec.ErrStaleSlot):
		return s.fail(ctx, f, "stale_slot", err)
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		return s.fail(ctx, f, "internal", err)
	}
	readback := span.x.Stats().Readback
	result := wire.PassFrame{Result: true, Pass: f.Pass, Span: f.Span, State: s.out.State,
		QueueUs: microseconds(queued), ComputeUs: microseconds(took - readback), ReadbackUs: microseconds(readback)}
	data, err := wire.AppendPass(nil, &result, span.assign.Slots.Round)
	if err != nil {
		return s.fail(ctx, f, "internal", err)
	}
	s.rows += int64(len(f.Rows))
	s.passes++
	s.served = append(s.served, served{time.Now(), int64(len(f.Rows))})
	return s.l.Send(ctx, link.Message{Binary: true, Data: data})
}

func microseconds(d time.Duration) uint32 { return uint32(max(0, min(d.Microseconds(), 1<<32-1))) }

func (s *session) fail(ctx context.Context, f *wire.PassFrame, code string, err error) error {
	return s.send(ctx, &wire.Failed{Pass: f.Pass, Span: f.Span, Code: code, Reason: limit(err.Error(), 500)})
}

func limit(text string, n int) string {
	if len(text) > n {
		return text[:n]
	}
	return text
}

// stats tells coordinator and person what was done lately.
func (s *session) stats(ctx context.Context) error {
	const window = 5 * time.Second
	now := time.Now()
	for len(s.served) > 0 && now.Sub(s.served[0].at) > window {
		s.served = s.served[1:]
	}
	recent := int64(0)
	for _, e := range s.served {
		recent += e.rows
	}
	if s.passes == 0 && recent == 0 {
		return nil
	}
	var kv int64
	for _, span := range s.spans {
		kv += span.x.Stats().KVBytes
	}
	state := s.w.status.State
	if state == "ready" || state == "working" {
		state = "ready"
		if recent > 0 {
			state = "working"
		}
	}
	s.w.report(func(st *Status) { st.State, st.Tokens, st.TokS = state, s.rows, float64(recent)/window.Seconds() })
	return s.send(ctx, &wire.Stats{Passes: s.passes, Rows: s.rows, KVBytes: kv})
}
