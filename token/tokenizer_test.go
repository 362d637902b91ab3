package token_test

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token"
)

// withAdded is a byte-level tokenizer of the letters a to d and the space, with
// the given added tokens.
func withAdded(t *testing.T, added string) *token.Tokenizer {
	tok, err := token.FromJSON(fmt.Appendf(nil, `{
		"added_tokens": [%s],
		"pre_tokenizer": {"type":"ByteLevel"},
		"model": {"vocab":{"a":0,"b":1,"c":2,"d":3,"Ġ":4,"ab":5,"_":6},"merges":["a b"]}}`, added))
	require.NoError(t, err)
	return tok
}

func TestAddedTokens(t *testing.T) {
	tok := withAdded(t, `
		{"id":10,"content":"cd","special":false},
		{"id":11,"content":"cdd","special":true},
		{"id":12,"content":"dad","single_word":true,"special":false},
		{"id":13,"content":"<l>","lstrip":true,"special":true},
		{"id":14,"content":"<r>","rstrip":true,"special":true},
		{"id":15,"content":"<n>","special":false,"normalized":true}`)
	for _, c := range []struct {
		text       string
		ids, plain []int32
	}{
		{"acdb", []int32{0, 10, 1}, nil},
		{"acddb", []int32{0, 11, 1}, []int32{0, 2, 3, 3, 1}}, // the longest; inside it nothing is searched
		{"dad dad", []int32{12, 4, 12}, nil},
		{"adad", []int32{0, 3, 0, 3}, nil},
		{"dad_", []int32{3, 0, 3, 6}, nil},
		{"a  <l> b", []int32{0, 13, 4, 1}, []int32{0, 4, 4, 4, 1}},
		{"a  <r> b", []int32{0, 4, 4, 14, 1}, []int32{0, 4, 4, 4, 1}},
		{"<r>  <l>", []int32{14, 13}, []int32{4, 4}},
		{"a<n>", []int32{0, 15}, nil},
		{"", []int32{}, nil},
	} {
		require.Equal(t, c.ids, tok.Encode(c.text, token.EncodeOptions{}), "%q", c.text)
		if c.plain == nil {
			c.plain = c.ids
		}
		require.Equal(t, c.plain, tok.Encode(c.text, token.EncodeOptions{PlainSpecial: true}), "plain: %q", c.text)
	}
}

func TestTokenLookup(t *testing.T) {
	tok := withAdded(t, `{"id":10,"content":"<|end|>","special":true}`)
	require.Equal(t, 11, tok.Size())
	for id, want := range map[int32]string{0: "a", 4: " ", 5: "ab", 10: "<|end|>"} {
		text, ok := tok.Text(id)
		require.True(t, ok)
		require.Equal(t, want, text)
	}
	for _, id := range []int32{-1, 7, 9, 11, 1 << 30} {
		require.False(t, tok.Defined(id))
		require.False(t, tok.IsSpecial(id))
		_, ok := tok.Text(id)
		require.False(t, ok)
	}
	require.True(t, tok.IsSpecial(10))
	require.False(t, tok.IsSpecial(5))
	for text, want := range map[string]int32{"<|end|>": 10, "Ġ": 4, " ": 4, "ab": 5} {
		id, ok := tok.ID(text)
		require.True(t, ok, text)
		require.Equal(t, want, id, text)
	}
	_, ok := tok.ID("abc")
	require.False(t, ok)
	require.Equal(t, "aab", tok.Decode([]int32{0, 7, -1, 1 << 20, 5}, false))
}

