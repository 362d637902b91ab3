package token

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Token types of GGUF metadata.
const (
	typeNormal  = 1
	typeUnknown = 2
	typeControl = 3
	typeUser    = 4 // added, not special
	typeUnused  = 5 // padding
	typeByte    = 6
)

// maxSplitToken is the longest token, in bytes, of a vocabulary with scores:
// every place where it may be put together is looked up.
const maxSplitToken = 1024

// A ggufKind is what follows from tokenizer.ggml.pre and the format itself does
// not state (llama.cpp keeps the same table in llama-vocab.cpp).
type ggufKind struct {
	pattern string // "": GPT-2's
	digits  bool   // every digit alone
	whole   bool   // ignore_merges
	nfc     bool
	bos     bool // unless add_bos_token says otherwise
}

var (
	ggufLlama3 = ggufKind{pattern: patternLlama3, whole: true, bos: true}
	ggufGLM4   = ggufKind{pattern: patternLlama3, whole: true}
	ggufQwen2  = ggufKind{pattern: patternQwen2, nfc: true}
	ggufDigits = ggufKind{digits: true}

	ggufKinds = map[string]ggufKind{
		"llama-bpe": ggufLlama3, "llama3": ggufLlama3, "llama-v3": ggufLlama3,
		"glm4": ggufGLM4, "chatglm-bpe": ggufGLM4,
		"qwen2": ggufQwen2, "deepseek-r1-qwen": ggufQwen2,
		"smollm": ggufDigits, "starcoder": ggufDigits, "refact": ggufDigits,
		"gpt-2": {}, "gpt2": {},
	}
)

// FromGGUF reads the tokenizer.ggml.* metadata of a GGUF file, by writing the
// tokenizer.json that says the same (see JSON).
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	data, err := ggufJSON(meta)
	if err != nil {
		return nil, fmt.Errorf("tokenizer of a GGUF file: %w", err)
	}
	t, err := fromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer of a GGUF file: %w", err)
	}
	return t, nil
}

// A ggufVocabulary is the metadata, checked.
type ggufVocabulary struct {
	tokens       []string
	types        []int64 // as many as tokens
	scores       []float64
	merges       []string
	pre          string
	bos, unknown int // ids, -1: none
	ends         []int
	addBOS       *bool
	addEOS       *bool
	addSpace     *bool
}

type object = map[string]any

func ggufJSON(meta map[string]any) ([]byte, error) {
	m := metadata(meta)
	v := &ggufVocabulary{tokens: list[string](m, "tokens"), types: integers(m, "token_type"), scores: list[float64](m, "scores"), merges: list[string](m, "merges")}
	v.pre, _ = value[string](m, "pre")
	v.addBOS, v.addEOS, v.addSpace = m.flag("add_bos_token"), m.flag("add_eos_token"), m.flag("add_space_prefix")
	if len(v.tokens) == 0 {
		return nil, fmt.Errorf("tokenizer.ggml.tokens is missing")
	}
	if v.types == nil {
		v.types = slices.Repeat([]int64{typeNormal}, len(v.tokens))
	}
	if len(v.types) != len(v.tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.token_type has %d entries for %d tokens", len(v.types), len(v.tokens))
	}
	if err := v.readIDs(m); err != nil {
		return nil, err
	}
	switch kind, _ := value[string](m, "model"); kind {
	case "gpt2":
		return v.byteLevel()
	case "llama":
		return v.sentence()
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model is %.40q, want gpt2 (byte-level BPE) or llama (SentencePiece)", kind)
	}
}

// readIDs reads the tokens with a task. What begins or ends a text is a control
// token whatever its type says.
func (v *ggufVocabulary) readIDs(m metadata) error {
	var err error
	read := func(key string) int {
		id, e := m.id(key, len(v.tokens))
		err = cmp.Or(err, e)
		return id
	}
	v.bos, v.unknown = read("bos_token_id"), read("unknown_token_id")
	for _, key := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		if id := read(key); id >= 0 {
			v.ends = append(v.ends, id)
		}
	}
	if err != nil {
		return err
	}
	for _, id := range append([]int{v.bos}, v.ends...) {
		if id >= 0 && v.types[id] != typeUnknown {
			v.types[id] = typeControl
		}
	}
	return nil
}

