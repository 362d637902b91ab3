package token

import (
	"unicode"
	"unicode/utf8"
)

// A splitter cuts a text into pieces, one after another, leaving nothing out.
type splitter func(text string, take func(piece string))

// The published pre-tokenizers' patterns, each written here as a scanner: Go's
// regexp has no look-ahead, and a scanner is several times as fast.
const (
	patternGPT2    = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternGLM4    = `(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2GG = `(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

var patterns = map[string]splitter{
	patternGPT2:    splitGPT2,
	patternLlama3:  modern{digits: 3, fold: true}.split,
	patternGLM4:    modern{digits: 3}.split,
	patternQwen2:   modern{digits: 1, fold: true}.split,
	patternQwen2GG: modern{digits: 1}.split,
}

// The classes of characters that the patterns know.
const (
	letter = iota
	number
	space
	other
)

// asciiClass speeds up what most text is made of.
var asciiClass [utf8.RuneSelf]uint8

func init() {
	for r := range rune(utf8.RuneSelf) {
		asciiClass[r] = slowClass(r)
	}
}

func slowClass(r rune) uint8 {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// classAt is the class of the character at text[i:] and its size; at the end
// the size is 0.
func classAt(text string, i int) (class uint8, size int) {
	if i >= len(text) {
		return other, 0
	}
	if c := text[i]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	r, size := utf8.DecodeRuneInString(text[i:])
	return slowClass(r), size
}

// run is where a run of characters of one class that begins at i ends.
func run(text string, i int, class uint8) int {
	for {
		c, size := classAt(text, i)
		if size == 0 || c != class {
			return i
		}
		i += size
	}
}

// contraction is the length of an English ending ('s, 'll …) at text[i:], 0:
// none. Any case where upper is set; with fold also the long s, as Unicode's
// case folding has it.
func contraction(text string, i int, upper, fold bool) int {
	if i+1 >= len(text) || text[i] != '\'' {
		return 0
	}
	low := func(j int) byte {
		if j >= len(text) {
			return 0
		}
		c := text[j]
		if upper && c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		return c
	}
	switch a, b := low(i+1), low(i+2); {
	case a == 's' || a == 't' || a == 'm' || a == 'd':
		return 2
	case a == 'r' && b == 'e' || a == 'v' && b == 'e' || a == 'l' && b == 'l':
		return 3
	case fold && len(text) >= i+3 && text[i+1:i+3] == "ſ":
		return 3
	}
	return 0
}

// blanks is the end of the piece of white space at i: all of it but the last
// character where something else follows, which then goes with that.
func blanks(text string, i int) int {
	end := run(text, i, space)
	if end == len(text) {
		return end
	}
	_, size := utf8.DecodeLastRuneInString(text[i:end])
	if end-size > i {
		return end - size
	}
	return end
}

func splitGPT2(text string, take func(piece string)) {
	for i := 0; i < len(text); {
		start := i
		if n := contraction(text, i, false, false); n > 0 {
			i += n
			take(text[start:i])
			continue
		}
		class, size := classAt(text, i)
		if text[i] == ' ' {
			if next, n := classAt(text, i+1); n > 0 && next != space {
				class, size = next, 1+n
			}
		}
		if class == space {
			i = blanks(text, i)
		} else {
			i = run(text, i+size, class)
		}
		take(text[start:i])
	}
}

// modern is the pattern of Llama 3 and those after it.
type modern struct {
	digits int  // most digits in a piece
	fold   bool // contractions by Unicode case folding
}

func (m modern) split(text string, take func(piece string)) {
	for i := 0; i < len(text); {
		end := m.next(text, i)
		take(text[i:end])
		i = end
	}
}

// next is the end of the piece that begins at i.
func (m modern) next(text string, i int) int {
	if n := contraction(text, i, true, m.fold); n > 0 {
		return i + n
	}
	class, size := classAt(text, i)
	if class == letter {
		return run(text, i+size, letter)
	}
	if class == number {
		for n := 1; n < m.digits; n++ {
			c, s := classAt(text, i+size)
			if s == 0 || c != number {
				break
			}
			size += s
		}
		return i + size
	}
	if text[i] != '\r' && text[i] != '\n' {
		if c, s := classAt(text, i+size); s > 0 && c == letter {
			return run(text, i+size+s, letter)
		}
	}
	at := i
	if text[i] == ' ' {
		at++
	}
	if c, s := classAt(text, at); s > 0 && c == other {
		at = run(text, at+s, other)
		for at < len(text) && (text[at] == '\r' || text[at] == '\n') {
			at++
		}
		return at
	}
	// White space: up to and with its last line break, else as blanks says.
	end, last := run(text, i, space), -1
	for j := i; j < end; j++ {
		if text[j] == '\r' || text[j] == '\n' {
			last = j
		}
	}
	if last >= 0 {
		return last + 1
	}
	return blanks(text, i)
}

// digitsAlone puts every numeral into a piece of its own, then splits the rest.
func digitsAlone(rest splitter) splitter {
	return func(text string, take func(piece string)) {
		start := 0
		for i := 0; i < len(text); {
			class, size := classAt(text, i)
			if class == number {
				if i > start {
					rest(text[start:i], take)
				}
				rest(text[i:i+size], take)
				start = i + size
			}
			i += size
		}
		if start < len(text) {
			rest(text[start:], take)
		}
	}
}

// unsplit takes a text whole.
func unsplit(text string, take func(piece string)) { take(text) }
