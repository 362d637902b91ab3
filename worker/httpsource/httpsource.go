// Package httpsource fetches a store's pieces from a coordinator, or any web
// server, by their hashes, and keeps them in a folder.
//
// A piece is verified before it is used, an interrupted download goes on where
// it stopped, and what is kept is fetched once for all runs. Browsers have a
// source of their own in package wasm.
package httpsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/potluck-llm/potluck/shard"
)

// Options say where pieces come from and where they are kept.
type Options struct {
	Base   string // address of the coordinator, such as http://host:7777
	Folder string // of the cache; "" keeps nothing
	Client *http.Client
	// Stall is how long a server may send nothing before it is asked again; 0: 30 s.
	Stall time.Duration
}

// A Source is a store at a web server.
type Source struct {
	o        Options
	hash     string // of the manifest
	manifest *shard.Manifest
	cache    *shard.Mapped
}

// CacheFolder is where this user's pieces are kept.
func CacheFolder() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "potluck", "pieces"), nil
}

// Open fetches the manifest of that hash.
func Open(ctx context.Context, o Options, hash string) (*Source, error) {
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	o.Base = strings.TrimSuffix(o.Base, "/")
	var want shard.Hash
	if err := want.UnmarshalText([]byte(hash)); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if o.Folder != "" {
		if err := os.MkdirAll(o.Folder, 0o755); err != nil {
			return nil, err
		}
	}
	s := &Source{o: o, hash: hash, cache: shard.NewMapped(o.Folder)}
	var data []byte
	err := os.ErrNotExist
	if o.Folder != "" {
		data, err = os.ReadFile(s.cache.Path(want))
	}
	if err != nil || shard.Sum(data) != want {
		d := newDownload(nil)
		if err := s.fetch(ctx, d, "/shards/"+hash+"/manifest.json", want, shard.MaxManifest); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", hash, err)
		}
		data = d.data
		s.keepManifest(want, data)
	}
	if s.manifest, err = shard.ParseManifest(data); err != nil {
		return nil, err
	}
	s.manifest.DropText()
	return s, nil
}

// Manifest returns the store's manifest, without its texts.
func (s *Source) Manifest() *shard.Manifest { return s.manifest }

// Close ends the use of all pieces.
func (s *Source) Close() { _ = s.cache.Close() }

// Piece returns a piece from the cache, or fetches it. It is valid until Close.
//
// The cache is mapped: several workers of a machine, and spans of a worker, have
// the same memory, the system can take it back, and what was written in one go
// lies in large pages, through which products stream faster than through a
// program's own memory.
func (s *Source) Piece(ctx context.Context, index int) ([]byte, error) {
	if index < 0 || index >= len(s.manifest.Pieces) {
		return nil, fmt.Errorf("piece %d of %d", index, len(s.manifest.Pieces))
	}
	p := s.manifest.Pieces[index]
	if data, err := s.kept(p); err == nil {
		return data, nil
	}
	return s.load(ctx, p)
}

// load fetches a piece to the cache, all or nothing, and maps it; where there is no
// cache, or no room in it, it stays in memory. Of what is on its way to the cache no
// more than writeAtOnce is in memory.
func (s *Source) load(ctx context.Context, p shard.Piece) ([]byte, error) {
	path, f := "/shards/"+s.hash+"/pieces/"+p.Hash.String(), s.temporary()
	if f != nil {
		defer func() {
			_ = f.Close()
			_ = os.Remove(f.Name()) // it has another name by then, unless something failed
		}()
	}
	d := newDownload(f)
	if err := s.fetch(ctx, d, path, p.Hash, p.Bytes); err != nil {
		return nil, err
	}
	if d.file == nil {
		return d.data, nil
	}
	if s.settle(f, p.Hash) == nil {
		verified := func([]byte, fs.FileInfo) error { return nil }
		if data, err := s.cache.Piece(p, verified); err == nil {
			return data, nil
		}
	}
	if data, err := s.kept(p); err == nil { // another program was first and has it in use
		return data, nil
	}
	d = newDownload(nil)
	err := s.fetch(ctx, d, path, p.Hash, p.Bytes)
	return d.data, err
}

// temporary is a new file in the cache, nil where there is none.
func (s *Source) temporary() *os.File {
	if s.o.Folder == "" {
		return nil
	}
	f, err := os.CreateTemp(s.o.Folder, "piece-*")
	if err != nil {
		return nil
	}
	return f
}

// settle gives a temporary file that is whole its name in the cache.
func (s *Source) settle(f *os.File, hash shard.Hash) error {
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.cache.Path(hash))
}

// kept maps what is in the cache, if it is whole; else it is fetched anew and replaced.
func (s *Source) kept(p shard.Piece) ([]byte, error) {
	if s.o.Folder == "" {
		return nil, os.ErrNotExist
	}
	return s.cache.Piece(p, func(data []byte, _ fs.FileInfo) error { return shard.Verify(p, data) })
}

// Retries of a download; each waits twice as long as the one before.
const (
	attempts   = 6
	maxWrong   = 2 // times that all came and was not what it should be
	firstDelay = 250 * time.Millisecond
)

// fetch downloads, goes on after interruptions and verifies.
func (s *Source) fetch(ctx context.Context, d *download, path string, hash shard.Hash, size int64) error {
	var err error
	delay, wrong := firstDelay, 0
	for attempt := range attempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(delay):
			}
			delay *= 2
		}
		err = s.more(ctx, d, path, size)
		var final *finalError
		if errors.As(err, &final) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			continue
		}
		if err = d.check(path, hash); err != nil {
			if wrong++; wrong == maxWrong {
				return err
			}
			d.restart()
			continue
		}
		if err = d.flush(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("given up after %d attempts: %w", attempts, err)
}

// finalError is an answer that another attempt would not change.
type finalError struct{ status string }

func (e *finalError) Error() string { return "the server answers " + e.status }

// more downloads what is missing.
func (s *Source) more(ctx context.Context, d *download, path string, size int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(s.o.Stall, func() { cancel(fmt.Errorf("%s: nothing came for %v", path, s.o.Stall)) })
	defer stalled.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.o.Base+path, nil)
	if err != nil {
		return err
	}
	have := d.size
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	response, err := s.o.Client.Do(request)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer response.Body.Close()
	switch status := response.StatusCode; {
	case status == http.StatusPartialContent && have > 0:
	case status == http.StatusNotFound || status == http.StatusForbidden || status == http.StatusGone:
		return fmt.Errorf("%s: %w", path, &finalError{response.Status})
	default:
		d.restart()
		if status != http.StatusOK {
			return fmt.Errorf("%s: the server answers %s", path, response.Status)
		}
	}
	d.expect(min(size, d.size+max(response.ContentLength, 0)))
	buffer := make([]byte, 256<<10)
	for {
		n, err := response.Body.Read(buffer)
		stalled.Reset(s.o.Stall)
		if d.size+int64(n) > size {
			d.restart()
			return fmt.Errorf("%s: more than %d bytes", path, size)
		}
		if err := d.add(buffer[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
}

// keepManifest writes the manifest to the cache, all or nothing.
func (s *Source) keepManifest(hash shard.Hash, data []byte) {
	f := s.temporary()
	if f == nil {
		return
	}
	_, err := f.Write(data)
	if err == nil {
		err = s.settle(f, hash)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
}