// added are the entries of added_tokens.
func (v *ggufVocabulary) added() []addedFile {
	var added []addedFile
	for id, text := range v.tokens {
		switch v.types[id] {
		case typeControl, typeUnknown, typeUser:
		default:
			continue
		}
		if text == "" {
			continue
		}
		added = append(added, addedFile{
			ID: int64(id), Content: text, Special: v.types[id] != typeUser,
			Begins: id == v.bos, Ends: slices.Contains(v.ends, id),
		})
	}
	return added
}

// post puts the tokens that begin and end a text around it, where the file says
// so.
func (v *ggufVocabulary) post(bos bool) any {
	if v.addBOS != nil {
		bos = *v.addBOS
	}
	specials := object{}
	single := []object{{"Sequence": object{"id": "A", "type_id": 0}}}
	name := func(id int) object {
		specials[v.tokens[id]] = object{"id": v.tokens[id], "ids": []int{id}, "tokens": []string{v.tokens[id]}}
		return object{"SpecialToken": object{"id": v.tokens[id], "type_id": 0}}
	}
	if bos && v.bos >= 0 {
		single = slices.Insert(single, 0, name(v.bos))
	}
	if v.addEOS != nil && *v.addEOS && len(v.ends) > 0 {
		single = append(single, name(v.ends[0]))
	}
	if len(specials) == 0 {
		return nil
	}
	return object{"type": "TemplateProcessing", "single": single, "pair": []object{}, "special_tokens": specials}
}

// vocabulary is all tokens that text may lead to, those of the given types and
// those that merges are about.
func (v *ggufVocabulary) vocabulary(types ...int64) (map[string]int, error) {
	merged := map[string]bool{}
	for _, m := range v.merges {
		if left, right, ok := cutPair(m); ok {
			merged[left], merged[right], merged[left+right] = true, true, true
		}
	}
	vocab := make(map[string]int, len(v.tokens))
	for id, text := range v.tokens {
		if text == "" || !slices.Contains(types, v.types[id]) && !merged[text] {
			continue
		}
		if other, twice := vocab[text]; twice {
			return nil, fmt.Errorf("tokenizer.ggml.tokens: %.40q stands twice, with ids %d and %d", text, other, id)
		}
		vocab[text] = id
	}
	return vocab, nil
}

func (v *ggufVocabulary) byteLevel() ([]byte, error) {
	kind, ok := ggufKinds[v.pre]
	if !ok {
		return nil, fmt.Errorf("tokenizer.ggml.pre is %.40q, which does not tell how text is split: convert the model again, or use one with llama-bpe, glm4, qwen2, smollm or gpt-2", v.pre)
	}
	if v.merges == nil {
		return nil, fmt.Errorf("tokenizer.ggml.merges is missing")
	}
	vocab, err := v.vocabulary(typeNormal, typeByte)
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
	var normalizer any
	if kind.nfc {
		normalizer = object{"type": "NFC"}
	}
	return v.file(object{
		"normalizer":     normalizer,
		"pre_tokenizer":  object{"type": "Sequence", "pretokenizers": steps},
		"post_processor": v.post(kind.bos),
		"decoder":        object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": kind.whole, "vocab": vocab, "merges": v.merges,
		},
	})
}

