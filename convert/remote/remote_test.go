package remote

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A host serves files as a hub does: a list with hashes, and large files by
// redirects to another host.
type host struct {
	*httptest.Server
	content *httptest.Server
	files   map[string][]byte
	token   string // that the hub wants; "": none

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request, n int) bool // for requests to the content host, n as turn counts; true: answered
	requests int
	turns    map[string]int
	bytes    int
	tokens   []string // that came to the content host
	pages    bool
	tag      string
}

const commit = "0123456789abcdef0123456789abcdef01234567"

func newHost(t *testing.T, files map[string][]byte) *host {
	h := &host{files: files, turns: map[string]int{}, tag: `"v1"`}
	h.Server = httptest.NewServer(http.HandlerFunc(h.hub))
	h.content = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(func() { h.Close(); h.content.Close() })
	return h
}

func (h *host) hub(w http.ResponseWriter, r *http.Request) {
	if h.token != "" && r.Header.Get("Authorization") != "Bearer "+h.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/api/models/owner/name/revision/"):
		if strings.HasSuffix(path, "/lost") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"sha":%q,"cardData":{"license":"mit"}}`, commit)
	case path == "/api/models/owner/name/tree/"+commit:
		h.tree(w, r)
	case strings.HasPrefix(path, "/owner/name/resolve/"+commit+"/"):
		name := strings.TrimPrefix(path, "/owner/name/resolve/"+commit+"/")
		data, ok := h.files[name]
		if !ok {
			http.NotFound(w, r)
		} else if !large(name) {
			_, _ = w.Write(data)
		} else {
			w.Header().Set("X-Linked-ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(data))))
			http.Redirect(w, r, h.content.URL+"/"+name+"?signature=1", http.StatusFound)
		}
	default:
		http.NotFound(w, r)
	}
}

func large(name string) bool {
	return strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".gguf")
}

// tree lists one file a page.
func (h *host) tree(w http.ResponseWriter, r *http.Request) {
	type lfs struct {
		OID  string `json:"oid"`
		Size int    `json:"size"`
	}
	type file struct {
		Type string `json:"type"`
		Path string `json:"path"`
		OID  string `json:"oid"`
		Size int    `json:"size"`
		LFS  *lfs   `json:"lfs,omitempty"`
	}
	list := []file{}
	for _, name := range sorted(h.files) {
		data := h.files[name]
		f := file{Type: "file", Path: name, Size: len(data), OID: fmt.Sprintf("%x", sha1.Sum(append([]byte(fmt.Sprintf("blob %d\x00", len(data))), data...)))}
		if large(name) {
			f.LFS = &lfs{fmt.Sprintf("%x", sha256.Sum256(data)), len(data)}
		}
		list = append(list, f)
	}
	page := 0
	fmt.Sscan(r.URL.Query().Get("cursor"), &page)
	if page+1 < len(list) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, page+1))
	}
	_ = json.NewEncoder(w).Encode(list[page : page+1])
}

func sorted(files map[string][]byte) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	for i := range names {
		for k := i; k > 0 && names[k] < names[k-1]; k-- {
			names[k], names[k-1] = names[k-1], names[k]
		}
	}
	return names
}

// turn numbers requests for faults that come in turns: from one attempt at the same
// bytes to the next it grows by one, whatever else is asked meanwhile, so that nobody
// is refused ten times in a row by chance.
func (h *host) turn(r *http.Request) int {
	bytes := r.URL.Path + " " + r.Header.Get("Range")
	if n, again := h.turns[bytes]; again {
		h.turns[bytes] = n + 1
	} else {
		h.turns[bytes] = h.requests
	}
	return h.turns[bytes]
}

// serve is the content host.
func (h *host) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.requests++
	n, fault, tag := h.turn(r), h.fault, h.tag
	if token := r.Header.Get("Authorization"); token != "" {
		h.tokens = append(h.tokens, token)
	}
	h.mu.Unlock()
	data, ok := h.files[strings.TrimPrefix(r.URL.Path, "/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", tag)
	if fault != nil && fault(w, r, n) {
		return
	}
	counted := &counter{ResponseWriter: w}
	http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(data))
	h.mu.Lock()
	h.bytes += counted.n
	h.mu.Unlock()
}

type counter struct {
	http.ResponseWriter
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += n
	return n, err
}

func random(seed uint64, n int) []byte {
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(data)
	return data
}

var smallSizes = sizes{block: 1 << 10, head: 300, blocks: 4}

// open opens the host's model, with no patience to wait.
func (h *host) open(t *testing.T, name string, o Options) *Model {
	t.Helper()
	m, err := h.try(t, name, o)
	require.NoError(t, err)
	return m
}

func (h *host) try(t *testing.T, name string, o Options) (*Model, error) {
	o.Endpoint, o.sizes = h.URL, smallSizes
	m, err := Open(context.Background(), name, o)
	if err != nil {
		return nil, err
	}
	m.client.sleep = func(context.Context, time.Duration) error { return nil }
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m, nil
}

func names() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"a": 1}`), "model.safetensors": random(1, 20_123), "other.safetensors": random(2, 5_000), "empty.txt": {}, "folder/x.gguf": random(3, 3000),
	}
}

