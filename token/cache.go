package token

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
)

// Bounds of the cache: some 8 MB when every slot is taken.
const (
	cacheSlots  = 1 << 15
	cachedPiece = 64 // bytes; longer pieces hardly come twice
)

// A pieceCache remembers the ids of pieces. Each piece has one slot, and the
// newest stays: no lock, no eviction to organise, and a text of ever new words
// cannot make it grow.
type pieceCache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[cached]
}

type cached struct {
	piece string
	ids   []int32
}

func newPieceCache() pieceCache {
	return pieceCache{maphash.MakeSeed(), make([]atomic.Pointer[cached], cacheSlots)}
}

func (c *pieceCache) slot(piece string) *atomic.Pointer[cached] {
	return &c.slots[maphash.String(c.seed, piece)%cacheSlots]
}

// newCached copies both: a piece is part of a text that may be large.
func newCached(piece string, ids []int32) *cached {
	return &cached{strings.Clone(piece), slices.Clone(ids)}
}
