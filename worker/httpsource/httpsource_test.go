package httpsource_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/worker/httpsource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A host serves the embedded store; faults come before its answers.
type host struct {
	t        *testing.T
	http     *httptest.Server
	src      shard.Source
	hash     string
	manifest []byte
	mu       sync.Mutex
	requests []*http.Request
	// fault handles a request for data and tells whether that was all.
	fault func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool
}

func serve(t *testing.T) *host {
	src, err := embedded.Open()
	require.NoError(t, err)
	data, hash, err := shard.EncodeManifest(src.Manifest())
	require.NoError(t, err)
	h := &host{t: t, src: src, hash: hash.String(), manifest: data}
	h.http = httptest.NewServer(h)
	t.Cleanup(h.http.Close)
	return h
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data := h.manifest
	if name, ok := strings.CutPrefix(r.URL.Path, "/shards/"+h.hash+"/pieces/"); ok {
		index := -1
		for i, p := range h.src.Manifest().Pieces {
			if p.Hash.String() == name {
				index = i
			}
		}
		if index < 0 {
			http.NotFound(w, r)
			return
		}
		var err error
		if data, err = h.src.Piece(r.Context(), index); err != nil {
			panic(err)
		}
	}
	h.mu.Lock()
	h.requests = append(h.requests, r)
	n, fault := len(h.requests), h.fault
	h.mu.Unlock()
	if fault != nil && fault(n, w, r, data) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// expect forgets what was asked so far and sets a fault.
func (h *host) expect(fault func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests, h.fault = nil, fault
}

func (h *host) asked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.requests)
}

func (h *host) open(folder string) *httpsource.Source {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s, err := httpsource.Open(context.Background(), httpsource.Options{Base: h.http.URL + "/", Folder: folder, Client: client}, h.hash)
	require.NoError(h.t, err)
	h.t.Cleanup(s.Close)
	return s
}

func (h *host) piece(s *httpsource.Source, index int) {
	h.t.Helper()
	want, err := h.src.Piece(context.Background(), index)
	require.NoError(h.t, err)
	got, err := s.Piece(context.Background(), index)
	require.NoError(h.t, err)
	require.True(h.t, bytes.Equal(want, got))
}

func TestPiecesAreFetchedOnce(t *testing.T) {
	h := serve(t)
	folder := t.TempDir()
	s := h.open(folder)
	want := *h.src.Manifest()
	require.NotEmpty(t, want.Tokenizer)
	want.DropText()
	require.Empty(t, s.Manifest().Tokenizer, "megabytes that no worker reads")
	require.Equal(t, &want, s.Manifest())
	h.piece(s, 2)
	h.expect(nil)
	h.piece(s, 2)
	h.piece(h.open(folder), 2) // another run, the manifest from the cache too
	require.Zero(t, h.asked())
	h.piece(h.open(""), 2) // nothing is kept
	h.piece(h.open(""), 2)
	require.Equal(t, 4, h.asked())
	_, err := s.Piece(context.Background(), len(s.Manifest().Pieces))
	require.Error(t, err)
	_, err = s.Piece(context.Background(), -1)
	require.Error(t, err)
}

// The cache is mapped: what a worker uses of it is neither copied to its own
// memory nor lost when the user clears the cache.
func TestTheCacheIsMapped(t *testing.T) {
	h := serve(t)
	folder := t.TempDir()
	s, other := h.open(folder), h.open(folder)
	h.piece(s, 1)
	before := heap()
	_, err := other.Piece(context.Background(), 1)
	require.NoError(t, err)
	require.Less(t, heap()-before, s.Manifest().Pieces[1].Bytes, "a cached piece was copied")
	h.piece(other, 1)
	h.expect(nil)
	if runtime.GOOS != "windows" { // which keeps files that are in use
		require.NoError(t, os.Remove(filepath.Join(folder, s.Manifest().Pieces[1].Hash.String())))
	}
	h.piece(s, 1)
	h.piece(other, 1)
	require.Zero(t, h.asked())
}

// heap is how much was ever allocated.
func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

func TestDamagedCacheIsFetchedAnew(t *testing.T) {
	h := serve(t)
	folder := t.TempDir()
	s := h.open(folder)
	path := filepath.Join(folder, s.Manifest().Pieces[1].Hash.String())
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":   func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"shorter": func(b []byte) []byte { return b[:len(b)-1] },
		"empty":   func([]byte) []byte { return nil },
	} {
		h.piece(s, 1)
		s.Close() // nobody damages what is in use
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, damage(data), 0o644))
		h.expect(nil)
		h.piece(s, 1)
		require.Equal(t, 1, h.asked(), name)
	}
}

