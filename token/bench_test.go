package token_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/potluck-llm/potluck/token"
)

// prose is the goldens' texts, one after another: many languages, code, odd
// characters.
func prose(b *testing.B) string {
	var text strings.Builder
	for _, g := range goldens(b, "llama3", "cases.jsonl") {
		text.WriteString(g.Text + "\n")
	}
	return text.String()
}

// newWords is a text of words that hardly come twice, so that the cache does not
// help.
func newWords() string {
	random := rand.New(rand.NewPCG(9, 10))
	var text strings.Builder
	for text.Len() < 1<<20 {
		for range 3 + random.IntN(9) {
			text.WriteByte("etaoinshrdlucmfwyp"[min(random.IntN(18), random.IntN(18))])
		}
		text.WriteByte(' ')
	}
	return text.String()
}

func BenchmarkEncode(b *testing.B) {
	texts := []struct{ name, text string }{{"prose", prose(b)}, {"words", newWords()}, {"line", strings.Repeat("a", 1<<20)}}
	for _, name := range folders {
		for _, t := range texts {
			b.Run(name+"/"+t.name, func(b *testing.B) {
				tok := open(b, name)
				b.SetBytes(int64(len(t.text)))
				b.ReportAllocs()
				for b.Loop() {
					tok.Encode(t.text, token.EncodeOptions{})
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"llama3", "llama2"} {
		b.Run(name, func(b *testing.B) {
			tok := open(b, name)
			text := prose(b)
			ids := tok.Encode(text, token.EncodeOptions{})
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.Decode(ids, false)
			}
		})
	}
}

func BenchmarkFromJSON(b *testing.B) {
	data, err := os.ReadFile(filepath.Join("testdata", "llama3", "tokenizer.json"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := token.FromJSON(data); err != nil {
			b.Fatal(err)
		}
	}
}
