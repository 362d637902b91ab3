package convert

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/token"
)

// vocabulary is the tokenizer's metadata: a GGUF file's own, or what says the
// same as tokenizer.json.
func (e *export) vocabulary(f facts) ([]model.Pair, error) {
	var pairs []model.Pair
	switch {
	case len(f.vocabulary) > 0:
		pairs = f.vocabulary
	case len(f.tokenizer) == 0:
		pairs = append(pairs, model.Pair{Key: "tokenizer.ggml.model", Value: "none"})
	default:
		t, err := token.FromJSON(f.tokenizer)
		if err != nil {
			return nil, err
		}
		c := f.config
		var notes []string
		pairs, notes, err = t.GGUF(token.GGUFOptions{Vocab: c.Vocab, Arch: c.Arch, BOS: c.BOS, Pad: c.Pad, Ends: endTokens(f)})
		if err != nil {
			return nil, err
		}
		e.notes = append(e.notes, notes...)
	}
	if f.template != "" {
		pairs = append(pairs, model.Pair{Key: "tokenizer.chat_template", Value: f.template})
	}
	return pairs, nil
}

// endTokens are the ids that end an answer: generation_config's, which people
// set last, then the configuration's.
func endTokens(f facts) []int32 {
	var g struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	var ids []int32
	if json.Unmarshal(f.generation, &g) == nil {
		var one int32
		if json.Unmarshal(g.EOS, &one) == nil {
			ids = []int32{one}
		} else if json.Unmarshal(g.EOS, &ids) != nil {
			ids = nil
		}
	}
	for _, id := range f.config.EOS {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// A samplingKey is what a generation_config.json and GGUF metadata call the same
// setting.
type samplingKey struct {
	json, gguf string
	whole      bool
}

var samplingKeys = []samplingKey{
	{"temperature", "general.sampling.temp", false},
	{"top_k", "general.sampling.top_k", true},
	{"top_p", "general.sampling.top_p", false},
	{"min_p", "general.sampling.min_p", false},
}

// samplingPairs are the sampling settings of a generation_config.json.
func samplingPairs(generation json.RawMessage) (pairs []model.Pair) {
	var settings map[string]any
	if json.Unmarshal(generation, &settings) != nil {
		return nil
	}
	if sample, ok := settings["do_sample"].(bool); ok && !sample {
		settings = map[string]any{"temperature": 0.0}
	}
	for _, k := range samplingKeys {
		switch v, ok := settings[k.json].(float64); {
		case !ok:
		case k.whole:
			pairs = append(pairs, model.Pair{Key: k.gguf, Value: int32(v)})
		default:
			pairs = append(pairs, model.Pair{Key: k.gguf, Value: float32(v)})
		}
	}
	return pairs
}

// samplingSettings are those of a GGUF file, as a generation_config.json says
// them; nil where there are none.
func samplingSettings(meta map[string]any) (json.RawMessage, error) {
	settings := map[string]any{}
	for _, k := range samplingKeys {
		switch v := meta[k.gguf].(type) {
		case float64: // the shortest number that is the same float32
			settings[k.json] = json.Number(strconv.FormatFloat(v, 'g', -1, 32))
		case int64, uint64:
			settings[k.json] = v
		}
	}
	if len(settings) == 0 {
		return nil, nil
	}
	return json.Marshal(settings)
}

// pairsBelow are a GGUF file's keys with a prefix, with the types that llama.cpp
// expects of a tokenizer's.
func pairsBelow(f *gguf.File, prefix string) []model.Pair {
	pairs := []model.Pair{}
	for _, key := range f.Keys {
		if !strings.HasPrefix(key, prefix) || key == "general.alignment" {
			continue
		}
		switch v := f.Meta[key].(type) {
		case string, bool, []string:
			pairs = append(pairs, model.Pair{Key: key, Value: v})
		case uint64:
			pairs = append(pairs, model.Pair{Key: key, Value: uint32(v)})
		case int64:
			pairs = append(pairs, model.Pair{Key: key, Value: int32(v)})
		case float64:
			pairs = append(pairs, model.Pair{Key: key, Value: float32(v)})
		case []int64:
			pairs = append(pairs, model.Pair{Key: key, Value: narrow[int32](v)})
		case []float64:
			pairs = append(pairs, model.Pair{Key: key, Value: narrow[float32](v)})
		}
	}
	return pairs
}

func narrow[To int32 | float32, From int64 | float64](list []From) []To {
	out := make([]To, len(list))
	for i, v := range list {
		out[i] = To(v)
	}
	return out
}
