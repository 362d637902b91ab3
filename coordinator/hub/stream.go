package hub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/sample"
)

// A Request asks for tokens.
type Request struct {
	ID        string // shown in the feed; "" makes one up
	Prompt    []int32
	MaxTokens int
	Sampler   *sample.Sampler
	Stop      []int32             // tokens that end the answer
	Allowed   func(id int32) bool // nil: all
	LogProbs  bool
	Top       int // with LogProbs: alternatives a token
}

// A Token is one of an answer.
type Token struct {
	ID      int32
	LogProb float64
	Top     []sample.TokenLogProb
}

// A RequestError is why a request cannot be answered (any more).
type RequestError struct {
	Code    string // "no_room", "too_long", "busy", "closed", "sampling"
	Reason  string
	Missing int64 // bytes, with "no_room"
}

func (e *RequestError) Error() string { return e.Reason }

// A Stream is the answer to a request, token by token. Next is for one
// goroutine.
type Stream struct {
	hub     *Hub
	id      string
	request Request
	once    sync.Once
	done    chan struct{}
	err     error
	reason  string
	asked   time.Time

	mu     sync.Mutex
	tokens []Token       // sampled, not read yet
	more   chan struct{} // holds one where there may be some

	// owned by the hub's loop
	history   []int32
	generated int
	sampled   Token
}

// Generate asks for tokens. The stream must be closed.
func (h *Hub) Generate(ctx context.Context, r Request) (*Stream, error) {
	if r.ID == "" {
		r.ID = randomID(12)
	}
	limit := h.o.Slots.Positions
	if len(r.Prompt) >= limit {
		return nil, &RequestError{Code: "too_long", Reason: fmt.Sprintf("the prompt has %d tokens, a conversation here has room for %d", len(r.Prompt), limit)}
	}
	r.MaxTokens = min(r.MaxTokens, limit-len(r.Prompt))
	// The loop knows sequences by a name of its own: a client may send the same id twice.
	s := &Stream{hub: h, id: r.ID + "/" + randomID(6), request: r, more: make(chan struct{}, 1), done: make(chan struct{}), asked: time.Now()}
	s.history = slices.Clone(r.Prompt)
	if h.ctx.Err() != nil {
		return nil, closedError()
	}
	select {
	case h.events <- s:
		return s, nil
	case <-h.ctx.Done():
		return nil, closedError()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// next samples a token.
func (r *Request) next(logits []float32, history []int32) (Token, error) {
	var t Token
	if r.Allowed != nil {
		for id := range logits {
			if !r.Allowed(int32(id)) {
				logits[id] = -3e38
			}
		}
	}
	id, err := r.Sampler.Sample(logits, history)
	if err != nil {
		return t, err
	}
	t.ID = id
	if r.LogProbs {
		t.LogProb, t.Top = sample.LogProbs(logits, id, r.Top)
	}
	return t, nil
}

// Next returns the next token. ok is false at the end; then Finish says why.
// The error is a *RequestError or the context's.
func (s *Stream) Next(ctx context.Context) (t Token, ok bool, err error) {
	for {
		if t, ok := s.pop(); ok {
			return t, true, nil
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return t, false, ctx.Err()
		case <-s.done:
			if t, ok := s.pop(); ok {
				return t, true, nil
			}
			return t, false, s.err
		case <-s.hub.ctx.Done(): // perhaps before the loop saw this request
			return t, false, closedError()
		}
	}
}

// pop takes the oldest token that nobody has read.
func (s *Stream) pop() (t Token, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) == 0 {
		return t, false
	}
	t, s.tokens = s.tokens[0], s.tokens[1:]
	return t, true
}

func closedError() error { return &RequestError{Code: "closed", Reason: ErrClosed.Error()} }

// Finish is why the answer ended: "stop" or "length". It is for after Next said
// that it has.
func (s *Stream) Finish() string {
	<-s.done
	return s.reason
}

// Close ends the request and frees its slots.
func (s *Stream) Close() {
	select {
	case <-s.done:
	default:
		s.hub.post(cancelled{s.id})
	}
}

type cancelled struct{ id string }

func (s *Stream) put(t Token) {
	s.mu.Lock()
	s.tokens = append(s.tokens, t)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *Stream) finish(reason string) {
	s.once.Do(func() { s.reason = reason; close(s.done) })
}

func (s *Stream) fail(err error) {
	s.once.Do(func() { s.err = err; close(s.done) })
}
