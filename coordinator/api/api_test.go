package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/api"
	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/mem"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/chat"
	"github.com/potluck-llm/potluck/web"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
)

const positions = 160

// server is a whole coordinator with the embedded model and one worker.
type server struct {
	t    *testing.T
	http *httptest.Server
	hub  *hub.Hub
	src  shard.Source
	log  *strings.Builder // the API's; to be read when no request is under way
}

func open(t *testing.T, workers int) *server {
	src, err := embedded.Open()
	require.NoError(t, err)
	m := src.Manifest()
	_, hash, err := shard.EncodeManifest(m)
	require.NoError(t, err)
	engine := func() *kernel.Engine {
		e, err := kernel.New(kernel.Options{Threads: 1})
		require.NoError(t, err)
		t.Cleanup(e.Close)
		return e
	}
	slots := exec.SlotPlan{Slots: 4, Positions: positions, KV: quant.F16, Round: true}
	h, err := hub.Open(context.Background(), hub.Options{Source: src, Manifest: hash, Name: "potluck-tiny", Policy: plan.Auto, Slots: slots, Token: "t",
		Embed: cpu.New(cpu.Options{Engine: engine()}), Head: cpu.New(cpu.Options{Engine: engine()})})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	tokenizer, err := token.FromJSON(m.Tokenizer)
	require.NoError(t, err)
	template, err := chat.New(m.Template, chat.Hints{Arch: m.Model.Arch, TokenID: tokenizer.ID})
	require.NoError(t, err)
	log := &strings.Builder{}
	handler, err := api.New(api.Options{Engine: h, Source: src, Logger: slog.New(slog.NewTextHandler(log, nil)), Name: "potluck-tiny", Tokenizer: tokenizer, Template: template, Stop: m.Model.EOS,
		Defaults: api.Defaults{Temperature: 0.6, TopP: 0.95}, Positions: positions, JoinToken: "t", OperatorKey: "key", Pages: web.Files(), Invitation: invitation})
	require.NoError(t, err)
	s := &server{t, httptest.NewServer(handler), h, src, log}
	t.Cleanup(s.http.Close)
	for i := range workers {
		s.lend(fmt.Sprint("worker", i), engine())
	}
	require.Eventually(t, func() bool {
		room := h.Snapshot()
		return workers == 0 || room.PredictedTokS > 0 && room.Workers[0].State == "ready"
	}, 10*time.Second, 5*time.Millisecond)
	return s
}

func (s *server) lend(name string, engine *kernel.Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		_ = worker.Run(ctx, worker.Options{
			Link: func(context.Context) (link.Link, error) {
				here, there := mem.Pair(mem.Options{})
				go func() { _ = s.hub.Serve(context.Background(), there, name) }()
				return here, nil
			},
			Hello:       wire.Hello{Token: "t", Name: name, Kind: "native", Capacity: wire.Capacity{Bytes: 1 << 30, ReadGBs: 5, Credit: 4}},
			NewExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
			Open:        func(context.Context, string) (shard.Source, func(), error) { return s.src, nil, nil },
		})
	}()
}