// Metaspace is how newer files of the Llama family spell SentencePiece.
func TestMetaspace(t *testing.T) {
	const form = `{
		"added_tokens": [{"id":9,"content":"<s>","special":true}],
		"pre_tokenizer": {"type":"Metaspace","replacement":"▁","prepend_scheme":%q,"split":%t},
		"decoder": {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
		"model": {"vocab":{"▁":0,"a":1,"▁a":2,"▁▁":3,"<0x0A>":4},"merges":["▁ ▁","▁ a"],"byte_fallback":true}}`
	for _, c := range []struct {
		scheme string
		split  bool
		text   string
		want   []int32
	}{
		{"always", false, "a<s>a", []int32{2, 9, 2}},
		{"first", false, "a<s>a", []int32{2, 9, 1}},
		{"first", false, "<s>a", []int32{9, 1}},
		{"never", false, "a a", []int32{1, 2}},
		{"first", false, " a", []int32{2}}, // no second ▁
		{"first", false, "a  a\n", []int32{2, 3, 1, 4}},
		{"first", true, "a  a\n", []int32{2, 0, 2, 4}}, // ▁▁ is cut
	} {
		tok, err := token.FromJSON(fmt.Appendf(nil, form, c.scheme, c.split))
		require.NoError(t, err)
		require.Equal(t, c.want, tok.Encode(c.text, token.EncodeOptions{}), "%s %v %q", c.scheme, c.split, c.text)
	}
}

func TestUnknownSymbols(t *testing.T) {
	const form = `{
		"normalizer": {"type":"Replace","pattern":{"String":" "},"content":"▁"},
		"decoder": {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},
		"model": {"vocab":{"▁":0,"a":1,"?":2,"<0xC3>":3},"merges":[],"unk_token":"?","fuse_unk":%t,"byte_fallback":true}}`
	for fuse, want := range map[bool][]int32{true: {1, 2, 0, 2, 1}, false: {1, 2, 2, 0, 2, 1}} {
		tok, err := token.FromJSON(fmt.Appendf(nil, form, fuse))
		require.NoError(t, err)
		require.Equal(t, want, tok.Encode("aéx za", token.EncodeOptions{}), "fuse %v", fuse)
	}
}

func TestStreamHoldsCutCharacters(t *testing.T) {
	for _, name := range []string{"gpt2", "llama2"} {
		tok := open(t, name)
		for _, text := range []string{"🙂", "🧜", "x鿕y"} {
			stream := tok.Stream(false)
			given := ""
			for _, id := range tok.Encode(text, token.EncodeOptions{}) {
				piece := stream.Push(id)
				require.True(t, utf8.ValidString(piece))
				require.NotContains(t, piece, "\ufffd")
				given += piece
			}
			require.Equal(t, text, given+stream.Flush(), name)
		}
	}
	tok := open(t, "gpt2")
	first := tok.Encode("🙂", token.EncodeOptions{})[0]
	stream := tok.Stream(false)
	require.Empty(t, stream.Push(first))
	require.Equal(t, "\ufffd", stream.Flush())
	require.Empty(t, stream.Flush())
}

func TestManyGoroutines(t *testing.T) {
	tok := open(t, "qwen2")
	cases := goldens(t, "qwen2", "cases.jsonl")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for _, g := range cases {
				if ids := tok.Encode(g.Text, token.EncodeOptions{}); fmt.Sprint(ids) != fmt.Sprint(g.IDs) {
					t.Errorf("%q: %v, want %v", g.Text, ids, g.IDs)
				}
			}
		})
	}
	all.Wait()
}

// ggufMeta is the metadata of a byte-level tokenizer with padding at its end.
func ggufMeta(change map[string]any) map[string]any {
	meta := map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe",
		"tokenizer.ggml.tokens":       []any{"a", "b", "ab", "<s>", "<think>", "</s>", "[PAD6]"},
		"tokenizer.ggml.token_type":   []any{int64(1), int64(1), int64(1), int64(3), int64(4), int64(1), int64(5)},
		"tokenizer.ggml.merges":       []string{"a b"},
		"tokenizer.ggml.bos_token_id": uint64(3), "tokenizer.ggml.eos_token_id": float64(5), "tokenizer.ggml.eot_token_id": int64(-1),
	}
	maps.Copy(meta, change)
	return meta
}

