package token

import (
	"container/heap"
	"unicode/utf8"
)

// bpe is the merging itself.
type bpe struct {
	whole   bool // a piece that is a token is that token, whatever the merges say
	ids     map[string]int32
	single  [256]int32 // tokens of single bytes, -1: none
	merges  map[pair]merge
	unknown int32 // -1: left out
}

type pair struct{ left, right int32 }

type merge struct{ rank, id int32 }

// short is up to how many symbols searching all pairs beats a heap.
const short = 48

// bytes encodes a piece whose symbols are bytes.
func (b *bpe) bytes(ids []int32, piece string) []int32 {
	if b.whole {
		if id, ok := b.ids[piece]; ok {
			return append(ids, id)
		}
	}
	start := len(ids)
	for i := range len(piece) {
		if id := b.single[piece[i]]; id >= 0 {
			ids = append(ids, id)
		} else if b.unknown >= 0 {
			ids = append(ids, b.unknown)
		}
	}
	return b.merge(ids, start)
}

// sentence encodes text whose symbols are characters; one that is no token
// becomes its bytes' tokens, or the unknown token, one for a run of such.
func (b *bpe) sentence(ids []int32, text string) []int32 {
	start := len(ids)
	unknown := false
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		symbol := text[:size]
		text = text[size:]
		if id, ok := b.ids[symbol]; ok {
			ids, unknown = append(ids, id), false
			continue
		}
		before := len(ids)
		for i := range size {
			if id := b.single[symbol[i]]; id >= 0 {
				ids = append(ids, id)
			}
		}
		if len(ids)-before == size {
			unknown = false
			continue
		}
		ids = ids[:before]
		if b.unknown >= 0 && !unknown {
			ids = append(ids, b.unknown)
		}
		unknown = true
	}
	return b.merge(ids, start)
}

// merge joins the symbols from start on: always the pair of the lowest rank, of
// equals the leftmost.
func (b *bpe) merge(ids []int32, start int) []int32 {
	if len(ids)-start > short {
		return b.mergeLong(ids, start)
	}
	for {
		best, at := merge{rank: -1}, -1
		for i := start; i+1 < len(ids); i++ {
			if m, ok := b.merges[pair{ids[i], ids[i+1]}]; ok && (at < 0 || m.rank < best.rank) {
				best, at = m, i
			}
		}
		if at < 0 {
			return ids
		}
		ids[at] = best.id
		ids = append(ids[:at+1], ids[at+2:]...)
	}
}

// A candidate is a pair that may be merged, if both sides still stand as they did.
type candidate struct {
	merge
	at          int32
	left, right int32
}

type candidates []candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].rank < c[j].rank || c[i].rank == c[j].rank && c[i].at < c[j].at
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// mergeLong does the same with a heap over a linked list, in n·log n.
func (b *bpe) mergeLong(ids []int32, start int) []int32 {
	symbols := ids[start:]
	n := int32(len(symbols))
	next, previous := make([]int32, n), make([]int32, n)
	for i := range n {
		next[i], previous[i] = i+1, i-1
	}
	var queue candidates
	add := func(at int32) {
		if at < 0 || next[at] >= n {
			return
		}
		left, right := symbols[at], symbols[next[at]]
		if m, ok := b.merges[pair{left, right}]; ok {
			queue = append(queue, candidate{m, at, left, right})
		}
	}
	for i := range n {
		add(i)
	}
	heap.Init(&queue)
	push := func(at int32) {
		before := len(queue)
		add(at)
		if len(queue) > before {
			heap.Fix(&queue, before)
		}
	}
	for len(queue) > 0 {
		c := heap.Pop(&queue).(candidate)
		right := next[c.at]
		if symbols[c.at] != c.left || right >= n || symbols[right] != c.right {
			continue
		}
		symbols[c.at], symbols[right] = c.id, -1
		next[c.at] = next[right]
		if next[right] < n {
			previous[next[right]] = c.at
		}
		push(previous[c.at])
		push(c.at)
	}
	out := start
	for i := int32(0); i < n; i = next[i] {
		ids[out] = symbols[i]
		out++
	}
	return ids[:out]
}
