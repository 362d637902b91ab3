package realmodel

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func user(text string) []message { return []message{{"user", text}} }

// maxTokens is the length of an answer.
const maxTokens = 32

// conversations are what the rooms are asked. None was chosen for its answer.
var conversations = []struct {
	name     string
	messages []message
}{
	{"english: a fact", user("What is the capital of France?")},
	{"english: an explanation", user("Why does bread rise when it is baked?")},
	{"english: a story", user("Write the beginning of a story about a lighthouse keeper and a whale.")},
	{"code: python", user("Write a Python function that returns the n-th Fibonacci number.")},
	{"code: sql", user("Write an SQL query that lists the ten newest orders of each customer.")},
	{"turns: names", []message{{"system", "You answer in one short sentence."}, {"user", "My name is Clara and I keep bees."},
		{"assistant", "Nice to meet you, Clara."}, {"user", "What do I keep, and why might someone do that?"}}},
	{"turns: code", []message{{"user", "Write a Go function that adds two integers."},
		{"assistant", "```go\nfunc add(a, b int) int {\n\treturn a + b\n}\n```"}, {"user", "Now make it subtract instead."}}},
}

// local answers in one process, without a coordinator: the template is rendered
// and its text continued.
func (p *program) local(messages []message, activations string) string {
	variables, err := json.Marshal(map[string]any{"messages": messages, "add_generation_prompt": true})
	require.NoError(p.t, err)
	var prompt string
	require.NoError(p.t, json.Unmarshal([]byte(p.output(string(variables)+"\n", "template", "--model", p.model)), &prompt))
	return strings.TrimSpace(p.output("", "run", "--model", p.model, "--raw", "-p", prompt, "--temperature", "0",
		"--max-tokens", fmt.Sprint(maxTokens), "--activations", activations)) // as the API does with an answer
}

// A real model answers with the same text in one process, through a chain of
// three native workers over sockets, and in two browser tabs.
//
// Native workers have one kind of arithmetic, so they are held to that in both
// modes of activations. Tabs on WebGPU multiply weights by f32 activations,
// where a processor by default quantises these to 8 bits: the same text can only
// be asked of a room that computes exactly everywhere, --activations f32.
func TestAnswers(t *testing.T) {
	path := os.Getenv(Environment)
	if path == "" {
		t.Skipf("%s is unset: rooms with a published model are not tried here; `make test-real` fetches it (98 MB) and runs this test", Environment)
	}
	require.NoError(t, Check(path))
	p := build(t, path)
	want := map[string][]string{}
	for _, activations := range []string{"f16", "f32"} {
		for _, c := range conversations {
			text := p.local(c.messages, activations)
			require.NotEmpty(t, text, c.name)
			t.Logf("%s, %s: %q", activations, c.name, text)
			want[activations] = append(want[activations], text)
		}
	}
	for _, c := range []struct {
		name, activations string
		lend              func(r *room)
	}{
		{"three native workers", "f16", func(r *room) { r.natives(3) }},
		{"three native workers, exact", "f32", func(r *room) { r.natives(3) }},
		{"two tabs on webgpu, exact", "f32", func(r *room) { r.tabs(2, "webgpu") }},
		{"two tabs on the processor, exact", "f32", func(r *room) { r.tabs(2, "cpu") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := p.open(t, c.activations)
			c.lend(r)
			t.Log(r.holding())
			for i, conversation := range conversations {
				begun := time.Now()
				require.Equal(t, want[c.activations][i], r.ask(conversation.messages, maxTokens), conversation.name)
				t.Logf("%s: the same, after %.1f s", conversation.name, time.Since(begun).Seconds())
			}
		})
	}
}
