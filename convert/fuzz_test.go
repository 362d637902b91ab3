package convert_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/shard"
)

// Whatever is changed in the header of a GGUF file, it becomes a store and a
// GGUF file that can be read, or an error and neither.
func FuzzGGUF(f *testing.F) {
	var files [][]byte
	for i, name := range []string{"llama-gqa", "llama-gqa-quantised", "qwen3", "chatglm", "glm4moe-mtp"} {
		data, err := os.ReadFile(exectest.Testdata("gguf", name+".gguf"))
		require.NoError(f, err)
		files = append(files, data)
		f.Add(uint8(i), uint16(0), []byte{}, uint16(1<<15), []byte{0}, "source")
		f.Add(uint8(i), uint16(300), []byte("\x7f\xff"), uint16(700), []byte{0}, "q4_0")
	}
	f.Fuzz(func(t *testing.T, file uint8, at uint16, patch []byte, other uint16, more []byte, weights string) {
		data := bytes.Clone(files[int(file)%len(files)])
		copy(data[at%(1<<13):], patch)
		copy(data[other:], more)
		folder := t.TempDir()
		in, out, store := filepath.Join(folder, "in.gguf"), filepath.Join(folder, "out.gguf"), filepath.Join(folder, "store")
		require.NoError(t, os.WriteFile(in, data, 0o644))
		o := convert.Options{Weights: weights, Threads: 1}
		if _, err := convert.ToGGUF(context.Background(), in, out, o); err == nil {
			written, err := gguf.Open(out)
			require.NoError(t, err)
			require.NoError(t, written.Close())
		} else {
			require.NoFileExists(t, out)
		}
		if _, err := convert.Convert(context.Background(), in, store, o); err == nil {
			dir, err := shard.OpenDir(store)
			require.NoError(t, err)
			for i := range dir.Manifest().Pieces {
				_, err := dir.Piece(context.Background(), i)
				require.NoError(t, err)
			}
			require.NoError(t, dir.Close())
		} else {
			require.NoFileExists(t, filepath.Join(store, shard.ManifestFile))
		}
	})
}
