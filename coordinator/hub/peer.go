package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/wire"
)

// Bounds of a connection.
const (
	helloTimeout = 10 * time.Second
	flushTime    = time.Second // for the last messages of a connection that ends
	queueLength  = 256         // messages that wait for a slow peer
	trialPings   = 3           // round trips measured before a worker is trusted with layers
	hopWindow    = 20          // results whose median is shown
	fewRows      = 4           // passes of so many rows show what a token takes
	maxCapacity  = 64 << 40
)

// A peer is one worker's connection.
type peer struct {
	hub   *Hub
	id    string
	hello wire.Hello
	l     link.Link
	queue chan link.Message
	done  chan struct{}
	once  sync.Once
	why   string

	mu     sync.Mutex
	spans  map[uint32]model.Span // assigned here, by their numbers
	hops   []HopMs
	stats  wire.Stats
	rows   int64
	served []servedRows
	pings  map[uint64]time.Time
	nonce  uint64
	rtt    float64 // ms, smoothed
	pongs  int
}

type servedRows struct {
	at   time.Time
	rows int
}

// Serve speaks with one worker until it goes. The error is why it went, nil
// for an orderly leave.
func (h *Hub) Serve(ctx context.Context, l link.Link, remote string) error {
	h.running.Add(1)
	defer h.running.Done()
	if h.ctx.Err() != nil {
		_ = l.Close("the coordinator stops")
		return ErrClosed
	}
	limiter, limited := l.(link.Limiter)
	if limited {
		limiter.Limit(wire.MaxControl)
	}
	hello, err := h.receiveHello(ctx, l)
	if err != nil {
		h.o.Logger.Warn("worker refused", "from", remote, "error", err)
		_ = l.Close("refused")
		return err
	}
	if limited {
		limiter.Limit(link.MaxMessage)
	}
	p := h.admit(hello, l)
	h.o.Logger.Info("worker joined", "worker", p.id, "name", hello.Name, "kind", hello.Kind, "backend", hello.Backend, "from", remote)
	err = p.serve(ctx)
	h.dismiss(p)
	reason, level := "left", slog.LevelInfo
	if err != nil {
		reason, level = err.Error(), slog.LevelWarn
	}
	h.o.Logger.Log(ctx, level, "worker left", "worker", p.id, "name", hello.Name, "from", remote, "reason", reason)
	h.feed.left(p.id, hello.Name, reason)
	h.post(cluster.Left{Worker: p.id, Reason: reason})
	return err
}

// receiveHello takes and checks the first message.
func (h *Hub) receiveHello(ctx context.Context, l link.Link) (*wire.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	refuse := func(code, format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		if data, e := wire.EncodeControl(&wire.Error{Code: code, Message: err.Error(), RetryMs: retryOf(code)}); e == nil {
			_ = l.Send(ctx, link.Message{Data: data})
		}
		return err
	}
	m, err := l.Receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("no hello: %w", err)
	}
	if m.Binary {
		return nil, refuse("protocol", "the first message is a pass, want hello")
	}
	message, err := wire.DecodeControl(m.Data)
	if err != nil {
		return nil, refuse("protocol", "%v", err)
	}
	hello, ok := message.(*wire.Hello)
	switch {
	case !ok:
		return nil, refuse("protocol", "the first message is %s, want hello", wire.TypeOf(message))
	case hello.Version != wire.Version:
		return nil, refuse("version", "the worker speaks version %d, this coordinator %d: use builds of the same version", hello.Version, wire.Version)
	case !h.checkToken(hello.Token):
		return nil, refuse("token", "this invitation is wrong or has expired")
	}
	if err := checkHello(hello); err != nil {
		return nil, refuse("protocol", "%v", err)
	}
	if !h.enter() {
		return nil, refuse("busy", "the room is full: %d workers are here", h.o.MaxWorkers)
	}
	hello.Token = ""
	return hello, nil
}

