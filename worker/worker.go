// Package worker lends a machine to a room: it joins a coordinator, loads the
// spans that it is assigned and runs passes through them.
//
// The same code runs natively and in a browser tab; what differs comes in
// through Options: how to connect, what computes, where pieces come from.
// Deciding anything is the coordinator's work.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
)

// Options say who joins what, and with which means.
type Options struct {
	// Link connects to the coordinator; it is called again after a loss.
	Link func(ctx context.Context) (link.Link, error)
	// Hello introduces the worker. Version and Resume are filled in.
	Hello wire.Hello
	// NewExecutor returns an executor without a span.
	NewExecutor func() (exec.Executor, error)
	// Open opens a store by the hash of its manifest. What its pieces hold is used
	// until closed is called, which may be nil.
	Open func(ctx context.Context, manifest string) (src shard.Source, closed func(), err error)
	// Report is told of every change, from one goroutine at a time; may be nil.
	Report func(Status)
	Logger *slog.Logger
}

// A Status is what a person lending the machine may want to know.
type Status struct {
	State       string  `json:"state"` // joining, idle, loading, ready, working, rejoining, ended
	Worker      string  `json:"worker,omitempty"`
	LayerFirst  int     `json:"layer_first"`
	LayerCount  int     `json:"layer_count"`
	Loaded      int64   `json:"loaded"`
	Total       int64   `json:"total"`
	Cached      int64   `json:"cached"`
	Tokens      int64   `json:"tokens"` // rows served
	TokS        float64 `json:"tok_s"`  // over the last seconds
	Error       string  `json:"error,omitempty"`
	RetryMs     int64   `json:"retry_ms,omitempty"`
	WeightBytes int64   `json:"weight_bytes,omitempty"`
}

// Refused is the coordinator's final word: coming back is no use.
type Refused struct {
	Code, Message string
	RetryMs       int // 0: do not come back
}

func (r *Refused) Error() string {
	return fmt.Sprintf("the coordinator refuses: %s (%s)", r.Message, r.Code)
}

// Waiting before another attempt to connect.
const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 30 * time.Second
)

// Run lends this machine until ctx ends, then leaves in order and returns nil.
// It reconnects by itself and keeps what is loaded meanwhile. The error is a
// *Refused when the coordinator does not want this worker.
func Run(ctx context.Context, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	w := &worker{Options: o, shelf: &shelf{}}
	defer w.shelf.clear()
	backoff := firstBackoff
	for {
		w.report(func(s *Status) { s.State = "joining" })
		joined, err := w.session(ctx)
		if ctx.Err() != nil {
			w.report(func(s *Status) { s.State = "ended" })
			return nil
		}
		var refused *Refused
		if errors.As(err, &refused) {
			if refused.RetryMs == 0 {
				w.report(func(s *Status) { s.State, s.Error = "ended", refused.Message })
				return err
			}
			backoff = max(backoff, time.Duration(refused.RetryMs)*time.Millisecond)
		} else if joined {
			backoff = firstBackoff
		}
		wait := backoff/2 + rand.N(backoff)
		w.Logger.Warn("connection lost", "error", err, "retry_in", wait.Round(time.Millisecond))
		w.report(func(s *Status) { s.State, s.Error, s.RetryMs = "rejoining", err.Error(), wait.Milliseconds() })
		select {
		case <-ctx.Done():
			w.report(func(s *Status) { s.State = "ended" })
			return nil
		case <-time.After(wait):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// A worker outlives its sessions.
type worker struct {
	Options
	shelf  *shelf
	resume string
	status Status
}

func (w *worker) report(change func(s *Status)) {
	w.status.Error, w.status.RetryMs = "", 0
	change(&w.status)
	if w.Report != nil {
		w.Report(w.status)
	}
}
