package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Bounds of what a file may ask for.
const (
	maxVocabulary = 1 << 22 // far above any tokenizer's size
	maxGap        = 1 << 16 // how far ids may lie beyond those before
	maxSteps      = 16      // of a Sequence
)

// file is what of a tokenizer.json counts.
type file struct {
	Added         []addedFile `json:"added_tokens"`
	Normalizer    *step       `json:"normalizer"`
	PreTokenizer  *step       `json:"pre_tokenizer"`
	PostProcessor *step       `json:"post_processor"`
	Decoder       *step       `json:"decoder"`
	Model         *modelFile  `json:"model"`
}

type addedFile struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	Word       bool   `json:"single_word"`
	Left       bool   `json:"lstrip"`
	Right      bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
	// Begins and Ends are of our own: they keep what GGUF metadata says of the
	// token. Other readers of the format pass over them.
	Begins bool `json:"begins_text,omitempty"`
	Ends   bool `json:"ends_text,omitempty"`
}

// A step is a normalizer, pre-tokenizer, post-processor or decoder.
type step struct {
	Type string `json:"type"`

	Normalizers   []*step `json:"normalizers"`
	PreTokenizers []*step `json:"pretokenizers"`
	Processors    []*step `json:"processors"`
	Decoders      []*step `json:"decoders"`

	Pattern       *patternFile    `json:"pattern"`
	Behavior      string          `json:"behavior"`
	Invert        bool            `json:"invert"`
	UseRegex      *bool           `json:"use_regex"`
	PrefixSpace   bool            `json:"add_prefix_space"`
	Individual    bool            `json:"individual_digits"`
	Prepend       string          `json:"prepend"`
	Content       json.RawMessage `json:"content"` // a string in Replace and Strip
	Start         int             `json:"start"`
	Stop          int             `json:"stop"`
	Replacement   string          `json:"replacement"`
	PrependScheme string          `json:"prepend_scheme"`
	Split         *bool           `json:"split"`

	Single   []templateItem         `json:"single"`
	Specials map[string]specialFile `json:"special_tokens"`
}

type patternFile struct {
	Regex  *string `json:"Regex"`
	String *string `json:"String"`
}

type templateItem struct {
	Special *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
}

type specialFile struct {
	IDs []int32 `json:"ids"`
}

// steps are those of a Sequence, or the one step itself.
func (s *step) steps(list []*step) ([]*step, error) {
	if s == nil {
		return nil, nil
	}
	if s.Type != "Sequence" {
		return []*step{s}, nil
	}
	if len(list) > maxSteps {
		return nil, fmt.Errorf("%d steps, at most %d", len(list), maxSteps)
	}
	if i := slices.Index(list, nil); i >= 0 {
		return nil, fmt.Errorf("step %d is null", i)
	}
	return list, nil
}

// replaces tells whether the step replaces exactly from by to.
func (s *step) replaces(from, to string) bool {
	return s.Pattern != nil && s.Pattern.String != nil && *s.Pattern.String == from && s.content() == to
}

func (s *step) content() string {
	var text string
	if json.Unmarshal(s.Content, &text) != nil {
		return ""
	}
	return text
}

// FromJSON reads a Hugging Face tokenizer.json. It keeps data, which the caller
// must not change.
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
	t := &Tokenizer{source: data, cache: newPieceCache(), added: map[string]int32{}}
	// In this order: the pre-tokenizer says what symbols are, and added tokens
	// are found by their normalised text.
	for _, part := range []struct {
		name string
		read func(*file) error
	}{
		{"normalizer", t.readNormalizer},
		{"pre_tokenizer", t.readPreTokenizer},
		{"model", t.readModel},
		{"added_tokens", t.readAdded},
		{"post_processor", t.readPostProcessor},
		{"decoder", t.readDecoder},
	} {
		if err := part.read(&f); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return t, nil
}

func (t *Tokenizer) readNormalizer(f *file) error {
	if f.Normalizer == nil {
		return nil
	}
	steps, err := f.Normalizer.steps(f.Normalizer.Normalizers)
	if err != nil {
		return err
	}
	for _, s := range steps {
		n, err := newNormalizer(s)
		if err != nil {
			return err
		}
		t.normalize = append(t.normalize, n)
	}
	return nil
}

func (t *Tokenizer) readPreTokenizer(f *file) error {
	if f.PreTokenizer == nil {
		return nil
	}
	steps, err := f.PreTokenizer.steps(f.PreTokenizer.PreTokenizers)
	if err != nil {
		return err
	}
	for i, s := range steps {
		if t.byteLevel {
			return fmt.Errorf("%.40q after ByteLevel, which must be the last step", s.Type)
		}
		if err := t.readSplit(s, i); err != nil {
			return err
		}
	}
	return nil
}