func (s *server) post(path, body string) (int, map[string]any, http.Header) {
	response, err := http.Post(s.http.URL+path, "application/json", strings.NewReader(body))
	require.NoError(s.t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	var v map[string]any
	require.NoError(s.t, json.Unmarshal(data, &v), "%s", data)
	return response.StatusCode, v, response.Header
}

// at walks into JSON: at(v, "choices", 0, "message").
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// capital is a question that the model answers in one short sentence.
func capital(more string) string {
	return `{"messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0,"chat_template_kwargs":{"enable_thinking":false}` + more + `}`
}

const answer = "The capital of France is Paris."

func TestChat(t *testing.T) {
	s := open(t, 1)
	status, v, header := s.post("/v1/chat/completions", capital(""))
	require.Equal(t, 200, status, v)
	require.Equal(t, answer, at(v, "choices", 0, "message", "content"))
	require.Equal(t, "assistant", at(v, "choices", 0, "message", "role"))
	require.Equal(t, "stop", at(v, "choices", 0, "finish_reason"))
	require.Equal(t, "chat.completion", v["object"])
	require.Equal(t, "potluck-tiny", v["model"])
	require.Equal(t, at(v, "usage", "total_tokens").(float64), at(v, "usage", "prompt_tokens").(float64)+at(v, "usage", "completion_tokens").(float64))
	require.NotEmpty(t, header.Get("X-Request-Id"))

	t.Run("text parts", func(t *testing.T) {
		_, v, _ := s.post("/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"What is the capital "},{"type":"text","text":"of France?"}]}],"temperature":0,"chat_template_kwargs":{"enable_thinking":false}}`)
		require.Equal(t, answer, at(v, "choices", 0, "message", "content"))
	})
	t.Run("max_tokens", func(t *testing.T) {
		for _, name := range []string{"max_tokens", "max_completion_tokens"} {
			_, v, _ := s.post("/v1/chat/completions", capital(`,"`+name+`":3`))
			require.Equal(t, "length", at(v, "choices", 0, "finish_reason"))
			require.EqualValues(t, 3, at(v, "usage", "completion_tokens"))
		}
	})
	t.Run("stop", func(t *testing.T) {
		for _, stop := range []string{`" of"`, `["nothing"," of"]`} {
			_, v, _ := s.post("/v1/chat/completions", capital(`,"stop":`+stop))
			require.Equal(t, "The capital", at(v, "choices", 0, "message", "content"))
			require.Equal(t, "stop", at(v, "choices", 0, "finish_reason"))
		}
	})
	t.Run("n", func(t *testing.T) {
		_, v, _ := s.post("/v1/chat/completions", capital(`,"n":3`))
		require.Len(t, v["choices"], 3)
		for i := range 3 {
			require.Equal(t, answer, at(v, "choices", i, "message", "content"))
			require.EqualValues(t, i, at(v, "choices", i, "index"))
		}
	})
	t.Run("logprobs", func(t *testing.T) {
		_, v, _ := s.post("/v1/chat/completions", capital(`,"logprobs":true,"top_logprobs":2`))
		list := at(v, "choices", 0, "logprobs", "content").([]any)
		require.NotEmpty(t, list)
		var text strings.Builder
		for _, one := range list {
			text.WriteString(at(one, "token").(string))
			require.LessOrEqual(t, at(one, "logprob").(float64), 0.0)
			require.Len(t, at(one, "top_logprobs"), 2)
			require.Equal(t, at(one, "token"), at(one, "top_logprobs", 0, "token"), "greedy takes the likeliest")
		}
		require.Contains(t, text.String(), answer)
	})
	t.Run("seed", func(t *testing.T) {
		body := `{"messages":[{"role":"user","content":"Tell me a short story."}],"temperature":1.5,"max_tokens":20,"seed":`
		text := func(seed string) any {
			_, v, _ := s.post("/v1/chat/completions", body+seed+"}")
			return at(v, "choices", 0, "message")
		}
		require.Equal(t, text("7"), text("7"))
		require.NotEqual(t, text("7"), text("8"))
	})
	t.Run("thinking", func(t *testing.T) {
		_, v, _ := s.post("/v1/chat/completions", `{"messages":[{"role":"user","content":"What is 12 + 7?"}],"temperature":0}`)
		require.NotEmpty(t, at(v, "choices", 0, "message", "reasoning_content"))
		require.NotContains(t, at(v, "choices", 0, "message", "content"), "think>")
	})
	t.Run("ignored parameters", func(t *testing.T) {
		status, v, _ := s.post("/v1/chat/completions", capital(`,"user":"u","metadata":{"a":"b"},"store":false,"model":"potluck-tiny","presence_penalty":0,"seed":null`))
		require.Equal(t, 200, status, v)
	})
	t.Run("logit_bias", func(t *testing.T) {
		_, plain, _ := s.post("/v1/completions", `{"prompt":"Once upon a","max_tokens":1,"temperature":0}`)
		_, biased, _ := s.post("/v1/completions", `{"prompt":"Once upon a","max_tokens":1,"temperature":0,"logit_bias":{"65":100}}`)
		require.NotEqual(t, at(plain, "choices", 0, "text"), at(biased, "choices", 0, "text"))
	})
}

// events reads a stream of the API.
func (s *server) events(path, body string) (list []map[string]any, done bool) {
	response, err := http.Post(s.http.URL+path, "application/json", strings.NewReader(body))
	require.NoError(s.t, err)
	defer response.Body.Close()
	require.Equal(s.t, 200, response.StatusCode)
	require.Equal(s.t, "text/event-stream", response.Header.Get("Content-Type"))
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			return list, true
		}
		var v map[string]any
		require.NoError(s.t, json.Unmarshal([]byte(data), &v))
		list = append(list, v)
	}
	return list, false
}

