//go:build !js

package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/edsrzf/mmap-go"
)

// stampFile remembers which pieces of a folder were verified, and what the
// files were like then: a big store is not hashed again at each start.
const stampFile = "verified.json"

// stamp is what a file was like when it was verified.
type stamp struct {
	Bytes    int64 `json:"bytes"`
	Modified int64 `json:"modified"` // nanoseconds
}

// A Dir is a store in a folder. Pieces are mapped, so they cost memory only
// where they are used, and are shared by all who use them.
type Dir struct {
	path     string
	manifest *Manifest

	mu     sync.Mutex
	mapped map[int]mmap.MMap
	stamps map[string]stamp
}

// OpenDir opens the store in a folder.
func OpenDir(path string) (*Dir, error) {
	data, err := os.ReadFile(filepath.Join(path, ManifestFile))
	if err != nil {
		return nil, fmt.Errorf("%s is no store: %w", path, err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &Dir{path: path, manifest: m, mapped: map[int]mmap.MMap{}, stamps: map[string]stamp{}}
	if data, err := os.ReadFile(filepath.Join(path, stampFile)); err == nil {
		_ = json.Unmarshal(data, &d.stamps) // a damaged one only costs time
	}
	return d, nil
}

// Manifest returns the store's manifest.
func (d *Dir) Manifest() *Manifest { return d.manifest }

// Piece maps a piece, and verifies it if its file changed since it last was.
func (d *Dir) Piece(ctx context.Context, index int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if index < 0 || index >= len(d.manifest.Pieces) {
		return nil, fmt.Errorf("piece %d of %d", index, len(d.manifest.Pieces))
	}
	d.mu.Lock()
	data, ok := d.mapped[index]
	d.mu.Unlock()
	if ok {
		return data, nil
	}
	p := d.manifest.Pieces[index]
	path := filepath.Join(d.path, PieceFolder, p.Hash.String())
	data, info, err := MapFile(path, p.Bytes)
	if err != nil {
		return nil, err
	}
	seen := stamp{info.Size(), info.ModTime().UnixNano()}
	d.mu.Lock()
	known := d.stamps[p.Hash.String()] == seen
	d.mu.Unlock()
	if !known {
		if err := Verify(p, data); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), data.Unmap())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if other, ok := d.mapped[index]; ok { // another goroutine was first
		_ = data.Unmap()
		return other, nil
	}
	d.mapped[index] = data
	if !known {
		d.stamps[p.Hash.String()] = seen
		d.saveStamps()
	}
	return data, nil
}

// saveStamps writes the stamps; a read-only folder only costs time.
func (d *Dir) saveStamps() {
	data, err := json.Marshal(d.stamps)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(d.path, ".stamps-*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(d.path, stampFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

// Close unmaps the pieces: nothing of them may be used any more.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var failed error
	for i, m := range d.mapped {
		failed = errors.Join(failed, m.Unmap())
		delete(d.mapped, i)
	}
	return failed
}
