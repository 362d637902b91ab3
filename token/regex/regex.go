// Package regex lets package token read tokenizers whose pattern it has no
// scanner for.
//
// It stands apart because the engine (regexp2, which backtracks and so knows
// look-ahead) is large: a browser's worker does without. Patterns come from model
// files, which may be hostile, so a match has a time limit.
package regex

import (
	"fmt"
	"time"

	"github.com/dlclark/regexp2"

	"github.com/potluck-llm/potluck/token"
)

// matchLimit is far above what a sane pattern takes for one piece.
const matchLimit = 2 * time.Second

// maxPattern is the longest pattern, in bytes, that is tried.
const maxPattern = 1 << 13

// Enable makes package token use this package for patterns that it does not know.
func Enable() { token.RegisterPattern(Compile) }

// Compile makes a Splitter of a pattern in the syntax of tokenizer.json files. A
// text whose matching takes too long stays whole from there on.
func Compile(pattern string) (token.Splitter, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("%d bytes, at most %d", len(pattern), maxPattern)
	}
	expression, err := regexp2.Compile(pattern, regexp2.None)
	if err != nil {
		return nil, err
	}
	expression.MatchTimeout = matchLimit
	return func(text string, take func(piece string)) { split(expression, text, take) }, nil
}

// split hands out matches and what lies between them. The engine counts in
// characters, so both positions are kept.
func split(expression *regexp2.Regexp, text string, take func(piece string)) {
	starts := make([]int, 0, len(text)+1) // by character: its first byte
	characters := make([]rune, 0, len(text))
	for i, r := range text {
		starts, characters = append(starts, i), append(characters, r)
	}
	starts = append(starts, len(text))
	done := 0
	give := func(end int) {
		if end > done {
			take(text[done:end])
			done = end
		}
	}
	m, err := expression.FindRunesMatch(characters)
	for ; err == nil && m != nil; m, err = expression.FindNextMatch(m) {
		give(starts[m.Index])
		give(starts[m.Index+m.Length])
	}
	give(len(text))
}
