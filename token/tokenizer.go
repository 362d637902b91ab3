// Package token turns text into token ids and back.
//
// It takes a Hugging Face tokenizer.json, or a GGUF file's metadata, and gives
// what the reference library does with it: byte-level BPE (Llama 3, Qwen, GLM,
// GPT-2, SmolLM) and SentencePiece-style BPE with byte fallback (Llama 2).
// Chat templates are the work of package token/chat.
package token

import (
	"strings"
	"sync"

	"golang.org/x/text/unicode/norm"
)

// A Tokenizer is immutable but for its cache, and safe for many goroutines.
type Tokenizer struct {
	raw    []byte // the tokenizer.json
	texts  []string
	known  []bool
	ids    map[string]int32 // vocabulary, by raw bytes
	added  []added
	byText map[string]int32 // vocabulary and added tokens as written
	plain  *matcher         // added tokens that are not special
	all    *matcher

	model       bpe
	split       splitter
	nfc         bool
	sentence    bool // SentencePiece style: ▁ for spaces, byte fallback
	prefixSpace bool // SentencePiece style: ▁ in front
	strip       bool // decoding drops the first space
	before      []int32
	after       []int32
	eos, bos    []int32

	mu    sync.RWMutex
	cache map[string][]int32
}

// An added token is found in the text before anything else is done.
type added struct {
	id                         int32
	text                       string
	special, left, right, word bool
}

// EncodeOptions say how text is read.
type EncodeOptions struct {
	// Special adds what the post-processor adds, such as the beginning of text.
	Special bool
	// PlainSpecial leaves the text of special tokens ordinary text, so that what
	// a user types cannot become a control token.
	PlainSpecial bool
}

// Bounds of the cache of pieces.
const (
	cacheEntries = 1 << 16
	cachedPiece  = 64
)

// Encode turns text into ids.
func (t *Tokenizer) Encode(text string, o EncodeOptions) []int32 {
	var ids []int32
	if o.Special {
		ids = append(ids, t.before...)
	}
	m := t.all
	if o.PlainSpecial {
		m = t.plain
	}
	m.each(text, func(segment string, token int32) {
		if token >= 0 {
			ids = append(ids, token)
		} else {
			ids = t.segment(ids, segment)
		}
	})
	if o.Special {
		ids = append(ids, t.after...)
	}
	return ids
}

// segment encodes text without added tokens in it.
func (t *Tokenizer) segment(ids []int32, text string) []int32 {
	if text == "" {
		return ids
	}
	if t.nfc && !norm.NFC.IsNormalString(text) {
		text = norm.NFC.String(text)
	}
	if t.sentence {
		text = strings.ReplaceAll(text, " ", "▁")
		if t.prefixSpace {
			text = "▁" + text
		}
		return t.model.sentence(ids, text)
	}
	t.split(text, func(piece string) { ids = t.piece(ids, piece) })
	return ids
}

// piece encodes what the pre-tokenizer cut out, mostly a word.
func (t *Tokenizer) piece(ids []int32, piece string) []int32 {
	if len(piece) > cachedPiece {
		return t.model.bytes(ids, piece)
	}
	t.mu.RLock()
	known, ok := t.cache[piece]
	t.mu.RUnlock()
	if ok {
		return append(ids, known...)
	}
	start := len(ids)
	ids = t.model.bytes(ids, piece)
	t.mu.Lock()
	if len(t.cache) >= cacheEntries {
		clear(t.cache)
	}
	t.cache[strings.Clone(piece)] = append([]int32(nil), ids[start:]...)
	t.mu.Unlock()
	return ids
}

// Size is one more than the largest id.
func (t *Tokenizer) Size() int { return len(t.texts) }

// Defined tells whether the file defines id; what it does not is padding.
func (t *Tokenizer) Defined(id int32) bool { return id >= 0 && int(id) < len(t.known) && t.known[id] }

// ID finds a token by its text as the file writes it, such as "<|im_end|>".
func (t *Tokenizer) ID(text string) (int32, bool) {
	id, ok := t.byText[text]
	return id, ok
}

// Text is the bytes that a token stands for; an added token's own text.
func (t *Tokenizer) Text(id int32) (string, bool) {
	if !t.Defined(id) {
		return "", false
	}
	return t.texts[id], true
}

// IsSpecial tells whether id is a control token.
func (t *Tokenizer) IsSpecial(id int32) bool {
	for i := range t.added {
		if t.added[i].id == id {
			return t.added[i].special
		}
	}
	return false
}

// EOS and BOS are the tokens that the file itself names as ends and beginning
// of a text; tokenizer.json names none.
func (t *Tokenizer) EOS() []int32 { return t.eos }

// BOS is what the file names as the beginning of a text.
func (t *Tokenizer) BOS() []int32 { return t.bos }

// JSON is a tokenizer.json from which FromJSON makes this tokenizer.
func (t *Tokenizer) JSON() []byte { return t.raw }
