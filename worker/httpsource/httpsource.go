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
		if data, err = s.fetch(ctx, "/shards/"+hash+"/manifest.json", want, shard.MaxManifest); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", hash, err)
		}
		s.keep(want, data)
	}
	if s.manifest, err = shard.ParseManifest(data); err != nil {
		return nil, err
	}
	return s, nil
}

// Manifest returns the store's manifest.
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
	data, err := s.fetch(ctx, "/shards/"+s.hash+"/pieces/"+p.Hash.String(), p.Hash, p.Bytes)
	if err != nil || !s.keep(p.Hash, data) {
		return data, err
	}
	if kept, err := s.kept(p); err == nil {
		return kept, nil
	}
	return data, nil
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
func (s *Source) fetch(ctx context.Context, path string, hash shard.Hash, size int64) ([]byte, error) {
	var data []byte
	var err error
	delay, wrong := firstDelay, 0
	for attempt := range attempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(delay):
			}
			delay *= 2
		}
		data, err = s.more(ctx, path, data, size)
		var final *finalError
		if errors.As(err, &final) || ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			continue
		}
		if got := shard.Sum(data); got != hash {
			data, err = nil, fmt.Errorf("%s: got hash %v, want %v", path, got, hash)
			if wrong++; wrong == maxWrong {
				return nil, err
			}
			continue
		}
		return data, nil
	}
	return nil, fmt.Errorf("given up after %d attempts: %w", attempts, err)
}

// finalError is an answer that another attempt would not change.
type finalError struct{ status string }

func (e *finalError) Error() string { return "the server answers " + e.status }

// more downloads what is missing behind have.
func (s *Source) more(ctx context.Context, path string, have []byte, size int64) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(s.o.Stall, func() { cancel(fmt.Errorf("%s: nothing came for %v", path, s.o.Stall)) })
	defer stalled.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.o.Base+path, nil)
	if err != nil {
		return have, err
	}
	if len(have) > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", len(have)))
	}
	response, err := s.o.Client.Do(request)
	if err != nil {
		return have, cmp.Or(context.Cause(ctx), err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusOK:
		have = have[:0]
	case response.StatusCode == http.StatusPartialContent && len(have) > 0:
	case response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusGone:
		return have, fmt.Errorf("%s: %w", path, &finalError{response.Status})
	default:
		return nil, fmt.Errorf("%s: the server answers %s", path, response.Status)
	}
	if have == nil {
		have = make([]byte, 0, min(size, max(response.ContentLength, 0)))
	}
	buffer := make([]byte, 256<<10)
	for {
		n, err := response.Body.Read(buffer)
		stalled.Reset(s.o.Stall)
		if int64(len(have)+n) > size {
			return nil, fmt.Errorf("%s: more than %d bytes", path, size)
		}
		have = append(have, buffer[:n]...)
		if errors.Is(err, io.EOF) {
			return have, nil
		}
		if err != nil {
			return have, cmp.Or(context.Cause(ctx), err)
		}
	}
}

// keep writes to the cache, all or nothing, in one go: pages of the system's cache
// become as large as what is written at once. A full disk costs the cache only.
func (s *Source) keep(hash shard.Hash, data []byte) bool {
	if s.o.Folder == "" {
		return false
	}
	f, err := os.CreateTemp(s.o.Folder, "piece-*")
	if err != nil {
		return false
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.cache.Path(hash))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err == nil
}