func TestGGUFMetadata(t *testing.T) {
	tok, err := token.FromGGUF(ggufMeta(nil))
	require.NoError(t, err)
	require.Equal(t, []int32{3, 2, 4, 5}, tok.Encode("ab<think></s>", token.EncodeOptions{Special: true}), "Llama 3 begins with BOS unless the file says no")
	require.Equal(t, []int32{3}, tok.BOS())
	require.Equal(t, []int32{5}, tok.EOS())
	require.True(t, tok.IsSpecial(5), "what ends a text is a control token whatever its type")
	require.False(t, tok.IsSpecial(4))
	require.False(t, tok.Defined(6), "padding")

	tok, err = token.FromGGUF(ggufMeta(map[string]any{"tokenizer.ggml.add_bos_token": false, "tokenizer.ggml.add_eos_token": true}))
	require.NoError(t, err)
	require.Equal(t, []int32{2, 5}, tok.Encode("ab", token.EncodeOptions{Special: true}))
}

func TestGGUFRefusals(t *testing.T) {
	sentence := map[string]any{"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": []string{"a", "b"}, "tokenizer.ggml.token_type": []int64{1, 1}, "tokenizer.ggml.bos_token_id": nil, "tokenizer.ggml.eos_token_id": nil}
	for want, change := range map[string]map[string]any{
		"tokenizer.ggml.model is":                       {"tokenizer.ggml.model": "bert"},
		"tokenizer.ggml.tokens is missing":              {"tokenizer.ggml.tokens": 3},
		"tokenizer.ggml.merges is missing":              {"tokenizer.ggml.merges": nil},
		"merge 0: \"c\" is no token":                    {"tokenizer.ggml.merges": []string{"a c"}},
		"merge 0: \"a\" is no pair":                     {"tokenizer.ggml.merges": []string{"a"}},
		"tokenizer.ggml.pre is \"\"":                    {"tokenizer.ggml.pre": nil},
		"tokenizer.ggml.pre is \"default\"":             {"tokenizer.ggml.pre": "default"},
		"token_type has 1 entries for 7 tokens":         {"tokenizer.ggml.token_type": []int64{1}},
		"eos_token_id is 7, want an id of 7 tokens":     {"tokenizer.ggml.eos_token_id": uint64(7)},
		"bos_token_id is no number":                     {"tokenizer.ggml.bos_token_id": "x"},
		"\"a\" stands twice, with ids 0 and 1":          {"tokenizer.ggml.tokens": []string{"a", "a", "ab", "<s>", "", "</s>", ""}},
		"tokenizer.ggml.scores has 0 entries for 2":     sentence,
		"scores: token 1 has no number":                 with(sentence, "tokenizer.ggml.scores", []float64{0, math.NaN()}),
		"tokens: token 0 has 2000 bytes, at most 1024":  with(with(sentence, "tokenizer.ggml.scores", []float64{0, 0}), "tokenizer.ggml.tokens", []string{strings.Repeat("a", 2000), "b"}),
		"added_tokens: the text of id 3 has 1000 bytes": {"tokenizer.ggml.tokens": []string{"a", "b", "ab", strings.Repeat("s", 1000), "", "</s>", ""}},
	} {
		_, err := token.FromGGUF(ggufMeta(change))
		require.ErrorContains(t, err, want)
	}
}

func with(m map[string]any, key string, value any) map[string]any {
	m = maps.Clone(m)
	m[key] = value
	return m
}

