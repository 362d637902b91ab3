package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/potluck-llm/potluck/model"
)

// GGUFOptions are what GGUF metadata says of a vocabulary and a tokenizer.json
// does not.
type GGUFOptions struct {
	Vocab int     // rows of the embedding: ids that no token has become padding
	Arch  string  // the model's architecture, which chooses between equal pre-tokenizers
	BOS   *int32  // the configuration's, which counts where the tokenizer names none
	Ends  []int32 // what ends an answer, the most usual first
	Pad   *int32
}

// unreachable is the score of tokens that no merge makes.
const unreachable = -1e6

// GGUF is the tokenizer as tokenizer.ggml.* metadata, with notes about what
// such metadata cannot say. A tokenizer that llama.cpp would read as another
// one is an error.
func (t *Tokenizer) GGUF(o GGUFOptions) (pairs []model.Pair, notes []string, err error) {
	if t.Size() > o.Vocab {
		return nil, nil, fmt.Errorf("the tokenizer has ids up to %d, the model's vocabulary %d", t.Size()-1, o.Vocab)
	}
	w := &ggufVocabularyWriter{tokenizer: t, options: o}
	if err := json.Unmarshal(t.source, &w.file); err != nil {
		return nil, nil, err
	}
	w.list()
	if t.byteLevel {
		err = w.byteLevel()
	} else {
		w.sentence()
	}
	if err != nil {
		return nil, nil, err
	}
	w.special()
	return w.pairs, w.notes, nil
}

type ggufVocabularyWriter struct {
	tokenizer *Tokenizer
	options   GGUFOptions
	file      file
	tokens    []string
	types     []int32
	pairs     []model.Pair
	notes     []string
}

func (w *ggufVocabularyWriter) add(key string, value any) {
	w.pairs = append(w.pairs, model.Pair{Key: "tokenizer.ggml." + key, Value: value})
}

// list makes the lists of tokens and types.
func (w *ggufVocabularyWriter) list() {
	w.tokens, w.types = make([]string, w.options.Vocab), make([]int32, w.options.Vocab)
	for id := range w.tokens {
		w.tokens[id], w.types[id] = fmt.Sprintf("[PAD%d]", id), typeUnused
	}
	for _, e := range w.file.Model.Vocab {
		w.tokens[e.id], w.types[e.id] = e.text, typeNormal
		if w.tokenizer.is(int32(e.id), fallback) {
			w.types[e.id] = typeByte
		}
	}
	for _, a := range w.file.Added {
		w.tokens[a.ID], w.types[a.ID] = a.Content, typeUser
		if a.Special {
			w.types[a.ID] = typeControl
		}
	}
	if id := w.tokenizer.model.unknown; id >= 0 {
		w.types[id] = typeUnknown
	}
}

// byteLevel writes a vocabulary of spelled bytes, with merges.
func (w *ggufVocabularyWriter) byteLevel() error {
	pre, err := w.pre()
	if err != nil {
		return err
	}
	merges := make([]string, len(*w.file.Model.Merges))
	for i, m := range *w.file.Model.Merges {
		merges[i] = m[0] + " " + m[1]
	}
	w.add("model", "gpt2")
	w.add("pre", pre)
	w.add("tokens", w.tokens)
	w.add("token_type", w.types)
	w.add("merges", merges)
	return nil
}