// cutAfter answers with part of the data and breaks the connection.
func cutAfter(w http.ResponseWriter, data []byte, from, n int, status int) {
	w.Header().Set("Content-Length", strconv.Itoa(len(data)-from))
	if status == http.StatusPartialContent {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(data[from : from+n])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestResuming(t *testing.T) {
	h := serve(t)
	s := h.open(t.TempDir())
	size := int(s.Manifest().Pieces[3].Bytes)
	h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
		switch n {
		case 1:
			cutAfter(w, data, 0, 1000, http.StatusOK)
		case 2:
			require.Equal(t, "bytes=1000-", r.Header.Get("Range"))
			cutAfter(w, data, 1000, 500, http.StatusPartialContent)
		case 3:
			require.Equal(t, "bytes=1500-", r.Header.Get("Range"))
		}
		return false
	})
	h.piece(s, 3)
	require.Equal(t, 3, h.asked())
	require.Greater(t, size, 1500)
}

// A host that ignores ranges, one whose range begins elsewhere, and one that
// says more than there is: what counts is the hash.
func TestStrangeHosts(t *testing.T) {
	t.Run("no ranges", func(t *testing.T) {
		h := serve(t)
		s := h.open("")
		h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
			if n == 1 {
				cutAfter(w, data, 0, 1000, http.StatusOK)
			}
			_, _ = w.Write(data)
			return true
		})
		h.piece(s, 3)
	})
	t.Run("another range", func(t *testing.T) {
		h := serve(t)
		s := h.open("")
		h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
			switch n {
			case 1:
				cutAfter(w, data, 0, 1000, http.StatusOK)
			case 2:
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(data[999 : len(data)-1])
				return true
			}
			return false
		})
		h.piece(s, 3)
		require.Equal(t, 3, h.asked())
	})
	t.Run("too much", func(t *testing.T) {
		h := serve(t)
		s := h.open("")
		h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
			if n > 1 {
				return false
			}
			_, _ = w.Write(append(bytes.Clone(data), 0))
			return true
		})
		h.piece(s, 3)
		require.Equal(t, 2, h.asked())
	})
	t.Run("busy at first", func(t *testing.T) {
		h := serve(t)
		s := h.open("")
		h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
			if n == 1 {
				http.Error(w, "later", http.StatusServiceUnavailable)
			}
			return n == 1
		})
		h.piece(s, 3)
	})
}

// Tampered data never gets through, nor into the cache, and is not asked for
// again and again.
func TestTamperedPiece(t *testing.T) {
	h := serve(t)
	folder := t.TempDir()
	s := h.open(folder)
	h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
		data = bytes.Clone(data)
		data[7] ^= 1
		_, _ = w.Write(data)
		return true
	})
	_, err := s.Piece(context.Background(), 3)
	require.ErrorContains(t, err, s.Manifest().Pieces[3].Hash.String())
	require.ErrorContains(t, err, "got hash")
	require.Equal(t, 2, h.asked())
	_, err = os.Stat(filepath.Join(folder, s.Manifest().Pieces[3].Hash.String()))
	require.ErrorIs(t, err, os.ErrNotExist)
	left, err := filepath.Glob(filepath.Join(folder, "piece-*"))
	require.NoError(t, err)
	require.Empty(t, left, "nothing half written stays")
}

func TestFinalAnswers(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden, http.StatusGone} {
		h := serve(t)
		s := h.open("")
		h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
			http.Error(w, "no", status)
			return true
		})
		_, err := s.Piece(context.Background(), 3)
		require.ErrorContains(t, err, strconv.Itoa(status))
		require.Equal(t, 1, h.asked(), "asking again is no use")
	}
}

func TestManifests(t *testing.T) {
	h := serve(t)
	open := func(hash string) error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		_, err := httpsource.Open(context.Background(), httpsource.Options{Base: h.http.URL, Folder: t.TempDir(), Client: client}, hash)
		return err
	}
	require.ErrorContains(t, open("../../etc/passwd"), "manifest")
	require.ErrorContains(t, open(""), "manifest")
	other := strings.Repeat("0", 64)
	h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
		http.NotFound(w, r)
		return true
	})
	require.ErrorContains(t, open(other), "manifest "+other)
}

// Whoever stops does not wait for a host that says nothing.
func TestStopping(t *testing.T) {
	h := serve(t)
	s := h.open("")
	release := make(chan struct{})
	h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
		<-release
		return true
	})
	defer close(release)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := s.Piece(ctx, 3)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), 5*time.Second)
}

// A host that stops in the middle without ending the connection is asked again.
func TestStalledHost(t *testing.T) {
	h := serve(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s, err := httpsource.Open(context.Background(), httpsource.Options{Base: h.http.URL, Client: client, Stall: 100 * time.Millisecond}, h.hash)
	require.NoError(t, err)
	h.expect(func(n int, w http.ResponseWriter, r *http.Request, data []byte) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:2000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	h.piece(s, 3)
	require.Equal(t, 2, h.asked())
	require.Equal(t, "bytes=2000-", h.requests[1].Header.Get("Range"))
}