// readSplit adds one step of a pre-tokenizer.
func (t *Tokenizer) readSplit(s *step, at int) error {
	switch s.Type {
	case "Split":
		// To remove what lies between matches is the same for patterns that
		// match every character.
		isolated, inverted := s.Behavior == "Isolated" && !s.Invert, s.Behavior == "Removed" && s.Invert
		if s.Pattern == nil || s.Pattern.Regex == nil || !isolated && !inverted {
			return fmt.Errorf("Split: only a Regex whose matches are Isolated is known")
		}
		if _, ok := scanners[*s.Pattern.Regex]; inverted && !ok {
			return fmt.Errorf("Split: pattern %.200q is not known", *s.Pattern.Regex)
		}
		splitter, err := splitterFor(*s.Pattern.Regex)
		if err != nil {
			return fmt.Errorf("Split: %w", err)
		}
		t.split = then(t.split, splitter)
	case "Digits":
		if s.Individual {
			t.split = then(t.split, splitDigits)
		} else {
			t.split = then(t.split, splitDigitRuns)
		}
	case "ByteLevel":
		if s.PrefixSpace {
			return fmt.Errorf("ByteLevel: add_prefix_space is not known")
		}
		t.byteLevel = true
		if s.UseRegex == nil || *s.UseRegex {
			t.split = then(t.split, splitGPT2)
		}
	case "Metaspace":
		if at > 0 {
			return fmt.Errorf("Metaspace must be the only step")
		}
		space, err := newMetaspace(s)
		if err != nil {
			return err
		}
		t.space = space
		if s.Split == nil || *s.Split {
			t.split = splitAtSpaces
		}
	default:
		return fmt.Errorf("type %.40q is not known", s.Type)
	}
	return nil
}

func (t *Tokenizer) readAdded(f *file) error {
	var early, late []addedToken
	for i, a := range f.Added {
		if err := t.define(a.ID, a.Content); err != nil {
			return fmt.Errorf("number %d: %w", i, err)
		}
		id := int32(a.ID)
		if have, ok := t.added[a.Content]; ok {
			return fmt.Errorf("number %d: %.40q stands twice, with ids %d and %d", i, a.Content, have, id)
		}
		t.added[a.Content] = id
		if have, ok := t.vocabularyID(a.Content); ok && have != id {
			return fmt.Errorf("number %d: %.40q has id %d, but %d in the vocabulary", i, a.Content, id, have)
		}
		if a.Special {
			t.flags[id] |= special
		}
		if a.Begins {
			t.bos = append(t.bos, id)
		}
		if a.Ends {
			t.eos = append(t.eos, id)
		}
		one := addedToken{id, a.Content, a.Special, a.Word, a.Left, a.Right}
		if a.Normalized {
			one.text = t.normalized(one.text)
			late = append(late, one)
		} else {
			early = append(early, one)
		}
	}
	slices.Sort(t.bos)
	slices.Sort(t.eos)
	var err error
	if t.early, err = newMatcher(early); err != nil {
		return err
	}
	t.late, err = newMatcher(late)
	return err
}

func (t *Tokenizer) readPostProcessor(f *file) error {
	if f.PostProcessor == nil {
		return nil
	}
	steps, err := f.PostProcessor.steps(f.PostProcessor.Processors)
	if err != nil {
		return err
	}
	for _, s := range steps {
		switch s.Type {
		case "ByteLevel": // changes offsets only
		case "TemplateProcessing":
			if err := t.readTemplate(s); err != nil {
				return err
			}
		default:
			return fmt.Errorf("type %.40q is not known", s.Type)
		}
	}
	return nil
}

// readTemplate reads what a template puts before and after one text.
func (t *Tokenizer) readTemplate(s *step) error {
	var before, after []int32
	texts := 0
	for _, item := range s.Single {
		if item.Special == nil {
			if item.Sequence == nil || item.Sequence.ID != "A" {
				return fmt.Errorf("TemplateProcessing: single may hold special tokens and sequence A")
			}
			texts++
			continue
		}
		ids := s.Specials[item.Special.ID].IDs
		if len(ids) == 0 {
			return fmt.Errorf("TemplateProcessing: %.40q is not among its special_tokens", item.Special.ID)
		}
		for _, id := range ids {
			if !t.Defined(id) {
				return fmt.Errorf("TemplateProcessing: %.40q has id %d, which no token has", item.Special.ID, id)
			}
		}
		if texts == 0 {
			before = append(before, ids...)
		} else {
			after = append(after, ids...)
		}
	}
	if texts != 1 {
		return fmt.Errorf("TemplateProcessing: single holds the text %d times", texts)
	}
	t.before, t.after = append(before, t.before...), append(t.after, after...)
	return nil
}

// readDecoder checks that the decoder is the counterpart of the rest.
func (t *Tokenizer) readDecoder(f *file) error {
	steps, err := f.Decoder.steps(decoders(f.Decoder))
	if err != nil {
		return err
	}
	if t.byteLevel {
		if len(steps) == 1 && steps[0].Type == "ByteLevel" || len(steps) == 0 {
			return nil
		}
		return fmt.Errorf("type %.40q with a byte-level tokenizer, want ByteLevel", f.Decoder.Type)
	}
	var names []string
	for _, s := range steps {
		names = append(names, s.Type)
		switch {
		case s.Type == "Replace" && s.replaces(metaSpace, " "), s.Type == "ByteFallback", s.Type == "Fuse":
		case s.Type == "Strip" && s.content() == " " && s.Start == 1 && s.Stop == 0:
			t.stripSpace = true
		default:
			return fmt.Errorf("%.40q is not known, or not with these settings", s.Type)
		}
	}
	switch order := strings.Join(names, " "); order {
	case "Replace ByteFallback Fuse", "Replace ByteFallback Fuse Strip":
		return nil
	default:
		return fmt.Errorf("steps %.200q, want Replace, ByteFallback, Fuse and perhaps Strip", order)
	}
}

func decoders(s *step) []*step {
	if s == nil {
		return nil
	}
	return s.Decoders
}
