package token

import (
	"encoding/json"
	"fmt"
	"sort"
)

// Token types of GGUF metadata.
const (
	typeUnknown = 2
	typeControl = 3
	typeUser    = 4
	typeByte    = 6
)

// ggufKinds say what follows from tokenizer.ggml.pre, which the format itself
// does not state.
var ggufKinds = map[string]struct {
	pattern    string // "": GPT-2's
	whole, nfc bool
	digits     bool
}{
	"llama-bpe": {pattern: patternLlama3, whole: true}, "llama3": {pattern: patternLlama3, whole: true}, "llama-v3": {pattern: patternLlama3, whole: true},
	"glm4": {pattern: patternLlama3, whole: true}, "chatglm-bpe": {pattern: patternLlama3, whole: true},
	"qwen2": {pattern: patternQwen2, nfc: true}, "deepseek-r1-qwen": {pattern: patternQwen2, nfc: true},
	"smollm": {digits: true}, "gpt-2": {}, "gpt2": {}, "default": {pattern: patternLlama3},
}

// FromGGUF reads the tokenizer of a GGUF file's metadata by writing the
// tokenizer.json that says the same.
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	g := ggufTokenizer{meta: meta}
	data, err := g.json()
	if err != nil {
		return nil, fmt.Errorf("tokenizer metadata: %w", err)
	}
	t, err := fromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer metadata: %w", err)
	}
	t.bos = g.ids("bos_token_id")
	t.eos = g.ids("eos_token_id", "eot_token_id", "eom_token_id")
	return t, nil
}

type ggufTokenizer struct{ meta map[string]any }

func (g ggufTokenizer) text(key string) string {
	s, _ := g.meta["tokenizer.ggml."+key].(string)
	return s
}

func (g ggufTokenizer) texts(key string) []string {
	s, _ := g.meta["tokenizer.ggml."+key].([]string)
	return s
}

func (g ggufTokenizer) id(key string) (int32, bool) {
	switch v := g.meta["tokenizer.ggml."+key].(type) {
	case uint64:
		return int32(v), v < maxVocabulary
	case int64:
		return int32(v), v >= 0 && v < maxVocabulary
	}
	return 0, false
}

func (g ggufTokenizer) ids(keys ...string) (list []int32) {
	for _, key := range keys {
		if id, ok := g.id(key); ok && (len(list) == 0 || list[len(list)-1] != id) {
			list = append(list, id)
		}
	}
	return list
}

func (g ggufTokenizer) flag(key string, otherwise bool) bool {
	if v, ok := g.meta["tokenizer.ggml."+key].(bool); ok {
		return v
	}
	return otherwise
}

type object = map[string]any

func (g ggufTokenizer) json() ([]byte, error) {
	tokens := g.texts("tokens")
	types, _ := g.meta["tokenizer.ggml.token_type"].([]int64)
	if len(tokens) == 0 {
		return nil, fmt.Errorf("tokenizer.ggml.tokens is missing")
	}
	if types != nil && len(types) != len(tokens) {
		return nil, fmt.Errorf("%d tokens with %d types", len(tokens), len(types))
	}
	switch kind := g.text("model"); kind {
	case "gpt2":
		return g.byteLevel(tokens, types)
	case "llama":
		return g.sentence(tokens, types)
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model %.40q: gpt2 or llama", kind)
	}
}

// vocabulary divides tokens into the vocabulary and the added ones.
func vocabulary(tokens []string, types []int64, keep func(kind int64) bool) (vocab map[string]int64, list []object, err error) {
	vocab = make(map[string]int64, len(tokens))
	for id, text := range tokens {
		kind := int64(1)
		if types != nil {
			kind = types[id]
		}
		control := kind == typeControl || kind == typeUnknown
		if control || kind == typeUser {
			if text == "" {
				continue
			}
			list = append(list, object{"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": control})
		}
		if keep(kind) {
			if other, twice := vocab[text]; twice {
				return nil, nil, fmt.Errorf("token %.40q has ids %d and %d", text, other, id)
			}
			vocab[text] = int64(id)
		}
	}
	return vocab, list, nil
}

