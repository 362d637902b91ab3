package token

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An addedToken is found in a text as it stands, before anything is split.
type addedToken struct {
	id      int32
	text    string
	special bool
	word    bool // only where no word goes on at either side
	left    bool // takes the white space before it …
	right   bool // … and after it
}

// maxAdded is the longest text of an added token, in bytes: a match is tried
// where one may begin, so it bounds the time that a file can ask for.
const maxAdded = 512

// A matcher finds added tokens in a text: the leftmost, and of those that begin
// there the longest.
type matcher struct {
	tokens []addedToken // ascending by text
	first  [256]bool    // what a token can begin with
}

// A segment is an added token or the text between two.
type segment struct {
	id    int32 // -1: text
	text  string
	first bool // begins where the whole text begins
}

func newMatcher(tokens []addedToken) (*matcher, error) {
	m := &matcher{tokens: slices.Clone(tokens)}
	slices.SortFunc(m.tokens, func(a, b addedToken) int { return strings.Compare(a.text, b.text) })
	for i, t := range m.tokens {
		if t.text == "" || len(t.text) > maxAdded {
			return nil, fmt.Errorf("the text of id %d has %d bytes, want 1 to %d", t.id, len(t.text), maxAdded)
		}
		if i > 0 && m.tokens[i-1].text == t.text {
			return nil, fmt.Errorf("%.40q stands twice, with ids %d and %d", t.text, m.tokens[i-1].id, t.id)
		}
		m.first[t.text[0]] = true
	}
	return m, nil
}

// longest is the longest token that text begins with, nil where none does. It
// narrows the sorted list byte by byte.
func (m *matcher) longest(text string) (found *addedToken) {
	rest := m.tokens
	for depth := 0; ; depth++ {
		if len(rest[0].text) == depth { // the shortest comes first
			found = &rest[0]
			rest = rest[1:]
		}
		if depth == len(text) {
			return found
		}
		c := text[depth]
		from, _ := slices.BinarySearchFunc(rest, c, func(t addedToken, c byte) int { return int(t.text[depth]) - int(c) })
		rest = rest[from:]
		to, _ := slices.BinarySearchFunc(rest, int(c)+1, func(t addedToken, c int) int { return int(t.text[depth]) - c })
		rest = rest[:to]
		if len(rest) == 0 {
			return found
		}
	}
}

// each cuts text at its added tokens, in order. With plain, special tokens stay
// text; what lies inside them is not searched again, as in the reference.
func (m *matcher) each(text string, first, plain bool, take func(segment)) {
	done := 0 // what was handed out already
	for at := 0; at < len(text); {
		if !m.first[text[at]] {
			at++
			continue
		}
		t := m.longest(text[at:])
		if t == nil {
			at++
			continue
		}
		from, to := at, at+len(t.text)
		at = to
		if plain && t.special || t.word && (endsInWord(text[:from]) || beginsWithWord(text[to:])) {
			continue
		}
		if t.left {
			from = max(done, len(strings.TrimRightFunc(text[:from], unicode.IsSpace)))
		}
		if t.right {
			to = len(text) - len(strings.TrimLeftFunc(text[to:], unicode.IsSpace))
		}
		if done < from {
			take(segment{-1, text[done:from], first && done == 0})
		}
		take(segment{id: t.id})
		done = to
	}
	if done < len(text) {
		take(segment{-1, text[done:], first && done == 0})
	}
}

func endsInWord(text string) bool {
	r, size := utf8.DecodeLastRuneInString(text)
	return size > 0 && isWord(r)
}

func beginsWithWord(text string) bool {
	r, size := utf8.DecodeRuneInString(text)
	return size > 0 && isWord(r)
}

// isWord is \w of Unicode's regular expressions (UTS 18, annex C).
func isWord(r rune) bool {
	return unicode.In(r, unicode.Letter, unicode.Mark, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
