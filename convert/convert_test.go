package convert_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// floats decodes a tensor of a store.
func floats(t *testing.T, src shard.Source, name string) []float32 {
	tensor, ok := src.Manifest().Tensor(name)
	require.True(t, ok, name)
	values := make([]float32, tensor.Rows*tensor.Cols)
	for _, s := range tensor.Segments {
		piece, err := src.Piece(context.Background(), s.Piece)
		require.NoError(t, err)
		m, err := quant.NewMatrix(tensor.Type, s.Rows, tensor.Cols, piece[s.Offset:])
		require.NoError(t, err)
		for r := range s.Rows {
			m.Row(values[(s.Row+r)*tensor.Cols:(s.Row+r+1)*tensor.Cols], r)
		}
	}
	return values
}

func open(t *testing.T, folder string) *shard.Dir {
	d, err := shard.OpenDir(folder)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// Every checkpoint becomes the store that the plain assembly of exectest makes.
func TestEqualsPlainAssembly(t *testing.T) {
	check := func(t *testing.T, path string, want *shard.Memory, err error) {
		require.NoError(t, err)
		out := t.TempDir()
		report, err := convert.Convert(context.Background(), path, out, convert.Options{Weights: "f32"})
		require.NoError(t, err)
		require.Positive(t, report.Bytes)
		require.NoFileExists(t, filepath.Join(out, "convert.journal"))
		got := open(t, out)
		for _, tensor := range want.Manifest().Tensors {
			require.Equal(t, floats(t, want, tensor.Name), floats(t, got, tensor.Name), tensor.Name)
		}
	}
	for _, name := range exectest.ModelNames(t) {
		t.Run(name, func(t *testing.T) {
			path := exectest.Testdata("models", name)
			want, err := exectest.OpenFolder(path, quant.F32)
			check(t, path, want, err)
		})
	}
	for name := range exectest.GGUFNames(t) {
		t.Run(name, func(t *testing.T) {
			path := exectest.Testdata("gguf", name)
			want, err := exectest.OpenGGUF(path, quant.F32)
			check(t, path, want, err)
		})
	}
}

// A GGUF file keeps its own types where they are native, bit for bit.
func TestSourceTypes(t *testing.T) {
	path := exectest.Testdata("gguf", "llama-gqa-quantised.gguf")
	out := t.TempDir()
	_, err := convert.Convert(context.Background(), path, out, convert.Options{})
	require.NoError(t, err)
	got := open(t, out)
	want, err := exectest.OpenGGUF(path, quant.F32)
	require.NoError(t, err)
	seen := map[quant.Type]bool{}
	for _, tensor := range got.Manifest().Tensors {
		seen[tensor.Type] = true
		a, b := floats(t, got, tensor.Name), floats(t, want, tensor.Name)
		require.Less(t, exectest.RelativeL2(a, b), 1e-2, "%s as %v", tensor.Name, tensor.Type)
	}
	require.True(t, seen[quant.Q4_0] || seen[quant.Q4_1])
	require.True(t, seen[quant.Q8_0])
}

// A conversion that is stopped anywhere goes on where it was, to the same bits.
func TestResume(t *testing.T) {
	path := exectest.Testdata("models", "glm4moe-mtp")
	whole, broken := t.TempDir(), t.TempDir()
	o := convert.Options{Weights: "q8_0", Threads: 1}
	_, err := convert.Convert(context.Background(), path, whole, o)
	require.NoError(t, err)
	runs := 0
	for ; ; runs++ {
		ctx, cancel := context.WithCancel(context.Background())
		pieces := 0
		stopping := o
		stopping.Progress = func(convert.Progress) {
			if pieces++; pieces > 2 { // the first call comes before any piece
				cancel()
			}
		}
		report, err := convert.Convert(ctx, path, broken, stopping)
		cancel()
		if err == nil {
			require.Positive(t, report.Resumed)
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		journal, err := os.OpenFile(filepath.Join(broken, "convert.journal"), os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = journal.WriteString("7 0123abc") // as if killed while writing a line
		require.NoError(t, errors.Join(err, journal.Close()))
		require.Less(t, runs, 50)
	}
	require.Greater(t, runs, 1)
	require.Equal(t, contents(t, whole), contents(t, broken))
}

func contents(t *testing.T, folder string) map[string]string {
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(folder, path)
		files[name] = string(data)
		return err
	}))
	return files
}

func TestOpenConvertsOnce(t *testing.T) {
	cache := t.TempDir()
	path := exectest.Testdata("gguf", "qwen3.gguf")
	for range 2 {
		src, err := convert.Open(context.Background(), path, convert.OpenOptions{Folder: cache})
		require.NoError(t, err)
		require.Equal(t, "qwen3", src.Manifest().Model.Arch)
		require.NotEmpty(t, src.Manifest().Tokenizer)
		require.NoError(t, src.(*shard.Dir).Close())
	}
	folders, err := os.ReadDir(cache)
	require.NoError(t, err)
	require.Len(t, folders, 1)
	_, err = convert.Open(context.Background(), filepath.Join(cache, folders[0].Name()), convert.OpenOptions{Weights: "f32"})
	require.ErrorContains(t, err, "convert the source")
	_, err = convert.Open(context.Background(), "no/such/model", convert.OpenOptions{Folder: cache})
	require.ErrorContains(t, err, "no model there")
}

func TestRefusals(t *testing.T) {
	folder := t.TempDir()
	_, err := convert.Convert(context.Background(), folder, t.TempDir(), convert.Options{})
	require.ErrorContains(t, err, "config.json")
	_, err = convert.Convert(context.Background(), exectest.Testdata("models", "llama-gqa"), t.TempDir(), convert.Options{Weights: "q9_9"})
	require.ErrorContains(t, err, "q9_9")
	_, err = convert.Convert(context.Background(), exectest.Testdata("gguf", "types_refused.gguf"), t.TempDir(), convert.Options{})
	require.Error(t, err)

	// A checkpoint that lacks a tensor's rows names the tensor.
	source := exectest.Testdata("models", "llama-mha")
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		require.NoError(t, err)
		if name == "config.json" {
			data = []byte(string(data[:len(data)-1]) + "}")
		} else {
			data = data[:len(data)/2]
		}
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), data, 0o644))
	}
	_, err = convert.Convert(context.Background(), folder, t.TempDir(), convert.Options{})
	require.Error(t, err)
}

// A damaged or missing piece is refused when it is used.
func TestDamagedStore(t *testing.T) {
	out := t.TempDir()
	_, err := convert.Convert(context.Background(), exectest.Testdata("models", "llama-mha"), out, convert.Options{Weights: "f32"})
	require.NoError(t, err)
	d := open(t, out)
	piece := d.Manifest().Pieces[0]
	path := filepath.Join(out, shard.PieceFolder, piece.Hash.String())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, damage := range map[string][]byte{"flipped": append([]byte{data[0] ^ 1}, data[1:]...), "cut": data[:len(data)-1]} {
		require.NoError(t, os.WriteFile(path, damage, 0o644))
		_, err = open(t, out).Piece(context.Background(), 0)
		require.ErrorContains(t, err, piece.Hash.String(), name)
	}
	require.NoError(t, os.Remove(path))
	_, err = open(t, out).Piece(context.Background(), 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = open(t, out).Piece(context.Background(), 99)
	require.ErrorContains(t, err, "piece 99")
}
