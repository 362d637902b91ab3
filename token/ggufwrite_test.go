package token_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/token"
)

// rewritten writes a tokenizer as GGUF metadata and reads it back.
func rewritten(t *testing.T, tok *token.Tokenizer, o token.GGUFOptions) (again *token.Tokenizer, meta map[string]any, notes []string) {
	written, notes, err := tok.GGUF(o)
	require.NoError(t, err)
	var pairs []gguf.Pair
	for _, p := range written {
		pairs = append(pairs, gguf.Pair(p))
	}
	var data bytes.Buffer
	w, err := gguf.NewWriter(&data, pairs, nil)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	f, err := gguf.New(bytes.NewReader(data.Bytes()), int64(data.Len()), "memory")
	require.NoError(t, err)
	again, err = token.FromGGUF(f.Meta)
	require.NoError(t, err)
	return again, f.Meta, notes
}

// Every tokenizer.json keeps all the reference's results on its way through a
// GGUF file; one cannot say what it puts before a text, and says that.
func TestGoldensThroughGGUF(t *testing.T) {
	for _, name := range folders {
		t.Run(name, func(t *testing.T) {
			tok := open(t, name)
			arch := map[string]string{"glm4": "glm4moe", "glm4-prefix": "glm"}[name]
			again, _, notes := rewritten(t, tok, token.GGUFOptions{Vocab: tok.Size() + 3, Arch: arch})
			if name != "glm4-prefix" {
				require.Empty(t, notes)
				checkGoldens(t, again, name)
				return
			}
			require.Len(t, notes, 1)
			require.Contains(t, notes[0], "2 tokens before a text")
			for _, g := range goldens(t, name, "cases.jsonl") {
				require.Equal(t, g.IDs, again.Encode(g.Text, token.EncodeOptions{Special: true}), g.Text)
			}
		})
	}
}

func TestGGUFSpecials(t *testing.T) {
	tok := open(t, "glm4")
	id := func(text string) int32 {
		id, ok := tok.ID(text)
		require.True(t, ok, text)
		return id
	}
	end, user, observation := id("<|endoftext|>"), id("<|user|>"), id("<|observation|>")
	for _, order := range [][]int32{{end, user, observation}, {end, observation, user}} {
		again, meta, notes := rewritten(t, tok, token.GGUFOptions{Vocab: tok.Size(), Arch: "glm4moe", Ends: order, Pad: &end})
		require.Empty(t, notes)
		require.Equal(t, "glm4", meta["tokenizer.ggml.pre"])
		require.Equal(t, uint64(end), meta["tokenizer.ggml.eos_token_id"])
		require.Equal(t, uint64(user), meta["tokenizer.ggml.eot_token_id"])
		require.Equal(t, uint64(observation), meta["tokenizer.ggml.eom_token_id"], "a tool goes on")
		require.Equal(t, uint64(end), meta["tokenizer.ggml.padding_token_id"])
		require.ElementsMatch(t, order, again.EOS())
	}
	_, _, notes := rewritten(t, tok, token.GGUFOptions{Vocab: tok.Size(), Arch: "glm4moe", Ends: []int32{1, 2, 3, 4}})
	require.Len(t, notes, 1)
	_, _, err := tok.GGUF(token.GGUFOptions{Vocab: tok.Size() - 1})
	require.ErrorContains(t, err, "vocabulary")

	// A way to split text that llama.cpp has no name for is no file.
	for _, strange := range []string{
		`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},"model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`,
		`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]},` +
			`"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`,
	} {
		tok, err := token.FromJSON([]byte(strange))
		require.NoError(t, err)
		_, _, err = tok.GGUF(token.GGUFOptions{Vocab: 3})
		require.ErrorContains(t, err, "no name")
	}
}