// pre is the name by which llama.cpp knows how text is split into pieces.
func (w *ggufVocabularyWriter) pre() (string, error) {
	steps, err := w.file.PreTokenizer.steps(w.file.PreTokenizer.PreTokenizers)
	if err != nil {
		return "", err
	}
	digits, pattern := false, ""
	for _, s := range steps {
		switch {
		case s.Type == "Digits" && !s.Individual:
			return "", errors.New("llama.cpp has no name for a pre-tokenizer that splits off runs of digits")
		case s.Type == "Digits":
			digits = true
		case s.Type == "Split":
			pattern = *s.Pattern.Regex
		}
	}
	whole := w.file.Model.IgnoreMerges
	switch pattern {
	case patternLlama3, patternCL100K, spelled(patternLlama3):
		switch {
		case strings.Contains(w.options.Arch, "glm"):
			return "glm4", nil
		case whole:
			return "llama-bpe", nil
		}
	case patternQwen2, spelled(patternQwen2):
		if !whole {
			return "qwen2", nil
		}
	case "", patternGPT2, patternGPT2Short:
		switch {
		case digits && !whole:
			return "smollm", nil
		case !whole:
			return "gpt-2", nil
		}
	}
	return "", fmt.Errorf("llama.cpp has no name for a pre-tokenizer with pattern %.200q, digits alone %v, ignore_merges %v", pattern, digits, whole)
}

// sentence writes a vocabulary with scores: a token's is the place of the first
// merge that makes it, so that the order in which pairs are merged stays.
func (w *ggufVocabularyWriter) sentence() {
	ranks := map[string]int{}
	for i, m := range *w.file.Model.Merges {
		text := m[0] + m[1]
		if _, known := ranks[text]; !known {
			ranks[text] = i
		}
	}
	scores := make([]float32, len(w.tokens))
	for id, text := range w.tokens {
		rank, made := ranks[text]
		switch {
		case w.types[id] != typeNormal:
		case made:
			scores[id] = -float32(rank)
		default:
			scores[id] = unreachable
		}
	}
	w.add("model", "llama")
	w.add("pre", "default")
	w.add("tokens", w.tokens)
	w.add("scores", scores)
	w.add("token_type", w.types)
	w.add("add_space_prefix", w.prefixesSpace())
}

// prefixesSpace tells whether a text gets a space in front.
func (w *ggufVocabularyWriter) prefixesSpace() bool {
	if s := w.tokenizer.space; s != nil {
		return strings.HasPrefix(s.spell("a", true), metaSpace)
	}
	return strings.HasPrefix(w.tokenizer.normalized("a"), metaSpace)
}

// special writes the tokens with a task.
func (w *ggufVocabularyWriter) special() {
	t, o := w.tokenizer, w.options
	bos := o.BOS
	if len(t.bos) > 0 {
		bos = &t.bos[0]
	}
	if len(t.before) > 0 {
		bos = &t.before[0]
	}
	w.id("bos_token_id", bos)
	if id := t.model.unknown; id >= 0 {
		w.id("unknown_token_id", &id)
	}
	w.id("padding_token_id", o.Pad)
	w.ends()
	w.add("add_bos_token", len(t.before) == 1)
	if len(t.before) > 1 {
		w.notes = append(w.notes, fmt.Sprintf("the tokenizer puts %d tokens before a text, GGUF knows one: none is put there (the chat template writes them)", len(t.before)))
	}
	w.add("add_eos_token", len(t.after) > 0)
}

func (w *ggufVocabularyWriter) id(key string, id *int32) {
	if id != nil && *id >= 0 && int(*id) < w.options.Vocab {
		w.add(key, uint32(*id))
	}
}

// ends writes what ends an answer: one id as the end of a text, others as those
// of a turn and of a message.
func (w *ggufVocabularyWriter) ends() {
	ids := slices.Clone(w.options.Ends)
	for _, id := range w.tokenizer.eos {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	keys := []string{"eos_token_id", "eot_token_id", "eom_token_id"}
	if len(ids) > 2 && w.endsMessage(ids[1]) && !w.endsMessage(ids[2]) {
		ids[1], ids[2] = ids[2], ids[1]
	}
	for i, id := range ids {
		if i >= len(keys) {
			w.notes = append(w.notes, fmt.Sprintf("token %d ends an answer too, GGUF knows three of them", id))
			continue
		}
		w.id(keys[i], &id)
	}
}

// endsMessage tells whether a token ends a message that a tool goes on with.
func (w *ggufVocabularyWriter) endsMessage(id int32) bool {
	text, _ := w.tokenizer.Text(id)
	return strings.Contains(text, "eom") || strings.Contains(text, "observation")
}
