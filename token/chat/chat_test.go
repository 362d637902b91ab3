package chat_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token/chat"
	"github.com/potluck-llm/potluck/token/jinja"
)

type parseCase struct {
	Name      string          `json:"name"`
	Raw       string          `json:"raw"`
	Tools     json.RawMessage `json:"tools"`
	Starts    bool            `json:"starts_in_reasoning"`
	Reasoning string          `json:"reasoning"`
	Content   string          `json:"content"`
	ToolCalls []chat.ToolCall `json:"tool_calls"`
}

func open(t *testing.T, source string) *chat.Template {
	template, err := chat.New(source, chat.Hints{})
	require.NoError(t, err)
	return template
}

// marks make a family known where its published template is not at hand.
var marks = map[string]string{"llama-3.1": "<|start_header_id|>", "llama-3.2": "<|start_header_id|>", "qwen3": "<tool_call></think>", "qwen2.5": "<tool_call>",
	"qwen3-coder": "<function=", "glm-4.6": "<arg_key></think>", "mistral-nemo": "[TOOL_CALLS]", "glm-4-0414": "<|observation|>"}

// Every output means what was written down by hand, whole and in pieces.
func TestParse(t *testing.T) {
	folders, err := filepath.Glob("testdata/*.jsonl")
	require.NoError(t, err)
	require.Len(t, folders, 10)
	for _, file := range folders {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		t.Run(name, func(t *testing.T) {
			source, ok := marks[name]
			if !ok {
				data, err := os.ReadFile(filepath.Join("..", "jinja", "testdata", name, "template.jinja"))
				require.NoError(t, err)
				source = string(data)
			}
			template := open(t, source)
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			lines := bufio.NewScanner(bytes.NewReader(data))
			lines.Buffer(nil, 1<<20)
			random := rand.New(rand.NewPCG(1, 2))
			for lines.Scan() {
				var c parseCase
				require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
				mode := chat.Open
				if c.Starts {
					mode = chat.Reasoning
				}
				check(t, c, template.Parse(c.Raw, c.Tools, mode))
				for range 20 {
					check(t, c, inPieces(template, c, mode, random))
				}
			}
		})
	}
}

func inPieces(template *chat.Template, c parseCase, mode chat.Mode, random *rand.Rand) chat.Result {
	p := template.NewParser(c.Tools, mode)
	var r chat.Result
	add := func(d chat.Delta) {
		r.Reasoning += d.Reasoning
		r.Content += d.Content
		r.ToolCalls = append(r.ToolCalls, d.ToolCalls...)
	}
	for rest := c.Raw; rest != ""; {
		n := min(len(rest), 1+random.IntN(8))
		add(p.Push(rest[:n]))
		rest = rest[n:]
	}
	add(p.Finish())
	return r
}

func check(t *testing.T, c parseCase, got chat.Result) {
	t.Helper()
	require.Equal(t, c.Reasoning, strings.TrimSpace(got.Reasoning), c.Name)
	require.Equal(t, c.Content, strings.TrimSpace(got.Content), c.Name)
	require.Len(t, got.ToolCalls, len(c.ToolCalls), c.Name)
	for i, call := range got.ToolCalls {
		require.Equal(t, c.ToolCalls[i].Name, call.Name, c.Name)
		require.JSONEq(t, string(c.ToolCalls[i].Arguments), string(call.Arguments), c.Name)
	}
}

// Text is shown as it comes, not when the output has ended.
func TestTextStreams(t *testing.T) {
	p := open(t, "<arg_key></think>").NewParser(nil, chat.Answering)
	require.Equal(t, "It is", p.Push("It is ").Content)
	require.Equal(t, " 21", p.Push("21").Content)
	require.Equal(t, "", p.Push(" <tool").Content)
	require.Equal(t, " <toolbox", p.Push("box").Content)
}

func TestModeOf(t *testing.T) {
	template := open(t, "<think></think>")
	require.Equal(t, chat.Reasoning, template.ModeOf("hi<think>\n"))
	require.Equal(t, chat.Answering, template.ModeOf("hi<think></think>\n"))
	require.Equal(t, chat.Open, template.ModeOf("<|assistant|>"))
	require.Equal(t, chat.Answering, open(t, "no reasoning").ModeOf("<|assistant|>"))
}

