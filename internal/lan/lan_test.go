package lan

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func load(t *testing.T, folder string, at time.Time, more ...net.IP) *Identity {
	id, err := Load(folder, []string{"localhost", "tower.local"}, append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(192, 168, 1, 5)}, more...), at)
	require.NoError(t, err)
	return id
}

// client trusts an identity's authority alone.
func client(t *testing.T, id *Identity, at time.Time) *http.Client {
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(id.Authority))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Time: func() time.Time { return at }}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}
}

func serve(t *testing.T, id *Identity) net.Addr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "tls=%t %s", r.TLS != nil, r.Proto)
	})}
	mux := Listen(l, id.Config)
	done := make(chan error)
	go func() { done <- server.Serve(mux) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return l.Addr()
}

func get(t *testing.T, c *http.Client, url string) string {
	response, err := c.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

func TestOnePortAnswersBoth(t *testing.T) {
	id := load(t, t.TempDir(), time.Now())
	address := serve(t, id)
	c := client(t, id, time.Now())
	require.Equal(t, "tls=false HTTP/1.1", get(t, c, "http://"+address.String()))
	require.Equal(t, "tls=true HTTP/1.1", get(t, c, "https://"+address.String()))
}

// Connections that say nothing, close at once or speak nonsense hold up nobody.
func TestStrangers(t *testing.T) {
	id := load(t, t.TempDir(), time.Now())
	address := serve(t, id)
	for _, first := range []string{"", "\x00", "\x16", "\x16\x03\x01\xff\xff", "nonsense\r\n\r\n"} {
		conn, err := net.Dial("tcp", address.String())
		require.NoError(t, err)
		defer conn.Close() // stays open meanwhile
		_, err = io.WriteString(conn, first)
		require.NoError(t, err)
	}
	closed, err := net.Dial("tcp", address.String())
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	require.Equal(t, "tls=true HTTP/1.1", get(t, client(t, id, time.Now()), "https://"+address.String()))
}

func TestCloseEndsAccept(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	mux := Listen(l, &tls.Config{})
	silent, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, mux.Close())
	_, err = mux.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestIdentityIsKept(t *testing.T) {
	folder := t.TempDir()
	first := load(t, folder, now)
	leaf := func(id *Identity) []byte { return id.Config.Certificates[0].Certificate[0] }
	again := load(t, folder, now.AddDate(0, 1, 0))
	require.Equal(t, leaf(first), leaf(again), "a restart must not bring the warning back")

	moved := load(t, folder, now, net.IPv4(10, 0, 0, 7))
	require.NotEqual(t, leaf(first), leaf(moved), "another address needs another certificate")
	require.Equal(t, first.Words, moved.Words, "but no other authority")

	old := load(t, folder, now.AddDate(0, 0, leafDays-renewDays+1))
	require.NotEqual(t, leaf(moved), leaf(old), "renewed before it expires")
	require.Equal(t, first.Words, old.Words)

	info, err := os.Stat(filepath.Join(folder, authorityFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "the key is its owner's alone")

	require.NoError(t, os.WriteFile(filepath.Join(folder, authorityFile), []byte("damaged"), 0o600))
	require.NotEqual(t, first.Words, load(t, folder, now).Words, "a damaged file is a new identity")
}

func TestCertificate(t *testing.T) {
	id := load(t, t.TempDir(), now, net.ParseIP("fd00::5"))
	leaf := id.Config.Certificates[0].Leaf
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(id.Authority))
	for _, name := range []string{"localhost", "tower.local", "127.0.0.1", "192.168.1.5", "fd00::5"} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: now})
		require.NoError(t, err, name)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "192.168.1.6", CurrentTime: now})
	require.Error(t, err)
	require.LessOrEqual(t, leaf.NotAfter.Sub(leaf.NotBefore), 398*24*time.Hour)
	require.Regexp(t, `^[a-z]{5} [a-z]{5} [a-z]{5}$`, id.Words)
	require.Contains(t, leaf.Issuer.CommonName, id.Words)
}

// The examples of the paper's table.
func TestProquint(t *testing.T) {
	require.Equal(t, "lusab", proquint(0x7f00))
	require.Equal(t, "babad", proquint(0x0001))
	require.Equal(t, "zuzuz", proquint(0xffff))
}

func TestReachable(t *testing.T) {
	require.Equal(t, []string{"10.0.0.5:7777"}, Reachable(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 7777}))
	all := Reachable(&net.TCPAddr{IP: net.IPv6unspecified, Port: 80})
	require.NotEmpty(t, all)
	require.Contains(t, all, "127.0.0.1:80")
	require.True(t, isName("tower-1.lan") && !isName("tower 1") && !isName(""))
	require.Contains(t, Names(), "localhost")
	require.Less(t, rank(net.IPv4(192, 168, 0, 1)), rank(net.IPv4(8, 8, 8, 8)))
}
