//go:build !js

package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
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
	mapped   *Mapped

	mu     sync.Mutex
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
	d := &Dir{path: path, manifest: m, mapped: NewMapped(filepath.Join(path, PieceFolder)), stamps: map[string]stamp{}}
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
	p := d.manifest.Pieces[index]
	return d.mapped.Piece(p, func(data []byte, info fs.FileInfo) error { return d.verify(p, data, info) })
}

// verify checks a piece whose file is not as it was when it was verified last.
func (d *Dir) verify(p Piece, data []byte, info fs.FileInfo) error {
	name, seen := p.Hash.String(), stamp{info.Size(), info.ModTime().UnixNano()}
	d.mu.Lock()
	known := d.stamps[name] == seen
	d.mu.Unlock()
	if known {
		return nil
	}
	if err := Verify(p, data); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stamps[name] = seen
	d.saveStamps()
	return nil
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
func (d *Dir) Close() error { return d.mapped.Close() }