func TestStreams(t *testing.T) {
	s := open(t, 1)
	list, done := s.events("/v1/chat/completions", capital(`,"stream":true,"stream_options":{"include_usage":true}`))
	require.True(t, done)
	var text strings.Builder
	finish := ""
	for _, v := range list[:len(list)-1] {
		require.Equal(t, "chat.completion.chunk", v["object"])
		if c, ok := at(v, "choices", 0, "delta", "content").(string); ok {
			text.WriteString(c)
		}
		if f, ok := at(v, "choices", 0, "finish_reason").(string); ok {
			finish = f
		}
	}
	require.Equal(t, answer, text.String())
	require.Equal(t, "stop", finish)
	require.Equal(t, "assistant", at(list[0], "choices", 0, "delta", "role"))
	require.Greater(t, len(list), 4, "it comes in pieces")
	last := list[len(list)-1]
	require.Empty(t, last["choices"])
	require.NotZero(t, at(last, "usage", "completion_tokens"))

	list, done = s.events("/v1/completions", `{"prompt":"Once upon a time","max_tokens":8,"temperature":0,"stream":true}`)
	require.True(t, done)
	text.Reset()
	for _, v := range list {
		text.WriteString(at(v, "choices", 0, "text").(string))
	}
	_, whole, _ := s.post("/v1/completions", `{"prompt":"Once upon a time","max_tokens":8,"temperature":0}`)
	require.Equal(t, at(whole, "choices", 0, "text"), text.String())
	require.Equal(t, "length", at(whole, "choices", 0, "finish_reason"))
}

func TestCompletions(t *testing.T) {
	s := open(t, 1)
	_, ids, _ := s.post("/v1/completions", `{"prompt":[302,419,264,392],"max_tokens":5,"temperature":0}`)
	require.NotEmpty(t, at(ids, "choices", 0, "text"))
	require.EqualValues(t, 4, at(ids, "usage", "prompt_tokens"))
	_, many, _ := s.post("/v1/completions", `{"prompt":["Once upon a time","The owl"],"max_tokens":5,"temperature":0,"n":2,"logprobs":1}`)
	require.Len(t, many["choices"], 4)
	require.Equal(t, at(many, "choices", 0, "text"), at(many, "choices", 1, "text"))
	require.NotEqual(t, at(many, "choices", 0, "text"), at(many, "choices", 2, "text"))
	require.Len(t, at(many, "choices", 0, "logprobs", "tokens"), 5)
	_, default16, _ := s.post("/v1/completions", `{"prompt":"Once upon a time","ignore_eos":true}`)
	require.EqualValues(t, 16, at(default16, "usage", "completion_tokens"))
}

