// Package mem is a link within one process: for the worker inside a
// coordinator, and for tests, with a seeded delay and a loss of the connection
// after a seeded number of messages.
package mem

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/link"
)

// Options make a pair slow or unreliable.
type Options struct {
	Seed uint64
	// Delay is the longest time a message is on its way, drawn evenly.
	Delay time.Duration
	// BreakAfter breaks the connection about that many messages in, drawn from
	// half to all of it; 0: never.
	BreakAfter int
}

// room is how many messages wait in each direction before Send waits.
const room = 256

// Pair returns the two ends of a link.
func Pair(o Options) (a, b link.Link) {
	shared := &shared{done: make(chan struct{})}
	random := rand.New(rand.NewPCG(o.Seed, 1))
	if o.BreakAfter > 0 {
		shared.left = o.BreakAfter/2 + random.IntN(o.BreakAfter/2+1) + 1
	}
	there, back := make(chan timed, room), make(chan timed, room)
	return &end{shared, there, back, o.Delay, rand.New(rand.NewPCG(o.Seed, 2)), sync.Mutex{}},
		&end{shared, back, there, o.Delay, rand.New(rand.NewPCG(o.Seed, 3)), sync.Mutex{}}
}

// shared is what both ends see.
type shared struct {
	mu   sync.Mutex
	done chan struct{}
	by   *end
	left int // messages until the connection breaks, 0: never
}

type timed struct {
	link.Message
	due time.Time
}

type end struct {
	*shared
	out, in chan timed
	delay   time.Duration
	random  *rand.Rand
	sending sync.Mutex
}

func (e *end) Send(ctx context.Context, m link.Message) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	t := timed{Message: m}
	if e.delay > 0 {
		t.due = time.Now().Add(time.Duration(e.random.Int64N(int64(e.delay) + 1)))
	}
	if e.breaks() {
		e.close(nil)
	}
	select {
	case <-e.done:
		return link.ErrClosed
	default:
	}
	select {
	case e.out <- t:
		return nil
	case <-e.done:
		return link.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *end) breaks() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left == 0 {
		return false
	}
	e.left--
	return e.left == 0
}

func (e *end) Receive(ctx context.Context) (link.Message, error) {
	select {
	case m := <-e.in:
		return e.arrive(ctx, m)
	default:
	}
	select {
	case m := <-e.in:
		return e.arrive(ctx, m)
	case <-e.done:
		select {
		case m := <-e.in: // sent before the close
			return e.arrive(ctx, m)
		default:
		}
		return link.Message{}, e.closed()
	case <-ctx.Done():
		return link.Message{}, ctx.Err()
	}
}

// arrive waits until a message is due.
func (e *end) arrive(ctx context.Context, m timed) (link.Message, error) {
	wait := time.Until(m.due)
	if m.due.IsZero() || wait <= 0 {
		return m.Message, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return m.Message, nil
	case <-ctx.Done():
		return link.Message{}, ctx.Err()
	}
}

func (e *end) closed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch e.by {
	case e:
		return link.ErrClosed
	case nil:
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

func (e *end) Close(string) error {
	e.close(e)
	return nil
}

func (e *end) close(by *end) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.done:
	default:
		e.by = by
		close(e.done)
	}
}
