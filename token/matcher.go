package token

import (
	"unicode"
	"unicode/utf8"
)

// A matcher finds added tokens in a text: the leftmost, of those the longest.
type matcher struct {
	nodes []node
	first [256]bool
	added []added
}

type node struct {
	next  map[byte]int32
	token int32 // index in added, -1: none ends here
}

func newMatcher(list []added) *matcher {
	m := &matcher{nodes: []node{{token: -1}}, added: list}
	for i, a := range list {
		at := int32(0)
		for j := range len(a.text) {
			if m.nodes[at].next == nil {
				m.nodes[at].next = map[byte]int32{}
			}
			next, ok := m.nodes[at].next[a.text[j]]
			if !ok {
				next = int32(len(m.nodes))
				m.nodes = append(m.nodes, node{token: -1})
				m.nodes[at].next[a.text[j]] = next
			}
			at = next
		}
		m.first[a.text[0]] = true
		m.nodes[at].token = int32(i)
	}
	return m
}

// longest is the added token that begins at text[at:], nil where none does.
func (m *matcher) longest(text string, at int) *added {
	found := int32(-1)
	n := int32(0)
	for i := at; i < len(text); i++ {
		next, ok := m.nodes[n].next[text[i]]
		if !ok {
			break
		}
		if n = next; m.nodes[n].token >= 0 {
			found = m.nodes[n].token
		}
	}
	if found < 0 {
		return nil
	}
	a := &m.added[found]
	if a.word && !(wordEnds(text[:at]) && wordBegins(text[at+len(a.text):])) {
		return nil
	}
	return a
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || r == '_' }

func wordEnds(before string) bool {
	r, _ := utf8.DecodeLastRuneInString(before)
	return before == "" || !isWord(r)
}

func wordBegins(after string) bool {
	r, _ := utf8.DecodeRuneInString(after)
	return after == "" || !isWord(r)
}

// each cuts text at its added tokens: segments come with token -1.
func (m *matcher) each(text string, take func(segment string, token int32)) {
	start := 0
	for at := 0; at < len(text); {
		if !m.first[text[at]] {
			at++
			continue
		}
		a := m.longest(text, at)
		if a == nil {
			at++
			continue
		}
		from, to := at, at+len(a.text)
		if a.left {
			for from > start {
				r, size := utf8.DecodeLastRuneInString(text[start:from])
				if !unicode.IsSpace(r) {
					break
				}
				from -= size
			}
		}
		if a.right {
			for to < len(text) {
				r, size := utf8.DecodeRuneInString(text[to:])
				if !unicode.IsSpace(r) {
					break
				}
				to += size
			}
		}
		if from > start {
			take(text[start:from], -1)
		}
		take("", a.id)
		start, at = to, to
	}
	if start < len(text) {
		take(text[start:], -1)
	}
}
