package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/api"
	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/sample"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/token"
)

const tinyTokenizer = `{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
	"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},
	"added_tokens":[{"id":3,"content":"<end>","special":true,"ends_text":true},{"id":4,"content":"<turn>","special":true}]}`

// What ends an answer is named in three places, and all count, each id once and
// none outside the vocabulary.
func TestStopTokens(t *testing.T) {
	tokenizer, err := token.FromJSON([]byte(tinyTokenizer))
	require.NoError(t, err)
	for _, test := range []struct {
		config     []int32
		generation string
		want       []int32
	}{
		{nil, ``, []int32{3}},
		{[]int32{1}, ``, []int32{1, 3}},
		{[]int32{1}, `{"eos_token_id": 4}`, []int32{1, 4, 3}},
		{[]int32{3, 1}, `{"eos_token_id": [4, 1, 3]}`, []int32{3, 1, 4}},
		{[]int32{-1, 99, 2}, `{"eos_token_id": [1000]}`, []int32{2, 3}},
		{nil, `{"eos_token_id": null}`, []int32{3}},
	} {
		m := &shard.Manifest{Model: &model.Config{Vocab: 8, EOS: test.config}, Generation: json.RawMessage(test.generation)}
		got, err := stopTokens(m, tokenizer, nil)
		require.NoError(t, err)
		require.Equal(t, test.want, got, test.generation)
	}
	_, err = stopTokens(&shard.Manifest{Model: &model.Config{Vocab: 8}, Generation: json.RawMessage(`{"eos_token_id": "x"}`)}, tokenizer, nil)
	require.ErrorContains(t, err, "eos_token_id")

	// The template's family knows what its turns end with.
	src, err := embedded.Open()
	require.NoError(t, err)
	m := *src.Manifest()
	tiny, err := needTokenizer(&m)
	require.NoError(t, err)
	template, err := openTemplate(&m, tiny)
	require.NoError(t, err)
	require.NotEmpty(t, template.StopTokens())
	ids, err := stopTokens(&m, tiny, template)
	require.NoError(t, err)
	for _, text := range template.StopTokens() {
		if id, ok := tiny.ID(text); ok {
			require.Contains(t, ids, id, text)
		}
	}
	for _, id := range m.Model.EOS {
		require.Contains(t, ids, id)
	}
}

// The model's own sampling counts where nobody asks for another.
func TestGenerationDefaults(t *testing.T) {
	for generation, want := range map[string]api.Defaults{
		``:                    {Temperature: 0.7, TopP: 0.95},
		`{"eos_token_id": 2}`: {Temperature: 0.7, TopP: 0.95},
		`{"do_sample": true}`: {Temperature: 1, TopP: 1},
		`{"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1}`: {Temperature: 0.6, TopP: 0.95, TopK: 20, MinP: 0.1},
		`{"temperature": 0.6, "do_sample": false}`:                       {Temperature: 0, TopP: 1},
		`{"top_p": 0, "top_k": -1}`:                                      {Temperature: 1, TopP: 1},
	} {
		g, err := generationOf(generation)
		require.NoError(t, err)
		require.Equal(t, want, g.defaults(), generation)
	}
	_, err := generationOf(`{"temperature": "warm"}`)
	require.ErrorContains(t, err, "generation_config.json")
}

func generationOf(text string) (generationConfig, error) {
	return generation(&shard.Manifest{Generation: json.RawMessage(text)})
}

// Ids that no token has are never sampled, however likely.
func TestPaddingIsHidden(t *testing.T) {
	tokenizer, err := token.FromJSON([]byte(tinyTokenizer))
	require.NoError(t, err)
	for _, temperature := range []float64{0, 2} {
		sampler, err := sample.New(sample.Params{Temperature: temperature, TopP: 1, Seed: 3}, sample.Plain{})
		require.NoError(t, err)
		for range 50 {
			logits := []float32{1, 2, 0, 1, 0, 30, 40, 50}
			hidePadding(tokenizer, logits)
			id, err := sampler.Sample(logits, nil)
			require.NoError(t, err)
			require.Less(t, id, int32(5))
		}
	}
}

func TestDisplayName(t *testing.T) {
	named := &shard.Manifest{Model: &model.Config{Name: "Smollm2 135M 8k Mix1"}}
	nameless := &shard.Manifest{Model: &model.Config{}}
	for _, c := range []struct {
		m              *shard.Manifest
		argument, want string
	}{
		{named, "models/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1"},
		{named, "hf:owner/repo/file.gguf", "file"},
		{named, "./store/", "Smollm2 135M 8k Mix1"},
		{nameless, "./store/", "store"},
		{nameless, "", "potluck-tiny"},
	} {
		require.Equal(t, c.want, displayName(c.m, c.argument))
	}
}
