package token_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/token"
)

var (
	folders     = []string{"llama3", "qwen2", "glm4", "glm4-prefix", "smollm2", "gpt2", "llama2"}
	ggufFolders = []string{"llama3", "qwen2", "glm4", "smollm2", "llama2"}
)

func open(t testing.TB, name string) *token.Tokenizer {
	data, err := os.ReadFile(filepath.Join("testdata", name, "tokenizer.json"))
	require.NoError(t, err)
	tok, err := token.FromJSON(data)
	require.NoError(t, err)
	return tok
}

// A golden is one line of cases.jsonl or decode.jsonl.
type golden struct {
	Text        string   `json:"text"`
	IDs         []int32  `json:"ids"`
	Special     []int32  `json:"ids_special"`
	Plain       *[]int32 `json:"ids_plain"`
	Decoded     string   `json:"decoded"`
	DecodedSkip *string  `json:"decoded_skip"`
}

func goldens(t testing.TB, name, file string) []golden {
	data, err := os.ReadFile(filepath.Join("testdata", name, file))
	require.NoError(t, err)
	var list []golden
	for line := range bytes.Lines(data) {
		var g golden
		require.NoError(t, json.Unmarshal(line, &g))
		list = append(list, g)
	}
	require.NotEmpty(t, list)
	return list
}

func TestGoldens(t *testing.T) {
	for _, name := range folders {
		t.Run(name, func(t *testing.T) { checkGoldens(t, open(t, name), name) })
	}
}

func TestGoldensFromGGUF(t *testing.T) {
	for _, name := range ggufFolders {
		t.Run(name, func(t *testing.T) { checkGoldens(t, openGGUF(t, name), name) })
	}
}

func openGGUF(t testing.TB, name string) *token.Tokenizer {
	f, err := gguf.Open(filepath.Join("testdata", name, "vocab.gguf"))
	require.NoError(t, err)
	defer f.Close()
	tok, err := token.FromGGUF(f.Meta)
	require.NoError(t, err)
	return tok
}

// checkGoldens holds a tokenizer to all that the reference wrote down.
func checkGoldens(t *testing.T, tok *token.Tokenizer, name string) {
	for i, g := range goldens(t, name, "cases.jsonl") {
		require.Equal(t, g.IDs, tok.Encode(g.Text, token.EncodeOptions{}), "line %d: %q", i+1, g.Text)
		require.Equal(t, g.Special, tok.Encode(g.Text, token.EncodeOptions{Special: true}), "line %d, special: %q", i+1, g.Text)
		if g.Plain == nil {
			g.Plain = &g.IDs
		}
		require.Equal(t, *g.Plain, tok.Encode(g.Text, token.EncodeOptions{PlainSpecial: true}), "line %d, plain: %q", i+1, g.Text)
		checkDecode(t, tok, name, i, g)
	}
	for i, g := range goldens(t, name, "decode.jsonl") {
		checkDecode(t, tok, name, i, g)
	}
}

func checkDecode(t *testing.T, tok *token.Tokenizer, name string, i int, g golden) {
	if g.DecodedSkip == nil {
		g.DecodedSkip = &g.Decoded
	}
	require.Equal(t, g.Decoded, tok.Decode(g.IDs, false), "line %d", i+1)
	require.Equal(t, *g.DecodedSkip, tok.Decode(g.IDs, true), "line %d, special tokens left out", i+1)
	// With byte fallback the reference looks ahead before it gives up a byte.
	if name == "llama2" && strings.ContainsRune(g.Decoded, utf8.RuneError) {
		return
	}
	require.Equal(t, g.Decoded, streamed(t, tok, g.IDs, false), "line %d, streamed", i+1)
	require.Equal(t, *g.DecodedSkip, streamed(t, tok, g.IDs, true), "line %d, streamed, special tokens left out", i+1)
}

func streamed(t *testing.T, tok *token.Tokenizer, ids []int32, skipSpecial bool) string {
	stream := tok.Stream(skipSpecial)
	var text strings.Builder
	for _, id := range ids {
		piece := stream.Push(id)
		require.True(t, utf8.ValidString(piece), "%q", piece)
		text.WriteString(piece)
	}
	text.WriteString(stream.Flush())
	return text.String()
}

// What JSON gives makes an equal tokenizer, also where GGUF metadata named the
// tokens that begin and end a text.
func TestJSONRoundTrip(t *testing.T) {
	for _, name := range ggufFolders {
		t.Run(name, func(t *testing.T) {
			first := openGGUF(t, name)
			data, err := first.JSON()
			require.NoError(t, err)
			second, err := token.FromJSON(data)
			require.NoError(t, err)
			checkGoldens(t, second, name)
			require.NotEmpty(t, second.EOS())
			require.Equal(t, first.EOS(), second.EOS())
			require.Equal(t, first.BOS(), second.BOS())
			requireSameTokens(t, first, second)
			again, err := second.JSON()
			require.NoError(t, err)
			require.Equal(t, data, again)
		})
	}
}

// The published tokenizer.json and the GGUF file of one model agree about every id.
func TestSameTokensFromBoth(t *testing.T) {
	for _, name := range ggufFolders {
		t.Run(name, func(t *testing.T) { requireSameTokens(t, open(t, name), openGGUF(t, name)) })
	}
}

func requireSameTokens(t *testing.T, a, b *token.Tokenizer) {
	require.Equal(t, a.Size(), b.Size())
	for id := range int32(a.Size()) {
		textA, okA := a.Text(id)
		textB, okB := b.Text(id)
		require.Equal(t, okA, okB, "id %d", id)
		require.Equal(t, textA, textB, "id %d", id)
		require.Equal(t, a.Defined(id), b.Defined(id), "id %d", id)
		require.Equal(t, a.IsSpecial(id), b.IsSpecial(id), "id %d", id)
	}
}

// The demo model's tokenizer has GLM-4's structure.
func TestDemoModel(t *testing.T) {
	source, err := embedded.Open()
	require.NoError(t, err)
	tok, err := token.FromJSON(source.Manifest().Tokenizer)
	require.NoError(t, err)
	user, ok := tok.ID("<|user|>")
	require.True(t, ok)
	require.True(t, tok.IsSpecial(user))
	think, ok := tok.ID("<think>")
	require.True(t, ok)
	require.False(t, tok.IsSpecial(think))
	for _, g := range goldens(t, "glm4", "cases.jsonl") {
		ids := tok.Encode(g.Text, token.EncodeOptions{})
		require.Equal(t, g.Text, tok.Decode(ids, false))
		plain := tok.Encode(g.Text, token.EncodeOptions{PlainSpecial: true})
		require.Equal(t, g.Text, tok.Decode(plain, true))
	}
	require.Equal(t, []int32{user, think}, tok.Encode("<|user|><think>", token.EncodeOptions{Special: true}))
}