// Whatever is wrong is a 400 in OpenAI's shape that names the parameter.
func TestRefusals(t *testing.T) {
	s := open(t, 1)
	chat := func(more string) string { return `{"messages":[{"role":"user","content":"x"}],` + more + `}` }
	for body, param := range map[string]string{
		chat(`"temperature":3`): "temperature", chat(`"temperature":"hot"`): "temperature", chat(`"temperature":-1`): "temperature",
		chat(`"top_p":0`): "top_p", chat(`"top_p":1.1`): "top_p", chat(`"top_k":-2`): "top_k", chat(`"top_k":1.5`): "top_k", chat(`"min_p":2`): "min_p",
		chat(`"max_tokens":0`): "max_tokens", chat(`"max_tokens":1e99`): "max_tokens", chat(`"max_completion_tokens":"many"`): "max_completion_tokens",
		chat(`"n":0`): "n", chat(`"n":99`): "n", chat(`"seed":"x"`): "seed", chat(`"stop":3`): "stop", chat(`"stop":[""]`): "stop", chat(`"stream":"yes"`): "stream",
		chat(`"logprobs":2`): "logprobs", chat(`"top_logprobs":3`): "top_logprobs", chat(`"logprobs":true,"top_logprobs":99`): "top_logprobs",
		chat(`"logit_bias":{"x":1}`): "logit_bias", chat(`"logit_bias":{"5":1000}`): "logit_bias", chat(`"logit_bias":{"9999999":1}`): "logit_bias",
		chat(`"presence_penalty":5`): "presence_penalty", chat(`"frequency_penalty":-5`): "frequency_penalty", chat(`"stream_options":3`): "stream_options",
		chat(`"response_format":{"type":"json_object"}`): "response_format", chat(`"audio":{}`): "audio", chat(`"modalities":["audio"]`): "modalities",
		chat(`"tool_choice":"required","tools":[]`): "tool_choice", chat(`"tools":{}`): "tools", chat(`"tools":[3]`): "tools[0]", chat(`"tools":[{"type":"function","function":{}}]`): "tools[0].function.name",
		chat(`"chat_template_kwargs":[]`): "chat_template_kwargs", chat(`"chat_template_kwargs":{"messages":[]}`): "chat_template_kwargs",
		`{}`: "messages", `{"messages":[]}`: "messages", `{"messages":"hi"}`: "messages", `{"messages":[3]}`: "messages[0]", `{"messages":[{"content":"x"}]}`: "messages[0].role",
		`{"messages":[{"role":"robot","content":"x"}]}`: "messages[0].role", `{"messages":[{"role":"user"}]}`: "messages[0].content",
		`{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`:                 "messages",
		`{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 500) + `"}]}`: "messages",
	} {
		status, v, _ := s.post("/v1/chat/completions", body)
		require.Equal(t, 400, status, "%.120s: %v", body, v)
		require.Equal(t, param, at(v, "error", "param"), "%.120s: %v", body, v)
		require.Equal(t, "invalid_request_error", at(v, "error", "type"))
		require.NotEmpty(t, at(v, "error", "message"))
	}
	for body, param := range map[string]any{
		`{}`: "prompt", `{"prompt":3}`: "prompt", `{"prompt":[]}`: "prompt", `{"prompt":""}`: "prompt", `{"prompt":[-1]}`: "prompt", `{"prompt":[999999]}`: "prompt",
		`{"prompt":"x","suffix":"y"}`: "suffix", `{"prompt":"x","best_of":2}`: "best_of", `{"prompt":"x","echo":true}`: "echo", `{"prompt":"x","logprobs":50}`: "logprobs",
	} {
		status, v, _ := s.post("/v1/completions", body)
		require.Equal(t, 400, status, "%s: %v", body, v)
		require.Equal(t, param, at(v, "error", "param"), body)
	}
	for _, body := range []string{"", "{", "[]", "null x", `{"messages": "` + "\xff" + `"}`, strings.Repeat("[", 100000)} {
		status, v, _ := s.post("/v1/chat/completions", body)
		require.Equal(t, 400, status, "%.40q", body)
		require.NotEmpty(t, at(v, "error", "message"))
	}
	status, v, _ := s.post("/v1/chat/completions", chat(`"model":"gpt-9"`))
	require.Equal(t, 404, status)
	require.Equal(t, "model_not_found", at(v, "error", "code"))
	status, _, _ = s.post("/v1/embeddings", `{}`)
	require.Equal(t, 404, status)
	status, v, _ = s.post("/v1/chat/completions", capital(""))
	require.Equal(t, 200, status, "it serves on: %v", v)
}

