package token

import (
	"fmt"
	"strings"
	"sync"
)

// A Splitter cuts a text into pieces and hands them out in order. It leaves
// nothing out and gives no empty piece.
type Splitter func(text string, take func(piece string))

// The published patterns, each written as a scanner in split.go: Go's regexp has
// no look-ahead, and a scanner is many times as fast.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// Other ways to write them. Spelled out, the contractions do not know the long
// s that case folding makes an s.
const (
	foldedContractions  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
	spelledContractions = `(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])`

	patternGPT2Short = `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternCL100K    = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
)

var scanners = map[string]Splitter{
	patternGPT2:            splitGPT2,
	patternGPT2Short:       splitGPT2,
	patternLlama3:          wordScanner{digits: 3, longS: true}.split,
	patternCL100K:          wordScanner{digits: 3, longS: true}.split,
	patternQwen2:           wordScanner{digits: 1, longS: true}.split,
	spelled(patternLlama3): wordScanner{digits: 3}.split,
	spelled(patternQwen2):  wordScanner{digits: 1}.split,
}

func spelled(pattern string) string {
	return strings.Replace(pattern, foldedContractions, spelledContractions, 1)
}

var otherPatterns struct {
	sync.RWMutex
	compile func(pattern string) (Splitter, error)
}

// RegisterPattern says what makes a Splitter of a pattern that this package has
// no scanner for; package token/regex is one way. Without it such a tokenizer is
// refused. The Splitter gives matches and what lies between them.
func RegisterPattern(compile func(pattern string) (Splitter, error)) {
	otherPatterns.Lock()
	defer otherPatterns.Unlock()
	otherPatterns.compile = compile
}

// splitterFor finds or makes what splits as pattern says.
func splitterFor(pattern string) (Splitter, error) {
	if s, ok := scanners[pattern]; ok {
		return s, nil
	}
	otherPatterns.RLock()
	compile := otherPatterns.compile
	otherPatterns.RUnlock()
	if compile == nil {
		return nil, fmt.Errorf("pattern %.200q is not known", pattern)
	}
	s, err := compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern %.200q: %w", pattern, err)
	}
	return s, nil
}

// then splits each piece of one splitter by the next; nil: not at all.
func then(one, next Splitter) Splitter {
	if one == nil {
		return next
	}
	return func(text string, take func(piece string)) {
		one(text, func(piece string) { next(piece, take) })
	}
}
