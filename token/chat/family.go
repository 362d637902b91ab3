package chat

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// A family is a format of tool calls, and the tokens that end an answer.
type family struct {
	name  string
	stops []string
	// next looks for the first calls in what is left of an output: text bytes
	// before them may be shown, markup bytes after that are the calls. Unless
	// final, what may yet become a call is left out of text.
	next func(rest string, t tools, final bool) found
}

type found struct {
	text, markup int
	calls        []ToolCall
}

var (
	chatML = []string{"<|im_end|>", "<|endoftext|>"}
	glm    = []string{"<|user|>", "<|observation|>", "<|endoftext|>"}
)

// families in the order in which their marks are looked for in a template.
var families = []struct {
	mark string
	family
}{
	{"<arg_key>", family{"glm", glm, tagged([]string{"<tool_call>"}, "</tool_call>", glmCall).next}},
	{"<function=", family{"coder", chatML, tagged([]string{"<tool_call>", "<function="}, "", coderCall).next}},
	{"[TOOL_CALLS]", family{"mistral", []string{"</s>"}, mistralCalls}},
	{"<tool_call>", family{"hermes", chatML, tagged([]string{"<tool_call>"}, "</tool_call>", jsonCall).next}},
	{"<|start_header_id|>", family{"llama3", []string{"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"}, llamaCalls}},
	{"<|observation|>", family{"glm-4-0414", glm, namedCalls}},
	{"<|im_start|>", family{"chatml", chatML, plain}},
	{"", family{"plain", nil, plain}},
}

func familyOf(template string) *family {
	for i := range families {
		if strings.Contains(template, families[i].mark) {
			return &families[i].family
		}
	}
	return nil
}

func plain(rest string, _ tools, _ bool) found { return found{text: len(rest)} }

// A tagger finds calls between tags.
type tagger struct {
	openers []string
	closer  string // "": depends on the opener
	read    func(inside string, t tools) (ToolCall, bool)
}

func tagged(openers []string, closer string, read func(inside string, t tools) (ToolCall, bool)) tagger {
	return tagger{openers, closer, read}
}

// next takes the first call that is whole. An opened tag that never becomes one
// is text, which shows when the output has ended.
func (g tagger) next(rest string, t tools, final bool) found {
	openers := g.openers
	for from := 0; ; {
		at, opener := -1, ""
		for _, o := range openers {
			if i := strings.Index(rest[from:], o); i >= 0 && (at < 0 || from+i < at) {
				at, opener = from+i, o
			}
		}
		if at < 0 {
			if final {
				return found{text: len(rest)}
			}
			keep := 0
			for _, o := range openers {
				keep = max(keep, partial(rest, o))
			}
			return found{text: len(rest) - keep}
		}
		if call, end, ok := g.whole(rest, at, opener, t); ok {
			return found{text: at, markup: end - at, calls: []ToolCall{call}}
		}
		if !final {
			return found{text: at}
		}
		from = at + len(opener)
		openers = g.openers[:1] // a call that was opened must be closed: what is inside is none
	}
}

// whole reads the call whose opener stands at rest[at:], up to the first closer
// that makes one.
func (g tagger) whole(rest string, at int, opener string, t tools) (call ToolCall, end int, ok bool) {
	closer := g.closer
	if closer == "" {
		closer = map[string]string{"<tool_call>": "</tool_call>", "<function=": "</function>"}[opener]
	}
	for end = at; ; {
		i := strings.Index(rest[end:], closer)
		if i < 0 {
			return call, 0, false
		}
		inside := rest[at+len(opener) : max(at+len(opener), end+i)]
		end += i + len(closer)
		if opener == "<function=" {
			inside = opener + inside + closer
		}
		if call, ok := g.read(inside, t); ok {
			return call, end, true
		}
	}
}

// toolName is what may be the name of a function.
var toolName = regexp.MustCompile(`^[\p{L}\p{N}_.:/-]+$`)

