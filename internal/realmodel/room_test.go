package realmodel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/browsertest"
	"github.com/potluck-llm/potluck/internal/processtest"
	"github.com/potluck-llm/potluck/wasm/assets"
)

// joinToken admits the tests' workers.
const joinToken = "real-model"

// A program is the built binary with the model and a cache of its own, which
// all that the tests start share: the file is converted once.
type program struct {
	t                  *testing.T
	path, model, cache string
}

func build(t *testing.T, model string) *program {
	require.True(t, assets.Built(), "the browser's worker is not built: run `make wasm` first (make test-real does)")
	folder := t.TempDir()
	p := &program{t: t, path: filepath.Join(folder, "potluck"), model: model, cache: filepath.Join(folder, "cache")}
	out, err := exec.Command("go", "build", "-o", p.path, "github.com/potluck-llm/potluck/cmd/potluck").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return p
}

func (p *program) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+p.cache, "XDG_CONFIG_HOME="+p.cache)
	return cmd
}

// output runs the program to its end.
func (p *program) output(stdin string, args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &stderr
	out, err := cmd.Output()
	require.NoError(p.t, err, "potluck %s: %s", strings.Join(args, " "), stderr.String())
	return string(out)
}

// start runs the program until the test ends.
func (p *program) start(t *testing.T, args ...string) {
	processtest.Start(t, p.command(args...))
}

// A room is a coordinator without a worker of its own, and what joined it.
type room struct {
	p    *program
	t    *testing.T
	base string
}

func (p *program) open(t *testing.T, activations string) *room {
	address := processtest.FreeAddress(t)
	r := &room{p: p, t: t, base: "http://" + address}
	p.start(t, "serve", "--model", p.model, "--listen", address, "--local-worker=false", "--join-token", joinToken, "--policy", "spread", "--activations", activations)
	r.eventually("the coordinator answers", time.Minute, func() bool { return processtest.Healthy(r.base) })
	return r
}

func (r *room) eventually(what string, limit time.Duration, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited %v until %s; the room holds %v", limit, what, r.holding())
		}
	}
}

// natives lends count native workers, one thread each.
func (r *room) natives(count int) {
	for i := range count {
		r.p.start(r.t, "worker", "--join", r.base, "--join-token", joinToken, "--name", fmt.Sprintf("native-%d", i+1), "--threads", "1")
	}
	r.await(count, "native cpu")
}

// tabs lends count tabs of a headless Chromium.
func (r *room) tabs(count int, backend string) {
	b := browsertest.New(r.t, browsertest.WebGPU...)
	for range count {
		tab := browsertest.NewTab(r.t, b, true)
		require.NoError(r.t, tab.Open(fmt.Sprintf("%s/join?backend=%s#%s", r.base, backend, joinToken)))
		require.NoError(r.t, tab.Click("#lend"))
	}
	r.await(count, "browser "+backend)
}

// await waits until count workers of a kind and backend hold layers, and
// nobody else does.
func (r *room) await(count int, kind string) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d workers of kind %s hold layers", count, kind), 3*time.Minute, func() bool {
		held := r.holding()
		for _, w := range held {
			if !strings.HasPrefix(w, kind) {
				return false
			}
		}
		return len(held) == count
	})
}

// holding lists the workers that are ready and hold layers, as "native cpu
// avx2: layers 0 to 9".
func (r *room) holding() (list []string) {
	response, err := http.Get(r.base + "/v1/cluster")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	var c struct {
		Workers []struct {
			Kind, State, Backend string
			First                int `json:"layer_first"`
			Count                int `json:"layer_count"`
		}
	}
	require.NoError(r.t, json.NewDecoder(response.Body).Decode(&c))
	for _, w := range c.Workers {
		if w.State == "ready" && w.Count > 0 {
			list = append(list, fmt.Sprintf("%s %s: layers %d to %d", w.Kind, w.Backend, w.First, w.First+w.Count-1))
		}
	}
	return list
}

// ask returns the greedy answer and why it ended.
func (r *room) ask(messages []message, maxTokens int) string {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{"messages": messages, "temperature": 0, "max_tokens": maxTokens})
	require.NoError(r.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/v1/chat/completions", bytes.NewReader(body))
	require.NoError(r.t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	defer response.Body.Close()
	var answer struct {
		Choices []struct {
			Message struct{ Content string }
		}
		Error *struct{ Message string }
	}
	require.NoError(r.t, json.NewDecoder(response.Body).Decode(&answer))
	require.Nil(r.t, answer.Error, "%s", response.Status)
	require.Len(r.t, answer.Choices, 1)
	return answer.Choices[0].Message.Content
}
