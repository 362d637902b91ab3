// Package lan serves a room to the machines around: one port that answers HTTP
// and TLS, with a certificate of an authority of this installation's own.
//
// Browsers give graphics access only to secure pages, and no public authority
// signs for 192.168.1.5. Everyone therefore meets one warning; what they see
// before it is the work of package api.
package lan

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// handshakeByte is the first byte of a TLS connection: a record of type
// handshake (RFC 8446, 5.1). No HTTP method begins with it.
const handshakeByte = 0x16

// firstByteLimit is how long a connection may say nothing.
const firstByteLimit = 10 * time.Second

// Listen wraps a listener so that connections that begin as TLS speak TLS, and
// all others are left as they are. An http.Server serves both: it knows a
// *tls.Conn and sets Request.TLS.
func Listen(l net.Listener, config *tls.Config) net.Listener {
	m := &mux{Listener: l, config: config, ready: make(chan net.Conn), closed: make(chan struct{})}
	m.running.Add(1)
	go m.run()
	return m
}

type mux struct {
	net.Listener
	config  *tls.Config
	ready   chan net.Conn
	closed  chan struct{}
	once    sync.Once
	failure error // set before closed is closed
	running sync.WaitGroup
}

// run accepts connections; each waits for its first byte by itself, so that a
// silent one holds up nobody.
func (m *mux) run() {
	defer m.running.Done()
	for {
		conn, err := m.Listener.Accept()
		if err != nil {
			if wait, ok := err.(interface{ Temporary() bool }); ok && wait.Temporary() {
				select {
				case <-time.After(20 * time.Millisecond): // too many open files, most likely
					continue
				case <-m.closed:
					return
				}
			}
			m.end(err)
			return
		}
		m.running.Go(func() { m.sort(conn) })
	}
}

// sort reads the first byte of a connection and hands it on.
func (m *mux) sort(conn net.Conn) {
	stop := make(chan struct{})
	defer close(stop)
	m.running.Go(func() { // a closing listener does not wait for silent ones
		select {
		case <-m.closed:
			_ = conn.SetReadDeadline(time.Unix(1, 0))
		case <-stop:
		}
	})
	var first [1]byte
	_ = conn.SetReadDeadline(time.Now().Add(firstByteLimit))
	if n, err := conn.Read(first[:]); n == 0 || err != nil {
		conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var sorted net.Conn = &begun{Conn: conn, first: first[:]}
	if first[0] == handshakeByte {
		sorted = tls.Server(sorted, m.config)
	}
	select {
	case m.ready <- sorted:
	case <-m.closed:
		conn.Close()
	}
}

// Accept returns the next connection that has begun to speak.
func (m *mux) Accept() (net.Conn, error) {
	select {
	case conn := <-m.ready:
		return conn, nil
	case <-m.closed:
		return nil, m.failure
	}
}

func (m *mux) end(err error) {
	m.once.Do(func() {
		m.failure = err
		close(m.closed)
	})
}

// Close stops listening and closes connections that nobody took.
func (m *mux) Close() error {
	m.end(net.ErrClosed)
	err := m.Listener.Close()
	m.running.Wait()
	return err
}

// begun is a connection whose first bytes were read already.
type begun struct {
	net.Conn
	first []byte
}

func (c *begun) Read(p []byte) (int, error) {
	if len(c.first) == 0 || len(p) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// NetConn is the connection below, for options of its socket.
func (c *begun) NetConn() net.Conn { return c.Conn }
