package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// maxVocabulary is far above any tokenizer's size.
const maxVocabulary = 1 << 22

// file is what of a tokenizer.json counts.
type file struct {
	Added []struct {
		ID      int64  `json:"id"`
		Content string `json:"content"`
		Word    bool   `json:"single_word"`
		Left    bool   `json:"lstrip"`
		Right   bool   `json:"rstrip"`
		Special bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer    *step      `json:"normalizer"`
	PreTokenizer  *step      `json:"pre_tokenizer"`
	PostProcessor *step      `json:"post_processor"`
	Decoder       *step      `json:"decoder"`
	Model         *modelFile `json:"model"`
}

// step is a normalizer, pre-tokenizer, post-processor or decoder.
type step struct {
	Type          string  `json:"type"`
	Normalizers   []*step `json:"normalizers"`
	PreTokenizers []*step `json:"pretokenizers"`
	Processors    []*step `json:"processors"`
	Decoders      []*step `json:"decoders"`

	Pattern *struct {
		Regex  *string `json:"Regex"`
		String *string `json:"String"`
	} `json:"pattern"`
	Behavior    string          `json:"behavior"`
	Invert      bool            `json:"invert"`
	UseRegex    *bool           `json:"use_regex"`
	PrefixSpace bool            `json:"add_prefix_space"`
	Individual  bool            `json:"individual_digits"`
	Prepend     string          `json:"prepend"`
	Content     json.RawMessage `json:"content"`
	Single      []struct {
		Special *struct {
			ID string `json:"id"`
		} `json:"SpecialToken"`
		Sequence *struct{} `json:"Sequence"`
	} `json:"single"`
	Specials map[string]struct {
		IDs []int32 `json:"ids"`
	} `json:"special_tokens"`
}

type modelFile struct {
	Type         string           `json:"type"`
	Vocab        map[string]int64 `json:"vocab"`
	Merges       []json.RawMessage
	IgnoreMerges bool    `json:"ignore_merges"`
	ByteFallback bool    `json:"byte_fallback"`
	Unknown      *string `json:"unk_token"`
	Prefix       *string `json:"continuing_subword_prefix"`
	Suffix       *string `json:"end_of_word_suffix"`
}

// FromJSON reads a Hugging Face tokenizer.json.
func FromJSON(data []byte) (*Tokenizer, error) {
	t, err := fromJSON(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	return t, nil
}

func fromJSON(data []byte) (*Tokenizer, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Model == nil:
		return nil, fmt.Errorf("model is missing")
	case f.Model.Type != "BPE" && f.Model.Type != "":
		return nil, fmt.Errorf("model type %.40q: only BPE is known", f.Model.Type)
	case f.Model.Prefix != nil && *f.Model.Prefix != "", f.Model.Suffix != nil && *f.Model.Suffix != "":
		return nil, fmt.Errorf("model: continuing_subword_prefix and end_of_word_suffix are not known")
	case len(f.Model.Vocab) == 0:
		return nil, fmt.Errorf("model: vocab is empty")
	}
	t := &Tokenizer{raw: bytes.Clone(data), cache: map[string][]int32{}, byText: map[string]int32{}}
	steps := []func(*file) error{t.readNormalizer, t.readPreTokenizer, t.readVocabulary, t.readAdded, t.readMerges, t.readPostProcessor, t.readDecoder}
	for _, read := range steps {
		if err := read(&f); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Tokenizer) readNormalizer(f *file) error {
	if f.Normalizer == nil {
		return nil
	}
	list := []*step{f.Normalizer}
	if f.Normalizer.Type == "Sequence" {
		list = f.Normalizer.Normalizers
	}
	for _, n := range list {
		switch {
		case n == nil:
			return fmt.Errorf("normalizer: an empty step")
		case n.Type == "NFC":
			t.nfc = true
		case n.Type == "Prepend" && n.Prepend == "▁":
			t.sentence, t.prefixSpace = true, true
		case n.Type == "Replace" && n.Pattern != nil && n.Pattern.String != nil && *n.Pattern.String == " " && string(n.Content) == `"▁"`:
			t.sentence = true
		default:
			return fmt.Errorf("normalizer %.40q is not known, or not with these settings", n.Type)
		}
	}
	return nil
}

func (t *Tokenizer) readPreTokenizer(f *file) error {
	if t.sentence {
		if f.PreTokenizer != nil {
			return fmt.Errorf("pre_tokenizer %.40q after a SentencePiece normalizer is not known", f.PreTokenizer.Type)
		}
		return nil
	}
	if f.PreTokenizer == nil {
		return fmt.Errorf("pre_tokenizer is missing: only byte-level and SentencePiece-style BPE are known")
	}
	list := []*step{f.PreTokenizer}
	if f.PreTokenizer.Type == "Sequence" {
		list = f.PreTokenizer.PreTokenizers
	}
	t.split = unsplit
	byteLevel, digits := false, false
	for _, p := range list {
		if p == nil || byteLevel {
			return fmt.Errorf("pre_tokenizer: ByteLevel must be the last step")
		}
		switch p.Type {
		case "Split":
			if p.Pattern == nil || p.Pattern.Regex == nil || p.Behavior != "Isolated" || p.Invert {
				return fmt.Errorf("pre_tokenizer Split: only a Regex with behavior Isolated is known")
			}
			scanner, ok := patterns[*p.Pattern.Regex]
			if !ok {
				return fmt.Errorf("pre_tokenizer: pattern %.200q is not known", *p.Pattern.Regex)
			}
			t.split = scanner
		case "Digits":
			if !p.Individual {
				return fmt.Errorf("pre_tokenizer Digits: only individual_digits is known")
			}
			digits = true
		case "ByteLevel":
			byteLevel = true
			if p.PrefixSpace {
				return fmt.Errorf("pre_tokenizer ByteLevel: add_prefix_space is not known")
			}
			if p.UseRegex == nil || *p.UseRegex {
				t.split = splitGPT2
			}
		default:
			return fmt.Errorf("pre_tokenizer %.40q is not known", p.Type)
		}
	}
	if !byteLevel {
		return fmt.Errorf("pre_tokenizer: no ByteLevel step")
	}
	if digits {
		t.split = digitsAlone(t.split)
	}
	return nil
}

// byteOf maps the characters that stand for bytes in byte-level vocabularies.
var byteOf = func() map[rune]byte {
	m := map[rune]byte{}
	extra := rune(256)
	for b := range 256 {
		printable := b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae
		if printable {
			m[rune(b)] = byte(b)
		} else {
			m[extra] = byte(b)
			extra++
		}
	}
	return m
}()

// rawBytes is the text that a token of a byte-level vocabulary stands for; one
// that was written otherwise stands for itself.
func rawBytes(text string) string {
	raw := make([]byte, 0, len(text))
	for _, r := range text {
		b, ok := byteOf[r]
		if !ok {
			return text
		}
		raw = append(raw, b)
	}
	return string(raw)
}

func (t *Tokenizer) text(written string) string {
	if t.sentence {
		return written
	}
	return rawBytes(written)
}

// define notes that id stands for text.
func (t *Tokenizer) define(id int64, written string) error {
	if id < 0 || id >= maxVocabulary {
		return fmt.Errorf("token %.40q has id %d, want 0 to %d", written, id, maxVocabulary-1)
	}
	for int64(len(t.texts)) <= id {
		t.texts, t.known = append(t.texts, ""), append(t.known, false)
	}
	if have := t.texts[id]; t.known[id] && have != t.text(written) {
		return fmt.Errorf("id %d is both %.40q and %.40q", id, have, written)
	}
	t.texts[id], t.known[id] = t.text(written), true
	t.byText[written] = int32(id)
	return nil
}

func (t *Tokenizer) readVocabulary(f *file) error {
	largest := int64(0)
	for _, id := range f.Model.Vocab {
		largest = max(largest, id)
	}
	if largest >= maxVocabulary || largest > 16*int64(len(f.Model.Vocab))+1<<16 {
		return fmt.Errorf("model: %d tokens with ids up to %d", len(f.Model.Vocab), largest)
	}
	t.texts, t.known = make([]string, largest+1), make([]bool, largest+1)
	m := &t.model
	m.ids, m.whole, m.unknown = make(map[string]int32, len(f.Model.Vocab)), f.Model.IgnoreMerges, -1
	for i := range m.single {
		m.single[i] = -1
	}
	for written, id := range f.Model.Vocab {
		if err := t.define(id, written); err != nil {
			return fmt.Errorf("model: %w", err)
		}
		raw := t.texts[id]
		m.ids[raw] = int32(id)
		if b, ok := fallbackByte(written); ok && t.sentence && f.Model.ByteFallback {
			m.single[b] = int32(id)
		} else if !t.sentence && len(raw) == 1 {
			m.single[raw[0]] = int32(id)
		}
	}
	if f.Model.Unknown != nil {
		id, ok := f.Model.Vocab[*f.Model.Unknown]
		if !ok {
			return fmt.Errorf("model: unk_token %.40q is no token", *f.Model.Unknown)
		}
		m.unknown = int32(id)
	}
	return nil
}

func (t *Tokenizer) readAdded(f *file) error {
	var plain []added
	for i, a := range f.Added {
		if a.Content == "" {
			return fmt.Errorf("added_tokens: number %d is empty", i)
		}
		if a.ID >= int64(len(t.texts))+1<<16 {
			return fmt.Errorf("added_tokens: %.40q has id %d, far beyond the vocabulary of %d", a.Content, a.ID, len(t.texts))
		}
		if err := t.define(a.ID, a.Content); err != nil {
			return fmt.Errorf("added_tokens: %w", err)
		}
		one := added{int32(a.ID), a.Content, a.Special, a.Left, a.Right, a.Word}
		t.added = append(t.added, one)
		if !a.Special {
			plain = append(plain, one)
		}
	}
	t.all, t.plain = newMatcher(t.added), newMatcher(plain)
	return nil
}

func (t *Tokenizer) readMerges(f *file) error {
	if f.Model.Merges == nil {
		return fmt.Errorf("model: merges are missing")
	}
	m := &t.model
	m.merges = make(map[pair]merge, len(f.Model.Merges))
	for rank, raw := range f.Model.Merges {
		left, right, err := readMerge(raw)
		if err != nil {
			return fmt.Errorf("model: merge %d: %w", rank, err)
		}
		ids := [3]int32{}
		for i, text := range []string{left, right, left + right} {
			id, ok := f.Model.Vocab[text]
			if !ok {
				return fmt.Errorf("model: merge %d: %.40q is no token", rank, text)
			}
			ids[i] = int32(id)
		}
		if _, twice := m.merges[pair{ids[0], ids[1]}]; !twice {
			m.merges[pair{ids[0], ids[1]}] = merge{int32(rank), ids[2]}
		}
	}
	return nil
}

// readMerge reads "a b" or ["a", "b"].
func readMerge(raw json.RawMessage) (left, right string, err error) {
	var parts []string
	if len(raw) > 0 && raw[0] == '[' {
		if err := json.Unmarshal(raw, &parts); err != nil {
			return "", "", err
		}
	} else {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", "", err
		}
		parts = strings.Split(text, " ")
	}
	if len(parts) != 2 {
		return "", "", fmt.Errorf("%.60s is no pair", raw)
	}
	return parts[0], parts[1], nil
}

func (t *Tokenizer) readPostProcessor(f *file) error {
	if f.PostProcessor == nil {
		return nil
	}
	list := []*step{f.PostProcessor}
	if f.PostProcessor.Type == "Sequence" {
		list = f.PostProcessor.Processors
	}
	for _, p := range list {
		switch {
		case p != nil && p.Type == "ByteLevel": // changes offsets only
		case p != nil && p.Type == "TemplateProcessing":
			into := &t.before
			for _, item := range p.Single {
				if item.Special == nil {
					into = &t.after
					continue
				}
				special, ok := p.Specials[item.Special.ID]
				if !ok {
					return fmt.Errorf("post_processor: %.40q is no special token", item.Special.ID)
				}
				*into = append(*into, special.IDs...)
			}
		default:
			return fmt.Errorf("post_processor is not known")
		}
	}
	return nil
}

func (t *Tokenizer) readDecoder(f *file) error {
	if !t.sentence {
		if f.Decoder != nil && f.Decoder.Type != "ByteLevel" {
			return fmt.Errorf("decoder %.40q of a byte-level tokenizer is not known", f.Decoder.Type)
		}
		return nil
	}
	if f.Decoder == nil || f.Decoder.Type != "Sequence" {
		return fmt.Errorf("decoder of a SentencePiece-style tokenizer: want a Sequence")
	}
	for _, d := range f.Decoder.Decoders {
		if d != nil && d.Type == "Strip" {
			t.strip = true
		}
	}
	return nil
}
