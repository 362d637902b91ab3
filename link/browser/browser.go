//go:build js && wasm

// Package browser is a link over the browser's own WebSocket.
package browser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall/js"

	"github.com/potluck-llm/potluck/link"
)

// subprotocol is what both sides must offer.
const subprotocol = "potluck.v1"

// maxBuffered is how many bytes may wait in the browser before Send does: it
// has no other way to say that the network is slow.
const maxBuffered = 32 << 20

// Dial connects to a coordinator's join address (ws:// or wss://).
func Dial(ctx context.Context, url string) (link.Link, error) {
	socket := js.Global().Get("WebSocket").New(url, subprotocol)
	socket.Set("binaryType", "arraybuffer")
	l := &socketLink{socket: socket, received: make(chan link.Message, 1024), closed: make(chan struct{})}
	opened := make(chan struct{})
	l.listen("open", func(js.Value) { close(opened) })
	l.listen("message", l.message)
	l.listen("error", func(js.Value) { l.end(errors.New("the connection failed")) })
	l.listen("close", func(e js.Value) {
		if e.Get("wasClean").Bool() && e.Get("code").Int() == 1000 {
			l.end(io.EOF)
		} else {
			l.end(fmt.Errorf("the connection broke (code %d)", e.Get("code").Int()))
		}
	})
	select {
	case <-opened:
		return l, nil
	case <-l.closed:
		err := l.err
		l.release()
		return nil, fmt.Errorf("%s: %w", url, err)
	case <-ctx.Done():
		_ = l.Close("given up")
		return nil, ctx.Err()
	}
}

type socketLink struct {
	socket    js.Value
	received  chan link.Message
	once      sync.Once
	closed    chan struct{}
	err       error
	listeners []js.Func
}

func (l *socketLink) listen(event string, f func(e js.Value)) {
	callback := js.FuncOf(func(_ js.Value, args []js.Value) any {
		f(args[0])
		return nil
	})
	l.listeners = append(l.listeners, callback)
	l.socket.Call("addEventListener", event, callback)
}

// message copies a frame into Go's memory. A peer that sends faster than it is
// read, beyond a bound, loses the connection.
func (l *socketLink) message(e js.Value) {
	data := e.Get("data")
	m := link.Message{}
	if data.Type() == js.TypeString {
		m.Data = []byte(data.String())
	} else {
		array := js.Global().Get("Uint8Array").New(data)
		if array.Length() > link.MaxMessage {
			l.end(fmt.Errorf("a message of %d bytes", array.Length()))
			return
		}
		m.Binary, m.Data = true, make([]byte, array.Length())
		js.CopyBytesToGo(m.Data, array)
	}
	select {
	case l.received <- m:
	default:
		l.end(errors.New("messages come faster than they are read"))
	}
}

func (l *socketLink) Send(ctx context.Context, m link.Message) error {
	select {
	case <-l.closed:
		return link.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.socket.Get("bufferedAmount").Int() > maxBuffered {
		l.end(errors.New("the network is too slow"))
		return l.err
	}
	if !m.Binary {
		l.socket.Call("send", string(m.Data))
		return nil
	}
	array := js.Global().Get("Uint8Array").New(len(m.Data))
	js.CopyBytesToJS(array, m.Data)
	l.socket.Call("send", array)
	return nil
}

func (l *socketLink) Receive(ctx context.Context) (link.Message, error) {
	select {
	case m := <-l.received:
		return m, nil
	default:
	}
	select {
	case m := <-l.received:
		return m, nil
	case <-l.closed:
		select {
		case m := <-l.received: // sent before the close
			return m, nil
		default:
			return link.Message{}, l.err
		}
	case <-ctx.Done():
		return link.Message{}, ctx.Err()
	}
}

func (l *socketLink) Close(reason string) error {
	if len(reason) > 120 {
		reason = reason[:120]
	}
	l.end(link.ErrClosed)
	l.socket.Call("close", 1000, reason)
	l.release()
	return nil
}

func (l *socketLink) end(err error) {
	l.once.Do(func() { l.err = err; close(l.closed) })
}

// release frees the callbacks; the browser must not call them any more.
func (l *socketLink) release() {
	for i, event := range []string{"open", "message", "error", "close"} {
		if i < len(l.listeners) {
			l.socket.Call("removeEventListener", event, l.listeners[i])
			l.listeners[i].Release()
		}
	}
	l.listeners = nil
}
