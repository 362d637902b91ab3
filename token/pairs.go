package token

import (
	"math"
	"math/bits"
)

// noRank is the rank of pairs that are not merged.
const noRank = math.MaxInt32

// A pairTable finds the rank of a pair of tokens: open addressing, at most half
// full, one cache line for most look-ups, where Go's map takes three.
type pairTable struct {
	entries []pairEntry
	shift   int
}

type pairEntry struct {
	pair uint64 // left<<32 | right
	rank int32  // noRank: the entry is free
}

func newPairTable(pairs int) pairTable {
	log := max(4, bits.Len(uint(2*pairs)))
	t := pairTable{make([]pairEntry, 1<<log), 64 - log}
	for i := range t.entries {
		t.entries[i].rank = noRank
	}
	return t
}

func joined(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// place is the pair's entry, or the free one where it belongs.
func (t *pairTable) place(pair uint64) *pairEntry {
	mask := len(t.entries) - 1
	for i := int(pair * 0x9e3779b97f4a7c15 >> t.shift); ; i++ { // Fibonacci hashing (Knuth 6.4)
		e := &t.entries[i&mask]
		if e.pair == pair || e.rank == noRank {
			return e
		}
	}
}

func (t *pairTable) rank(left, right int32) int32 {
	pair := joined(left, right)
	if e := t.place(pair); e.pair == pair {
		return e.rank
	}
	return noRank
}

// set notes a pair's rank; the last of equals counts, as in the reference.
func (t *pairTable) set(left, right, rank int32) {
	pair := joined(left, right)
	*t.place(pair) = pairEntry{pair, rank}
}
