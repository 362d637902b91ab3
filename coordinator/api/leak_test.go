package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/hub"
)

// Two hundred requests of every kind, also such that leave or are refused,
// leave no goroutine, no slot and no memory behind.
func TestNothingIsLeftOfRequests(t *testing.T) {
	s := open(t, 1)
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	ask := func(i int) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		path, body := "/v1/completions", `{"prompt":"Once upon a time","max_tokens":5}`
		switch i % 5 {
		case 1: // streamed, left after the first bytes
			body = `{"prompt":"Once upon a time","max_tokens":100,"stream":true,"ignore_eos":true}`
		case 2: // gone before the answer
			time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
		case 3:
			path, body = "/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}],"n":3,"max_tokens":4,"stream":true}`
		case 4:
			path, body = "/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}],"max_tokens":0}`
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		response, err := client.Do(request)
		if err != nil {
			return
		}
		defer response.Body.Close()
		if i%5 == 1 {
			_, _ = response.Body.Read(make([]byte, 1))
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
	}
	idle := func() bool {
		room := s.hub.Snapshot()
		return room.Active == 0 && room.Queued == 0
	}
	many := func() (goroutines int, heap uint64) {
		var wait sync.WaitGroup
		for worker := range 4 {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for i := range 50 {
					ask(4*i + worker)
				}
			}()
		}
		wait.Wait()
		require.Eventually(t, idle, 10*time.Second, 5*time.Millisecond, "slots are free")
		transport.CloseIdleConnections()
		var m runtime.MemStats
		lowest := 1 << 30
		for range 100 { // what is on its way out takes a moment
			time.Sleep(5 * time.Millisecond)
			lowest = min(lowest, runtime.NumGoroutine())
		}
		runtime.GC()
		runtime.ReadMemStats(&m)
		return lowest, m.HeapAlloc
	}
	goroutines, heap := many()
	after, heapAfter := many()
	require.LessOrEqual(t, after, goroutines+1)
	require.Less(t, heapAfter, heap+8<<20)
}

// slowReader gives a byte now and then.
type slowReader struct{ left int }

func (r *slowReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	time.Sleep(time.Millisecond)
	return copy(p, " "), nil
}

// Bodies that come slowly or end early hold up nobody, and what cannot fit is
// refused at once.
func TestSlowAndEndlessBodies(t *testing.T) {
	s := open(t, 1)
	var wait sync.WaitGroup
	for range 20 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			response, err := http.Post(s.http.URL+"/v1/completions", "application/json", &slowReader{left: 300})
			if err == nil {
				response.Body.Close()
			}
		}()
	}
	start := time.Now()
	status, _, _ := s.post("/v1/completions", `{"prompt":"Once upon a time","max_tokens":5}`)
	require.Equal(t, 200, status)
	require.Less(t, time.Since(start), 5*time.Second)
	wait.Wait()

	status, v, _ := s.post("/v1/completions", `{"prompt":"`+string(bytes.Repeat([]byte("a fox "), 4<<20))+`"}`)
	require.Equal(t, 400, status)
	require.Equal(t, "context_length_exceeded", at(v, "error", "code"))
	require.Equal(t, "prompt", at(v, "error", "param"))
	status, v, _ = s.post("/v1/completions", `{"prompt":["a","b","c","d","e","f","g","h","i"],"n":16}`)
	require.Equal(t, 400, status)
	require.Contains(t, at(v, "error", "message"), "9 prompts × 16 answers are 144, at most 128")
}

// More requests than may wait are told so, and the others are answered.
func TestMoreThanMayWait(t *testing.T) {
	s := open(t, 0) // nobody computes: all wait
	var streams []*hub.Stream
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 300 {
		stream, err := s.hub.Generate(ctx, hub.Request{Prompt: []int32{1, 2}, MaxTokens: 5})
		require.NoError(t, err)
		streams = append(streams, stream)
	}
	require.Eventually(t, func() bool { return s.hub.Snapshot().Queued == 256 }, 5*time.Second, 5*time.Millisecond)
	for _, stream := range streams[256:] {
		_, _, err := stream.Next(ctx)
		require.ErrorContains(t, err, "waiting already")
	}
	for _, stream := range streams {
		stream.Close()
	}
	require.Eventually(t, func() bool { return s.hub.Snapshot().Queued == 0 }, 5*time.Second, 5*time.Millisecond)
}
