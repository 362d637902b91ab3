package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

type modelFile struct {
	Type         string         `json:"type"`
	Vocab        vocabularyFile `json:"vocab"`
	Merges       *mergeList     `json:"merges"`
	IgnoreMerges bool           `json:"ignore_merges"`
	ByteFallback bool           `json:"byte_fallback"`
	FuseUnknown  bool           `json:"fuse_unk"`
	Unknown      *string        `json:"unk_token"`
	Prefix       *string        `json:"continuing_subword_prefix"`
	Suffix       *string        `json:"end_of_word_suffix"`
	Dropout      *float64       `json:"dropout"`
}

// A vocabularyFile is read from a JSON object by hand: a map would keep only the
// last of two equal keys.
type vocabularyFile []entry

type entry struct {
	text string
	id   int64
}

func (v *vocabularyFile) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return fmt.Errorf("model: vocab is no object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		text := key.(string)
		value, err := d.Token()
		if err != nil {
			return err
		}
		number, _ := value.(json.Number)
		id, err := number.Int64()
		if err != nil {
			return fmt.Errorf("model: vocab: the id of %.40q is no whole number", text)
		}
		*v = append(*v, entry{text, id})
	}
	return nil
}

// A mergeList is read from ["a b", …] or [["a", "b"], …].
type mergeList [][2]string

func (m *mergeList) UnmarshalJSON(data []byte) error {
	if inner, ok := bytes.CutPrefix(data, []byte("[")); ok && bytes.HasPrefix(bytes.TrimSpace(inner), []byte(`"`)) {
		var lines []string
		if err := json.Unmarshal(data, &lines); err != nil {
			return fmt.Errorf("model: merges: %w", err)
		}
		*m = make([][2]string, 0, len(lines))
		for i, line := range lines {
			left, right, ok := cutPair(line)
			if !ok {
				return fmt.Errorf("model: merge %d: %.60q is no pair", i, line)
			}
			*m = append(*m, [2]string{left, right})
		}
		return nil
	}
	var pairs [][]string
	if err := json.Unmarshal(data, &pairs); err != nil {
		return fmt.Errorf("model: merges: want a list of pairs, or of strings of two words: %w", err)
	}
	*m = make([][2]string, 0, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 || p[0] == "" || p[1] == "" {
			return fmt.Errorf("model: merge %d: %.60q is no pair", i, p)
		}
		*m = append(*m, [2]string(p))
	}
	return nil
}

func cutPair(line string) (left, right string, ok bool) {
	left, right, ok = strings.Cut(line, " ")
	return left, right, ok && left != "" && right != "" && !strings.Contains(right, " ")
}

func (m *modelFile) check() error {
	switch {
	case m == nil:
		return fmt.Errorf("missing")
	case m.Type != "BPE" && m.Type != "":
		return fmt.Errorf("type %.40q: only BPE is known", m.Type)
	case m.Prefix != nil && *m.Prefix != "", m.Suffix != nil && *m.Suffix != "":
		return fmt.Errorf("continuing_subword_prefix and end_of_word_suffix are not known")
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("dropout %g makes ids random", *m.Dropout)
	case len(m.Vocab) == 0:
		return fmt.Errorf("vocab is empty")
	case m.Merges == nil:
		return fmt.Errorf("merges are missing")
	}
	return nil
}

// readModel reads vocabulary and merges.
func (t *Tokenizer) readModel(f *file) error {
	if err := f.Model.check(); err != nil {
		return err
	}
	if !t.byteLevel && !f.Model.ByteFallback && t.space == nil && len(t.normalize) == 0 {
		return fmt.Errorf("neither byte-level nor SentencePiece style: pre_tokenizer ByteLevel or Metaspace, or a normalizer that writes %s, is missing", metaSpace)
	}
	t.model = bpe{
		ids: make(map[string]int32, len(f.Model.Vocab)), whole: f.Model.IgnoreMerges,
		byteLevel: t.byteLevel, unknown: -1, fuse: f.Model.FuseUnknown,
	}
	for i := range t.model.bytes {
		t.model.bytes[i] = -1
	}
	written, err := t.readVocabulary(f.Model)
	if err != nil {
		return err
	}
	if name := f.Model.Unknown; name != nil {
		id, ok := written[*name]
		if !ok {
			return fmt.Errorf("unk_token %.40q is no token", *name)
		}
		t.model.unknown = id
	}
	if err := t.readMerges(*f.Model.Merges, written); err != nil {
		return err
	}
	if !t.byteLevel && t.split == nil && t.model.keepsSpaces(*f.Model.Merges) {
		t.split = splitBeforeSpaces // the same ids; short pieces go through the cache
	}
	return nil
}

