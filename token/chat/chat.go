// Package chat turns conversations into prompts and a model's output back into
// reasoning, content and tool calls.
//
// The model's own template always comes first; for models that ship none there
// is one of each family, in its format. Rendering is the work of package
// token/jinja, token ids that of package token.
package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/jinja"
)

// A Template renders and parses one model's conversations. It is immutable.
type Template struct {
	template *jinja.Template
	family   *family
	thinks   bool
	bos, eos string
}

// Hints say what else is known of a model.
type Hints struct {
	Arch     string                          // of model.Config
	TokenID  func(text string) (int32, bool) // may be nil
	BOS, EOS string                          // the texts of bos_token and eos_token
}

// New reads a template; with none, one of the model's family is taken.
func New(source string, h Hints) (*Template, error) {
	if source == "" {
		var err error
		if source, err = builtIn(h); err != nil {
			return nil, err
		}
	}
	parsed, err := jinja.Parse("chat_template", source)
	if err != nil {
		return nil, err
	}
	return &Template{parsed, familyOf(source), strings.Contains(source, "</think>"), h.BOS, h.EOS}, nil
}

// A Mode says where an answer begins.
type Mode int

// The modes.
const (
	Open      Mode = iota // reasoning may come
	Reasoning             // the prompt ended inside it
	Answering             // the prompt has closed it
)

// ModeOf tells how an answer to the prompt begins.
func (t *Template) ModeOf(prompt string) Mode {
	switch end := strings.TrimSpace(prompt); {
	case strings.HasSuffix(end, "<think>"):
		return Reasoning
	case strings.HasSuffix(end, "</think>"), !t.thinks:
		return Answering
	}
	return Open
}

// StopTokens are the texts of the tokens that end an answer in this family.
func (t *Template) StopTokens() []string { return t.family.stops }

// Render writes the prompt. vars are the template's variables; bos_token and
// eos_token are added where they are missing.
func (t *Template) Render(vars *jinja.Dict, now time.Time) (string, error) {
	vars = vars.Copy()
	for name, text := range map[string]string{"bos_token": t.bos, "eos_token": t.eos} {
		if _, ok := vars.Get(name); !ok {
			vars.Set(name, text)
		}
	}
	if _, ok := vars.Get("tools"); !ok {
		vars.Set("tools", nil)
	}
	return t.template.Render(vars, jinja.Options{Now: now})
}

// Normalise puts messages right as clients mean them: content null becomes
// empty, text parts are joined, and a tool call's arguments, sent as a string of
// JSON, become an object.
func Normalise(messages jinja.Value) (*jinja.List, error) {
	list, ok := messages.(*jinja.List)
	if !ok {
		return nil, errors.New("messages must be a list")
	}
	out := &jinja.List{}
	for i, m := range list.Items {
		message, ok := m.(*jinja.Dict)
		if !ok {
			return nil, fmt.Errorf("messages[%d] must be an object", i)
		}
		message = message.Copy()
		content, _ := message.Get("content")
		text, err := contentText(content)
		if err != nil {
			return nil, fmt.Errorf("messages[%d].content: %w", i, err)
		}
		message.Set("content", text)
		if calls, ok := message.Get("tool_calls"); ok {
			if calls == nil {
				message.Delete("tool_calls")
			} else if calls, err = normaliseCalls(calls); err != nil {
				return nil, fmt.Errorf("messages[%d].tool_calls: %w", i, err)
			} else {
				message.Set("tool_calls", calls)
			}
		}
		out.Items = append(out.Items, message)
	}
	return out, nil
}

func contentText(content jinja.Value) (string, error) {
	switch content := content.(type) {
	case nil:
		return "", nil
	case string:
		return content, nil
	case *jinja.List:
		var text strings.Builder
		for i, p := range content.Items {
			part, ok := p.(*jinja.Dict)
			if !ok {
				return "", fmt.Errorf("part %d must be an object", i)
			}
			kind, _ := part.Get("type")
			piece, _ := part.Get("text")
			piece, ok = piece.(string)
			if kind != "text" || !ok {
				return "", fmt.Errorf("part %d: only parts of type text are supported", i)
			}
			text.WriteString(piece.(string))
		}
		return text.String(), nil
	}
	return "", errors.New("must be a string or a list of text parts")
}

func normaliseCalls(calls jinja.Value) (jinja.Value, error) {
	list, ok := calls.(*jinja.List)
	if !ok {
		return nil, errors.New("must be a list")
	}
	out := &jinja.List{}
	for i, c := range list.Items {
		call, ok := c.(*jinja.Dict)
		if !ok {
			return nil, fmt.Errorf("call %d must be an object", i)
		}
		call = call.Copy()
		f, _ := call.Get("function")
		function, ok := f.(*jinja.Dict)
		if !ok {
			return nil, fmt.Errorf("call %d has no function", i)
		}
		function = function.Copy()
		arguments, _ := function.Get("arguments")
		if text, ok := arguments.(string); ok {
			if strings.TrimSpace(text) == "" {
				text = "{}"
			}
			if v, err := jinja.FromJSON([]byte(text)); err == nil {
				if _, ok := v.(*jinja.Dict); ok {
					function.Set("arguments", v)
				}
			}
		} else if arguments == nil {
			function.Set("arguments", jinja.NewDict())
		}
		out.Items = append(out.Items, call.Set("function", function))
	}
	return out, nil
}

// RenderLines renders one JSON object of variables a line and writes one JSON
// string, or {"error": …}, a line.
func RenderLines(t *Template, in io.Reader, out io.Writer) error {
	return token.EachLine(in, out, func(line []byte) (any, error) {
		v, err := jinja.FromJSON(line)
		if err != nil {
			return nil, err
		}
		vars, ok := v.(*jinja.Dict)
		if !ok {
			return nil, errors.New("want a JSON object of variables")
		}
		if messages, ok := vars.Get("messages"); ok {
			if fixed, err := Normalise(messages); err == nil {
				vars = vars.Copy().Set("messages", fixed)
			}
		}
		text, err := t.Render(vars, time.Now())
		if err != nil {
			return map[string]string{"error": err.Error()}, nil
		}
		return text, nil
	})
}

// ParseLines parses {"raw", "tools", "starts_in_reasoning"} a line and writes
// {"reasoning", "content", "tool_calls"} a line.
func ParseLines(t *Template, in io.Reader, out io.Writer) error {
	return token.EachLine(in, out, func(line []byte) (any, error) {
		var request struct {
			Raw    string          `json:"raw"`
			Tools  json.RawMessage `json:"tools"`
			Starts bool            `json:"starts_in_reasoning"`
		}
		if err := json.Unmarshal(line, &request); err != nil {
			return nil, err
		}
		mode := Open
		if request.Starts {
			mode = Reasoning
		}
		return t.Parse(request.Raw, request.Tools, mode), nil
	})
}