// readAll reads a file in a seeded disorder, in pieces of many sizes.
func readAll(f *File, seed uint64) ([]byte, error) {
	r := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, f.Size)
	var starts []int64
	for at := int64(0); at < f.Size; at += 700 {
		starts = append(starts, at)
	}
	r.Shuffle(len(starts), func(i, k int) { starts[i], starts[k] = starts[k], starts[i] })
	for _, at := range starts {
		piece := data[at:min(f.Size, at+700)]
		if n, err := f.ReadAt(piece, at); err != nil || n != len(piece) {
			return nil, fmt.Errorf("%d of %d bytes: %w", n, len(piece), err)
		}
	}
	return data, nil
}

func TestHub(t *testing.T) {
	h := newHost(t, names())
	m := h.open(t, "hf:owner/name@main", Options{})
	require.Equal(t, commit, m.Revision)
	require.Equal(t, "mit", m.License)
	config, err := m.ReadFile("config.json")
	require.NoError(t, err)
	require.Equal(t, h.files["config.json"], config)
	for _, read := range []func() error{
		func() error { _, err := m.ReadFile("none.json"); return err },
		func() error { _, err := m.Open("none.safetensors"); return err },
		func() error { _, err := m.Open("folder/x.gguf"); return err }, // another folder's
	} {
		require.ErrorIs(t, read(), fs.ErrNotExist)
	}
	folder := t.TempDir()
	a, err := m.Open("model.safetensors")
	require.NoError(t, err)
	b, err := m.Open("other.safetensors")
	require.NoError(t, err)
	require.NoError(t, m.Keep(filepath.Join(folder, "notes"), "print", 1<<20))
	for _, f := range []*File{a, b} {
		data, err := readAll(f, 7)
		require.NoError(t, err)
		require.Equal(t, h.files[f.Name], data)
	}
	_, err = a.ReadAt(make([]byte, 10), a.Size-5)
	require.ErrorIs(t, err, io.EOF)
	s, err := m.Check(nil)
	require.NoError(t, err)
	require.Equal(t, Summary{Hashed: 2}, s)
	require.NoError(t, m.Forget())
	require.NoError(t, m.Close())
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Empty(t, left)
}

// Announced files are opened at once; what is announced and not there, or never
// asked for, does no harm.
func TestAnnounce(t *testing.T) {
	h := newHost(t, names())
	m := h.open(t, "hf:owner/name", Options{})
	m.Announce([]string{"model.safetensors", "other.safetensors", "none.safetensors"})
	f, err := m.Open("model.safetensors")
	require.NoError(t, err)
	data, err := readAll(f, 9)
	require.NoError(t, err)
	require.Equal(t, h.files[f.Name], data)
	_, err = m.Open("none.safetensors")
	require.ErrorIs(t, err, fs.ErrNotExist)
	s, err := m.Check(nil)
	require.NoError(t, err)
	require.Equal(t, 1, s.Hashed)
}

// With a window, blocks that come out of order are fetched once; without one,
// those that fell out of memory are fetched again.
func TestWindowSavesFetches(t *testing.T) {
	fetched := func(window int64) int {
		h := newHost(t, map[string][]byte{"model.safetensors": random(1, 100<<10)})
		folder := t.TempDir()
		m := h.open(t, "hf:owner/name", Options{})
		f, err := m.Open("model.safetensors")
		require.NoError(t, err)
		require.NoError(t, m.Keep(filepath.Join(folder, "notes"), "print", window))
		for i := f.blocks() - 1; i >= 0; i-- { // backwards: nothing can be hashed before the end
			_, err := f.block(i)
			require.NoError(t, err)
		}
		_, err = m.Check(nil)
		require.NoError(t, err)
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.bytes
	}
	require.Equal(t, 300+100<<10, fetched(1<<20))
	require.Greater(t, fetched(10<<10), 150<<10)
}