// readVocabulary defines every token and returns their ids by the text that the
// file writes, which for byte-level tokens is not what they stand for.
func (t *Tokenizer) readVocabulary(m *modelFile) (written map[string]int32, err error) {
	largest := int64(0)
	for _, e := range m.Vocab {
		largest = max(largest, e.id)
	}
	if limit := 16*int64(len(m.Vocab)) + maxGap; largest >= min(limit, maxVocabulary) {
		return nil, fmt.Errorf("vocab: id %d among %d tokens, want ids below %d", largest, len(m.Vocab), min(limit, maxVocabulary))
	}
	t.grow(int(largest) + 1)
	written = make(map[string]int32, len(m.Vocab))
	for _, e := range m.Vocab {
		if id, ok := written[e.text]; ok {
			return nil, fmt.Errorf("vocab: %.40q stands twice, with ids %d and %d", e.text, id, e.id)
		}
		if e.id >= 0 && t.Defined(int32(e.id)) {
			return nil, fmt.Errorf("vocab: id %d is both %.40q and %.40q", e.id, t.texts[e.id], e.text)
		}
		if err := t.define(e.id, e.text); err != nil {
			return nil, fmt.Errorf("vocab: %w", err)
		}
		written[e.text] = int32(e.id)
		t.enter(int32(e.id), e.text, m.ByteFallback)
	}
	return written, nil
}

// enter makes a token known to the model. A byte-level token that is not
// written in the alphabet of bytes is none that text could lead to.
func (t *Tokenizer) enter(id int32, text string, byteFallback bool) {
	m := &t.model
	if !t.byteLevel {
		m.ids[text] = id
		if b, ok := fallbackByte(text); ok && byteFallback && text == fmt.Sprintf("<0x%02X>", b) {
			m.bytes[b] = id
		}
		return
	}
	raw, ok := rawBytes(text)
	if !ok {
		return
	}
	m.ids[raw] = id
	if len(raw) == 1 {
		m.bytes[raw[0]] = id
	}
}

func (t *Tokenizer) grow(size int) {
	for len(t.texts) < size {
		t.texts, t.flags = append(t.texts, ""), append(t.flags, 0)
	}
}

// define notes what id stands for.
func (t *Tokenizer) define(id int64, written string) error {
	if id < 0 || id >= maxVocabulary || id >= int64(len(t.texts))+maxGap {
		return fmt.Errorf("%.40q has id %d, want 0 to %d", written, id, min(maxVocabulary, len(t.texts)+maxGap)-1)
	}
	t.grow(int(id) + 1)
	text, kind := t.meaning(written)
	if t.flags[id]&defined != 0 && t.texts[id] != text {
		return fmt.Errorf("id %d is both %.40q and %.40q", id, t.texts[id], text)
	}
	t.texts[id] = text
	t.flags[id] |= defined | kind
	return nil
}

// meaning is the text that a token decodes to.
func (t *Tokenizer) meaning(written string) (string, flag) {
	if t.byteLevel {
		if raw, ok := rawBytes(written); ok {
			return raw, 0
		}
		return written, 0
	}
	if b, ok := fallbackByte(written); ok {
		return string([]byte{b}), fallback
	}
	return strings.ReplaceAll(written, metaSpace, " "), 0
}

func (t *Tokenizer) readMerges(merges mergeList, written map[string]int32) error {
	m := &t.model
	m.pairs, m.made = newPairTable(len(merges)), make([]int32, len(merges))
	for rank, texts := range merges {
		left, okLeft := written[texts[0]]
		right, okRight := written[texts[1]]
		made, okMade := written[texts[0]+texts[1]]
		switch {
		case !okLeft:
			return fmt.Errorf("merge %d: %.40q is no token", rank, texts[0])
		case !okRight:
			return fmt.Errorf("merge %d: %.40q is no token", rank, texts[1])
		case !okMade:
			return fmt.Errorf("merge %d: %.40q is no token", rank, texts[0]+texts[1])
		}
		m.pairs.set(left, right, int32(rank))
		m.made[rank] = made
	}
	return nil
}

// alphabet maps the characters that stand for bytes in byte-level vocabularies:
// printable ones for themselves, the others by characters from U+0100 on
// (bytes_to_unicode of GPT-2).
var alphabet = func() (bytes [0x144]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	extra := 0x100
	for b := range 0x100 {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			bytes[b] = int16(b)
			continue
		}
		bytes[extra] = int16(b)
		extra++
	}
	return bytes
}()

// rawBytes is what a token of a byte-level vocabulary stands for; not ok where
// it holds characters that stand for no byte.
func rawBytes(written string) (raw string, ok bool) {
	ascii := true
	for _, r := range written {
		if int(r) >= len(alphabet) || alphabet[r] < 0 {
			return "", false
		}
		ascii = ascii && r < 0x80
	}
	if ascii {
		return written, true
	}
	bytes := make([]byte, 0, len(written))
	for _, r := range written {
		bytes = append(bytes, byte(alphabet[r]))
	}
	return string(bytes), true
}

// fallbackByte reads the text of a byte token, such as <0x0A>.
func fallbackByte(text string) (b byte, ok bool) {
	if len(text) != 6 || text[:3] != "<0x" || text[5] != '>' {
		return 0, false
	}
	for _, c := range []byte(text[3:5]) {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		b = b<<4 | c
	}
	return b, true
}
