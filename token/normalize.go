package token

import (
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// metaSpace is how SentencePiece writes a space.
const metaSpace = "▁"

// A normalizer rewrites a text before it is split.
type normalizer func(text string) string

var unicodeForms = map[string]norm.Form{"NFC": norm.NFC, "NFD": norm.NFD, "NFKC": norm.NFKC, "NFKD": norm.NFKD}

// newNormalizer makes one step of a file's normalizer.
func newNormalizer(s *step) (normalizer, error) {
	if form, ok := unicodeForms[s.Type]; ok {
		return func(text string) string {
			if form.IsNormalString(text) {
				return text
			}
			return form.String(text)
		}, nil
	}
	switch s.Type {
	case "Prepend":
		return func(text string) string { return s.Prepend + text }, nil
	case "Replace":
		if !s.replaces(" ", metaSpace) {
			return nil, fmt.Errorf("Replace: only %q by %q is known", " ", metaSpace)
		}
		return func(text string) string { return strings.ReplaceAll(text, " ", metaSpace) }, nil
	}
	return nil, fmt.Errorf("type %.40q is not known", s.Type)
}

func (t *Tokenizer) normalized(text string) string {
	for _, normalize := range t.normalize {
		text = normalize(text)
	}
	return text
}

// A metaspace spells text as SentencePiece does, ▁ for spaces, where a file has
// that as a pre-tokenizer.
type metaspace struct {
	prefix    bool // a text begins with ▁ …
	firstOnly bool // … but not what follows an added token
}

func newMetaspace(s *step) (*metaspace, error) {
	if s.Replacement != metaSpace {
		return nil, fmt.Errorf("Metaspace: replacement %.40q, want %q", s.Replacement, metaSpace)
	}
	switch s.PrependScheme {
	case "", "always":
		return &metaspace{prefix: true}, nil
	case "first":
		return &metaspace{prefix: true, firstOnly: true}, nil
	case "never":
		return &metaspace{}, nil
	}
	return nil, fmt.Errorf("Metaspace: prepend_scheme %.40q: always, first or never", s.PrependScheme)
}

func (m *metaspace) spell(text string, first bool) string {
	text = strings.ReplaceAll(text, " ", metaSpace)
	if m.prefix && (first || !m.firstOnly) && !strings.HasPrefix(text, metaSpace) {
		text = metaSpace + text
	}
	return text
}
