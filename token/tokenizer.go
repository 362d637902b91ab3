// Package token turns text into token ids and back.
//
// A Hugging Face tokenizer.json comes in, or the metadata of a GGUF file; out
// goes a Tokenizer that does what the reference library (tokenizers) does with
// it: byte-level BPE (Llama 3, Qwen, GLM, GPT-2, SmolLM) and SentencePiece-style
// BPE with byte fallback (Llama 2, Mistral). What the file asks for and this
// package cannot do is an error, never another result.
//
// Text goes through five stations, a file each: added tokens are cut out
// (matcher.go), the rest is normalised (normalize.go), split into pieces
// (split.go, pattern.go), merged (bpe.go), and the post-processor's tokens are
// put around it. decode.go and stream.go lead back.
//
// Chat templates are the work of package token/chat.
package token

// A Tokenizer never changes after it was made, but for a cache, and may be used
// by many goroutines at once.
type Tokenizer struct {
	source []byte // the tokenizer.json

	texts []string // by id: the bytes that the token stands for
	flags []flag   // by id
	added map[string]int32

	early, late *matcher // added tokens found before and after normalising

	normalize []normalizer
	space     *metaspace // SentencePiece spelling as a pre-tokenizer, nil: none
	split     Splitter   // nil: a segment is one piece
	model     bpe
	cache     pieceCache

	byteLevel  bool
	stripSpace bool // decoding drops the first space

	before, after []int32 // what the post-processor puts around
	bos, eos      []int32
}

// flag says what an id is.
type flag uint8

const (
	defined flag = 1 << iota
	special
	fallback // stands for one byte, as <0x0A> does
)

// EncodeOptions say how a text is read.
type EncodeOptions struct {
	// Special adds what the post-processor adds, such as the token that begins
	// a text.
	Special bool
	// PlainSpecial leaves the text of special tokens ordinary text, so that
	// what a user types cannot become a control token.
	PlainSpecial bool
}

// Encode turns text into ids.
func (t *Tokenizer) Encode(text string, o EncodeOptions) []int32 {
	ids := make([]int32, 0, len(t.before)+len(text)/3+len(t.after)+1)
	if o.Special {
		ids = append(ids, t.before...)
	}
	take := func(piece string) { ids = t.piece(ids, piece) }
	t.early.each(text, true, o.PlainSpecial, func(s segment) {
		if s.id >= 0 {
			ids = append(ids, s.id)
			return
		}
		t.late.each(t.normalized(s.text), s.first, o.PlainSpecial, func(s segment) {
			if s.id >= 0 {
				ids = append(ids, s.id)
				return
			}
			t.pieces(s, take)
		})
	})
	if o.Special {
		ids = append(ids, t.after...)
	}
	return ids
}

// pieces cuts a normalised segment.
func (t *Tokenizer) pieces(s segment, take func(piece string)) {
	text := s.text
	if t.space != nil {
		text = t.space.spell(text, s.first)
	}
	if t.split == nil {
		take(text)
		return
	}
	t.split(text, take)
}

// piece appends the ids of one piece, mostly a word.
func (t *Tokenizer) piece(ids []int32, piece string) []int32 {
	if len(piece) > cachedPiece {
		return t.model.encode(ids, piece)
	}
	slot := t.cache.slot(piece)
	if known := slot.Load(); known != nil && known.piece == piece {
		return append(ids, known.ids...)
	}
	start := len(ids)
	ids = t.model.encode(ids, piece)
	slot.Store(newCached(piece, ids[start:]))
	return ids
}

// Size is one more than the largest id that the file defines.
func (t *Tokenizer) Size() int { return len(t.texts) }

func (t *Tokenizer) is(id int32, f flag) bool {
	return id >= 0 && int(id) < len(t.flags) && t.flags[id]&f != 0
}

// Defined tells whether the file gives id a meaning. Other ids are padding:
// rows of the model that no text leads to, never to be sampled.
func (t *Tokenizer) Defined(id int32) bool { return t.is(id, defined) }

// IsSpecial tells whether id is a control token.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.is(id, special) }

// ID finds a token by its text: an added token's, such as "<|im_end|>", else a
// vocabulary entry as the file writes it ("Ġthe", "▁the"), else one that stands
// for these bytes.
func (t *Tokenizer) ID(text string) (int32, bool) {
	if id, ok := t.added[text]; ok {
		return id, true
	}
	if id, ok := t.vocabularyID(text); ok {
		return id, true
	}
	id, ok := t.model.ids[text]
	return id, ok
}

// vocabularyID finds a vocabulary entry as the file writes it.
func (t *Tokenizer) vocabularyID(written string) (int32, bool) {
	if t.byteLevel {
		raw, ok := rawBytes(written)
		if !ok {
			return 0, false
		}
		written = raw
	}
	id, ok := t.model.ids[written]
	return id, ok
}

// Text is what id stands for: an added token's text, else the bytes that the
// token decodes to, which need not be whole characters.
func (t *Tokenizer) Text(id int32) (string, bool) {
	if !t.Defined(id) {
		return "", false
	}
	return t.texts[id], true
}

// BOS are the ids that the file itself names as the beginning of a text.
func (t *Tokenizer) BOS() []int32 { return t.bos }

// EOS are the ids that the file itself names as ends of a text or a turn,
// ascending. GGUF metadata does; a published tokenizer.json leaves it to other
// files of its folder.
func (t *Tokenizer) EOS() []int32 { return t.eos }

// JSON is a tokenizer.json from which FromJSON makes an equal tokenizer: the
// one that this was made from, or what says the same as the GGUF metadata.
// The caller must not change it.
func (t *Tokenizer) JSON() ([]byte, error) { return t.source, nil }
