package convert_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/internal/synth"
)

// Two converters on one folder: the second one is told who is at work, until
// the first has ended, however it ended. What a dead one left behind blocks
// nobody.
func TestTwoConverters(t *testing.T) {
	model := t.TempDir()
	shape := synth.Small
	shape.Layers = 8
	_, err := synth.Write(model, shape, synth.Options{Seed: 3})
	require.NoError(t, err)
	out := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+model+"|"+out)
	child.Stderr = os.Stderr
	atWork, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = atWork.Read(make([]byte, 1))
	require.NoError(t, err)
	_, err = convert.Convert(context.Background(), model, out, convert.Options{})
	require.ErrorContains(t, err, out)
	require.ErrorContains(t, err, fmt.Sprintf("another converter writes there (process %d)", child.Process.Pid))
	require.NoError(t, child.Process.Kill())
	_, _ = io.Copy(io.Discard, atWork)
	require.Error(t, child.Wait(), "it was killed in the middle")
	require.FileExists(t, filepath.Join(out, ".convert.lock"))
	_, err = convert.Convert(context.Background(), model, out, convert.Options{})
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(out, ".convert.lock"))
}

// The same for one GGUF file.
func TestTwoGGUFWriters(t *testing.T) {
	model := t.TempDir()
	_, err := synth.Write(model, synth.Small, synth.Options{Seed: 3})
	require.NoError(t, err)
	out := filepath.Join(t.TempDir(), "out.gguf")
	var second error
	var once sync.Once
	_, err = convert.ToGGUF(context.Background(), model, out, convert.Options{Progress: func(convert.Progress) {
		once.Do(func() { _, second = convert.ToGGUF(context.Background(), model, out, convert.Options{}) })
	}})
	require.NoError(t, err)
	require.ErrorContains(t, second, "another converter writes there")
}

// Whoever only wants to open a model waits for the one who converts it.
func TestOpeningAtTheSameTime(t *testing.T) {
	model := t.TempDir()
	_, err := synth.Write(model, synth.Small, synth.Options{Seed: 3})
	require.NoError(t, err)
	folder := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := make(chan error)
	for range 4 {
		go func() {
			src, err := convert.Open(ctx, model, convert.OpenOptions{Folder: folder})
			if err == nil {
				_, err = src.Piece(ctx, 0)
			}
			errs <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
}
