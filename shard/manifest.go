package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// Version is the format version that this package writes and reads.
const Version = 1

// MaxPiece is the largest piece in bytes. Half of what every WebGPU device can
// bind, and small enough that a lost connection costs seconds.
const MaxPiece = 64 << 20

// A Hash names a piece by its content.
type Hash [sha256.Size]byte

// Sum is the hash of data.
func Sum(data []byte) Hash { return sha256.Sum256(data) }

// String is the hash in lower-case hex, as files are named.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText and UnmarshalText are the hash's form in JSON.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hex digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("hash %.80q: want %d hex digits", text, hex.EncodedLen(len(h)))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// A Manifest describes a store.
type Manifest struct {
	Version int           `json:"version"`
	Model   *model.Config `json:"model"`
	Source  string        `json:"source,omitempty"`  // where the weights came from, for people
	License string        `json:"license,omitempty"` // of the weights, as the source states it
	Weights string        `json:"weights"`           // the recipe: "q4_0", "mixed", …

	// Tokenizer is a Hugging Face tokenizer.json, Template a Jinja chat
	// template, Generation the source's generation_config.json. Each may be absent.
	Tokenizer  json.RawMessage `json:"tokenizer,omitempty"`
	Template   string          `json:"template,omitempty"`
	Generation json.RawMessage `json:"generation,omitempty"`

	Pieces  []Piece  `json:"pieces"`
	Tensors []Tensor `json:"tensors"`
}

// DropText forgets what only a coordinator reads: of some models it is tens of
// megabytes, which a worker had better use for weights.
func (m *Manifest) DropText() { m.Tokenizer, m.Template, m.Generation = nil, "", nil }

// A Piece is one file of the store.
type Piece struct {
	Hash  Hash  `json:"hash"`
	Bytes int64 `json:"bytes"`
}

// A Tensor lies in segments of pieces, in row order and without gaps.
type Tensor struct {
	Name     string     `json:"name"`
	Type     quant.Type `json:"type"`
	Rows     int        `json:"rows"`
	Cols     int        `json:"cols"`
	Segments []Segment  `json:"segments"`
}

// A Segment is Rows rows of a tensor from Row on, at Offset of a piece.
type Segment struct {
	Piece  int   `json:"piece"` // index in Manifest.Pieces
	Offset int64 `json:"offset"`
	Row    int   `json:"row"`
	Rows   int   `json:"rows"`
}

// A Source hands out a store's manifest and its verified pieces: a folder, a
// cache over HTTP, the embedded model.
type Source interface {
	Manifest() *Manifest
	// Piece returns the bytes of the piece, verified against its hash. They
	// may be a view of a mapped file: the caller must not change them, and may
	// keep them until the source is closed.
	Piece(ctx context.Context, index int) ([]byte, error)
}
