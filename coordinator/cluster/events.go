package cluster

import (
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/wire"
)

// An Event is something that happened.
type Event interface{ event() }

// The events.
type (
	// Joined: a worker was welcomed.
	Joined struct {
		Worker, Name, Kind string
		Capacity           wire.Capacity
		HopMs              float64
	}
	// Left: a worker went, in order or not.
	Left struct{ Worker, Reason string }
	// Progressed: a worker loads a span.
	Progressed struct {
		Worker        string
		Span          uint32
		Loaded, Total int64
	}
	// SpanReady: a worker serves a span, and a trial pass took StepMs.
	SpanReady struct {
		Worker string
		Span   uint32
		StepMs float64
	}
	// Refused: a worker cannot load a span, or lost it.
	Refused struct {
		Worker       string
		Span         uint32
		Code, Reason string
	}
	// Measured: the round trip to a worker was measured, and what its part of
	// the serving chain computes for a token (0: no token lately).
	Measured struct {
		Worker           string
		HopMs, ComputeMs float64
	}
	// Requested: someone wants tokens.
	Requested struct {
		Sequence  string
		Prompt    []int32
		MaxTokens int
		Stop      []int32
	}
	// Cancelled: nobody waits for the sequence any more.
	Cancelled struct{ Sequence string }
	// PassDone: a worker answered a pass.
	PassDone struct {
		Worker string
		Pass   uint64
	}
	// PassFailed: a worker could not compute a pass.
	PassFailed struct {
		Worker       string
		Pass         uint64
		Code, Reason string
	}
	// Sampled: the tokens that a Sample asked for.
	Sampled struct {
		Pass   uint64
		Tokens []SampledToken
	}
	// PolicyChanged: the operator wants another policy.
	PolicyChanged struct{ Policy plan.Policy }
	// Ticked: time passed.
	Ticked struct{}
)

func (Joined) event()        {}
func (Left) event()          {}
func (Progressed) event()    {}
func (SpanReady) event()     {}
func (Refused) event()       {}
func (Measured) event()      {}
func (Requested) event()     {}
func (Cancelled) event()     {}
func (PassDone) event()      {}
func (PassFailed) event()    {}
func (Sampled) event()       {}
func (PolicyChanged) event() {}
func (Ticked) event()        {}

// An Action is something to do.
type Action interface{ action() }

// The actions.
type (
	// Assign: ask a worker to load a span.
	Assign struct {
		Worker string
		Span   Span
	}
	// Release: ask a worker to drop a span.
	Release struct {
		Worker string
		Span   uint32
	}
	// Begin: embed Tokens and send them as a pass to the chain's first worker.
	Begin struct {
		Pass   uint64
		Worker string
		Span   uint32
		Rows   []wire.Row
		Tokens []int32
	}
	// Forward: send what came of a pass to the next worker.
	Forward struct {
		Pass   uint64
		Worker string
		Span   uint32
	}
	// Sample: apply the head to some rows of a pass and sample a token for each
	// sequence; the answer is Sampled. With none the pass is only forgotten.
	Sample struct {
		Pass uint64
		Want []Want
	}
	// Trim: ask a worker to shorten a slot.
	Trim struct {
		Worker string
		Span   uint32
		Slot   int32
		Length int32
	}
	// Emit: a token belongs to a sequence's answer. The hub gives it to the
	// reader, unless it is a stop token.
	Emit struct {
		Sequence string
		Token    int32
		Last     bool
		Finish   string // "stop" or "length", with Last
	}
	// Fail: a request cannot be answered.
	Fail struct {
		Sequence string
		Code     string // "no_room", "too_long", "busy"
		Reason   string
		Missing  int64
	}
	// Moved: a sequence's state changed, for whoever watches.
	Moved struct {
		Sequence string
		State    string // waiting, queued, prefill, decode, moving
	}
	// Planned: a plan was made, or could not be.
	Planned struct {
		Plan *plan.Plan
		Why  string
	}
	// Serving: a chain took up service.
	Serving struct{ Plan *plan.Plan }
	// Drop: close the connection to a worker.
	Drop struct{ Worker, Code, Reason string }
)

// A SampledToken is the next token of a sequence.
type SampledToken struct {
	Sequence string
	Token    int32
}

// A Want is a row whose logits decide a sequence's next token.
type Want struct {
	Row      int
	Sequence string
	Position int // of the token to be sampled, counted in the sequence
}

func (Assign) action()  {}
func (Release) action() {}
func (Begin) action()   {}
func (Forward) action() {}
func (Sample) action()  {}
func (Trim) action()    {}
func (Emit) action()    {}
func (Fail) action()    {}
func (Moved) action()   {}
func (Planned) action() {}
func (Serving) action() {}
func (Drop) action()    {}
