// Package embedded is the demo model, inside the binary: Potluck Tiny, a
// GLM4_MOE of 14.5 million parameters, as a shard store with q4_0 weights.
// README.md beside this file says where it comes from and how to make the
// store again.
package embedded

import (
	"context"
	"embed"
	"io/fs"

	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

//go:embed store
var store embed.FS

// Weights is the recipe of the store.
const Weights = "q4_0"

// Name is what the model is called.
const Name = "potluck-tiny"

// Open opens the embedded store.
func Open() (shard.Source, error) {
	root, err := fs.Sub(store, "store")
	if err != nil {
		return nil, err
	}
	return shard.OpenFS(root)
}

// OpenAs decodes the embedded store into weights of another type. What q4_0
// lost stays lost.
func OpenAs(weights string) (shard.Source, error) {
	t, err := quant.ParseType(weights)
	if err != nil {
		return nil, err
	}
	src, err := Open()
	if err != nil {
		return nil, err
	}
	return shard.Recode(context.Background(), src, t)
}
