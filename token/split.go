package token

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The classes of characters that the patterns know.
const (
	letter = iota // \p{L}
	number        // \p{N}
	space         // \s
	other
)

// asciiClass speeds up what most text is made of.
var asciiClass = func() (classes [utf8.RuneSelf]uint8) {
	for r := range classes {
		classes[r] = classOf(rune(r))
	}
	return classes
}()

func classOf(r rune) uint8 {
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

// classAt is the class and size of the character at text[i:]; at the end of the
// text the size is 0.
func classAt(text string, i int) (class uint8, size int) {
	if i >= len(text) {
		return other, 0
	}
	if c := text[i]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	r, size := utf8.DecodeRuneInString(text[i:])
	return classOf(r), size
}

// run is where the characters of one class that begin at i end.
func run(text string, i int, class uint8) int {
	for i < len(text) {
		if c := text[i]; c < utf8.RuneSelf {
			if asciiClass[c] != class {
				return i
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if classOf(r) != class {
			return i
		}
		i += size
	}
	return i
}

func isBreak(c byte) bool { return c == '\r' || c == '\n' }

// contraction is the length of an English ending ('s, 'll …) that text begins
// with, 0: none. lower makes letters small where a pattern ignores case.
func contraction(text string, lower func(byte) byte) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	switch lower(text[1]) {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(text) < 3 {
		return 0
	}
	switch [2]byte{lower(text[1]), lower(text[2])} {
	case [2]byte{'r', 'e'}, [2]byte{'v', 'e'}, [2]byte{'l', 'l'}:
		return 3
	}
	return 0
}

func asWritten(c byte) byte { return c }

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// blanks is the end of a piece of white space (`\s+(?!\S)|\s+`): all of it but
// the last character where something else follows, which then takes that.
func blanks(text string, i int) int {
	end := run(text, i, space)
	if end == len(text) {
		return end
	}
	if _, size := utf8.DecodeLastRuneInString(text[i:end]); end-size > i {
		return end - size
	}
	return end
}

// splitGPT2 is patternGPT2.
func splitGPT2(text string, take func(piece string)) {
	for i := 0; i < len(text); {
		end := nextGPT2(text, i)
		take(text[i:end])
		i = end
	}
}

func nextGPT2(text string, i int) int {
	if n := contraction(text[i:], asWritten); n > 0 {
		return i + n
	}
	class, size := classAt(text, i)
	if text[i] == ' ' {
		if next, n := classAt(text, i+1); n > 0 && next != space {
			class, size = next, 1+n
		}
	}
	if class == space {
		return blanks(text, i)
	}
	return run(text, i+size, class)
}

// A wordScanner is the pattern of Llama 3 and those after it: patternLlama3 with
// three digits, patternQwen2 with one.
type wordScanner struct {
	digits int  // most digits in a piece
	longS  bool // 'ſ is a contraction, as in case folding
}

func (w wordScanner) split(text string, take func(piece string)) {
	for i := 0; i < len(text); {
		end := w.next(text, i)
		take(text[i:end])
		i = end
	}
}

// next is the end of the piece that begins at i; the alternatives come in the
// pattern's order.
func (w wordScanner) next(text string, i int) int {
	if text[i] == '\'' {
		if n := contraction(text[i:], lowerASCII); n > 0 {
			return i + n
		}
		if w.longS && strings.HasPrefix(text[i+1:], "ſ") {
			return i + len("'ſ")
		}
	}
	class, size := classAt(text, i)
	switch {
	case class == letter:
		return run(text, i+size, letter)
	case class == number:
		return w.number(text, i+size)
	case !isBreak(text[i]):
		if c, n := classAt(text, i+size); n > 0 && c == letter {
			return run(text, i+size+n, letter)
		}
	}
	sign := i
	if text[i] == ' ' {
		sign++
	}
	if c, n := classAt(text, sign); n > 0 && c == other {
		return signs(text, sign)
	}
	return whiteSpace(text, i)
}

// number is the end of a number that has one digit before i.
func (w wordScanner) number(text string, i int) int {
	for range w.digits - 1 {
		class, size := classAt(text, i)
		if size == 0 || class != number {
			break
		}
		i += size
	}
	return i
}

// signs is the end of `[^\s\p{L}\p{N}]+[\r\n]*`.
func signs(text string, i int) int {
	i = run(text, i, other)
	for i < len(text) && isBreak(text[i]) {
		i++
	}
	return i
}

// whiteSpace is the end of `\s*[\r\n]+|\s+(?!\S)|\s+`: after the last line break
// of a run of white space where it has one.
func whiteSpace(text string, i int) int {
	end := run(text, i, space)
	if last := strings.LastIndexAny(text[i:end], "\r\n"); last >= 0 {
		return i + last + 1
	}
	return blanks(text, i)
}

// splitDigits puts every digit into a piece of its own.
func splitDigits(text string, take func(piece string)) {
	splitNumbers(text, 1, take)
}

// splitDigitRuns puts every run of digits into a piece of its own.
func splitDigitRuns(text string, take func(piece string)) {
	splitNumbers(text, len(text), take)
}

func splitNumbers(text string, most int, take func(piece string)) {
	for i := 0; i < len(text); {
		end := i
		for n := 0; n < most; n++ {
			class, size := classAt(text, end)
			if size == 0 || class != number {
				break
			}
			end += size
		}
		if end == i {
			end = notNumber(text, i)
		}
		take(text[i:end])
		i = end
	}
}

// notNumber is where the first digit after i stands.
func notNumber(text string, i int) int {
	for {
		class, size := classAt(text, i)
		if size == 0 || class == number {
			return i
		}
		i += size
	}
}

// splitBeforeSpaces cuts in front of every run of ▁.
func splitBeforeSpaces(text string, take func(piece string)) {
	splitMetaSpaces(text, true, take)
}

// splitAtSpaces cuts in front of every ▁.
func splitAtSpaces(text string, take func(piece string)) {
	splitMetaSpaces(text, false, take)
}

func splitMetaSpaces(text string, runs bool, take func(piece string)) {
	start := 0
	for at := 0; ; {
		n := strings.Index(text[at:], metaSpace)
		if n < 0 {
			break
		}
		cut := at + n
		at = cut + len(metaSpace)
		if cut == start || runs && strings.HasSuffix(text[:cut], metaSpace) {
			continue
		}
		take(text[start:cut])
		start = cut
	}
	if start < len(text) {
		take(text[start:])
	}
}
