package token

import (
	"strings"
	"unicode/utf8"
)

// Decode turns ids into text. Bytes that are no UTF-8 become U+FFFD; ids that
// the file does not define are left out, and special ones with skipSpecial.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	if t.byteLevel {
		var raw strings.Builder
		for _, id := range ids {
			if t.shown(id, skipSpecial) {
				raw.WriteString(t.texts[id])
			}
		}
		text, _ := complete(raw.String(), true)
		return text
	}
	return t.decodeFallback(ids, skipSpecial)
}

func (t *Tokenizer) shown(id int32, skipSpecial bool) bool {
	return t.is(id, defined) && !(skipSpecial && t.is(id, special))
}

// decodeFallback decodes where most tokens are text and some stand for a byte.
// A run of the latter that is no UTF-8 becomes one U+FFFD for each of them.
func (t *Tokenizer) decodeFallback(ids []int32, skipSpecial bool) string {
	var text strings.Builder
	var run []byte
	endRun := func() {
		if utf8.Valid(run) {
			text.Write(run)
		} else {
			text.WriteString(strings.Repeat(string(utf8.RuneError), len(run)))
		}
		run = run[:0]
	}
	for _, id := range ids {
		if !t.shown(id, skipSpecial) {
			continue
		}
		if t.is(id, fallback) {
			run = append(run, t.texts[id]...)
			continue
		}
		endRun()
		text.WriteString(t.texts[id])
	}
	endRun()
	if t.stripSpace {
		return strings.TrimPrefix(text.String(), " ")
	}
	return text.String()
}

// complete replaces what is no UTF-8, one U+FFFD for the longest beginning of a
// character (Unicode 16, section 3.9, "maximal subparts"). Unless final, bytes
// at the end that may yet become a character are left in rest.
func complete(raw string, final bool) (text, rest string) {
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
		if !final && n == len(raw) {
			return b.String(), raw
		}
		b.WriteRune(utf8.RuneError)
		raw = raw[max(1, n):]
	}
	return b.String(), ""
}

// beginning is how many bytes of raw begin a character that is cut there, 0
// where the first byte begins none.
func beginning(raw string) int {
	for n := 1; n <= len(raw); n++ {
		if utf8.FullRuneInString(raw[:n]) {
			return n - 1
		}
	}
	return len(raw)
}
