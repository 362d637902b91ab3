package jinja

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// kinds of tokens
const (
	tokText  = iota // template text
	tokOpen         // {{
	tokClose        // }}
	tokBlock        // {%
	tokEnd          // %}
	tokName
	tokString
	tokNumber
	tokOp
	tokEOF
)

type tok struct {
	kind int
	text string
	line int
}

// lex cuts a template into tokens, with trim_blocks and lstrip_blocks: the line
// break after a block goes, and so does white space between a line's beginning
// and a block.
func lex(source string) ([]tok, error) {
	l := &lexer{source: strings.TrimSuffix(strings.ReplaceAll(source, "\r\n", "\n"), "\n"), line: 1}
	for l.at < len(l.source) {
		if err := l.text(); err != nil {
			return nil, err
		}
	}
	return append(l.tokens, tok{kind: tokEOF, line: l.line}), nil
}

type lexer struct {
	source string
	at     int
	line   int
	tokens []tok
	trim   bool // white space after the last tag goes
}

func (l *lexer) add(kind int, text string) { l.tokens = append(l.tokens, tok{kind, text, l.line}) }

// text takes the text up to the next tag, and the tag.
func (l *lexer) text() error {
	rest := l.source[l.at:]
	open := len(rest)
	for i := 0; i+1 < len(rest); i++ {
		if rest[i] == '{' && (rest[i+1] == '{' || rest[i+1] == '%' || rest[i+1] == '#') {
			open = i
			break
		}
	}
	text := rest[:open]
	lines := strings.Count(text, "\n")
	if l.trim {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
	}
	l.trim = false
	if open == len(rest) {
		l.add(tokText, text)
		l.at, l.line = len(l.source), l.line+lines
		return nil
	}
	tag := rest[open+1]
	sign := byte(0)
	if open+2 < len(rest) {
		sign = rest[open+2]
	}
	switch {
	case sign == '-':
		text = strings.TrimRightFunc(text, unicode.IsSpace)
	case sign != '+' && tag != '{':
		text = stripLine(text, l.at == 0 || strings.HasSuffix(l.source[:l.at], "\n"))
	}
	if text != "" {
		l.add(tokText, text)
	}
	l.line += lines
	l.at += open + 2
	if sign == '-' || sign == '+' {
		l.at++
	}
	switch tag {
	case '#':
		return l.comment()
	case '{':
		l.add(tokOpen, "")
		return l.inside("}}", tokClose)
	}
	l.add(tokBlock, "")
	if l.raw() {
		return l.rawText()
	}
	return l.inside("%}", tokEnd)
}

// stripLine drops white space between the last line's beginning and its end.
func stripLine(text string, lineBegins bool) string {
	i := strings.LastIndexByte(text, '\n')
	if i < 0 && !lineBegins {
		return text
	}
	if strings.TrimLeft(text[i+1:], " \t\v\f") == "" {
		return text[:i+1]
	}
	return text
}

func (l *lexer) comment() error {
	end := strings.Index(l.source[l.at:], "#}")
	if end < 0 {
		return fmt.Errorf("line %d: a comment does not end", l.line)
	}
	l.line += strings.Count(l.source[l.at:l.at+end], "\n")
	l.trim = end > 0 && l.source[l.at+end-1] == '-'
	l.at += end + 2
	l.newline()
	return nil
}

// newline drops the line break after a block or comment.
func (l *lexer) newline() {
	if !l.trim && l.at < len(l.source) && l.source[l.at] == '\n' {
		l.at++
		l.line++
	}
}

// raw tells whether the block begins with raw.
func (l *lexer) raw() bool {
	rest := strings.TrimLeft(l.source[l.at:], " \t\n-")
	return strings.HasPrefix(rest, "raw") && strings.HasPrefix(strings.TrimLeft(rest[3:], " \t\n-"), "%}")
}