// A client that goes away frees its slots.
func TestAClientThatGoesAway(t *testing.T) {
	s := open(t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	body := `{"prompt":"Once upon a time","max_tokens":140,"temperature":0,"stream":true,"ignore_eos":true,"n":3}`
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http.URL+"/v1/completions", bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_, err = bufio.NewReader(response.Body).ReadString('\n')
	require.NoError(t, err)
	require.Positive(t, s.hub.Snapshot().Active+s.hub.Snapshot().Queued)
	cancel()
	response.Body.Close()
	require.Eventually(t, func() bool { r := s.hub.Snapshot(); return r.Active == 0 && r.Queued == 0 }, 3*time.Second, 5*time.Millisecond)
}

func (s *server) get(path string, header ...string) (int, string, http.Header) {
	request, err := http.NewRequest(http.MethodGet, s.http.URL+path, nil)
	require.NoError(s.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	return response.StatusCode, string(data), response.Header
}

func TestShards(t *testing.T) {
	s := open(t, 0)
	data, hash, err := shard.EncodeManifest(s.src.Manifest())
	require.NoError(t, err)
	status, body, header := s.get("/shards/" + hash.String() + "/manifest.json")
	require.Equal(t, 200, status)
	require.Equal(t, string(data), body)
	require.Contains(t, header.Get("Cache-Control"), "immutable")
	piece := s.src.Manifest().Pieces[3]
	path := "/shards/" + hash.String() + "/pieces/" + piece.Hash.String()
	status, body, _ = s.get(path)
	require.Equal(t, 200, status)
	require.Equal(t, piece.Hash, shard.Sum([]byte(body)))
	status, part, _ := s.get(path, "Range", "bytes=100-199")
	require.Equal(t, 206, status)
	require.Equal(t, body[100:200], part)
	status, _, _ = s.get(path, "If-None-Match", `"`+piece.Hash.String()+`"`)
	require.Equal(t, 304, status)
	for _, missing := range []string{"/shards/" + strings.Repeat("0", 64) + "/manifest.json", "/shards/x/pieces/../../etc/passwd", "/shards/" + hash.String() + "/pieces/" + strings.Repeat("0", 64)} {
		status, _, _ = s.get(missing)
		require.Equal(t, 404, status, missing)
	}
}

// A worker that leaves while it waits for a piece says nothing about the piece.
func TestAbandonedPiece(t *testing.T) {
	s := open(t, 0)
	_, hash, err := shard.EncodeManifest(s.src.Manifest())
	require.NoError(t, err)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	path := "/shards/" + hash.String() + "/pieces/" + s.src.Manifest().Pieces[3].Hash.String()
	s.http.Config.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, http.MethodGet, path, nil))
	require.Empty(t, s.log.String())
	status, _, _ := s.get(path)
	require.Equal(t, 200, status)
}

