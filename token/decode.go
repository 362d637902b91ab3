package token

import (
	"strings"
	"unicode/utf8"
)

// Decode turns ids into text. Bytes that are no UTF-8 become U+FFFD; ids that
// the file does not define are left out.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	if t.sentence {
		return t.decodeSentence(ids, skipSpecial)
	}
	var raw strings.Builder
	for _, id := range ids {
		if t.Defined(id) && !(skipSpecial && t.IsSpecial(id)) {
			raw.WriteString(t.texts[id])
		}
	}
	text, _ := lossy(raw.String(), true)
	return text
}

// lossy replaces what is no UTF-8, one U+FFFD for each longest beginning of a
// character. Unless final, bytes at the end that may yet become a character
// are left in rest.
func lossy(raw string, final bool) (text, rest string) {
	if utf8.ValidString(raw) {
		return raw, ""
	}
	var b strings.Builder
	for len(raw) > 0 {
		r, size := utf8.DecodeRuneInString(raw)
		if r != utf8.RuneError || size > 1 {
			b.WriteString(raw[:size])
			raw = raw[size:]
			continue
		}
		n := beginning(raw)
		if !final && n == len(raw) && n > 0 && !utf8.FullRuneInString(raw) {
			return b.String(), raw
		}
		b.WriteRune(utf8.RuneError)
		raw = raw[max(1, n):]
	}
	return b.String(), ""
}

// beginning is how many bytes of raw could begin a character that does not end
// there.
func beginning(raw string) int {
	for n := 1; n < min(4, len(raw)+1); n++ {
		if utf8.FullRuneInString(raw[:n]) {
			return n - 1
		}
	}
	return min(3, len(raw))
}

// fallbackByte reads the text of a byte token, "<0x0A>".
func fallbackByte(text string) (byte, bool) {
	if len(text) != 6 || text[:3] != "<0x" || text[5] != '>' {
		return 0, false
	}
	value := 0
	for _, c := range []byte(text[3:5]) {
		switch {
		case c >= '0' && c <= '9':
			value = value<<4 | int(c-'0')
		case c >= 'A' && c <= 'F':
			value = value<<4 | int(c-'A'+10)
		case c >= 'a' && c <= 'f':
			value = value<<4 | int(c-'a'+10)
		default:
			return 0, false
		}
	}
	return byte(value), true
}

func (t *Tokenizer) decodeSentence(ids []int32, skipSpecial bool) string {
	var text strings.Builder
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			text.Write(run)
		} else {
			text.WriteString(strings.Repeat(string(utf8.RuneError), len(run)))
		}
		run = run[:0]
	}
	for _, id := range ids {
		if !t.Defined(id) || skipSpecial && t.IsSpecial(id) {
			continue
		}
		if b, ok := fallbackByte(t.texts[id]); ok {
			run = append(run, b)
			continue
		}
		flush()
		text.WriteString(strings.ReplaceAll(t.texts[id], "▁", " "))
	}
	flush()
	if t.strip {
		return strings.TrimPrefix(text.String(), " ")
	}
	return text.String()
}

// A Stream decodes ids as they come and never cuts a character.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	begun       bool
	pending     string
}

// Stream begins to decode.
func (t *Tokenizer) Stream(skipSpecial bool) *Stream { return &Stream{t: t, skipSpecial: skipSpecial} }

// Push takes the next id and returns the text that is complete with it.
func (s *Stream) Push(id int32) string {
	t := s.t
	if !t.Defined(id) || s.skipSpecial && t.IsSpecial(id) {
		return ""
	}
	piece := t.texts[id]
	if !t.sentence {
		text, rest := lossy(s.pending+piece, false)
		s.pending = rest
		return text
	}
	if b, ok := fallbackByte(piece); ok {
		text, rest := lossy(s.pending+string([]byte{b}), false)
		s.pending = rest
		return s.first(text)
	}
	return s.first(s.Flush() + strings.ReplaceAll(piece, "▁", " "))
}

// first drops the space that stands in front of a whole text.
func (s *Stream) first(text string) string {
	if !s.begun && text != "" {
		s.begun = true
		if s.t.strip {
			return strings.TrimPrefix(text, " ")
		}
	}
	return text
}

// Flush returns what is left at the end: bytes that never became a character.
func (s *Stream) Flush() string {
	text, _ := lossy(s.pending, true)
	s.pending = ""
	return text
}
