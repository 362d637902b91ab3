package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/chat"
	"github.com/potluck-llm/potluck/token/jinja"
)

// chatRequest is what is particular to /v1/chat/completions.
type chatRequest struct {
	*params
	prompt []int32
	tools  json.RawMessage
	mode   chat.Mode
}

func (s *Server) readChat(w http.ResponseWriter, r *http.Request) (*chatRequest, error) {
	if s.o.Template == nil {
		return nil, &apiError{Status: http.StatusBadRequest, Code: "no_template", Message: "this model has no chat template: use /v1/completions"}
	}
	p, err := s.read(w, r, chatParams)
	if err != nil {
		return nil, err
	}
	c := &chatRequest{params: p, tools: p.fields["tools"]}
	err = firstError(p.field("logprobs", &p.logProbs, "true or false"), p.whole("top_logprobs", &p.top, 0, maxTop))
	if err != nil {
		return nil, err
	}
	if p.top > 0 && !p.logProbs {
		return nil, invalid("top_logprobs", "needs logprobs to be true")
	}
	vars, err := s.variables(c)
	if err != nil {
		return nil, err
	}
	text, err := s.o.Template.Render(vars, time.Now())
	if err != nil {
		return nil, invalid("messages", "%v", err)
	}
	c.mode = s.o.Template.ModeOf(text)
	if c.prompt, err = s.encode("messages", text, token.EncodeOptions{}); err != nil {
		return nil, err
	}
	if len(c.prompt) >= s.o.Positions {
		return nil, &apiError{Status: http.StatusBadRequest, Code: "context_length_exceeded", Param: "messages",
			Message: fmt.Sprintf("messages: the prompt has %d tokens, this model has room for %d with the answer", len(c.prompt), s.o.Positions)}
	}
	return c, nil
}

// variables are what the template sees.
func (s *Server) variables(c *chatRequest) (*jinja.Dict, error) {
	messages, ok, err := c.ordered("messages")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, invalid("messages", "is missing")
	}
	if err := checkMessages(messages); err != nil {
		return nil, err
	}
	list, err := chat.Normalise(messages)
	if err != nil {
		return nil, invalid("messages", "%v", err)
	}
	vars := jinja.NewDict().Set("messages", list).Set("tools", nil).Set("add_generation_prompt", true)
	if err := readTools(c, vars); err != nil {
		return nil, err
	}
	kwargs, ok, err := c.ordered("chat_template_kwargs")
	if err != nil || !ok {
		return vars, err
	}
	d, isObject := kwargs.(*jinja.Dict)
	if !isObject {
		return nil, invalid("chat_template_kwargs", "must be an object")
	}
	for _, key := range d.Keys() {
		if key == "messages" || key == "tools" {
			return nil, invalid("chat_template_kwargs", "%s is a parameter of its own", key)
		}
		v, _ := d.Get(key)
		vars.Set(key, v)
	}
	return vars, nil
}

func checkMessages(messages jinja.Value) error {
	list, ok := messages.(*jinja.List)
	if !ok || len(list.Items) == 0 {
		return invalid("messages", "must be a list of at least one message")
	}
	for i, m := range list.Items {
		name := fmt.Sprintf("messages[%d]", i)
		d, ok := m.(*jinja.Dict)
		if !ok {
			return invalid(name, "must be an object")
		}
		role, _ := d.Get("role")
		switch role {
		case "system", "user", "assistant", "tool", "developer":
		default:
			return invalid(name+".role", "must be system, user, assistant or tool")
		}
		_, calls := d.Get("tool_calls")
		if content, has := d.Get("content"); (!has || content == nil) && !(role == "assistant" && calls) {
			return invalid(name+".content", "is missing")
		}
		if role == "developer" { // OpenAI's newer word
			d.Set("role", "system")
		}
	}
	return nil
}

func readTools(c *chatRequest, vars *jinja.Dict) error {
	choice := "auto"
	if raw, ok := c.fields["tool_choice"]; ok && json.Unmarshal(raw, &choice) != nil {
		return invalid("tool_choice", "only \"auto\" and \"none\" are supported")
	}
	if choice != "auto" && choice != "none" {
		return invalid("tool_choice", "%.40q is not supported, only \"auto\" and \"none\"", choice)
	}
	tools, ok, err := c.ordered("tools")
	if err != nil || !ok {
		return err
	}
	list, isList := tools.(*jinja.List)
	if !isList {
		return invalid("tools", "must be a list")
	}
	for i, t := range list.Items {
		d, _ := t.(*jinja.Dict)
		if d == nil {
			return invalid(fmt.Sprintf("tools[%d]", i), "must be an object")
		}
		f, _ := d.Get("function")
		function, _ := f.(*jinja.Dict)
		if function == nil {
			return invalid(fmt.Sprintf("tools[%d].function", i), "must be an object")
		}
		if name, _ := function.Get("name"); name == nil || name == "" {
			return invalid(fmt.Sprintf("tools[%d].function.name", i), "is missing")
		}
	}
	if choice == "none" || len(list.Items) == 0 {
		c.tools = nil
		return nil
	}
	vars.Set("tools", list)
	return nil
}

// choiceState is one answer as it grows.
type choiceState struct {
	parser    *chat.Parser
	reasoning strings.Builder
	content   strings.Builder
	calls     []chat.ToolCall
	probs     []tokenProb
	finish    string
}