func TestRoom(t *testing.T) {
	s := open(t, 1)
	status, body, _ := s.get("/healthz")
	require.Equal(t, 200, status)
	require.Equal(t, "ok\n", body)
	_, body, _ = s.get("/v1/cluster")
	var room map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &room))
	require.Equal(t, "ready", at(room, "workers", 0, "state"))
	require.EqualValues(t, 8, at(room, "workers", 0, "layer_count"))
	require.Equal(t, "native", at(room, "workers", 0, "kind"))
	_, body, _ = s.get("/v1/models")
	require.Contains(t, body, `"id":"potluck-tiny"`)
	status, _, _ = s.get("/v1/models/potluck-tiny")
	require.Equal(t, 200, status)
	status, _, _ = s.get("/v1/models/other")
	require.Equal(t, 404, status)
	_, body, _ = s.get("/metrics")
	require.Contains(t, body, "potluck_workers 1")
	status, _, _ = s.get("/v1/cluster/invitation")
	require.Equal(t, 401, status)
	status, body, _ = s.get("/v1/cluster/invitation", "Authorization", "Bearer key")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"t"`)
	_, _, header := s.get("/")
	require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'")
}

// The feed begins with a snapshot, tells of requests without their text, and
// goes on where a reader left it.
func TestFeed(t *testing.T) {
	s := open(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	read := func(after string, until string) (ids []string, names []string) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.http.URL+"/v1/cluster/events", nil)
		require.NoError(t, err)
		if after != "" {
			request.Header.Set("Last-Event-ID", after)
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		if after == "" {
			go s.post("/v1/chat/completions", capital(""))
		}
		id := ""
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			line := lines.Text()
			require.NotContains(t, line, "capital of France")
			if v, ok := strings.CutPrefix(line, "id: "); ok {
				id = v
			}
			if name, ok := strings.CutPrefix(line, "event: "); ok {
				ids, names = append(ids, id), append(names, name)
			}
			if strings.Contains(line, until) {
				return ids, names
			}
		}
		t.Fatal("the feed ended")
		return nil, nil
	}
	ids, names := read("", `"state":"done"`)
	require.Equal(t, "snapshot", names[0])
	require.Contains(t, names, "request")
	again, resumed := read(ids[1], `"state":"done"`)
	require.NotEqual(t, "snapshot", resumed[0])
	require.Equal(t, ids[2], again[0])
}

func FuzzRequest(f *testing.F) {
	src, err := embedded.Open()
	if err != nil {
		f.Fatal(err)
	}
	m := src.Manifest()
	tokenizer, err := token.FromJSON(m.Tokenizer)
	if err != nil {
		f.Fatal(err)
	}
	template, err := chat.New(m.Template, chat.Hints{TokenID: tokenizer.ID})
	if err != nil {
		f.Fatal(err)
	}
	handler, err := api.New(api.Options{Engine: noEngine{}, Source: src, Name: "m", Tokenizer: tokenizer, Template: template, Positions: 64})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/v1/chat/completions", capital(`,"n":2,"stop":["a"],"logit_bias":{"5":1}`))
	f.Add("/v1/completions", `{"prompt":[1,2],"logprobs":1}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		if path != "/v1/completions" {
			path = "/v1/chat/completions"
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
		require.GreaterOrEqual(t, w.Code, 400)
	})
}

// noEngine refuses everything.
type noEngine struct{ api.Engine }

func (noEngine) Generate(context.Context, hub.Request) (*hub.Stream, error) {
	return nil, &hub.RequestError{Code: "no_room", Reason: "nothing computes here", Missing: 5}
}

func TestNoRoomIs503(t *testing.T) {
	src, err := embedded.Open()
	require.NoError(t, err)
	tokenizer, err := token.FromJSON(src.Manifest().Tokenizer)
	require.NoError(t, err)
	handler, err := api.New(api.Options{Engine: noEngine{}, Source: src, Name: "m", Tokenizer: tokenizer, Positions: 64})
	require.NoError(t, err)
	for _, stream := range []string{"false", "true"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/completions", strings.NewReader(`{"prompt":"x","stream":`+stream+`}`)))
		require.Equal(t, 503, w.Code)
		require.Contains(t, w.Body.String(), `"missing_bytes":5`)
		require.NotEmpty(t, w.Header().Get("Retry-After"))
	}
}
