package chat

import (
	"encoding/json"
	"strings"
)

// A ToolCall is a function that the model wants called.
type ToolCall struct {
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"` // an object
}

// A Result is what an output means.
type Result struct {
	Reasoning string     `json:"reasoning"`
	Content   string     `json:"content"`
	ToolCalls []ToolCall `json:"tool_calls"`
}

// Parse reads a whole output. Nothing is lost: what is no well-formed call stays
// in the content as it was written.
func (t *Template) Parse(raw string, tools json.RawMessage, mode Mode) Result {
	p := t.NewParser(tools, mode)
	p.Push(raw)
	p.Finish()
	return Result{strings.TrimSpace(p.reasoning.String()), strings.TrimSpace(p.content.String()), append([]ToolCall{}, p.calls...)}
}

// A Delta is what a piece of output adds.
type Delta struct {
	Reasoning, Content string
	ToolCalls          []ToolCall
}

// A Parser reads an output as it comes. Text is given out as soon as it cannot
// be markup any more.
type Parser struct {
	t     *Template
	tools tools
	raw   strings.Builder
	stage stage
	at    int // where the stage's text begins in raw
	mode  Mode

	reasoning, content text
	calls              []ToolCall
}

type stage int

const (
	beginning stage = iota
	reasoning
	answer
)

// text gathers output; white space at its end waits until something follows,
// and white space at the beginning of a part is dropped.
type text struct {
	strings.Builder
	held  string
	begun bool // this part has shown something
}

// add returns what may be shown now.
func (t *text) add(s string) string {
	if !t.begun {
		s = strings.TrimLeft(s, " \t\r\n")
		if s == "" {
			return ""
		}
		t.begun = true
		if t.Len() > 0 {
			s = "\n" + s
		}
	}
	s = t.held + s
	end := len(strings.TrimRight(s, " \t\r\n"))
	t.held = s[end:]
	t.WriteString(s[:end])
	return s[:end]
}

// part ends a part: the next one stands on a line of its own.
func (t *text) part() { t.held, t.begun = "", false }

// NewParser begins to read an output. tools is the request's list, for the
// types of parameters; it may be empty.
func (t *Template) NewParser(list json.RawMessage, mode Mode) *Parser {
	return &Parser{t: t, tools: readTools(list), mode: mode}
}

// Push takes the next piece.
func (p *Parser) Push(piece string) Delta {
	p.raw.WriteString(piece)
	return p.advance(false)
}

// Finish ends the output and returns what was held back.
func (p *Parser) Finish() Delta { return p.advance(true) }

const (
	thinkOpen  = "<think>"
	thinkClose = "</think>"
)

func (p *Parser) advance(final bool) Delta {
	var d Delta
	if p.stage == beginning {
		p.begin(final)
	}
	if p.stage == reasoning {
		rest := p.raw.String()[p.at:]
		show, closed := rest, false
		if i := strings.Index(rest, thinkClose); i >= 0 {
			show, closed = rest[:i], true
		} else if !final {
			show = rest[:len(rest)-partial(rest, thinkClose)]
		}
		d.Reasoning = p.reasoning.add(show)
		p.at += len(show)
		if closed {
			p.at += len(thinkClose)
			p.stage = answer
		}
	}
	if p.stage == answer {
		p.answer(&d, final)
	}
	return d
}

// begin decides whether the output opens with reasoning.
func (p *Parser) begin(final bool) {
	raw := p.raw.String()
	trimmed := strings.TrimLeft(raw, " \t\r\n")
	skipped := len(raw) - len(trimmed)
	switch {
	case p.t.thinks && strings.HasPrefix(trimmed, thinkOpen) && p.mode != Answering:
		p.stage, p.at = reasoning, skipped+len(thinkOpen)
	case p.t.thinks && !final && p.mode != Answering && strings.HasPrefix(thinkOpen, trimmed):
	case p.mode == Reasoning:
		p.stage = reasoning
	case p.mode == Answering || !p.t.thinks:
		p.stage = answer
	case strings.Contains(raw, thinkOpen): // later in the text it is text
		p.stage = answer
	case strings.Contains(raw, thinkClose): // it began with the first character
		p.stage = reasoning
	case final:
		p.stage = answer
	}
}

// partial is how many bytes at the end of s could begin word.
func partial(s, word string) int {
	for n := min(len(word)-1, len(s)); n > 0; n-- {
		if strings.HasSuffix(s, word[:n]) {
			return n
		}
	}
	return 0
}

// answer reads content and calls.
func (p *Parser) answer(d *Delta, final bool) {
	for {
		rest := p.raw.String()[p.at:]
		found := p.t.family.next(rest, p.tools, final)
		d.Content += p.content.add(rest[:found.text])
		p.at += found.text
		if len(found.calls) == 0 {
			return
		}
		p.content.part()
		p.at += found.markup
		p.calls = append(p.calls, found.calls...)
		d.ToolCalls = append(d.ToolCalls, found.calls...)
	}
}

// tools are the types of the tools' parameters.
type tools map[string]map[string]bool // tool → parameters declared as strings

func readTools(list json.RawMessage) tools {
	var parsed []struct {
		Function struct {
			Name       string `json:"name"`
			Parameters struct {
				Properties map[string]struct {
					Type json.RawMessage `json:"type"`
				} `json:"properties"`
			} `json:"parameters"`
		} `json:"function"`
	}
	if len(list) == 0 || json.Unmarshal(list, &parsed) != nil || len(parsed) == 0 {
		return nil
	}
	known := tools{}
	for _, t := range parsed {
		texts := map[string]bool{}
		for name, property := range t.Function.Parameters.Properties {
			texts[name] = string(property.Type) == `"string"`
		}
		known[t.Function.Name] = texts
	}
	return known
}

// value is a parameter that was written without a type, as JSON.
func (t tools) value(tool, parameter, written string) json.RawMessage {
	if !t[tool][parameter] {
		trimmed := strings.TrimSpace(written)
		if json.Valid([]byte(trimmed)) {
			return json.RawMessage(trimmed)
		}
		switch trimmed {
		case "True":
			return json.RawMessage("true")
		case "False":
			return json.RawMessage("false")
		case "None":
			return json.RawMessage("null")
		}
	}
	return quoted(written)
}

func quoted(s string) json.RawMessage {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s)
	return json.RawMessage(strings.TrimSuffix(b.String(), "\n"))
}
