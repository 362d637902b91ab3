package token_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token"
)

// A variant is a change to a folder's tokenizer.json and what the reference then
// gives.
type variant struct {
	Folder       string          `json:"folder"`
	Flags        []string        `json:"flags"`
	PreTokenizer json.RawMessage `json:"pre_tokenizer"`
	Cases        []golden        `json:"cases"`
}

func TestVariants(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "variants.jsonl"))
	require.NoError(t, err)
	number := 0
	for line := range bytes.Lines(data) {
		var v variant
		require.NoError(t, json.Unmarshal(line, &v))
		number++
		t.Run(fmt.Sprint(v.Folder, number), func(t *testing.T) {
			tok := v.tokenizer(t)
			for _, g := range v.Cases {
				require.Equal(t, g.IDs, tok.Encode(g.Text, token.EncodeOptions{}), "%q", g.Text)
				if g.Plain == nil {
					g.Plain = &g.IDs
				}
				require.Equal(t, *g.Plain, tok.Encode(g.Text, token.EncodeOptions{PlainSpecial: true}), "plain: %q", g.Text)
			}
		})
	}
	require.Equal(t, 12, number)
}

func (v *variant) tokenizer(t *testing.T) *token.Tokenizer {
	data, err := os.ReadFile(filepath.Join("testdata", v.Folder, "tokenizer.json"))
	require.NoError(t, err)
	var file map[string]any
	require.NoError(t, json.Unmarshal(data, &file))
	for i, flags := range v.Flags {
		added := file["added_tokens"].([]any)[i].(map[string]any)
		for letter, key := range map[string]string{"l": "lstrip", "r": "rstrip", "w": "single_word", "n": "normalized"} {
			added[key] = strings.Contains(flags, letter)
		}
	}
	if v.PreTokenizer != nil {
		file["normalizer"], file["pre_tokenizer"] = nil, v.PreTokenizer
	}
	data, err = json.Marshal(file)
	require.NoError(t, err)
	tok, err := token.FromJSON(data)
	require.NoError(t, err)
	return tok
}
