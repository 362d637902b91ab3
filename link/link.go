// Package link is one message connection between a coordinator and a worker.
//
// It carries whole frames, whatever they say: package wire knows that. Its
// subpackages differ only in what is below: link/ws a native WebSocket,
// link/browser the browser's own, link/mem memory with seeded faults.
package link

import (
	"context"
	"errors"
)

// A Message is one frame: text for control, binary for passes.
type Message struct {
	Binary bool
	Data   []byte
}

// A Link is one connection. Send and Receive may be used by one goroutine
// each; Close by any.
type Link interface {
	// Send hands a message over. It waits while the peer is slow, and fails
	// when the link is closed. m.Data must not be changed afterwards.
	Send(ctx context.Context, m Message) error
	// Receive returns the next message. Its data stays valid. After an orderly
	// close by the peer the error is io.EOF.
	Receive(ctx context.Context) (Message, error)
	// Close ends the link in order, with a reason that the peer can show.
	Close(reason string) error
}

// A Limiter is a link that can be held to messages smaller than MaxMessage, so
// that a peer not trusted yet costs little memory. Limit is for the goroutine
// that receives.
type Limiter interface{ Limit(bytes int64) }

// ErrClosed is what Send and Receive return on a link that this side closed.
var ErrClosed = errors.New("link is closed")

// MaxMessage is the largest message in bytes.
const MaxMessage = 64 << 20