func checkHello(h *wire.Hello) error {
	for _, text := range []string{h.Name, h.Build, h.Backend, h.Device, h.Resume} {
		if len(text) > 200 || !utf8.ValidString(text) {
			return fmt.Errorf("hello: a text of %d bytes", len(text))
		}
	}
	if n := utf8.RuneCountInString(h.Name); n > wire.MaxName {
		return fmt.Errorf("hello: a name of %d characters, at most %d", n, wire.MaxName)
	}
	for _, r := range h.Name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("hello: name %q holds a character that does not print", h.Name)
		}
	}
	if h.Kind != "native" && h.Kind != "browser" {
		return fmt.Errorf("hello: kind %q, want native or browser", h.Kind)
	}
	c := h.Capacity
	for _, v := range []float64{c.ReadGBs, c.DispatchMs, c.ReadbackMs} {
		if math.IsNaN(v) || v < 0 || v > 1e6 {
			return fmt.Errorf("hello: a measured figure of %v", v)
		}
	}
	if c.Bytes < 0 || c.Bytes > maxCapacity || c.Credit < 0 || c.Credit > 1024 {
		return fmt.Errorf("hello: %d bytes and credit for %d passes", c.Bytes, c.Credit)
	}
	return nil
}

// enter counts a worker in, unless the room is full. dismiss counts it out.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.present >= h.o.MaxWorkers {
		return false
	}
	h.present++
	return true
}

// admit gives a worker its id: the old one where it comes back.
func (h *Hub) admit(hello *wire.Hello, l link.Link) *peer {
	h.mu.Lock()
	id := h.resume[hello.Resume]
	if hello.Resume == "" || id == "" {
		h.joined++
		id = fmt.Sprintf("w%d", h.joined)
		if hello.Name == "" {
			hello.Name = fmt.Sprintf("%s-%d", hello.Kind, h.joined)
		}
	}
	key := randomID(16)
	if len(h.resume) > 10*h.o.MaxWorkers {
		clear(h.resume)
	}
	h.resume[key] = id
	h.mu.Unlock()
	if hello.Name == "" {
		hello.Name = id
	}
	p := &peer{hub: h, id: id, hello: *hello, l: l, queue: make(chan link.Message, queueLength), done: make(chan struct{}),
		spans: map[uint32]model.Span{}, pings: map[uint64]time.Time{}}
	if old, loaded := h.peers.Swap(id, p); loaded { // the same worker on a new connection: the old one is dead
		old.(*peer).end("the worker came back on another connection")
		h.post(cluster.Left{Worker: id, Reason: "came back"})
	}
	p.tell(&wire.Welcome{Version: wire.Version, Worker: id, Resume: key, Build: build(), Manifest: h.o.Manifest.String(), HeartbeatMs: int(h.o.Heartbeat.Milliseconds())})
	return p
}

// dismiss forgets a peer, unless another connection took its place.
func (h *Hub) dismiss(p *peer) {
	p.end("bye")
	h.peers.CompareAndDelete(p.id, p)
	h.mu.Lock()
	h.present--
	h.mu.Unlock()
}

// serve receives until the worker goes, while a second goroutine sends.
func (p *peer) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.hub.ctx, cancel)
	var sending sync.WaitGroup
	sending.Add(1)
	go func() { defer sending.Done(); p.sender(ctx) }()
	defer func() { stop(); p.end("bye"); cancel(); sending.Wait(); _ = p.l.Close(p.why) }()
	p.ping()
	for {
		m, err := p.l.Receive(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("closed the connection")
		case err != nil:
			select {
			case <-p.done:
				return errors.New(p.why)
			default:
			}
			return err
		}
		left, err := p.handle(m)
		if err != nil {
			p.refuse("protocol", err.Error())
			return err
		}
		if left {
			return nil
		}
	}
}

