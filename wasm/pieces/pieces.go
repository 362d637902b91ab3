//go:build js && wasm

package pieces

import (
	"context"
	"errors"
	"fmt"
	"syscall/js"

	"github.com/potluck-llm/potluck/shard"
)

// Open opens the store whose manifest has that hash, below base/shards.
func Open(ctx context.Context, base, hash string) (shard.Source, error) {
	var want shard.Hash
	if err := want.UnmarshalText([]byte(hash)); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	data, err := fetch(ctx, base+"/shards/"+hash+"/manifest.json", hash, -1)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := shard.ParseManifest(data)
	if err != nil {
		return nil, err
	}
	m.DropText()
	return &source{base + "/shards/" + hash, m}, nil
}

type source struct {
	base     string // of the store
	manifest *shard.Manifest
}

func (s *source) Manifest() *shard.Manifest { return s.manifest }

func (s *source) Piece(ctx context.Context, index int) ([]byte, error) {
	if index < 0 || index >= len(s.manifest.Pieces) {
		return nil, fmt.Errorf("piece %d of %d", index, len(s.manifest.Pieces))
	}
	p := s.manifest.Pieces[index]
	data, err := fetch(ctx, s.base+"/pieces/"+p.Hash.String(), p.Hash.String(), p.Bytes)
	if err != nil {
		return nil, err
	}
	return data, shard.Verify(p, data)
}

// fetch asks the glue for verified bytes.
func fetch(ctx context.Context, url, hash string, size int64) ([]byte, error) {
	value, err := await(ctx, js.Global().Call("potluckFetch", url, hash, float64(size)))
	if err != nil {
		return nil, err
	}
	data := make([]byte, value.Length())
	js.CopyBytesToGo(data, value)
	return data, nil
}

// await waits for a promise.
func await(ctx context.Context, promise js.Value) (js.Value, error) {
	type outcome struct {
		v   js.Value
		err error
	}
	done := make(chan outcome, 1)
	resolved := js.FuncOf(func(_ js.Value, args []js.Value) any {
		done <- outcome{v: args[0]}
		return nil
	})
	rejected := js.FuncOf(func(_ js.Value, args []js.Value) any {
		done <- outcome{err: errors.New(args[0].Call("toString").String())}
		return nil
	})
	promise.Call("then", resolved, rejected)
	select {
	case o := <-done:
		resolved.Release()
		rejected.Release()
		return o.v, o.err
	case <-ctx.Done():
		return js.Value{}, ctx.Err() // the callbacks stay until the promise settles
	}
}
