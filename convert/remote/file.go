package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// ErrChanged is the error for a file that was one thing at one request and
// another at a later one.
var ErrChanged = errors.New("the file on the host changed while it was read: run the same command again to begin anew with the new one")

// maxFile bounds what a host may claim.
const maxFile = 1 << 42

// A File is one file on a host. ReadAt may be called by many goroutines.
type File struct {
	Name string
	Size int64

	model *Model
	url   *url.URL
	head  []byte

	mu     sync.Mutex
	at     *url.URL          // where redirects led to last; nil: ask url
	linked string            // the hub's name of the content
	tags   map[string]string // ETag (or time) by the host that gave it

	checker
}

// Open opens a file and reads its head. One that is not there gives an error
// that is fs.ErrNotExist.
func (m *Model) Open(name string) (*File, error) {
	m.mu.Lock()
	early := m.early[name]
	delete(m.early, name)
	m.mu.Unlock()
	var f *File
	var err error
	if early != nil {
		<-early.ready
		f, err = early.file, early.err
	} else {
		f, err = m.open(name)
	}
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files = append(m.files, f)
	return f, nil
}

// An opening is a file that is being opened before anyone asked.
type opening struct {
	ready chan struct{}
	file  *File
	err   error
}

// Announce says which files will be opened, so that it happens at once: a far
// host takes a third of a second for each.
func (m *Model) Announce(names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.early = map[string]*opening{}
	turns := make(chan struct{}, connections)
	for _, name := range names {
		o := &opening{ready: make(chan struct{})}
		m.early[name] = o
		m.cache.wait.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			defer close(o.ready)
			o.file, o.err = m.open(name)
		})
	}
}

func (m *Model) open(name string) (*File, error) {
	e, err := m.entry(name)
	if err != nil {
		return nil, err
	}
	f := &File{Name: name, Size: -1, model: m, url: m.url(name), tags: map[string]string{}}
	f.checker = checker{file: f, want: e.sha256, digests: map[int][32]byte{}}
	f.checker.reset()
	head := make([]byte, m.sizes.head)
	n, err := f.fetch(m.ctx, 0, head)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", m.Place, name, err)
	}
	f.head = head[:n]
	if e.size >= 0 && f.Size != e.size {
		return nil, fmt.Errorf("%s: %s: has %d bytes, the host's list says %d", m.Place, name, f.Size, e.size)
	}
	return f, nil
}

// Stamps tell this version of the opened files from any other.
func (m *Model) Stamps() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, f := range m.files {
		list = append(list, fmt.Sprintf("%s %s %d %s %s", m.Revision, f.Name, f.Size, f.want, f.identity()))
	}
	return list
}

// identity is a tag that lasts from one run to the next.
func (f *File) identity() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.linked != "" {
		return f.linked
	}
	return f.tags[f.url.Host] // a content network's own tags may come and go
}

// ReadAt reads through blocks, which it keeps for a while.
func (f *File) ReadAt(buf []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, errors.New("read before the file's start")
	}
	if end := offset + int64(len(buf)); end <= int64(len(f.head)) {
		return copy(buf, f.head[offset:]), nil
	}
	read := 0
	for read < len(buf) {
		at := offset + int64(read)
		if at >= f.Size {
			return read, io.EOF
		}
		i := int(at / f.model.sizes.block)
		data, err := f.block(i)
		if err != nil {
			return read, err
		}
		f.ahead(i + 1)
		f.ahead(i + 2)
		read += copy(buf[read:], data[at-int64(i)*f.model.sizes.block:])
	}
	return read, nil
}

func (f *File) blocks() int { return int((f.Size + f.model.sizes.block - 1) / f.model.sizes.block) }

// block returns a block, from the cache or the host.
func (f *File) block(i int) ([]byte, error) {
	return f.model.cache.get(key{f, i}, func() ([]byte, error) {
		c := f.model.client
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-f.model.ctx.Done():
			return nil, context.Cause(f.model.ctx)
		}
		from := int64(i) * f.model.sizes.block
		data := make([]byte, min(f.model.sizes.block, f.Size-from))
		if _, err := f.fetch(f.model.ctx, from, data); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if i == 0 && !bytes.HasPrefix(data, f.head[:min(len(data), len(f.head))]) {
			return nil, fmt.Errorf("%s: %w", f.Name, ErrChanged)
		}
		return data, f.note(i, data)
	})
}

// ahead fetches a block that will be asked for soon, where a connection is free.
func (f *File) ahead(i int) {
	c := f.model.client
	if i >= f.blocks() || len(c.slots) >= cap(c.slots)-1 || f.model.cache.has(key{f, i}) {
		return
	}
	f.model.cache.wait.Add(1)
	go func() {
		defer f.model.cache.wait.Done()
		_, _ = f.block(i) // whoever needs it asks again, and gets the error
	}()
}

