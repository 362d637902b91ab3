// Package remote reads a model where it lies on a host, by ranged requests, so
// that its files need not be copied to this machine first.
//
// The name of a model comes in, hf:OWNER/NAME[@REVISION] or a URL; io.ReaderAt
// of its files go out. Requests are repeated where that can help, and what is
// read is checked: each file must stay the same between requests, and where the
// host states SHA-256 hashes (Hugging Face does for all weights) each file's
// whole content is held against its own, although it is read in pieces and in
// any order: see check.go. What the files mean is left to package convert.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
)

// Options say how hosts are asked.
type Options struct {
	Endpoint string // of hf: names; "": https://huggingface.co
	Token    string // sent to the endpoint's host alone, and never unencrypted but to this machine
	Client   *http.Client

	sizes sizes // of tests; zero: what is used
}

// sizes are how much is asked for at once, and kept.
type sizes struct {
	block  int64 // of one request: a second of a slow line
	head   int64 // of a file comes with its opening: most headers fit
	blocks int   // stay in memory, 192 MiB
}

var usualSizes = sizes{block: 8 << 20, head: 256 << 10, blocks: 24}

// Environment are the options that HF_ENDPOINT and HF_TOKEN name.
func Environment() Options {
	return Options{Endpoint: os.Getenv("HF_ENDPOINT"), Token: os.Getenv("HF_TOKEN")}
}

// Is tells whether a model's name is one for this package.
func Is(name string) bool {
	return strings.HasPrefix(name, "hf:") || strings.HasPrefix(name, "https://") || strings.HasPrefix(name, "http://")
}

// A Model is a folder on a host, or a GGUF file there.
type Model struct {
	// Place is the name that it was opened by, Revision the commit that is
	// read ("" where the host has no such thing), License what the host says.
	Place, Revision, License string
	// GGUF is the file in the folder that was named; "": the folder itself.
	GGUF string

	base    *url.URL // of the folder, with a slash at the end
	listing map[string]entry
	hosted  bool // listing is complete, the host is a Hugging Face one
	client  *client
	sizes   sizes
	ctx     context.Context // of Open: io.ReaderAt has none
	cancel  context.CancelFunc
	cache   *cache

	mu    sync.Mutex
	files []*File // that were opened, in that order
	early map[string]*opening
	log   *log // nil: nothing is kept
}

// An entry is what the host says of a file.
type entry struct {
	size   int64  // -1: not said
	sha256 string // in hex; "": not said
	blob   string // the SHA-1 that git gives the content; "": not said
}

// Open finds a model on its host. ctx holds for all that is read of it.
func Open(ctx context.Context, name string, o Options) (*Model, error) {
	m := &Model{Place: name, sizes: o.sizes}
	if m.sizes.block == 0 {
		m.sizes = usualSizes
	}
	m.cache = newCache(m.sizes)
	m.ctx, m.cancel = context.WithCancel(ctx)
	if o.Endpoint == "" {
		o.Endpoint = defaultEndpoint
	}
	if page := hubName(name, o.Endpoint); page != "" {
		m.Place = page
	}
	var err error
	if strings.HasPrefix(m.Place, "hf:") {
		err = m.openHub(o)
	} else {
		err = m.openURL(o)
	}
	if err != nil {
		m.cancel()
		return nil, fmt.Errorf("%s: %w", m.Place, err)
	}
	return m, nil
}

// openURL splits a URL into folder and file, and looks for a SHA256SUMS there.
func (m *Model) openURL(o Options) error {
	u, err := url.Parse(m.Place)
	if err != nil || u.Host == "" {
		return fmt.Errorf("not a URL: want https://HOST/FOLDER or https://HOST/FILE.gguf")
	}
	m.Place = u.Redacted()
	m.client = newClient(o.Client)
	u.Fragment = ""
	if strings.HasSuffix(strings.ToLower(u.Path), ".gguf") {
		m.GGUF = path.Base(u.Path)
		u.Path = strings.TrimSuffix(u.Path, m.GGUF)
	} else if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	u.RawPath = ""
	m.base = u
	sums, err := m.ReadFile("SHA256SUMS")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	m.listing = parseSums(string(sums))
	return err
}

// parseSums reads lines as sha256sum writes them: hash, two characters, name.
func parseSums(text string) map[string]entry {
	list := map[string]entry{}
	for line := range strings.Lines(text) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		name = strings.TrimPrefix(strings.TrimLeft(name, " *"), "./")
		if ok && isSHA256(sum) {
			list[name] = entry{size: -1, sha256: strings.ToLower(sum)}
		}
	}
	return list
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// Names lists the folder's files that end in suffix; nil where the host gives
// no list.
func (m *Model) Names(suffix string) []string {
	if !m.hosted {
		return nil
	}
	var names []string
	for name := range m.listing {
		if strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	return names
}

// entry is what the host said of a file; an error that is fs.ErrNotExist for
// one that it did not list although it listed all.
func (m *Model) entry(name string) (entry, error) {
	e, ok := m.listing[name]
	if !ok && m.hosted {
		return e, fmt.Errorf("%s has no file %s: %w", m.Place, name, fs.ErrNotExist)
	}
	if !ok {
		e.size = -1
	}
	return e, nil
}

func (m *Model) url(name string) *url.URL {
	u := *m.base
	u.Path += name
	return &u
}

// maxWhole is the largest file that is read as a whole: configurations,
// tokenizers, indexes.
const maxWhole = 128 << 20

// ReadFile reads a small file as a whole. One that is not there gives an error
// that is fs.ErrNotExist.
func (m *Model) ReadFile(name string) ([]byte, error) {
	e, err := m.entry(name)
	if err != nil {
		return nil, err
	}
	data, header, err := m.client.whole(m.ctx, m.url(name), maxWhole)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", m.Place, name, err)
	}
	if e.sha256 == "" && e.blob == "" {
		e.sha256 = statedHash(header)
	}
	if err := e.check(data); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", m.Place, name, err)
	}
	return data, nil
}

// Close drops what is kept of the files, but not the log that Keep began.
func (m *Model) Close() error {
	m.cancel()
	defer m.client.http.CloseIdleConnections()
	return errors.Join(m.cache.close(), m.log.close())
}