func vars(t *testing.T, text string) *jinja.Dict {
	v, err := jinja.FromJSON([]byte(text))
	require.NoError(t, err)
	return v.(*jinja.Dict)
}

func TestNormalise(t *testing.T) {
	v := vars(t, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
		{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{\"x\": 1}"}}]}]}`)
	messages, _ := v.Get("messages")
	got, err := chat.Normalise(messages)
	require.NoError(t, err)
	text, err := jinja.JSON(got)
	require.NoError(t, err)
	require.JSONEq(t, `[{"role":"user","content":"ab"},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]}]`, text)
	for bad, want := range map[string]string{
		`{"messages":3}`: "messages must be", `{"messages":[3]}`: "messages[0]", `{"messages":[{"content":3}]}`: "messages[0].content",
		`{"messages":[{"content":[{"type":"image_url"}]}]}`: "part 0", `{"messages":[{"tool_calls":[3]}]}`: "call 0",
	} {
		messages, _ := vars(t, bad).Get("messages")
		_, err := chat.Normalise(messages)
		require.ErrorContains(t, err, want, bad)
	}
}

// Every built-in template renders a conversation with tools, and its own
// output parses back.
func TestBuiltIn(t *testing.T) {
	for token, arch := range map[string]string{"<|start_header_id|>": "llama", "<|im_start|>": "qwen3", "<|im_start|> ": "glm4moe", "[gMASK]": "glm4moe", "<|im_start|>  ": "llama"} {
		template, err := chat.New("", chat.Hints{Arch: arch, TokenID: func(text string) (int32, bool) { return 0, text == strings.TrimSpace(token) }})
		require.NoError(t, err)
		prompt, err := template.Render(vars(t, `{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"},
			{"role":"assistant","content":"","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":{"x":1}}}]},{"role":"tool","content":"42","tool_call_id":"call_1"}],
			"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"x":{"type":"integer"}}}}}],"add_generation_prompt":true}`), time.Now())
		require.NoError(t, err, arch)
		require.Contains(t, prompt, "Be kind.")
		require.Contains(t, prompt, "Hi")
		require.NotEmpty(t, template.StopTokens())
		if token != "<|im_start|>  " { // plain ChatML has no tools
			require.Contains(t, prompt, "42")
			require.Contains(t, prompt, "f")
		}
	}
	_, err := chat.New("", chat.Hints{Arch: "llama"})
	require.ErrorContains(t, err, "no chat template")
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	template := open(t, "{{ messages[0].content }}{% if not messages[0].content %}{{ raise_exception('empty') }}{% endif %}")
	require.NoError(t, chat.RenderLines(template, strings.NewReader("{\"messages\":[{\"content\":\"a<b\"}]}\n{\"messages\":[{\"content\":\"\"}]}\n"), &out))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Equal(t, `"a<b"`, lines[0])
	require.Contains(t, lines[1], `"error":`)
	out.Reset()
	require.NoError(t, chat.ParseLines(open(t, "</think>"), strings.NewReader(`{"raw":"<think>a</think>b"}`), &out))
	require.JSONEq(t, `{"reasoning":"a","content":"b","tool_calls":[]}`, out.String())
	require.ErrorContains(t, chat.RenderLines(template, strings.NewReader("[1]"), &out), "line 1")
}

func FuzzParser(f *testing.F) {
	f.Add("<arg_key></think>", "<think>a</think>b<tool_call>f<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>", 3)
	f.Add("[TOOL_CALLS]", "a[TOOL_CALLS][{\"name\":\"f\"}]", 1)
	f.Fuzz(func(t *testing.T, source, raw string, size int) {
		template, err := chat.New(source, chat.Hints{})
		if err != nil {
			return
		}
		p := template.NewParser(nil, chat.Open)
		for size = max(1, size); raw != ""; {
			n := min(size, len(raw))
			p.Push(raw[:n])
			raw = raw[n:]
		}
		p.Finish()
	})
}