// fetch fills buf with the file's bytes from offset on, or up to its end. A
// connection that breaks off costs only what it had not brought yet.
func (f *File) fetch(ctx context.Context, offset int64, buf []byte) (got int, err error) {
	err = f.model.client.again(ctx, func() (bool, error) {
		n, err := f.fetchOnce(ctx, offset+int64(got), buf[got:])
		got += n
		if f.Size >= 0 && int64(got) >= min(int64(len(buf)), f.Size-offset) {
			return true, nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return n > 0, err
	})
	return got, err
}

func (f *File) fetchOnce(ctx context.Context, offset int64, buf []byte) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also ends a body that is not read to its end
	a, err := f.ask(ctx, fmt.Sprintf("bytes=%d-%d", offset, offset+int64(len(buf))-1))
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	size, err := place(a, offset)
	if err != nil {
		return 0, err
	}
	if err := f.seen(a, size); err != nil {
		return 0, err
	}
	want := min(int64(len(buf)), size-offset)
	if want <= 0 {
		return 0, &refusal{text: fmt.Sprintf("the file has %d bytes, asked for those from %d on", size, offset)}
	}
	return io.ReadFull(watch(a.Body, cancel), buf[:want])
}

// ask requests a range where redirects led to last, or if that does not serve
// any more (such addresses are given for an hour) from the start.
func (f *File) ask(ctx context.Context, ranged string) (*answer, error) {
	c := f.model.client
	f.mu.Lock()
	at := f.at
	f.at = nil // until this request succeeded
	f.mu.Unlock()
	if at != nil {
		a, err := c.request(ctx, at, ranged)
		if err == nil && a.StatusCode == http.StatusPartialContent {
			f.arrived(a)
			return a, nil
		}
		if err == nil {
			drain(a.Body)
		}
	}
	a, err := c.request(ctx, f.url, ranged)
	if err != nil {
		return nil, err
	}
	if err := c.judge(a); err != nil {
		drain(a.Body)
		return nil, err
	}
	f.arrived(a)
	return a, nil
}

func (f *File) arrived(a *answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if *a.url != *f.url {
		f.at = a.url
	}
}

// place checks that an answer's body begins at offset, and returns the size of
// the whole file.
func place(a *answer, offset int64) (size int64, err error) {
	if a.StatusCode == http.StatusOK {
		if offset > 0 {
			return 0, &refusal{text: a.url.Host + " ignores range requests: serve the files with a server that knows them (nginx, Caddy, any bucket)"}
		}
		if a.ContentLength < 0 {
			return 0, &refusal{text: a.url.Host + " does not say how large the file is"}
		}
		return a.ContentLength, nil
	}
	text := a.Header.Get("Content-Range")
	part, total, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	first, _, ok2 := strings.Cut(part, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	size, err2 := strconv.ParseInt(total, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil || size > maxFile {
		return 0, &errBusy{text: fmt.Sprintf("%s answers with the range %.80q", a.url.Host, text)}
	}
	if from != offset {
		return 0, &errBusy{text: fmt.Sprintf("%s answers with bytes from %d on, asked for those from %d on", a.url.Host, from, offset)}
	}
	return size, nil
}

// seen holds an answer against the earlier ones: it must be of the same file.
// A hub's name of the content counts for more than the tags of the content
// networks that it leads to, of which there may be several.
func (f *File) seen(a *answer, size int64) error {
	tag := a.Header.Get("ETag")
	if tag == "" {
		tag = a.Header.Get("Last-Modified")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Size < 0 {
		f.Size, f.linked = size, plainTag(a.linked)
		f.tags[a.url.Host] = tag
		if stated := statedHash(http.Header{"X-Linked-Etag": {a.linked}, "Repr-Digest": a.Header["Repr-Digest"]}); f.want == "" {
			f.want = stated
		} else if stated != "" && stated != f.want {
			return fmt.Errorf("%w (its SHA-256 was %s in the host's list, now it is %s)", ErrChanged, f.want, stated)
		}
		return nil
	}
	if size != f.Size {
		return fmt.Errorf("%w (it had %d bytes, now %d)", ErrChanged, f.Size, size)
	}
	if a.linked != "" && f.linked != "" {
		if plainTag(a.linked) != f.linked {
			return fmt.Errorf("%w (it was %s, now it is %s)", ErrChanged, f.linked, plainTag(a.linked))
		}
		f.tags[a.url.Host] = tag
		return nil
	}
	known, ok := f.tags[a.url.Host]
	for _, other := range f.tags {
		if !ok {
			known, ok = other, true
		}
	}
	if known != tag {
		return fmt.Errorf("%w (its tag was %s, now it is %s)", ErrChanged, known, tag)
	}
	f.tags[a.url.Host] = tag
	return nil
}
