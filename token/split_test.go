package token_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/regex"
)

// pieces is a text as cut by a splitter; nothing may be lost.
func pieces(t *testing.T, split token.Splitter, text string) []string {
	var list []string
	split(text, func(piece string) {
		require.NotEmpty(t, piece)
		list = append(list, piece)
	})
	require.Equal(t, text, strings.Join(list, ""))
	return list
}

// alphabet has what the patterns tell apart: letters with and without case,
// marks, numbers of three kinds, spaces of one to three bytes, breaks, signs, the
// long s, the Kelvin sign, control characters and a character that UTF-8 cuts.
var alphabet = []string{
	"a", "S", "t", "re", "LL", "v", "E", "é", "e\u0301", "王", "ſ", "K", "ʼ", "ა", "ǅ",
	"1", "23", "٣", "Ⅷ", "½", "²",
	" ", "  ", "\t", "\u00a0", "\u2003", "\u3000", "\u0085", "\v", "\n", "\r\n", "\r", "\u2028",
	"'", "'s", "'D", "'ſ", "’", "-", "…", "_", "🙂", "\u200d", "\x00", "\ufffd", "\U000e0001",
}

// engineFor is the engine of a pattern, put into words that it knows: what
// folds to s by Unicode is listed, and a possessive repetition is an atomic group.
func engineFor(t testing.TB, pattern string) token.Splitter {
	engine, err := regex.Compile(strings.NewReplacer(
		"(?i:'s|", "(?i:'s|'ſ|", "(?i:[sdmt]|", "(?i:[sſdmt]|",
		`[^\r\n\p{L}\p{N}]?+`, `(?>[^\r\n\p{L}\p{N}]?)`, `[^\s\p{L}\p{N}]++`, `(?>[^\s\p{L}\p{N}]+)`,
	).Replace(pattern))
	require.NoError(t, err, pattern)
	return engine
}

// The scanners are what an engine makes of the very patterns that they replace.
func TestScannersEqualTheirPatterns(t *testing.T) {
	for pattern, scan := range token.Scanners {
		engine := engineFor(t, pattern)
		for _, g := range goldens(t, "llama3", "cases.jsonl") {
			require.Equal(t, pieces(t, engine, g.Text), pieces(t, scan, g.Text), "%s: %q", pattern, g.Text)
		}
		random := rand.New(rand.NewPCG(7, 8))
		for range 4000 {
			var text strings.Builder
			for range random.IntN(12) {
				text.WriteString(alphabet[random.IntN(len(alphabet))])
			}
			require.Equal(t, pieces(t, engine, text.String()), pieces(t, scan, text.String()), "%s: %q", pattern, text.String())
		}
	}
}

func FuzzScanners(f *testing.F) {
	for _, text := range []string{"I'll go, it's 12345.\r\n\n  naïve \t王 x", "'ſ'S  \u00a0é\xff\xc3"} {
		f.Add(text)
	}
	engines := map[string]token.Splitter{}
	for pattern := range token.Scanners {
		engines[pattern] = engineFor(f, pattern)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for pattern, scan := range token.Scanners {
			require.Equal(t, pieces(t, engines[pattern], text), pieces(t, scan, text), pattern)
		}
	})
}

const unknownPattern = `{"pre_tokenizer":{"type":"Sequence","pretokenizers":[
	{"type":"Split","pattern":{"Regex":"x+|y(?!z)"},"behavior":"Isolated","invert":false},
	{"type":"ByteLevel","use_regex":false}]},
	"model":{"type":"BPE","vocab":{"x":0,"y":1,"z":2,"xy":3,"yz":4,"xx":5,"yy":6},"merges":["x y","y z","x x","y y"]}}`

// A pattern that nobody wrote a scanner for is refused by name, or left to an
// engine where there is one.
func TestOtherPatterns(t *testing.T) {
	_, err := token.FromJSON([]byte(unknownPattern))
	require.ErrorContains(t, err, `pre_tokenizer: Split: pattern "x+|y(?!z)" is not known`)

	regex.Enable()
	defer token.RegisterPattern(nil)
	tok, err := token.FromJSON([]byte(unknownPattern))
	require.NoError(t, err)
	require.Equal(t, []int32{5, 1, 1, 5, 4}, tok.Encode("xxyyxxyz", token.EncodeOptions{}))

	_, err = token.FromJSON([]byte(strings.Replace(unknownPattern, "x+|", "x(|", 1)))
	require.ErrorContains(t, err, `pattern "x(|y(?!z)"`)
}