func TestRefusals(t *testing.T) {
	const byteLevel = `"pre_tokenizer":{"type":"ByteLevel"},`
	for _, c := range []struct{ file, want string }{
		{`{`, "unexpected end of JSON input"},
		{`{}`, "model: missing"},
		{`{"model":{"type":"WordPiece"}}`, `model: type "WordPiece"`},
		{`{"model":{"vocab":{}}}`, "model: vocab is empty"},
		{`{"model":{"vocab":[]}}`, "model: vocab is no object"},
		{`{"model":{"vocab":{"a":"b"}}}`, `the id of "a" is no whole number`},
		{`{"model":{"vocab":{"a":{}}}}`, `the id of "a" is no whole number`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0}}}`, "model: merges are missing"},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":["a"]}}`, `merge 0: "a" is no pair`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[["a","b","c"]]}}`, `merge 0: ["a" "b" "c"] is no pair`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":{}}}`, "model: merges: want a list of pairs"},
		{`{` + byteLevel + `"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b","a c"]}}`, `merge 1: "c" is no token`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0,"b":1},"merges":["a b"]}}`, `merge 0: "ab" is no token`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0,"b":0},"merges":[]}}`, `vocab: id 0 is both "a" and "b"`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0,"a":1},"merges":[]}}`, `vocab: "a" stands twice, with ids 0 and 1`},
		{`{` + byteLevel + `"model":{"vocab":{"a":4000000000},"merges":[]}}`, "vocab: id 4000000000 among 1 tokens"},
		{`{` + byteLevel + `"model":{"vocab":{"a":100000},"merges":[]}}`, "vocab: id 100000 among 1 tokens"},
		{`{` + byteLevel + `"model":{"vocab":{"a":-1},"merges":[]}}`, "has id -1, want 0 to"},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[],"unk_token":"u"}}`, `unk_token "u" is no token`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[],"dropout":0.1}}`, "dropout 0.1"},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>"}}`, "end_of_word_suffix"},
		{`{` + byteLevel + `"added_tokens":[{"id":9999999,"content":"x"}],"model":{"vocab":{"a":0},"merges":[]}}`, `added_tokens: number 0: "x" has id 9999999`},
		{`{` + byteLevel + `"added_tokens":[{"id":0,"content":"x"}],"model":{"vocab":{"a":0},"merges":[]}}`, `id 0 is both "a" and "x"`},
		{`{` + byteLevel + `"added_tokens":[{"id":1,"content":"a"}],"model":{"vocab":{"a":0},"merges":[]}}`, `"a" has id 1, but 0 in the vocabulary`},
		{`{` + byteLevel + `"added_tokens":[{"id":1,"content":"x"},{"id":2,"content":"x"}],"model":{"vocab":{"a":0},"merges":[]}}`, `"x" stands twice, with ids 1 and 2`},
		{`{` + byteLevel + `"added_tokens":[{"id":1,"content":""}],"model":{"vocab":{"a":0},"merges":[]}}`, "the text of id 1 has 0 bytes"},
		{`{"model":{"vocab":{"a":0},"merges":[]}}`, "neither byte-level nor SentencePiece style"},
		{`{"pre_tokenizer":{"type":"Whitespace"},"model":{"vocab":{"a":0},"merges":[]}}`, `pre_tokenizer: type "Whitespace" is not known`},
		{`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true},"model":{"vocab":{"a":0},"merges":[]}}`, "add_prefix_space"},
		{`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[null]},"model":{"vocab":{"a":0},"merges":[]}}`, "pre_tokenizer: step 0 is null"},
		{`{"normalizer":{"type":"Lowercase"},"model":{"vocab":{"a":0},"merges":[]}}`, `normalizer: type "Lowercase" is not known`},
		{`{"normalizer":{"type":"Replace","pattern":{"String":""},"content":"x"},"model":{"vocab":{"a":0},"merges":[]}}`, "normalizer: Replace"},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[]},"post_processor":{"type":"BertProcessing"}}`, `post_processor: type "BertProcessing" is not known`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[]},"post_processor":{"type":"TemplateProcessing","single":[]}}`, "holds the text 0 times"},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[]},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"s"}}],"special_tokens":{"s":{"ids":[7]}}}}`, `"s" has id 7, which no token has`},
		{`{` + byteLevel + `"model":{"vocab":{"a":0},"merges":[]},"decoder":{"type":"WordPiece"}}`, `decoder: type "WordPiece"`},
		{`{"normalizer":{"type":"Prepend","prepend":"▁"},"model":{"vocab":{"a":0},"merges":[]}}`, "decoder: steps"},
	} {
		_, err := token.FromJSON([]byte(c.file))
		require.ErrorContains(t, err, c.want, c.file)
		require.ErrorContains(t, err, "tokenizer.json: ", c.file)
	}
}
