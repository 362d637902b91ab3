package convert_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/internal/synth"
)

// childVariable makes this test's binary a converter instead.
const childVariable = "CONVERT_TEST_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		name, out, _ := strings.Cut(job, "|")
		// Slowed down, so that the killer finds it anywhere in its work.
		slow := func(convert.Progress) {
			fmt.Println("at work")
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := convert.Convert(context.Background(), name, out, convert.Options{Threads: 1, Progress: slow}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A converter that is killed (SIGKILL: nothing can be put in order) again and
// again ends with the very files of one that was left alone, from files here and
// from a host.
func TestKilled(t *testing.T) {
	model := t.TempDir()
	shape := synth.Small
	shape.Layers = 8
	_, err := synth.Write(model, shape, synth.Options{Seed: 3, FileBytes: 4 << 20})
	require.NoError(t, err)
	whole := t.TempDir()
	_, err = convert.Convert(context.Background(), model, whole, convert.Options{})
	require.NoError(t, err)
	for place, name := range map[string]string{"files": model, "host": serve(t, model).URL + "/" + filepath.Base(model)} {
		t.Run(place, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			out := t.TempDir()
			killed := 0
			for run := 0; ; run++ {
				require.Less(t, run, 100)
				var said bytes.Buffer
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), childVariable+"="+name+"|"+out, "GORACE=atexit_sleep_ms=0") // a killed sleeper has done its work
				child.Stderr = &said
				atWork, err := child.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, child.Start())
				_, _ = atWork.Read(make([]byte, 1))
				timer := time.AfterFunc(time.Duration(r.IntN(30+10*run))*time.Millisecond, func() { _ = child.Process.Kill() })
				_, _ = io.Copy(io.Discard, atWork)
				err = child.Wait()
				timer.Stop()
				if err == nil {
					break
				}
				var ended *exec.ExitError
				require.ErrorAs(t, err, &ended)
				require.False(t, ended.Exited(), "%s", said.String())
				killed++
			}
			require.Greater(t, killed, 2)
			require.Equal(t, pieces(t, whole), pieces(t, out))
			require.NoFileExists(t, filepath.Join(out, "convert.journal"))
		})
	}
}

// Stopped after any piece, many times, with several threads.
func TestStoppedAtRandom(t *testing.T) {
	model := t.TempDir()
	_, err := synth.Write(model, synth.Small, synth.Options{Seed: 4})
	require.NoError(t, err)
	whole := t.TempDir()
	_, err = convert.Convert(context.Background(), model, whole, convert.Options{Weights: "mixed"})
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(7, 8))
	for range 10 {
		out := t.TempDir()
		for {
			ctx, cancel := context.WithCancel(context.Background())
			left := r.IntN(4)
			_, err := convert.Convert(ctx, model, out, convert.Options{Weights: "mixed", Threads: 1 + r.IntN(4), Progress: func(convert.Progress) {
				if left--; left < 0 {
					cancel()
				}
			}})
			cancel()
			if err == nil {
				break
			}
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Equal(t, contents(t, whole), contents(t, out))
	}
}

// A disk without room is refused before anything is written.
func TestFullDisk(t *testing.T) {
	model := t.TempDir()
	_, err := synth.Write(model, synth.Small, synth.Options{})
	require.NoError(t, err)
	restore := convert.SetDiskSpace(3 << 20)
	defer restore()
	for _, run := range []func(ctx context.Context, name, out string, o convert.Options) (*convert.Report, error){convert.Convert, convert.ToGGUF} {
		out := filepath.Join(t.TempDir(), "out")
		_, err = run(context.Background(), model, out, convert.Options{})
		require.ErrorContains(t, err, "3.1 MB are free")
		_, err = os.ReadDir(filepath.Join(out, "pieces"))
		if err == nil {
			require.Empty(t, contentsNames(t, filepath.Join(out, "pieces")))
		} else {
			require.True(t, errors.Is(err, os.ErrNotExist))
		}
	}
}

// What a conversion says: the size of each type, the error of each class.
func TestReport(t *testing.T) {
	model := t.TempDir()
	_, err := synth.Write(model, synth.Small, synth.Options{})
	require.NoError(t, err)
	report, err := convert.Convert(context.Background(), model, t.TempDir(), convert.Options{Weights: "mixed"})
	require.NoError(t, err)
	var text bytes.Buffer
	report.Print(&text)
	for _, line := range []string{
		`were read at \d+ MB/s`, `f32 +\d+\.\d MB`, `q4_0 +\d+\.\d MB`, `q8_0 +\d+\.\d MB`,
		`attention +0\.0`, `dense FFN +0\.0`, `embedding +0\.00`, `experts +0\.0`, `head +0\.00`, `shared experts +0\.0`,
	} {
		require.Regexp(t, line, text.String())
	}
	m, err := convert.Layout(context.Background(), model, "mixed")
	require.NoError(t, err)
	total := int64(0)
	for _, p := range m.Pieces {
		total += p.Bytes
	}
	require.Equal(t, report.Bytes, total)
}