func (v *ggufVocabulary) sentence() ([]byte, error) {
	if len(v.scores) != len(v.tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.scores has %d entries for %d tokens", len(v.scores), len(v.tokens))
	}
	vocab, err := v.vocabulary(typeNormal, typeUnknown, typeControl, typeUser, typeByte)
	if err != nil {
		return nil, err
	}
	merges, err := v.scoredMerges(vocab)
	if err != nil {
		return nil, err
	}
	var unknown any
	if v.unknown >= 0 {
		if _, ok := vocab[v.tokens[v.unknown]]; ok {
			unknown = v.tokens[v.unknown]
		}
	}
	normalizers := []object{{"type": "Replace", "pattern": object{"String": " "}, "content": metaSpace}}
	decoders := []object{{"type": "Replace", "pattern": object{"String": metaSpace}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}}
	if v.addSpace == nil || *v.addSpace {
		normalizers = slices.Insert(normalizers, 0, object{"type": "Prepend", "prepend": metaSpace})
		decoders = append(decoders, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	return v.file(object{
		"normalizer":     object{"type": "Sequence", "normalizers": normalizers},
		"pre_tokenizer":  nil,
		"post_processor": v.post(true),
		"decoder":        object{"type": "Sequence", "decoders": decoders},
		"model": object{
			"type": "BPE", "dropout": nil, "unk_token": unknown, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": merges,
		},
	})
}

func (v *ggufVocabulary) file(parts object) ([]byte, error) {
	parts["version"], parts["truncation"], parts["padding"] = "1.0", nil, nil
	parts["added_tokens"] = append([]addedFile{}, v.added()...)
	return json.Marshal(parts)
}

// scoredMerges turns scores into merges: every way to put a token together from
// two others, the token with the highest score first; of one token's ways in the
// order of the parts' ids, as in the published tokenizer.json files.
func (v *ggufVocabulary) scoredMerges(vocab map[string]int) ([][2]string, error) {
	type way struct {
		parts             [2]string
		left, right, made int
	}
	var ways []way
	for id, text := range v.tokens {
		switch {
		case v.types[id] != typeNormal && v.types[id] != typeUser:
			continue
		case math.IsNaN(v.scores[id]):
			return nil, fmt.Errorf("tokenizer.ggml.scores: token %d has no number as its score", id)
		case len(text) > maxSplitToken:
			return nil, fmt.Errorf("tokenizer.ggml.tokens: token %d has %d bytes, at most %d", id, len(text), maxSplitToken)
		}
		for cut := range text {
			left, okLeft := vocab[text[:cut]]
			right, okRight := vocab[text[cut:]]
			if okLeft && okRight {
				ways = append(ways, way{[2]string{text[:cut], text[cut:]}, left, right, id})
			}
		}
	}
	slices.SortFunc(ways, func(a, b way) int {
		return cmp.Or(cmp.Compare(v.scores[b.made], v.scores[a.made]), cmp.Compare(a.made, b.made), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	merges := make([][2]string, len(ways))
	for i, w := range ways {
		merges[i] = w.parts
	}
	return merges, nil
}

// metadata reads keys below tokenizer.ggml.
type metadata map[string]any

func value[T any](m metadata, key string) (v T, ok bool) {
	v, ok = m["tokenizer.ggml."+key].(T)
	return v, ok
}

func (m metadata) flag(key string) *bool {
	if v, ok := value[bool](m, key); ok {
		return &v
	}
	return nil
}

// list is a list of T, nil where the key has none.
func list[T any](m metadata, key string) []T {
	switch l := m["tokenizer.ggml."+key].(type) {
	case []T:
		return l
	case []any:
		typed := make([]T, len(l))
		for i, v := range l {
			var ok bool
			if typed[i], ok = v.(T); !ok {
				return nil
			}
		}
		return typed
	}
	return nil
}

// integers copies a list of integers of either sign.
func integers(m metadata, key string) []int64 {
	if l := list[int64](m, key); l != nil {
		return slices.Clone(l)
	}
	unsigned := list[uint64](m, key)
	if unsigned == nil {
		return nil
	}
	l := make([]int64, len(unsigned))
	for i, v := range unsigned {
		l[i] = int64(v)
	}
	return l
}

// id is a token's id, -1 where the file names none; some write 2³²-1 for that.
func (m metadata) id(key string, tokens int) (int, error) {
	var id float64
	switch v := m["tokenizer.ggml."+key].(type) {
	case nil:
		return -1, nil
	case int64:
		id = float64(v)
	case uint64:
		id = float64(v)
	case float64:
		id = v
	default:
		return -1, fmt.Errorf("tokenizer.ggml.%s is no number", key)
	}
	if id == -1 || id == math.MaxUint32 {
		return -1, nil
	}
	if id < 0 || id >= float64(tokens) || id != math.Trunc(id) {
		return -1, fmt.Errorf("tokenizer.ggml.%s is %g, want an id of %d tokens", key, id, tokens)
	}
	return int(id), nil
}
