package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/processtest"
)

// token admits the tests' workers.
const token = "e2e-token"

// program is the built binary; TestMain makes it.
var program string

// A room is a coordinator and what joined it.
type room struct {
	t     *testing.T
	base  string
	serve *processtest.Process
}

func start(t *testing.T, args ...string) *processtest.Process {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
	return processtest.Start(t, cmd)
}

// openRoom starts a coordinator without a local worker.
func openRoom(t *testing.T, args ...string) *room {
	address := processtest.FreeAddress(t)
	return openRoomAt(t, address, "http://"+address, args...)
}

// openRoomAt is openRoom for a coordinator that listens at an address and that
// the tests reach at base.
func openRoomAt(t *testing.T, listen, base string, args ...string) *room {
	serve := start(t, append([]string{"serve", "--listen", listen, "--local-worker=false", "--join-token", token}, args...)...)
	r := &room{t, base, serve}
	r.eventually("the coordinator answers", 30*time.Second, func() bool { return processtest.Healthy(r.base) })
	return r
}

func (r *room) worker(name string) *processtest.Process {
	return start(r.t, "worker", "--join", r.base, "--join-token", token, "--name", name)
}

func (r *room) eventually(what string, limit time.Duration, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited %v until %s; the room is %s", limit, what, r.describe())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// member is what the tests read of a worker in GET /v1/cluster.
type member struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	State      string `json:"state"`
	Backend    string `json:"backend"`
	LayerFirst int    `json:"layer_first"`
	LayerCount int    `json:"layer_count"`
	Tokens     int64  `json:"tokens"`
}

type cluster struct {
	Workers []member `json:"workers"`
	Losses  int      `json:"losses"`
	Active  int      `json:"requests_active"`
}

func (r *room) cluster() (c cluster) {
	response, err := http.Get(r.base + "/v1/cluster")
	if err != nil {
		return c
	}
	defer response.Body.Close()
	require.NoError(r.t, json.NewDecoder(response.Body).Decode(&c))
	return c
}

func (r *room) describe() string {
	var lines []string
	for _, w := range r.cluster().Workers {
		lines = append(lines, fmt.Sprintf("%s (%s, %s) %s layers %d+%d", w.Name, w.Kind, w.Backend, w.State, w.LayerFirst, w.LayerCount))
	}
	return "[" + strings.Join(lines, "; ") + "]"
}

// holding counts the workers that are ready and hold layers.
func (r *room) holding() (n int) {
	for _, w := range r.cluster().Workers {
		if w.State == "ready" && w.LayerCount > 0 {
			n++
		}
	}
	return n
}

func (r *room) awaitHolding(n int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d workers hold layers", n), 60*time.Second, func() bool { return r.holding() >= n })
}

// stream asks for a greedy answer and calls each after every piece with the
// number of pieces so far. It returns the whole text.
func (r *room) stream(body map[string]any, each func(pieces int)) string {
	r.t.Helper()
	body["stream"], body["temperature"] = true, 0
	data, err := json.Marshal(body)
	require.NoError(r.t, err)
	path := "/v1/chat/completions"
	if _, ok := body["prompt"]; ok {
		path = "/v1/completions"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+path, bytes.NewReader(data))
	require.NoError(r.t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(response.Body)
		r.t.Fatalf("%s: %s", response.Status, message)
	}
	var text strings.Builder
	pieces, finished := 0, false
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			finished = true
			continue
		}
		var chunk struct {
			Choices []struct {
				Text  string `json:"text"`
				Delta struct {
					Content   string `json:"content"`
					Reasoning string `json:"reasoning_content"`
				} `json:"delta"`
			} `json:"choices"`
			Error any `json:"error"`
		}
		require.NoError(r.t, json.Unmarshal([]byte(data), &chunk), data)
		require.Nil(r.t, chunk.Error, data)
		for _, c := range chunk.Choices {
			text.WriteString(c.Text + c.Delta.Reasoning + c.Delta.Content)
			pieces++
			if each != nil {
				each(pieces)
			}
		}
	}
	require.NoError(r.t, lines.Err())
	require.True(r.t, finished, "the stream ends without [DONE] after %q", text.String())
	return text.String()
}

// local is what the same prompt gives in one process.
func local(t *testing.T, prompt string, maxTokens int) string {
	cmd := exec.Command(program, "run", "-p", prompt, "--raw", "--temperature", "0", "--max-tokens", fmt.Sprint(maxTokens))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return strings.TrimSuffix(string(out), "\n")
}

// build makes the program once for all tests.
func build(folder string) (string, error) {
	if _, err := os.Stat(filepath.Join("..", "..", "wasm", "assets", "files", "potluck.wasm")); err != nil {
		return "", fmt.Errorf("the browser's worker is not built: run `make wasm` first (make test does)")
	}
	path := filepath.Join(folder, "potluck")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/potluck")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}
