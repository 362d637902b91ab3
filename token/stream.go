package token

import "strings"

// A Stream decodes ids as they come and never cuts a character: bytes wait until
// theirs is complete. What it gives, put together, is what Decode gives, but for
// wrong bytes of a tokenizer with byte fallback, where Decode looks ahead.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	begun       bool   // some text was given
	pending     string // at most three bytes
}

// Stream begins to decode a text.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream {
	return &Stream{t: t, skipSpecial: skipSpecial}
}

// Push takes the next id and returns the text that is complete with it.
func (s *Stream) Push(id int32) string {
	t := s.t
	if !t.shown(id, s.skipSpecial) {
		return ""
	}
	if t.byteLevel || t.is(id, fallback) {
		text, rest := complete(s.pending+t.texts[id], false)
		s.pending = rest
		return s.give(text)
	}
	return s.give(s.Flush() + t.texts[id])
}

// give drops the space that a whole text begins with, where the decoder does.
func (s *Stream) give(text string) string {
	if s.begun || text == "" {
		return text
	}
	s.begun = true
	if s.t.stripSpace {
		return strings.TrimPrefix(text, " ")
	}
	return text
}

// Flush returns what is left at the end: bytes that never became a character.
func (s *Stream) Flush() string {
	text, _ := complete(s.pending, true)
	s.pending = ""
	return text
}
