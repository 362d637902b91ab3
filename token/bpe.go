package token

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A bpe joins symbols, at first bytes or characters, to tokens: always the pair
// of the lowest rank, of equals the leftmost (Sennrich et al. 2016).
type bpe struct {
	ids       map[string]int32 // vocabulary, by the symbols' own text
	bytes     [256]int32       // tokens of single bytes, -1: none
	pairs     pairTable
	made      []int32 // by rank: the token that the pair becomes
	whole     bool    // a piece that is a token is that token, whatever the merges say
	byteLevel bool    // symbols are bytes
	unknown   int32   // for symbols without a token; -1: they are left out
	fuse      bool    // one unknown token for a run of such symbols
}

// encode appends the ids of a piece.
func (b *bpe) encode(ids []int32, piece string) []int32 {
	if b.whole {
		if id, ok := b.ids[piece]; ok {
			return append(ids, id)
		}
	}
	start := len(ids)
	if b.byteLevel {
		ids = b.byteSymbols(ids, piece)
	} else {
		ids = b.characterSymbols(ids, piece)
	}
	if n := len(ids) - start; n > shortPiece {
		return ids[:start+b.mergeLong(ids[start:])]
	} else {
		return ids[:start+b.mergeShort(ids[start:])]
	}
}

func (b *bpe) byteSymbols(ids []int32, piece string) []int32 {
	missing := false
	for i := range len(piece) {
		if id := b.bytes[piece[i]]; id >= 0 {
			ids, missing = append(ids, id), false
			continue
		}
		ids, missing = b.appendUnknown(ids, missing), true
	}
	return ids
}

// characterSymbols looks up characters; one that is no token becomes its bytes'
// tokens, or the unknown token where one of those is missing.
func (b *bpe) characterSymbols(ids []int32, text string) []int32 {
	missing := false
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		symbol := text[:size]
		text = text[size:]
		if id, ok := b.ids[symbol]; ok {
			ids, missing = append(ids, id), false
			continue
		}
		if bytes, ok := b.appendBytes(ids, symbol); ok {
			ids, missing = bytes, false
			continue
		}
		ids, missing = b.appendUnknown(ids, missing), true
	}
	return ids
}

func (b *bpe) appendBytes(ids []int32, symbol string) ([]int32, bool) {
	for i := range len(symbol) {
		id := b.bytes[symbol[i]]
		if id < 0 {
			return ids, false
		}
		ids = append(ids, id)
	}
	return ids, true
}

// appendUnknown stands in for a symbol; after tells that one was unknown just
// before.
func (b *bpe) appendUnknown(ids []int32, after bool) []int32 {
	if b.unknown < 0 || after && b.fuse {
		return ids
	}
	return append(ids, b.unknown)
}

// keepsSpaces tells that no merge joins anything to a ▁ behind it, so that text
// may be cut in front of a run of them without changing the result.
func (b *bpe) keepsSpaces(merges mergeList) bool {
	if _, ok := b.ids[metaSpace]; !ok {
		return false // one unknown token for a run reaches across words
	}
	for _, m := range merges {
		if strings.Contains(strings.TrimLeft(m[0]+m[1], metaSpace), metaSpace) {
			return false
		}
	}
	return true
}

// shortPiece is up to how many symbols searching all pairs again and again
// beats a queue.
const shortPiece = 48

// mergeShort merges symbols in place and returns how many are left.
func (b *bpe) mergeShort(symbols []int32) int {
	n := len(symbols)
	var ranks [shortPiece]int32 // ranks[i] is that of symbols i and i+1
	for i := range n - 1 {
		ranks[i] = b.pairs.rank(symbols[i], symbols[i+1])
	}
	for n > 1 {
		at, best := 0, int32(noRank)
		for i, rank := range ranks[:n-1] {
			if rank < best {
				at, best = i, rank
			}
		}
		if best == noRank {
			break
		}
		symbols[at] = b.made[best]
		copy(symbols[at+1:n], symbols[at+2:n])
		copy(ranks[at:n-1], ranks[at+1:n-1])
		n--
		if at > 0 {
			ranks[at-1] = b.pairs.rank(symbols[at-1], symbols[at])
		}
		if at+1 < n {
			ranks[at] = b.pairs.rank(symbols[at], symbols[at+1])
		}
	}
	return n
}

// A chain is what mergeLong works on: symbols as a linked list and a queue of
// pairs, so that n symbols take n·log n steps.
type chain struct {
	next, previous, ranks []int32
	queue                 []uint64 // heap of rank<<32 | position
}

var chains = sync.Pool{New: func() any { return new(chain) }}

// keptChain is up to how many symbols a chain's memory is used again.
const keptChain = 1 << 16

// mergeLong does what mergeShort does.
func (b *bpe) mergeLong(symbols []int32) int {
	c := chains.Get().(*chain)
	c.fill(b, symbols)
	n := int32(len(symbols))
	for len(c.queue) > 0 {
		top := c.pop()
		rank, at := int32(top>>32), int32(uint32(top))
		if c.ranks[at] != rank { // one of the two was merged meanwhile
			continue
		}
		gone := c.next[at]
		symbols[at] = b.made[rank]
		c.ranks[gone] = noRank
		c.next[at] = c.next[gone]
		if c.next[at] < n {
			c.previous[c.next[at]] = at
			c.set(at, b.pairs.rank(symbols[at], symbols[c.next[at]]))
		} else {
			c.ranks[at] = noRank
		}
		if p := c.previous[at]; p >= 0 {
			c.set(p, b.pairs.rank(symbols[p], symbols[at]))
		}
	}
	left := 0
	for i := int32(0); i < n; i = c.next[i] {
		symbols[left] = symbols[i]
		left++
	}
	if n <= keptChain {
		chains.Put(c)
	}
	return left
}

func (c *chain) fill(b *bpe, symbols []int32) {
	n := len(symbols)
	c.next, c.previous, c.ranks, c.queue = emptied(c.next, n), emptied(c.previous, n), emptied(c.ranks, n), emptied(c.queue, n)
	for i := range symbols {
		rank := int32(noRank)
		if i+1 < len(symbols) {
			rank = b.pairs.rank(symbols[i], symbols[i+1])
		}
		c.next, c.previous, c.ranks = append(c.next, int32(i+1)), append(c.previous, int32(i-1)), append(c.ranks, rank)
		if rank != noRank {
			c.queue = append(c.queue, uint64(rank)<<32|uint64(i))
		}
	}
	for i := len(c.queue)/2 - 1; i >= 0; i-- {
		c.down(i)
	}
}

// emptied is list without entries and with room for n.
func emptied[T any](list []T, n int) []T { return slices.Grow(list[:0], n) }

// set notes the rank of the pair that begins at a position.
func (c *chain) set(at, rank int32) {
	c.ranks[at] = rank
	if rank == noRank {
		return
	}
	c.queue = append(c.queue, uint64(rank)<<32|uint64(at))
	for i := len(c.queue) - 1; i > 0; {
		parent := (i - 1) / 2
		if c.queue[parent] <= c.queue[i] {
			return
		}
		c.queue[parent], c.queue[i] = c.queue[i], c.queue[parent]
		i = parent
	}
}

func (c *chain) pop() uint64 {
	top, last := c.queue[0], len(c.queue)-1
	c.queue[0] = c.queue[last]
	c.queue = c.queue[:last]
	c.down(0)
	return top
}

// down restores the heap below i.
func (c *chain) down(i int) {
	q := c.queue
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q[child+1] < q[child] {
			child++
		}
		if q[i] <= q[child] {
			return
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}
