// Package ws is a link over a native WebSocket.
package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/potluck-llm/potluck/link"
)

// Subprotocol is what both sides must offer.
const Subprotocol = "potluck.v1"

// writeTimeout is how long one message may take to leave: a peer that reads
// nothing for so long is gone.
const writeTimeout = 20 * time.Second

// cancelGrace is how long a message may go on leaving once its context ended:
// what is under way mostly arrives, and a peer that does not read cannot hold
// up an end.
const cancelGrace = 500 * time.Millisecond

// handshakeTimeout bounds dialing.
const handshakeTimeout = 15 * time.Second

// Dial connects to a coordinator's join address (ws:// or wss://).
func Dial(ctx context.Context, url string, dialer *websocket.Dialer) (link.Link, error) {
	if dialer == nil {
		dialer = &websocket.Dialer{Proxy: http.ProxyFromEnvironment}
	}
	d := *dialer
	d.Subprotocols, d.HandshakeTimeout, d.EnableCompression = []string{Subprotocol}, handshakeTimeout, false
	conn, response, err := d.DialContext(ctx, url, nil)
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("%s: %w (%s)", url, err, response.Status)
		}
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if conn.Subprotocol() != Subprotocol {
		conn.Close()
		return nil, fmt.Errorf("%s speaks no %s: is it a coordinator?", url, Subprotocol)
	}
	return newLink(conn), nil
}

// Upgrade answers a request for a link. The join token protects it, not the
// origin: tabs may come from another host's pages.
func Upgrade(w http.ResponseWriter, r *http.Request) (link.Link, error) {
	upgrader := websocket.Upgrader{Subprotocols: []string{Subprotocol}, HandshakeTimeout: handshakeTimeout, CheckOrigin: func(*http.Request) bool { return true }}
	if !hasSubprotocol(r) {
		err := fmt.Errorf("the websocket offers no subprotocol %s", Subprotocol)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, err
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	return newLink(conn), nil
}

func hasSubprotocol(r *http.Request) bool {
	for _, p := range websocket.Subprotocols(r) {
		if p == Subprotocol {
			return true
		}
	}
	return false
}

type wsLink struct {
	conn    *websocket.Conn
	sending sync.Mutex
	once    sync.Once
	closed  chan struct{}
	limit   int64 // of a received message
}

func newLink(conn *websocket.Conn) *wsLink {
	if tcp, ok := conn.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
	l := &wsLink{conn: conn, closed: make(chan struct{})}
	l.Limit(link.MaxMessage)
	return l
}

// Limit makes Receive refuse longer messages, by their header, before any of
// their bytes are read.
func (l *wsLink) Limit(bytes int64) {
	l.limit = bytes
	l.conn.SetReadLimit(bytes)
}

func (l *wsLink) Send(ctx context.Context, m link.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	select {
	case <-l.closed:
		return link.ErrClosed
	default:
	}
	deadline := time.Now().Add(writeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = l.conn.SetWriteDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = l.conn.NetConn().SetWriteDeadline(time.Now().Add(cancelGrace)) })
	defer stop()
	kind := websocket.TextMessage
	if m.Binary {
		kind = websocket.BinaryMessage
	}
	return l.conn.WriteMessage(kind, m.Data)
}

func (l *wsLink) Receive(ctx context.Context) (link.Message, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Now()) })
	defer stop()
	kind, data, err := l.conn.ReadMessage()
	if err == nil {
		return link.Message{Binary: kind == websocket.BinaryMessage, Data: data}, nil
	}
	select {
	case <-l.closed:
		return link.Message{}, link.ErrClosed
	default:
	}
	if ctx.Err() != nil {
		return link.Message{}, ctx.Err()
	}
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
		return link.Message{}, io.EOF
	}
	switch {
	case errors.Is(err, io.EOF):
		return link.Message{}, io.ErrUnexpectedEOF
	case errors.Is(err, websocket.ErrReadLimit):
		return link.Message{}, fmt.Errorf("a message of more than %d bytes", l.limit)
	}
	return link.Message{}, err
}

func (l *wsLink) Close(reason string) error {
	l.once.Do(func() {
		close(l.closed)
		if len(reason) > 120 { // a control frame holds 123 bytes
			reason = reason[:120]
		}
		message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, reason)
		_ = l.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second))
		_ = l.conn.Close()
	})
	return nil
}
