// Package hub brings a room to life: it owns the clock, the goroutines and the
// links, feeds what happens into cluster.State and carries out what that says.
//
// It takes links to workers and requests for tokens, and gives streams of
// tokens and a picture of the room. The embedding, the head and sampling run
// here, too. HTTP is the work of package api.
package hub

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/internal/version"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
)

// Options set up a room.
type Options struct {
	Source   shard.Source
	Manifest shard.Hash // of the source's manifest as it is served
	Name     string     // of the model, shown to people
	// Embed and Head are executors without a span; the hub loads and closes them.
	Embed, Head exec.Executor
	Policy      plan.Policy
	Slots       plan.Slots
	Token       string // the join token
	Heartbeat   time.Duration
	Logger      *slog.Logger
	// MaxWorkers bounds the room; 0: 1000.
	MaxWorkers int
	Cluster    cluster.Options // limits; Shape, Policy and Slots are filled in
}

// A Hub is a running room.
type Hub struct {
	o       Options
	config  *model.Config
	state   *cluster.State
	opened  time.Time
	events  chan any
	head    chan headJob // holds as many as passes can be on their way, so that the loop never waits
	ctx     context.Context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	peers   sync.Map // id → *peer
	joined  int
	present int
	mu      sync.Mutex // joined, present, resume, view
	resume  map[string]string
	view    view
	// owned by the loop:
	payload  map[uint64]*payload
	requests map[string]*Stream
	embedIn  exec.Pass
	embedOut exec.Pass
	embed    exec.Executor
	feed     *feed
}

// ErrClosed is what a closed hub answers.
var ErrClosed = errors.New("the coordinator is closed")

// Open opens a room and runs it until Close.
func Open(ctx context.Context, o Options) (*Hub, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 5 * time.Second
	}
	if o.MaxWorkers == 0 {
		o.MaxWorkers = 1000
	}
	config := o.Source.Manifest().Model
	end := model.Cut{Layer: config.Layers}
	// Neither keeps anything from pass to pass: one slot that each pass begins anew.
	ends := exec.SlotPlan{Slots: 1, Positions: wire.MaxRows, KV: quant.F32, Round: o.Slots.Round, Exact: o.Slots.Exact}
	if err := o.Embed.Load(ctx, model.Span{Embed: true}, ends, o.Source, nil); err != nil {
		return nil, fmt.Errorf("embedding: %w", err)
	}
	if err := o.Head.Load(ctx, model.Span{From: end, To: end, Head: true}, ends, o.Source, nil); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	c := o.Cluster
	c.Shape, c.Policy, c.Slots = plan.ShapeOf(o.Source.Manifest()), o.Policy, o.Slots
	h := &Hub{o: o, config: config, state: cluster.New(c), opened: time.Now(), events: make(chan any, 1024), head: make(chan headJob, o.MaxWorkers),
		resume: map[string]string{}, payload: map[uint64]*payload{}, requests: map[string]*Stream{}, embed: o.Embed, feed: newFeed()}
	h.view.policy = o.Policy
	ownMs, err := trial(ctx, o.Head, config)
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	h.view.ownMs = ownMs
	h.ctx, h.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	h.running.Add(2)
	go h.run()
	go h.runHead()
	return h, nil
}

// trial times the head for one row, in milliseconds, so that the first
// prediction knows the coordinator's own part: the better of two passes.
func trial(ctx context.Context, head exec.Executor, config *model.Config) (ms float64, err error) {
	var in, out exec.Pass
	in.Rows, in.Want, in.Hidden = []exec.Row{{}}, []int32{0}, make([]float32, config.Hidden)
	in.Hidden[0] = 1
	for i := range 2 {
		start := time.Now()
		head.Trim(0, 0)
		if err := head.Step(ctx, &in, &out); err != nil {
			return 0, err
		}
		if took := float64(time.Since(start).Microseconds()) / 1e3; i == 0 || took < ms {
			ms = took
		}
	}
	return ms, nil
}

// Close ends the room: requests fail, links are closed.
func (h *Hub) Close() {
	h.cancel(ErrClosed)
	h.peers.Range(func(_, p any) bool { p.(*peer).end("the coordinator stops"); return true })
	h.running.Wait()
	_ = h.o.Embed.Close()
	_ = h.o.Head.Close()
}

// post hands something to the loop.
func (h *Hub) post(e any) {
	select {
	case h.events <- e:
	case <-h.ctx.Done():
	}
}

// Token is the join token.
func (h *Hub) checkToken(got string) bool {
	return subtle.ConstantTimeCompare([]byte(got), []byte(h.o.Token)) == 1
}

// randomID returns n random bytes in hex.
func randomID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func build() string { return version.String() }

// SetPolicy changes the policy.
func (h *Hub) SetPolicy(p plan.Policy) {
	h.mu.Lock()
	h.view.policy = p
	h.mu.Unlock()
	h.post(cluster.PolicyChanged{Policy: p})
}

// Remove sends a worker away.
func (h *Hub) Remove(id string) bool {
	p, ok := h.peers.Load(id)
	if ok {
		p.(*peer).refuse("removed", "the operator removed this worker")
	}
	return ok
}