// post puts the beginning-of-text token in front where the file says so.
func (g ggufTokenizer) post(tokens []string, otherwise bool) any {
	id, ok := g.id("bos_token_id")
	if !ok || int(id) >= len(tokens) || !g.flag("add_bos_token", otherwise) {
		return nil
	}
	name := tokens[id]
	return object{"type": "TemplateProcessing",
		"single":         []object{{"SpecialToken": object{"id": name}}, {"Sequence": object{"id": "A"}}},
		"special_tokens": object{name: object{"id": name, "ids": []int32{id}}}}
}

func (g ggufTokenizer) byteLevel(tokens []string, types []int64) ([]byte, error) {
	name := g.text("pre")
	kind, ok := ggufKinds[name]
	if !ok && name != "" {
		return nil, fmt.Errorf("tokenizer.ggml.pre %.40q is not known", name)
	}
	merges := g.texts("merges")
	if merges == nil {
		return nil, fmt.Errorf("tokenizer.ggml.merges is missing")
	}
	vocab, list, err := vocabulary(tokens, types, func(kind int64) bool { return kind != typeControl && kind != typeUnknown && kind != typeUser })
	if err != nil {
		return nil, err
	}
	var steps []object
	if kind.digits {
		steps = append(steps, object{"type": "Digits", "individual_digits": true})
	}
	if kind.pattern != "" {
		steps = append(steps, object{"type": "Split", "pattern": object{"Regex": kind.pattern}, "behavior": "Isolated", "invert": false})
	}
	steps = append(steps, object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": kind.pattern == ""})
	out := object{"version": "1.0", "added_tokens": list, "normalizer": nil,
		"pre_tokenizer":  object{"type": "Sequence", "pretokenizers": steps},
		"post_processor": g.post(tokens, false), "decoder": object{"type": "ByteLevel"},
		"model": object{"type": "BPE", "ignore_merges": kind.whole, "byte_fallback": false, "vocab": vocab, "merges": merges}}
	if kind.nfc {
		out["normalizer"] = object{"type": "NFC"}
	}
	return json.Marshal(out)
}

func (g ggufTokenizer) sentence(tokens []string, types []int64) ([]byte, error) {
	scores, _ := g.meta["tokenizer.ggml.scores"].([]float64)
	if len(scores) != len(tokens) {
		return nil, fmt.Errorf("%d tokens with %d scores", len(tokens), len(scores))
	}
	vocab, list, err := vocabulary(tokens, types, func(int64) bool { return true })
	if err != nil {
		return nil, err
	}
	unknown := any(nil)
	if id, ok := g.id("unknown_token_id"); ok && int(id) < len(tokens) {
		unknown = tokens[id]
	}
	normalizers := []object{{"type": "Replace", "pattern": object{"String": " "}, "content": "▁"}}
	decoders := []object{{"type": "Replace", "pattern": object{"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}}
	if g.flag("add_space_prefix", true) {
		normalizers = append([]object{{"type": "Prepend", "prepend": "▁"}}, normalizers...)
		decoders = append(decoders, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	return json.Marshal(object{"version": "1.0", "added_tokens": list,
		"normalizer": object{"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": nil,
		"post_processor": g.post(tokens, true), "decoder": object{"type": "Sequence", "decoders": decoders},
		"model": object{"type": "BPE", "byte_fallback": true, "unk_token": unknown, "vocab": vocab, "merges": scoreMerges(tokens, types, scores, vocab)}})
}

// scoreMerges turns scores into merges: every way to put a token together from
// two others, the token with the higher score first.
func scoreMerges(tokens []string, types []int64, scores []float64, vocab map[string]int64) [][2]string {
	type candidate struct {
		parts       [2]string
		score       float64
		left, right int64
	}
	var all []candidate
	for id, text := range tokens {
		if types != nil && types[id] != 1 && types[id] != typeUser {
			continue
		}
		first := len(all)
		for cut := range text {
			if cut == 0 {
				continue
			}
			left, okLeft := vocab[text[:cut]]
			right, okRight := vocab[text[cut:]]
			if okLeft && okRight {
				all = append(all, candidate{[2]string{text[:cut], text[cut:]}, scores[id], left, right})
			}
		}
		own := all[first:]
		sort.Slice(own, func(i, j int) bool {
			return own[i].left < own[j].left || own[i].left == own[j].left && own[i].right < own[j].right
		})
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].score > all[j].score })
	merges := make([][2]string, len(all))
	for i, c := range all {
		merges[i] = c.parts
	}
	return merges
}