func (l *lexer) rawText() error {
	l.tokens = l.tokens[:len(l.tokens)-1]
	l.at += strings.Index(l.source[l.at:], "%}") + 2
	end := -1
	for i := l.at; i < len(l.source); i++ {
		if strings.HasPrefix(l.source[i:], "{%") && strings.HasPrefix(strings.TrimLeft(l.source[i+2:], " -+"), "endraw") {
			end = i
			break
		}
	}
	if end < 0 {
		return fmt.Errorf("line %d: raw does not end", l.line)
	}
	l.add(tokText, l.source[l.at:end])
	l.line += strings.Count(l.source[l.at:end], "\n")
	close := strings.Index(l.source[end:], "%}")
	if close < 0 {
		return fmt.Errorf("line %d: endraw does not end", l.line)
	}
	l.at = end + close + 2
	l.newline()
	return nil
}

// operators, longest first
var operators = []string{"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|"}

// inside takes the tokens of a tag.
func (l *lexer) inside(end string, kind int) error {
	depth := 0
	for {
		for l.at < len(l.source) && strings.IndexByte(" \t\n\r\v\f", l.source[l.at]) >= 0 {
			if l.source[l.at] == '\n' {
				l.line++
			}
			l.at++
		}
		rest := l.source[l.at:]
		if rest == "" {
			return fmt.Errorf("line %d: %s is missing", l.line, end)
		}
		if depth == 0 {
			for _, sign := range []string{"-", "+", ""} {
				if strings.HasPrefix(rest, sign+end) {
					l.at += len(sign) + len(end)
					l.add(kind, "")
					l.trim = sign == "-"
					if kind == tokEnd && sign != "+" {
						l.newline()
					}
					return nil
				}
			}
		}
		r, _ := utf8.DecodeRuneInString(rest)
		switch {
		case r == '"' || r == '\'':
			if err := l.quoted(byte(r)); err != nil {
				return err
			}
		case r >= '0' && r <= '9':
			l.number()
		case r == '_' || unicode.IsLetter(r):
			n := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if n < 0 {
				n = len(rest)
			}
			l.add(tokName, rest[:n])
			l.at += n
		default:
			op := ""
			for _, o := range operators {
				if strings.HasPrefix(rest, o) {
					op = o
					break
				}
			}
			switch op {
			case "":
				return fmt.Errorf("line %d: unexpected %q", l.line, r)
			case "(", "[", "{":
				depth++
			case ")", "]", "}":
				depth--
			}
			l.add(tokOp, op)
			l.at += len(op)
		}
	}
}

func (l *lexer) number() {
	rest := l.source[l.at:]
	n := 0
	digits := func() {
		for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n] == '_') {
			n++
		}
	}
	digits()
	if n+1 < len(rest) && rest[n] == '.' && rest[n+1] >= '0' && rest[n+1] <= '9' {
		n++
		digits()
	}
	if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		m := n + 1
		if m < len(rest) && (rest[m] == '+' || rest[m] == '-') {
			m++
		}
		if m < len(rest) && rest[m] >= '0' && rest[m] <= '9' {
			n = m
			digits()
		}
	}
	l.add(tokNumber, strings.ReplaceAll(rest[:n], "_", ""))
	l.at += n
}

// quoted takes a string with Python's escapes.
func (l *lexer) quoted(mark byte) error {
	var b strings.Builder
	i := l.at + 1
	for ; i < len(l.source) && l.source[i] != mark; i++ {
		c := l.source[i]
		if c == '\n' {
			l.line++
		}
		if c != '\\' || i+1 == len(l.source) {
			b.WriteByte(c)
			continue
		}
		i++
		switch c := l.source[i]; c {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'v':
			b.WriteByte('\v')
		case 'a':
			b.WriteByte('\a')
		case '0':
			b.WriteByte(0)
		case '\\', '\'', '"':
			b.WriteByte(c)
		case '\n':
		case 'x', 'u', 'U':
			n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			var r rune
			if i+n >= len(l.source) {
				return fmt.Errorf("line %d: a cut-off escape", l.line)
			}
			if _, err := fmt.Sscanf(l.source[i+1:i+1+n], "%x", &r); err != nil {
				return fmt.Errorf("line %d: escape \\%c%s", l.line, c, l.source[i+1:i+1+n])
			}
			b.WriteRune(r)
			i += n
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	if i >= len(l.source) {
		return fmt.Errorf("line %d: a string does not end", l.line)
	}
	l.add(tokString, b.String())
	l.at = i + 1
	return nil
}