// Whatever a line or a host does now and then, the bytes arrive.
func TestFaults(t *testing.T) {
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n%3 == 0 {
				return false
			}
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, int) bool{
		"busy":              status(503, "Retry-After", "2"),
		"busy until a date": status(503, "Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)),
		"too many":          status(429, "Retry-After", "nonsense"),
		"broken gateway":    status(502),
		"expired signature": status(403),
		"dropped": func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n%2 == 0 {
				return false
			}
			half := httptest.NewRecorder()
			http.ServeContent(half, r, "", time.Time{}, bytes.NewReader(names()["model.safetensors"]))
			for key, values := range half.Header() {
				w.Header()[key] = values
			}
			w.WriteHeader(half.Code)
			_, _ = w.Write(half.Body.Bytes()[:half.Body.Len()/2])
			panic(http.ErrAbortHandler)
		},
		"at once closed": func(_ http.ResponseWriter, _ *http.Request, n int) bool {
			if n%2 == 1 {
				panic(http.ErrAbortHandler)
			}
			return false
		},
		"wrong range": func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n%2 == 0 {
				r.Header.Set("Range", "bytes=5-100")
			}
			return false
		},
		"no range said": func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n%2 == 0 {
				w.WriteHeader(206)
				_, _ = w.Write(make([]byte, 100))
			}
			return n%2 == 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, names())
			h.fault = fault
			m := h.open(t, "hf:owner/name", Options{})
			var waits []time.Duration
			var mu sync.Mutex
			m.client.sleep = func(_ context.Context, d time.Duration) error {
				mu.Lock()
				defer mu.Unlock()
				waits = append(waits, d)
				return nil
			}
			f, err := m.Open("model.safetensors")
			require.NoError(t, err)
			data, err := readAll(f, 3)
			require.NoError(t, err)
			require.Equal(t, h.files[f.Name], data)
			_, err = m.Check(nil)
			require.NoError(t, err)
			m.cache.wait.Wait()
			if name == "busy" {
				require.NotEmpty(t, waits)
				for _, d := range waits {
					require.GreaterOrEqual(t, d, 2*time.Second)
				}
			}
		})
	}
}

// What repeating does not mend ends with an error that says so.
func TestGivesUp(t *testing.T) {
	always := func(answer func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				return false // the file's opening
			}
			answer(w, r)
			return true
		}
	}
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request, int) bool
		want  string
		most  int // requests
	}{
		"always busy": {always(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), "10 attempts in a row failed", 60},
		"come back at night": {always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "36000")
			w.WriteHeader(429)
		}), "asks to come back in 10h", 6},
		"gone": {always(func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }), "404 Not Found", 60},
		"no ranges": {always(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(names()["model.safetensors"])
		}), "ignores range requests", 6},
		"always short": {always(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/20123")
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(206)
		}), "10 attempts in a row failed", 60},
		"other size": {always(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/30123")
			w.WriteHeader(206)
		}), "changed while it was read", 6},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, names())
			h.fault = c.fault
			m := h.open(t, "hf:owner/name", Options{})
			f, err := m.Open("model.safetensors")
			require.NoError(t, err)
			_, err = f.ReadAt(make([]byte, 10), 5000)
			require.ErrorContains(t, err, c.want)
			m.cache.wait.Wait()
			h.mu.Lock()
			defer h.mu.Unlock()
			require.LessOrEqual(t, h.requests, c.most)
		})
	}
}

// A file that is replaced between two requests is not mixed with the new one.
func TestChanged(t *testing.T) {
	h := newHost(t, names())
	// A folder on a plain host: no hashes, only tags.
	m := h.open(t, h.content.URL+"/", Options{})
	f, err := m.Open("model.safetensors")
	require.NoError(t, err)
	_, err = f.ReadAt(make([]byte, 10), 5000)
	require.NoError(t, err)
	m.cache.wait.Wait()
	h.mu.Lock()
	h.tag = `"v2"`
	h.mu.Unlock()
	_, err = f.ReadAt(make([]byte, 10), 15_000)
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, `"v2"`)
}

