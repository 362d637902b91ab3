//go:build !js

package shard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/edsrzf/mmap-go"
)

// Mapped is a folder's pieces, files named by their hashes, mapped when they are
// first asked for: in pages as large as the system has for them, they cost memory
// once, however many programs map them, and only as long as nothing else needs it.
type Mapped struct {
	folder string

	mu     sync.Mutex
	pieces map[Hash]mmap.MMap
}

// NewMapped returns the pieces in folder, none of them mapped.
func NewMapped(folder string) *Mapped { return &Mapped{folder: folder, pieces: map[Hash]mmap.MMap{}} }

// Path is where a piece lies.
func (m *Mapped) Path(hash Hash) string { return filepath.Join(m.folder, hash.String()) }

// Piece maps a piece that passes check, which is asked the first time. The bytes are
// valid until Close.
func (m *Mapped) Piece(p Piece, check func(data []byte, info fs.FileInfo) error) ([]byte, error) {
	m.mu.Lock()
	data, ok := m.pieces[p.Hash]
	m.mu.Unlock()
	if ok {
		return data, nil
	}
	data, info, err := mapFile(m.Path(p.Hash), p.Bytes)
	if err != nil {
		return nil, err
	}
	if err := check(data, info); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", m.Path(p.Hash), err), data.Unmap())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if other, ok := m.pieces[p.Hash]; ok { // another goroutine was first
		_ = data.Unmap()
		return other, nil
	}
	m.pieces[p.Hash] = data
	return data, nil
}

// Close unmaps the pieces: nothing of them may be used any more.
func (m *Mapped) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var failed error
	for hash, data := range m.pieces {
		failed = errors.Join(failed, data.Unmap())
		delete(m.pieces, hash)
	}
	return failed
}

func mapFile(path string, size int64) (mmap.MMap, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() != size {
		return nil, nil, fmt.Errorf("%s has %d bytes, the manifest says %d", path, info.Size(), size)
	}
	data, err := mmap.Map(f, mmap.RDONLY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	advise(data)
	return data, info, nil
}
