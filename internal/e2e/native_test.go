package e2e

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "potluck-e2e-")
	if err == nil {
		program, err = build(folder)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

const (
	story  = "[gMASK]<sop>Once upon a time, there was a little fox named Ada."
	tokens = 120
)

func completion(prompt string, maxTokens int) map[string]any {
	return map[string]any{"prompt": prompt, "max_tokens": maxTokens, "ignore_eos": false}
}

func TestNativeChain(t *testing.T) {
	want := local(t, story, tokens)
	require.NotEmpty(t, want)
	r := openRoom(t, "--policy", "spread")
	r.worker("ana")
	victim := r.worker("ben")
	r.worker("cai")
	r.awaitHolding(3)
	require.Equal(t, want, r.stream(completion(story, tokens), nil))

	t.Run("a worker is killed in the middle of an answer", func(t *testing.T) {
		got := r.stream(completion(story, tokens), func(pieces int) {
			if pieces == 10 {
				victim.Signal(syscall.SIGKILL)
			}
		})
		require.Equal(t, want, got)
		require.Equal(t, 2, r.holding())
	})
	t.Run("a worker joins in the middle of an answer", func(t *testing.T) {
		got := r.stream(completion(story, tokens), func(pieces int) {
			if pieces == 5 {
				r.worker("dan")
				r.awaitHolding(3)
			}
		})
		require.Equal(t, want, got)
	})
	t.Run("many at once", func(t *testing.T) {
		var wait sync.WaitGroup
		for i := range 4 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				prompt := fmt.Sprintf("%s %d", story, i)
				if got, want := r.stream(completion(prompt, 40), nil), local(t, prompt, 40); got != want {
					t.Errorf("prompt %d: got %q, want %q", i, got, want)
				}
			}()
		}
		wait.Wait()
	})
}

func TestLocalWorkerAnswersAlone(t *testing.T) {
	r := openRoom(t, "--local-worker=true")
	require.Equal(t, local(t, story, 30), r.stream(completion(story, 30), nil))
}
