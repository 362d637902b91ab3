package shard

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// ManifestFile and PieceFolder are the names within a store.
const (
	ManifestFile = "manifest.json"
	PieceFolder  = "pieces"
)

// EncodeManifest is the manifest as it is stored and served: its hash names it.
func EncodeManifest(m *Manifest) ([]byte, Hash, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, Hash{}, err
	}
	return data, Sum(data), nil
}

// An FS is a store in a file system, such as one embedded in a binary. A piece
// is read and verified when it is first asked for, and kept by the caller.
type FS struct {
	fsys     fs.FS
	manifest *Manifest

	mu       sync.Mutex
	verified map[int]bool
}

// OpenFS opens the store at the root of fsys.
func OpenFS(fsys fs.FS) (*FS, error) {
	data, err := fs.ReadFile(fsys, ManifestFile)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, err
	}
	return &FS{fsys: fsys, manifest: m, verified: map[int]bool{}}, nil
}

// Manifest returns the store's manifest.
func (s *FS) Manifest() *Manifest { return s.manifest }

// Piece reads a piece, and verifies it the first time.
func (s *FS) Piece(ctx context.Context, index int) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if index < 0 || index >= len(s.manifest.Pieces) {
		return nil, fmt.Errorf("piece %d of %d", index, len(s.manifest.Pieces))
	}
	p := s.manifest.Pieces[index]
	name := PieceFolder + "/" + p.Hash.String()
	f, err := s.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, p.Bytes)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: want %d bytes: %w", name, p.Bytes, err)
	}
	s.mu.Lock()
	known := s.verified[index]
	s.mu.Unlock()
	if known {
		return data, nil
	}
	if err := Verify(p, data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.mu.Lock()
	s.verified[index] = true
	s.mu.Unlock()
	return data, nil
}
