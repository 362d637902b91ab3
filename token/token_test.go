package token_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/token"
)

var folders = []string{"llama3", "qwen2", "glm4", "glm4-prefix", "smollm2", "gpt2", "llama2"}

func open(t testing.TB, name string) *token.Tokenizer {
	data, err := os.ReadFile(filepath.Join("testdata", name, "tokenizer.json"))
	require.NoError(t, err)
	tok, err := token.FromJSON(data)
	require.NoError(t, err)
	return tok
}

type encodeCase struct {
	Text        string  `json:"text"`
	IDs         []int32 `json:"ids"`
	Special     []int32 `json:"ids_special"`
	Plain       []int32 `json:"ids_plain"`
	Decoded     string  `json:"decoded"`
	DecodedSkip *string `json:"decoded_skip"`
}

func lines[T any](t testing.TB, name, file string) (list []T) {
	data, err := os.ReadFile(filepath.Join("testdata", name, file))
	require.NoError(t, err)
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, 1<<24)
	for scanner.Scan() {
		var v T
		require.NoError(t, json.Unmarshal(scanner.Bytes(), &v))
		list = append(list, v)
	}
	require.NotEmpty(t, list)
	return list
}

func ids(list []int32) []int32 {
	if list == nil {
		return []int32{}
	}
	return list
}

// checkCases holds a tokenizer to every line of cases.jsonl.
func checkCases(t *testing.T, tok *token.Tokenizer, name string) {
	for i, c := range lines[encodeCase](t, name, "cases.jsonl") {
		require.Equal(t, ids(c.IDs), ids(tok.Encode(c.Text, token.EncodeOptions{})), "line %d: %q", i+1, c.Text)
		require.Equal(t, ids(c.Special), ids(tok.Encode(c.Text, token.EncodeOptions{Special: true})), "line %d, special: %q", i+1, c.Text)
		plain := c.Plain
		if plain == nil {
			plain = c.IDs
		}
		require.Equal(t, ids(plain), ids(tok.Encode(c.Text, token.EncodeOptions{PlainSpecial: true})), "line %d, plain: %q", i+1, c.Text)
		checkDecode(t, tok, i, c.IDs, c.Decoded, c.DecodedSkip)
	}
}

func checkDecode(t *testing.T, tok *token.Tokenizer, i int, list []int32, decoded string, skip *string) {
	require.Equal(t, decoded, tok.Decode(list, false), "line %d", i+1)
	if skip == nil {
		skip = &decoded
	}
	require.Equal(t, *skip, tok.Decode(list, true), "line %d, special tokens left out", i+1)
	if strings.ContainsRune(decoded, utf8.RuneError) {
		return
	}
	stream := tok.Stream(false)
	var text strings.Builder
	for _, id := range list {
		piece := stream.Push(id)
		require.True(t, utf8.ValidString(piece))
		text.WriteString(piece)
	}
	text.WriteString(stream.Flush())
	require.Equal(t, decoded, text.String(), "line %d, streamed", i+1)
}

func TestGoldens(t *testing.T) {
	for _, name := range folders {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name)
			checkCases(t, tok, name)
			for i, c := range lines[encodeCase](t, name, "decode.jsonl") {
				checkDecode(t, tok, i, c.IDs, c.Decoded, c.DecodedSkip)
			}
		})
	}
}

func TestGGUF(t *testing.T) {
	for _, name := range []string{"llama3", "qwen2", "glm4", "smollm2", "llama2"} {
		t.Run(name, func(t *testing.T) {
			f, err := gguf.Open(filepath.Join("testdata", name, "vocab.gguf"))
			require.NoError(t, err)
			defer f.Close()
			tok, err := token.FromGGUF(f.Meta)
			require.NoError(t, err)
			checkCases(t, tok, name)
			again, err := token.FromJSON(tok.JSON())
			require.NoError(t, err)
			checkCases(t, again, name)
		})
	}
}

func TestStreamHoldsCutCharacters(t *testing.T) {
	tok := open(t, "gpt2")
	stream := tok.Stream(false)
	list := tok.Encode("🙂", token.EncodeOptions{})
	require.Greater(t, len(list), 1)
	for _, id := range list[:len(list)-1] {
		require.Empty(t, stream.Push(id))
	}
	require.Equal(t, "🙂", stream.Push(list[len(list)-1]))
}

// A piece without breaks must not take quadratic time.
func TestLongPieces(t *testing.T) {
	for _, name := range []string{"llama3", "llama2"} {
		tok := open(t, name)
		text := strings.Repeat("a", 1<<20)
		require.Equal(t, text, strings.TrimPrefix(tok.Decode(tok.Encode(text, token.EncodeOptions{}), false), " "))
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`{`: "tokenizer.json", `{}`: "model", `{"model":{"type":"WordPiece"}}`: "WordPiece",
		`{"model":{"type":"BPE","vocab":{}}}`:                                                                                                      "vocab is empty",
		`{"model":{"type":"BPE","vocab":{"a":0}}}`:                                                                                                 "pre_tokenizer",
		`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0}}}`:                                                            "merges are missing",
		`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}`:                                           `"b" is no token`,
		`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}}`:                                             "no pair",
		`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}}`:                                          "id 0 is both",
		`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}}`:                                       "4000000000",
		`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}`:                                               "-1",
		`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"x+"},"behavior":"Isolated"}]},"model":{"vocab":{"a":0},"merges":[]}}`: `"x+"`,
		`{"added_tokens":[{"id":9999999,"content":"x"}],"pre_tokenizer":{"type":"ByteLevel"},"model":{"vocab":{"a":0},"merges":[]}}`:               "9999999",
		`{"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"ByteLevel"},"model":{"vocab":{"a":0},"merges":[]}}`:                           "Lowercase",
	} {
		_, err := token.FromJSON([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
	_, err := token.FromGGUF(map[string]any{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": []string{"a"}})
	require.ErrorContains(t, err, "merges")
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`), "abba")
	f.Add([]byte(`{"normalizer":{"type":"Prepend","prepend":"▁"},"decoder":{"type":"Sequence","decoders":[]},"model":{"vocab":{"▁":0,"<0x0A>":1},"merges":[],"byte_fallback":true}}`), "\n")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := token.FromJSON(data)
		if err != nil {
			return
		}
		tok.Decode(tok.Encode(text, token.EncodeOptions{Special: true}), false)
	})
}

func FuzzEncode(f *testing.F) {
	tok := open(f, "llama3")
	f.Add("Hello, world! I'll go; it's 12345.\n\n  naïve 王 🙂")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		require.Equal(t, text, tok.Decode(tok.Encode(text, token.EncodeOptions{}), false))
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := open(b, "llama3")
	var text strings.Builder
	for _, c := range lines[encodeCase](b, "llama3", "cases.jsonl") {
		text.WriteString(c.Text + "\n")
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		tok.Encode(text.String(), token.EncodeOptions{})
	}
}