func (s *Server) chat(w http.ResponseWriter, r *http.Request) {
	c, err := s.readChat(w, r)
	if err != nil {
		failed(w, err)
		return
	}
	id := requestID(r)
	w.Header().Set("X-Request-Id", id)
	a := &chatAnswer{s: s, c: c, id: "chatcmpl-" + strings.TrimPrefix(id, "req-"), created: time.Now().Unix(), states: make([]choiceState, c.n)}
	for i := range a.states {
		a.states[i].parser = s.o.Template.NewParser(c.tools, c.mode)
	}
	if c.stream {
		a.out = newSSE(w)
	}
	// Special tokens stay visible to the parser: tags of some families are such.
	err = s.all(r.Context(), id, c.params, [][]int32{c.prompt}, true, a.take, a.done)
	switch {
	case r.Context().Err() != nil:
	case err != nil && a.out != nil:
		a.out.fail(err)
	case err != nil:
		failed(w, err)
	case a.out != nil:
		a.finishStream()
	default:
		respond(w, a.whole())
	}
}

// chatAnswer is the answer to a chat request, streamed or not.
type chatAnswer struct {
	s       *Server
	c       *chatRequest
	id      string
	created int64
	states  []choiceState
	out     *sse // nil: not streamed
	tokens  int
}

func (a *chatAnswer) head(object string) map[string]any {
	return map[string]any{"id": a.id, "object": object, "created": a.created, "model": a.s.o.Name}
}

func (a *chatAnswer) usage() map[string]any {
	return map[string]any{"prompt_tokens": len(a.c.prompt), "completion_tokens": a.tokens, "total_tokens": len(a.c.prompt) + a.tokens}
}

func (a *chatAnswer) take(choice int, t piece) error {
	st := &a.states[choice]
	st.probs = append(st.probs, t.logProbs...)
	return a.add(choice, st.parser.Push(t.text), t.logProbs, "")
}

func (a *chatAnswer) done(choice int, o outcome) error {
	st := &a.states[choice]
	a.tokens += o.tokens
	st.finish = o.finish
	d := st.parser.Finish()
	if len(st.calls)+len(d.ToolCalls) > 0 && o.finish == "stop" {
		st.finish = "tool_calls"
	}
	if err := a.add(choice, d, nil, ""); err != nil {
		return err
	}
	return a.add(choice, chat.Delta{}, nil, st.finish)
}

// add takes what came, and sends it on where the answer is streamed.
func (a *chatAnswer) add(choice int, d chat.Delta, probs []tokenProb, finish string) error {
	st := &a.states[choice]
	first := len(st.calls)
	st.reasoning.WriteString(d.Reasoning)
	st.content.WriteString(d.Content)
	st.calls = append(st.calls, d.ToolCalls...)
	if a.out == nil || d.Reasoning == "" && d.Content == "" && len(d.ToolCalls) == 0 && finish == "" && len(probs) == 0 && a.out.begun {
		return nil
	}
	delta := map[string]any{}
	if !a.out.begun {
		delta["role"] = "assistant"
	}
	if d.Reasoning != "" {
		delta["reasoning_content"] = d.Reasoning
	}
	if d.Content != "" {
		delta["content"] = d.Content
	}
	if len(d.ToolCalls) > 0 {
		delta["tool_calls"] = a.toolCalls(choice, first, d.ToolCalls, true)
	}
	one := map[string]any{"index": choice, "delta": delta, "finish_reason": nil}
	if finish != "" {
		one["finish_reason"] = finish
	}
	if a.c.logProbs && len(probs) > 0 {
		one["logprobs"] = chatProbs(probs)
	}
	chunk := a.head("chat.completion.chunk")
	chunk["choices"] = []any{one}
	if a.c.usage {
		chunk["usage"] = nil
	}
	return a.out.data(chunk)
}

func (a *chatAnswer) toolCalls(choice, first int, calls []chat.ToolCall, indexed bool) []any {
	var list []any
	for i, call := range calls {
		one := map[string]any{"id": fmt.Sprintf("call_%s_%d_%d", strings.TrimPrefix(a.id, "chatcmpl-"), choice, first+i), "type": "function",
			"function": map[string]any{"name": call.Name, "arguments": string(call.Arguments)}}
		if indexed {
			one["index"] = first + i
		}
		list = append(list, one)
	}
	return list
}

func chatProbs(probs []tokenProb) map[string]any {
	var list []any
	for _, p := range probs {
		top := []any{}
		for _, t := range p.top {
			top = append(top, map[string]any{"token": t.text, "logprob": t.logProb, "bytes": bytesOf(t.text)})
		}
		list = append(list, map[string]any{"token": p.text, "logprob": p.logProb, "bytes": bytesOf(p.text), "top_logprobs": top})
	}
	return map[string]any{"content": list}
}

func bytesOf(text string) []int {
	list := make([]int, len(text))
	for i := range len(text) {
		list[i] = int(text[i])
	}
	return list
}

func (a *chatAnswer) finishStream() {
	if a.c.usage {
		chunk := a.head("chat.completion.chunk")
		chunk["choices"], chunk["usage"] = []any{}, a.usage()
		if a.out.data(chunk) != nil {
			return
		}
	}
	_ = a.out.done()
}

func (a *chatAnswer) whole() map[string]any {
	var choices []any
	for i := range a.states {
		st := &a.states[i]
		message := map[string]any{"role": "assistant", "content": st.content.String()}
		if st.reasoning.Len() > 0 {
			message["reasoning_content"] = st.reasoning.String()
		}
		if len(st.calls) > 0 {
			message["tool_calls"] = a.toolCalls(i, 0, st.calls, false)
			if st.content.Len() == 0 {
				message["content"] = nil
			}
		}
		one := map[string]any{"index": i, "message": message, "finish_reason": st.finish, "logprobs": nil}
		if a.c.logProbs {
			one["logprobs"] = chatProbs(st.probs)
		}
		choices = append(choices, one)
	}
	answer := a.head("chat.completion")
	answer["choices"], answer["usage"] = choices, a.usage()
	return answer
}