// Content that does not have the host's hash is refused, also where only a
// part that nobody read is different, and also where tags stay the same.
func TestWrongHash(t *testing.T) {
	h := newHost(t, names())
	m := h.open(t, "hf:owner/name", Options{})
	f, err := m.Open("model.safetensors")
	require.NoError(t, err)
	bad := bytes.Clone(h.files[f.Name])
	bad[19_000] ^= 1
	h.content.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", h.tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bad))
	})
	_, err = f.ReadAt(make([]byte, 10), 5000)
	require.NoError(t, err)
	_, err = m.Check(nil)
	require.ErrorIs(t, err, ErrHash)
	require.ErrorContains(t, err, "model.safetensors")

	// Small files are checked at once.
	h.files["config.json"] = []byte(`{"a": 2}`)
	_, err = m.ReadFile("config.json")
	require.ErrorContains(t, err, "git hash")
}

// A run that ends anywhere leaves notes with which the next one goes on: hashes
// what is new, and holds what it must read again against the first time.
func TestResume(t *testing.T) {
	h := newHost(t, names())
	folder := t.TempDir()
	begin := func() (*Model, *File) {
		m := h.open(t, "hf:owner/name", Options{})
		f, err := m.Open("model.safetensors")
		require.NoError(t, err)
		require.NoError(t, m.Keep(filepath.Join(folder, "notes"), "print", 1<<20))
		return m, f
	}
	for _, at := range []int64{300, 2000, 9000, 15_000, 3000} {
		m, f := begin()
		_, err := f.ReadAt(make([]byte, 500), at)
		require.NoError(t, err)
		require.NoError(t, m.Close())
		notes, err := os.OpenFile(filepath.Join(folder, "notes"), os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = notes.WriteString("block 3 0123") // as if killed while writing a line
		require.NoError(t, err)
		require.NoError(t, notes.Close())
	}
	m, f := begin()
	require.Greater(t, f.next.Load(), int64(3))
	require.GreaterOrEqual(t, len(f.digests), 6)
	require.NoError(t, m.Close())

	// The same tag, the same size, another content where the first run read.
	h.files["model.safetensors"][9100] ^= 1
	m, f = begin()
	f.want = "" // as if the host had no hash
	_, err := f.ReadAt(make([]byte, 500), 9000)
	require.ErrorIs(t, err, ErrChanged)
	h.files["model.safetensors"][9100] ^= 1
	require.NoError(t, m.Close())

	m, _ = begin()
	s, err := m.Check(nil)
	require.NoError(t, err)
	require.Equal(t, 1, s.Hashed)

	// Notes of another conversion count for nothing.
	require.NoError(t, m.Close())
	m = h.open(t, "hf:owner/name", Options{})
	f, err = m.Open("model.safetensors")
	require.NoError(t, err)
	require.NoError(t, m.Keep(filepath.Join(folder, "notes"), "another", 1<<20))
	require.Zero(t, f.next.Load())
}

// The token goes to the endpoint and nowhere else.
func TestToken(t *testing.T) {
	h := newHost(t, names())
	h.token = "hf_secret"
	_, err := h.try(t, "hf:owner/name", Options{})
	require.ErrorContains(t, err, "set HF_TOKEN")
	_, err = h.try(t, "hf:owner/name", Options{Token: "hf_other"})
	require.ErrorContains(t, err, "HF_TOKEN does not give access")
	m := h.open(t, "hf:owner/name", Options{Token: "hf_secret"})
	f, err := m.Open("model.safetensors")
	require.NoError(t, err)
	_, err = readAll(f, 1)
	require.NoError(t, err)
	m.cache.wait.Wait()
	require.Empty(t, h.tokens)
	require.Positive(t, h.requests)
}

func TestAdvice(t *testing.T) {
	for name, c := range map[string]struct {
		code  int
		token string
		error string
		want  string
	}{
		"gated":            {401, "", "GatedRepo", "accept its licence on"},
		"unknown":          {401, "", "RepoNotFound", "check the name, or set HF_TOKEN"},
		"licence":          {403, "", "", "accept the licence on"},
		"licence of token": {403, "t", "", "with the account of HF_TOKEN"},
		"no such model":    {404, "", "", "check the name on"},
		"not a hub at all": {200, "", "", "does not answer as a Hugging Face host does"},
		"weird":            {418, "", "", "418 I'm a teapot"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Error-Code", c.error)
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, "<html>")
			}))
			defer server.Close()
			_, err := Open(context.Background(), "hf:owner/name", Options{Endpoint: server.URL, Token: c.token})
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "hf:owner/name")
		})
	}
}

func TestRedirects(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, server.URL+"/again", http.StatusFound)
	}))
	defer server.Close()
	_, err := Open(context.Background(), "hf:owner/name", Options{Endpoint: server.URL})
	require.ErrorContains(t, err, "more than 10 redirects")

	secure := httptest.NewTLSServer(http.RedirectHandler(server.URL, http.StatusFound))
	defer secure.Close()
	_, err = Open(context.Background(), "hf:owner/name", Options{Endpoint: secure.URL, Client: secure.Client()})
	require.ErrorContains(t, err, "not encrypted")
}