// sender empties the queue, pings, and notices silence.
func (p *peer) sender(ctx context.Context) {
	beat := time.NewTicker(p.hub.o.Heartbeat)
	defer beat.Stop()
	defer p.end("bye")
	for {
		select {
		case <-ctx.Done():
			p.end("the coordinator stops")
			p.flush()
			return
		case <-p.done:
			p.flush()
			return
		case m := <-p.queue:
			// Not with ctx: the last word of a refusal leaves after the end has begun.
			if err := p.l.Send(context.WithoutCancel(ctx), m); err != nil {
				p.end("sending failed: " + err.Error())
				return
			}
		case <-beat.C:
			p.mu.Lock()
			unanswered := len(p.pings)
			p.mu.Unlock()
			if unanswered >= 3 {
				p.end(fmt.Sprintf("silent for %v", 3*p.hub.o.Heartbeat))
				return
			}
			p.ping()
		}
	}
}

// flush sends what was queued before the end: the last word of a refusal.
func (p *peer) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	for {
		select {
		case m := <-p.queue:
			if p.l.Send(ctx, m) != nil {
				_ = p.l.Close(p.why)
				return
			}
		default:
			_ = p.l.Close(p.why)
			return
		}
	}
}

func (p *peer) send(m link.Message) {
	select {
	case p.queue <- m:
	default:
		p.end("does not read what it is sent")
	}
}

func (p *peer) tell(message any) {
	switch m := message.(type) {
	case *wire.Assign:
		p.mu.Lock()
		p.spans[m.Span] = m.Range
		p.mu.Unlock()
	case *wire.Release:
		p.mu.Lock()
		delete(p.spans, m.Span)
		p.mu.Unlock()
	}
	data, err := wire.EncodeControl(message)
	if err != nil {
		p.end(err.Error())
		return
	}
	p.send(link.Message{Data: data})
}

// refuse says why and ends.
func (p *peer) refuse(code, reason string) {
	p.tell(&wire.Error{Code: code, Message: reason, RetryMs: retryOf(code)})
	p.end(reason)
}

func retryOf(code string) int {
	if code == "busy" {
		return 2000
	}
	return 0
}

func (p *peer) end(why string) {
	p.once.Do(func() {
		p.why = why
		close(p.done)
		time.AfterFunc(flushTime, func() { _ = p.l.Close(why) }) // whatever still waits for a dead peer
	})
}

func (p *peer) ping() {
	p.mu.Lock()
	p.nonce++
	nonce := p.nonce
	p.pings[nonce] = time.Now()
	p.mu.Unlock()
	p.tell(&wire.Ping{Nonce: nonce})
}

// pong takes the answer to a ping. After a few the round trip is known, and
// the worker joins the room.
func (p *peer) pong(nonce uint64) error {
	p.mu.Lock()
	sent, ok := p.pings[nonce]
	if !ok {
		p.mu.Unlock()
		return fmt.Errorf("pong %d answers no ping", nonce)
	}
	delete(p.pings, nonce)
	ms := float64(time.Since(sent).Microseconds()) / 1e3
	if p.pongs++; p.pongs == 1 || ms < p.rtt {
		p.rtt = ms
	} else {
		p.rtt += (ms - p.rtt) / 8
	}
	pongs, rtt, computeMs := p.pongs, p.rtt, 0.0
	if len(p.hops) >= hopWindow/2 {
		computeMs = medianHop(p.hops).Compute
	}
	p.mu.Unlock()
	switch {
	case pongs < trialPings:
		p.ping()
	case pongs == trialPings:
		p.hub.post(cluster.Joined{Worker: p.id, Name: p.hello.Name, Kind: p.hello.Kind, Capacity: p.hello.Capacity, HopMs: rtt})
	default:
		p.hub.post(cluster.Measured{Worker: p.id, HopMs: rtt, ComputeMs: computeMs})
	}
	return nil
}