// glmCall reads NAME<arg_key>k</arg_key><arg_value>v</arg_value>…
func glmCall(inside string, t tools) (call ToolCall, ok bool) {
	name, rest, _ := strings.Cut(inside, "<arg_key>")
	call.Name = strings.TrimSpace(name)
	if !toolName.MatchString(call.Name) {
		return call, false
	}
	var arguments members
	if len(inside) > len(name) {
		rest = "<arg_key>" + rest
	}
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		key, after, ok := between(rest, "<arg_key>", "</arg_key>")
		if !ok {
			return call, false
		}
		value, after, ok := between(strings.TrimSpace(after), "<arg_value>", "</arg_value>")
		if !ok {
			return call, false
		}
		key = strings.TrimSpace(key)
		arguments.add(key, t.value(call.Name, key, value))
		rest = after
	}
	call.Arguments = arguments.object()
	return call, true
}

// coderCall reads <function=NAME><parameter=k>v</parameter>…</function>.
func coderCall(inside string, t tools) (call ToolCall, ok bool) {
	body, after, ok := between(strings.TrimSpace(inside), "<function=", "</function>")
	if !ok || strings.TrimSpace(after) != "" {
		return call, false
	}
	call.Name, body, ok = strings.Cut(body, ">")
	if call.Name = strings.TrimSpace(call.Name); !ok || !toolName.MatchString(call.Name) {
		return call, false
	}
	var arguments members
	for body = strings.TrimSpace(body); body != ""; body = strings.TrimSpace(body) {
		parameter, after, ok := between(body, "<parameter=", "</parameter>")
		if !ok {
			return call, false
		}
		key, value, ok := strings.Cut(parameter, ">")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return call, false
		}
		value = strings.TrimSuffix(strings.TrimPrefix(value, "\n"), "\n")
		arguments.add(key, t.value(call.Name, key, value))
		body = after
	}
	call.Arguments = arguments.object()
	return call, true
}

// between takes what stands between two marks at the beginning of s.
func between(s, open, close string) (inside, after string, ok bool) {
	if s, ok = strings.CutPrefix(s, open); !ok {
		return "", "", false
	}
	return strings.Cut(s, close)
}

// members of an object, in order.
type members struct {
	keys   []string
	values []json.RawMessage
}

func (m *members) add(key string, value json.RawMessage) {
	m.keys, m.values = append(m.keys, key), append(m.values, value)
}

func (m *members) object() json.RawMessage {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range m.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		b.Write(quoted(k))
		b.WriteString(": ")
		b.Write(m.values[i])
	}
	b.WriteByte('}')
	return b.Bytes()
}

// jsonCall reads {"name": …, "arguments": …}.
func jsonCall(inside string, _ tools) (ToolCall, bool) {
	return objectCall([]byte(inside))
}

// objectCall reads a call written as an object; arguments may be called
// parameters, be a string of JSON, or be missing.
func objectCall(data []byte) (call ToolCall, ok bool) {
	var o struct {
		Name       string          `json:"name"`
		Arguments  json.RawMessage `json:"arguments"`
		Parameters json.RawMessage `json:"parameters"`
	}
	if json.Unmarshal(data, &o) != nil || o.Name == "" {
		return call, false
	}
	call.Name, call.Arguments = o.Name, o.Arguments
	if len(call.Arguments) == 0 {
		call.Arguments = o.Parameters
	}
	var text string
	if json.Unmarshal(call.Arguments, &text) == nil && len(call.Arguments) > 0 && call.Arguments[0] == '"' {
		call.Arguments = json.RawMessage(text)
	}
	if len(bytes.TrimSpace(call.Arguments)) == 0 || string(call.Arguments) == "null" {
		call.Arguments = json.RawMessage("{}")
	}
	var object map[string]json.RawMessage
	return call, json.Unmarshal(call.Arguments, &object) == nil
}

// mistralCalls reads [TOOL_CALLS] and a list of calls, which end the output.
func mistralCalls(rest string, _ tools, final bool) found {
	const mark = "[TOOL_CALLS]"
	at := strings.Index(rest, mark)
	if at < 0 {
		if final {
			return found{text: len(rest)}
		}
		return found{text: len(rest) - partial(rest, mark)}
	}
	if !final {
		return found{text: at}
	}
	body := strings.TrimSpace(rest[at+len(mark):])
	var list []json.RawMessage
	if strings.HasPrefix(body, "{") {
		list = []json.RawMessage{json.RawMessage(body)}
	} else if json.Unmarshal([]byte(body), &list) != nil {
		return found{text: len(rest)}
	}
	f := found{text: at, markup: len(rest) - at}
	for _, one := range list {
		call, ok := objectCall(one)
		if !ok {
			return found{text: len(rest)}
		}
		f.calls = append(f.calls, call)
	}
	if len(f.calls) == 0 {
		f.text = len(rest)
	}
	return f
}