// A plain folder may bring its own hashes: SHA256SUMS or digest fields.
func TestPlainFolder(t *testing.T) {
	files := names()
	files["folder/x-2.gguf"] = files["folder/x.gguf"]
	files["folder/SHA256SUMS"] = fmt.Appendf(nil, "%x  ./x.gguf\n%064x *other\nnonsense\n", sha256.Sum256(files["folder/x.gguf"]), 5)
	h := newHost(t, files)
	m := h.open(t, h.content.URL+"/folder/x.gguf", Options{})
	require.Equal(t, "x.gguf", m.GGUF)
	for _, name := range []string{"x.gguf", "x-2.gguf"} {
		f, err := m.Open(name)
		require.NoError(t, err)
		data, err := readAll(f, 5)
		require.NoError(t, err)
		require.Equal(t, files["folder/x.gguf"], data)
	}
	s, err := m.Check(nil)
	require.NoError(t, err)
	require.Equal(t, Summary{Hashed: 1, Unhashed: []string{"x-2.gguf"}}, s)
	_, err = m.ReadFile("none")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestParseHub(t *testing.T) {
	for name, want := range map[string]repository{
		"hf:a/b":                       {"a", "b", "main", ""},
		"hf:a/b@v1.0":                  {"a", "b", "v1.0", ""},
		"hf:a/b/x.gguf":                {"a", "b", "main", "x.gguf"},
		"hf:a/b/deep/x@1.gguf":         {"a", "b", "main", "deep/x@1.gguf"},
		"hf:a/b@refs/pr/3":             {"a", "b", "refs/pr/3", ""},
		"hf:a/b@refs/pr/3/deep/x.gguf": {"a", "b", "refs/pr/3", "deep/x.gguf"},
		"hf:a/b@v1/x.gguf":             {"a", "b", "v1", "x.gguf"},
	} {
		got, err := parseHub(name)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
	for _, name := range []string{"hf:", "hf:a", "hf:/b", "hf:a/", "hf:a/b@", "hf:../b", "hf:a/b?x", "hf:a/.."} {
		_, err := parseHub(name)
		require.Error(t, err, name)
	}
	_, err := Open(context.Background(), "https://", Options{})
	require.ErrorContains(t, err, "not a URL")
}

// Addresses of a hub's pages are what people copy.
func TestHubPages(t *testing.T) {
	for page, want := range map[string]string{
		"https://hub.example/a/b":                                   "hf:a/b",
		"https://hub.example/a/b/":                                  "hf:a/b",
		"https://hub.example/a/b/tree/v1":                           "hf:a/b@v1",
		"https://hub.example/a/b/blob/main/deep/x.gguf":             "hf:a/b@main/deep/x.gguf",
		"https://hub.example/a/b/resolve/main/x.gguf?download=true": "hf:a/b@main/x.gguf",
		"https://hub.example/a/b/discussions/3":                     "",
		"https://hub.example/a":                                     "",
		"https://hub.example.org/a/b":                               "",
		"hf:a/b":                                                    "",
	} {
		require.Equal(t, want, hubName(page, "https://hub.example/"), page)
	}
	h := newHost(t, names())
	m := h.open(t, h.URL+"/owner/name/tree/main", Options{})
	require.Equal(t, commit, m.Revision)
}

func FuzzHost(f *testing.F) {
	f.Add([]byte(`{"sha":"abc"}`), `<http://x/>; rel="next"`, "bytes 0-5/10", `"abc"`, "sha-256=:AAAA:")
	f.Add([]byte(`[{"type":"file","path":"../x","size":-1,"lfs":{"oid":"zz"}}]`), ",;,", "bytes 5-0/99999999999999999999", "", "=::")
	f.Fuzz(func(_ *testing.T, body []byte, link, ranged, tag, digest string) {
		_, _ = parseHub("hf:" + string(body))
		parseSums(string(body))
		hubName(string(body), "")
		h := http.Header{"Link": {link}, "Content-Range": {ranged}, "X-Linked-Etag": {tag}, "Repr-Digest": {digest}}
		statedHash(h)
		retryAfter(tag)
		u, _ := url.Parse("http://h/")
		_, _ = place(&answer{&http.Response{StatusCode: 206, Header: h}, u, ""}, 0)
	})
}