// handle takes one message. left tells that the worker leaves in order.
func (p *peer) handle(m link.Message) (left bool, err error) {
	h := p.hub
	if m.Binary {
		return false, p.result(m.Data)
	}
	message, err := wire.DecodeControl(m.Data)
	if err != nil {
		return false, err
	}
	switch m := message.(type) {
	case *wire.Pong:
		return false, p.pong(m.Nonce)
	case *wire.Ping:
		p.tell(&wire.Pong{Nonce: m.Nonce})
	case *wire.Leave:
		return true, nil
	case *wire.Error:
		return false, fmt.Errorf("the worker reports: %.200s", m.Message)
	case *wire.Progress:
		if m.Loaded < 0 || m.Total < 0 || m.Loaded > m.Total {
			return false, fmt.Errorf("progress %d of %d", m.Loaded, m.Total)
		}
		if p.has(m.Span) {
			h.post(cluster.Progressed{Worker: p.id, Span: m.Span, Loaded: m.Loaded, Total: m.Total})
		}
	case *wire.Ready:
		if p.has(m.Span) {
			h.post(cluster.SpanReady{Worker: p.id, Span: m.Span, StepMs: m.StepMs})
		}
	case *wire.Refuse:
		if p.has(m.Span) {
			h.post(cluster.Refused{Worker: p.id, Span: m.Span, Code: m.Code, Reason: fmt.Sprintf("%.200s", m.Reason)})
		}
	case *wire.Failed:
		h.o.Logger.Warn("pass failed", "worker", p.id, "pass", m.Pass, "code", fmt.Sprintf("%.40s", m.Code), "reason", fmt.Sprintf("%.200s", m.Reason))
		h.post(cluster.PassFailed{Worker: p.id, Pass: m.Pass, Code: m.Code, Reason: fmt.Sprintf("%.200s", m.Reason)})
	case *wire.Stats:
		p.mu.Lock()
		p.stats = *m
		p.mu.Unlock()
	default:
		return false, fmt.Errorf("a worker may not send %s now", wire.TypeOf(message))
	}
	return false, nil
}

// has tells whether the span is assigned here; a released one may still be
// spoken of by messages on their way.
func (p *peer) has(span uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.spans[span]
	return ok
}

func (p *peer) result(data []byte) error {
	at := time.Now()
	frame := &wire.PassFrame{}
	if err := wire.DecodePass(data, frame); err != nil {
		return err
	}
	if !frame.Result {
		return errors.New("a worker may not send a pass, only results")
	}
	p.mu.Lock()
	span, ok := p.spans[frame.Span]
	p.mu.Unlock()
	if !ok {
		return nil // released while it was on its way
	}
	if err := p.hub.checkResult(frame, span); err != nil {
		return err
	}
	p.hub.post(result{p, frame, len(data), at, finite(&frame.State)})
	return nil
}

// measured keeps the times of a pass.
func (p *peer) measured(t HopMs, rows int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows += int64(rows)
	p.served = append(p.served, servedRows{time.Now(), rows})
	if rows > fewRows {
		return // a prompt's chunk says nothing about a token
	}
	if p.hops = append(p.hops, t); len(p.hops) > hopWindow {
		p.hops = slices.Delete(p.hops, 0, 1)
	}
}

// forgetHops begins to measure another part of the model.
func (p *peer) forgetHops() {
	p.mu.Lock()
	p.hops = p.hops[:0]
	p.mu.Unlock()
}

// tokS is rows a second over the last window.
func (p *peer) tokS(now time.Time) float64 {
	for len(p.served) > 0 && now.Sub(p.served[0].at) > rateWindow {
		p.served = p.served[1:]
	}
	rows := 0
	for _, s := range p.served {
		rows += s.rows
	}
	return float64(rows) / rateWindow.Seconds()
}

func medianHop(list []HopMs) HopMs {
	pick := func(of func(HopMs) float64) float64 {
		if len(list) == 0 {
			return 0
		}
		values := make([]float64, len(list))
		for i, h := range list {
			values[i] = of(h)
		}
		slices.Sort(values)
		return math.Round(values[len(values)/2]*1000) / 1000
	}
	return HopMs{pick(func(h HopMs) float64 { return h.Queue }), pick(func(h HopMs) float64 { return h.Wire }),
		pick(func(h HopMs) float64 { return h.Compute }), pick(func(h HopMs) float64 { return h.Readback })}
}
