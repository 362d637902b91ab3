package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/processtest"
)

// TestCrowd streams to fifty clients at once, of whom every third leaves in the
// middle: the others get their answers whole, and nothing stays behind.
func TestCrowd(t *testing.T) {
	r := openRoom(t, "--policy", "spread")
	r.worker("ana")
	r.worker("ben")
	r.awaitHolding(2)
	var want [5]string
	for i := range want {
		want[i] = local(t, fmt.Sprintf("%s %d", story, i), 30)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var wait sync.WaitGroup
	for i := range 50 {
		prompt, leaves := fmt.Sprintf("%s %d", story, i%len(want)), 0
		if i%3 == 0 {
			leaves = 1 + random.IntN(20)
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			if leaves > 0 {
				r.leave(prompt, leaves)
			} else if got := r.stream(completion(prompt, 30), nil); got != want[i%len(want)] {
				t.Errorf("client %d: got %q, want %q", i, got, want[i%len(want)])
			}
		}()
	}
	wait.Wait()
	r.eventually("no request is left", 10*time.Second, func() bool { return r.cluster().Active == 0 })
	require.NotContains(t, r.serve.Output(), "pass failed", "those who left took others' passes with them")
}

// leave asks for a long answer and goes after so many lines of it.
func (r *room) leave(prompt string, lines int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	body, err := json.Marshal(map[string]any{"prompt": prompt, "max_tokens": 200, "temperature": 0, "stream": true, "ignore_eos": true})
	if err != nil {
		r.t.Error(err)
		return
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer response.Body.Close()
	for scan := bufio.NewScanner(response.Body); lines > 0 && scan.Scan(); lines-- {
	}
}

// TestCoordinatorRestarts takes the coordinator away under its workers: they
// come back by themselves and serve with what they have loaded.
func TestCoordinatorRestarts(t *testing.T) {
	address := processtest.FreeAddress(t)
	r := openRoomAt(t, address, "http://"+address)
	ana := r.worker("ana")
	r.awaitHolding(1)
	want := r.stream(completion(story, 30), nil)
	r.serve.Signal(syscall.SIGKILL)
	<-r.serve.Done
	r = openRoomAt(t, address, "http://"+address)
	r.awaitHolding(1)
	require.Equal(t, want, r.stream(completion(story, 30), nil))
	joins := regexp.MustCompile(`msg=joined`).FindAllString(ana.Output(), -1)
	require.Len(t, joins, 2)
	require.NotContains(t, r.serve.Output(), "piece")
}

// TestNobodyLends asks a room in which nobody computes: the answer says what is
// missing and what to do, once someone might have come.
func TestNobodyLends(t *testing.T) {
	r := openRoom(t, "--wait", "1s")
	response, err := http.Post(r.base+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"Hi"}`))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	require.NotEmpty(t, response.Header.Get("Retry-After"))
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Missing int64  `json:"missing_bytes"`
		} `json:"error"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	require.Equal(t, "no_room", body.Error.Code)
	require.Contains(t, body.Error.Message, "potluck worker --join")
	require.Positive(t, body.Error.Missing)
	r.worker("ana")
	r.awaitHolding(1)
	require.NotEmpty(t, r.stream(completion(story, 5), nil))
}
