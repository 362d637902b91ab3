package convert

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/potluck-llm/potluck/convert/remote"
	"github.com/potluck-llm/potluck/shard"
)

// OpenOptions say how a model that is no store becomes one.
type OpenOptions struct {
	Weights  string    // a recipe; "": as Convert chooses
	Progress io.Writer // where a bar may be drawn; may be nil
	Folder   string    // of the cache; "": the user's
}

// Open opens a store, or converts a Hugging Face folder or GGUF file, here or on
// a host, into one in the cache, once, and opens that.
func Open(ctx context.Context, path string, o OpenOptions) (shard.Source, error) {
	if _, err := os.Stat(filepath.Join(path, shard.ManifestFile)); err == nil {
		src, err := shard.OpenDir(path)
		if err != nil {
			return nil, err
		}
		if o.Weights != "" && o.Weights != src.Manifest().Weights {
			return nil, fmt.Errorf("%s is a store with %s weights: convert the source with --weights %s", path, src.Manifest().Weights, o.Weights)
		}
		return src, nil
	}
	folder, err := cachedStore(path, o)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, path, folder, o); err != nil {
		return nil, err
	}
	return shard.OpenDir(folder)
}

// fill converts a model into a folder of the cache, or waits until another
// process has.
func fill(ctx context.Context, path, folder string, o OpenOptions) error {
	whole := func() bool {
		_, err := os.Stat(filepath.Join(folder, shard.ManifestFile))
		return err == nil
	}
	if whole() {
		return nil
	}
	l, err := lockWaiting(ctx, folder)
	if err != nil {
		return err
	}
	defer l.unlock()
	if whole() {
		return nil
	}
	bar := NewBar(o.Progress, "converting "+baseName(path))
	defer bar.Done()
	_, err = Convert(ctx, path, folder, Options{Weights: o.Weights, Progress: bar.Update, locked: true})
	return err
}

// cachedStore is where the store of a source is kept: named after the source's
// path, size and time, and the recipe.
func cachedStore(path string, o OpenOptions) (string, error) {
	h := sha256.New()
	if remote.Is(path) {
		// By name: a store once made needs the host no more. Another revision
		// is another name.
		fmt.Fprintf(h, "%s %s %s", path, remote.Environment().Endpoint, o.Weights)
	} else {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		info, err := os.Stat(absolute)
		if err != nil {
			return "", fmt.Errorf("%s: no model there: want a store, a GGUF file, a Hugging Face folder, hf:OWNER/NAME or https://HOST/FOLDER", path)
		}
		fmt.Fprintf(h, "%s %d %d %s", absolute, info.Size(), info.ModTime().UnixNano(), o.Weights)
		path = absolute
	}
	if o.Folder == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		o.Folder = filepath.Join(base, "potluck", "stores")
	}
	return filepath.Join(o.Folder, fmt.Sprintf("%s-%x", baseName(path), h.Sum(nil)[:6])), nil
}
