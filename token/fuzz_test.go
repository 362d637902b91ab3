package token_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token"
)

// maxFuzzed keeps an attempt short: a file may multiply a text's length.
const maxFuzzed = 1 << 12

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`), "abba")
	f.Add([]byte(`{"normalizer":{"type":"Prepend","prepend":"▁"},"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},"model":{"vocab":{"▁":0,"<0x0A>":1},"merges":[],"byte_fallback":true}}`), " \n")
	for _, name := range []string{"gpt2", "llama2"} {
		data, err := os.ReadFile(filepath.Join("testdata", name, "tokenizer.json"))
		require.NoError(f, err)
		f.Add(data, "It's 12 o'clock.")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := token.FromJSON(data)
		if err != nil || len(text) > maxFuzzed {
			return
		}
		ids := tok.Encode(text, token.EncodeOptions{Special: true})
		for _, id := range ids {
			require.True(t, tok.Defined(id), "id %d", id)
		}
		tok.Decode(ids, false)
		for _, id := range ids {
			tok.Text(id)
		}
	})
}

func FuzzFromGGUF(f *testing.F) {
	f.Add("gpt2", "llama-bpe", "a b ab <s>", "\x01\x01\x01\x03", "a b", uint64(3), "abab")
	f.Add("llama", "", "<unk> ▁ a ▁a <0x0A>", "\x02\x01\x01\x01\x06", "", uint64(0), "a a\n")
	f.Fuzz(func(t *testing.T, model, pre, tokens, types, merges string, eos uint64, text string) {
		list := strings.Split(tokens, " ")
		kinds, scores := make([]int64, len(types)), make([]float64, len(list))
		for i := range types {
			kinds[i] = int64(types[i])
		}
		for i := range scores {
			scores[i] = -float64(i)
		}
		tok, err := token.FromGGUF(map[string]any{
			"tokenizer.ggml.model": model, "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": list, "tokenizer.ggml.token_type": kinds,
			"tokenizer.ggml.scores": scores, "tokenizer.ggml.merges": strings.Split(merges, "\n"), "tokenizer.ggml.eos_token_id": eos,
		})
		if err != nil || len(text) > maxFuzzed {
			return
		}
		data, err := tok.JSON()
		require.NoError(t, err)
		again, err := token.FromJSON(data)
		require.NoError(t, err)
		ids := tok.Encode(text, token.EncodeOptions{Special: true})
		require.Equal(t, ids, again.Encode(text, token.EncodeOptions{Special: true}))
		require.Equal(t, tok.EOS(), again.EOS())
	})
}

// A byte-level tokenizer without NFC gives every text back, byte for byte where
// it is UTF-8; none may panic.
func FuzzEncode(f *testing.F) {
	var all []*token.Tokenizer
	for _, name := range folders {
		all = append(all, open(f, name))
	}
	f.Add("Hello, world! I'll go; it's 12345.\n\n  naïve 王 🙂", true)
	f.Add("<|begin_of_text|><think>\xff\xf0\x9f</s> <s>[gMASK]/nothink", false)
	f.Fuzz(func(t *testing.T, text string, plain bool) {
		for i, tok := range all {
			ids := tok.Encode(text, token.EncodeOptions{PlainSpecial: plain})
			decoded := tok.Decode(ids, false)
			require.True(t, utf8.ValidString(decoded))
			if !utf8.ValidString(text) {
				continue
			}
			switch folders[i] {
			case "qwen2": // NFC
			case "llama2": // ▁ itself reads as a space, and a space is put before each segment
			default:
				require.Equal(t, text, decoded, folders[i])
			}
			require.Equal(t, decoded, streamed(t, tok, ids, false), folders[i])
		}
	})
}
