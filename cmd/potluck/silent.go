package main

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
)

// A silentListener tells of connections that ended before they said anything:
// whoever looks for a worker that cannot join should find its attempt.
type silentListener struct {
	net.Listener
	logger *slog.Logger
}

func (l *silentListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &silentConn{Conn: conn, logger: l.logger}, nil
}

type silentConn struct {
	net.Conn
	logger *slog.Logger
	spoke  atomic.Bool
	once   sync.Once
}

func (c *silentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.spoke.Load() {
		c.spoke.Store(true)
	}
	return n, err
}

func (c *silentConn) Close() error {
	c.once.Do(func() {
		if !c.spoke.Load() {
			c.logger.Info("connection ended before it said anything", "from", c.RemoteAddr().String())
		}
	})
	return c.Conn.Close()
}