const pythonTag = "<|python_tag|>"

// llamaCalls reads calls that are the whole output: objects joined by ;, or
// the tag and name.call(key="value").
func llamaCalls(rest string, t tools, final bool) found {
	body := strings.TrimSpace(rest)
	maybe := body == "" || body[0] == '{' || strings.HasPrefix(body, pythonTag) || strings.HasPrefix(pythonTag, body)
	if !final {
		if maybe {
			return found{}
		}
		return found{text: len(rest)}
	}
	tagged := strings.HasPrefix(body, pythonTag)
	body = strings.TrimSpace(strings.TrimPrefix(body, pythonTag))
	calls := objectCalls(body)
	if calls == nil && tagged {
		if call, ok := dottedCall(body); ok {
			calls = []ToolCall{call}
		}
	}
	for _, c := range calls {
		if _, known := t[c.Name]; t != nil && !known {
			calls = nil
			break
		}
	}
	if calls == nil {
		return found{text: len(rest)}
	}
	return found{markup: len(rest), calls: calls}
}

// objectCalls reads one or several objects with ; between; nil where it is
// anything else.
func objectCalls(body string) (calls []ToolCall) {
	d := json.NewDecoder(strings.NewReader(body))
	for {
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return nil
		}
		call, ok := objectCall(raw)
		if !ok || !bytes.Contains(raw, []byte(`"parameters"`)) && !bytes.Contains(raw, []byte(`"arguments"`)) {
			return nil
		}
		calls = append(calls, call)
		body = strings.TrimSpace(body[d.InputOffset():])
		if body == "" {
			return calls
		}
		after, ok := strings.CutPrefix(body, ";")
		if !ok {
			return nil
		}
		body = strings.TrimSpace(after)
		d = json.NewDecoder(strings.NewReader(body))
	}
}

var dotted = regexp.MustCompile(`^([\p{L}_][\p{L}\p{N}_]*)\.call\((.*)\)$`)

// dottedCall reads name.call(key="value", …).
func dottedCall(body string) (call ToolCall, ok bool) {
	m := dotted.FindStringSubmatch(body)
	if m == nil {
		return call, false
	}
	call.Name = m[1]
	var arguments members
	rest := strings.TrimSpace(m[2])
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return call, false
		}
		d := json.NewDecoder(strings.NewReader(after))
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return call, false
		}
		arguments.add(strings.TrimSpace(key), value)
		rest = strings.TrimSpace(after[d.InputOffset():])
		if rest == "" {
			break
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return call, false
		}
		rest = strings.TrimSpace(rest)
	}
	call.Arguments = arguments.object()
	return call, true
}

// namedCalls reads a tool's name on a line of its own and an object after it,
// which end the output.
func namedCalls(rest string, t tools, final bool) found {
	if t == nil {
		return found{text: len(rest)}
	}
	for at := 0; at <= len(rest); {
		line, after, complete := strings.Cut(rest[at:], "\n")
		name := strings.TrimSpace(line)
		if _, known := t[name]; known && complete {
			var arguments map[string]json.RawMessage
			body := strings.TrimSpace(after)
			if json.Unmarshal([]byte(body), &arguments) == nil && strings.HasPrefix(body, "{") && final {
				return found{text: at, markup: len(rest) - at, calls: []ToolCall{{name, json.RawMessage(body)}}}
			}
			if !final && (body == "" || body[0] == '{') {
				return found{text: at}
			}
		}
		if !final && !complete {
			for tool := range t {
				if strings.HasPrefix(tool, name) {
					return found{text: at}
				}
			}
		}
		if !complete {
			break
		}
		at += len(line) + 1
	}
	return found{text: len(rest)}
}
