package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/potluck-llm/potluck/token"
)

// maxPrompts is how many prompts one request may hold.
const maxPrompts = 32

// readPrompts reads a prompt as text, ids, or a list of either.
func (s *Server) readPrompts(p *params) ([][]int32, error) {
	raw, ok := p.fields["prompt"]
	if !ok {
		return nil, invalid("prompt", "is missing")
	}
	var text string
	var ids []int32
	var texts []string
	var lists [][]int32
	switch {
	case json.Unmarshal(raw, &text) == nil:
		texts = []string{text}
	case json.Unmarshal(raw, &ids) == nil && len(ids) > 0:
		lists = [][]int32{ids}
	case json.Unmarshal(raw, &texts) == nil:
	case json.Unmarshal(raw, &lists) == nil:
	default:
		return nil, invalid("prompt", "must be a string, a list of token ids, or a list of either")
	}
	for _, t := range texts {
		ids, err := s.encode("prompt", t, token.EncodeOptions{Special: true})
		if err != nil {
			return nil, err
		}
		lists = append(lists, ids)
	}
	if len(lists) == 0 || len(lists) > maxPrompts {
		return nil, invalid("prompt", "holds %d prompts, want 1 to %d", len(lists), maxPrompts)
	}
	if n := len(lists) * p.n; n > maxAnswers {
		return nil, invalid("n", "%d prompts × %d answers are %d, at most %d", len(lists), p.n, n, maxAnswers)
	}
	vocab := s.o.Source.Manifest().Model.Vocab
	for _, list := range lists {
		switch {
		case len(list) == 0:
			return nil, invalid("prompt", "is empty: give it at least one token")
		case len(list) >= s.o.Positions:
			return nil, &apiError{Status: http.StatusBadRequest, Code: "context_length_exceeded", Param: "prompt",
				Message: fmt.Sprintf("prompt: %d tokens, this model has room for %d with the answer", len(list), s.o.Positions)}
		}
		for _, id := range list {
			if id < 0 || int(id) >= vocab {
				return nil, invalid("prompt", "token %d is outside the vocabulary of %d", id, vocab)
			}
		}
	}
	return lists, nil
}

// textAnswer is the answer to a completion request, streamed or not.
type textAnswer struct {
	s       *Server
	p       *params
	id      string
	created int64
	texts   []strings.Builder
	probs   [][]tokenProb
	finish  []string
	prompt  int
	tokens  int
	out     *sse
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	p, err := s.read(w, r, textParams)
	if err == nil {
		if _, ok := p.fields["logprobs"]; ok {
			err = p.whole("logprobs", &p.top, 0, maxTop)
			p.logProbs = true
		}
	}
	var prompts [][]int32
	if err == nil {
		prompts, err = s.readPrompts(p)
	}
	if err != nil {
		failed(w, err)
		return
	}
	if _, ok := p.fields["max_tokens"]; !ok {
		p.maxTokens = 16 // OpenAI's own default here
	}
	id := requestID(r)
	w.Header().Set("X-Request-Id", id)
	n := len(prompts) * p.n
	a := &textAnswer{s: s, p: p, id: "cmpl-" + strings.TrimPrefix(id, "req-"), created: time.Now().Unix(), texts: make([]strings.Builder, n), probs: make([][]tokenProb, n), finish: make([]string, n)}
	for _, list := range prompts {
		a.prompt += len(list)
	}
	if p.stream {
		a.out = newSSE(w)
	}
	err = s.all(r.Context(), id, p, prompts, true, a.take, a.done)
	switch {
	case r.Context().Err() != nil:
	case err != nil && a.out != nil:
		a.out.fail(err)
	case err != nil:
		failed(w, err)
	case a.out != nil:
		if p.usage {
			if a.out.data(a.chunk([]any{}, a.usage())) != nil {
				return
			}
		}
		_ = a.out.done()
	default:
		var choices []any
		for i := range a.texts {
			choices = append(choices, a.choice(i, a.texts[i].String(), a.probs[i], a.finish[i]))
		}
		respond(w, a.chunk(choices, a.usage()))
	}
}

func (a *textAnswer) usage() map[string]any {
	return map[string]any{"prompt_tokens": a.prompt, "completion_tokens": a.tokens, "total_tokens": a.prompt + a.tokens}
}

func (a *textAnswer) chunk(choices []any, usage any) map[string]any {
	c := map[string]any{"id": a.id, "object": "text_completion", "created": a.created, "model": a.s.o.Name, "choices": choices}
	if usage != nil {
		c["usage"] = usage
	}
	return c
}

func (a *textAnswer) choice(i int, text string, probs []tokenProb, finish string) map[string]any {
	one := map[string]any{"index": i, "text": text, "finish_reason": nil, "logprobs": nil}
	if finish != "" {
		one["finish_reason"] = finish
	}
	if a.p.logProbs && len(probs) > 0 {
		var tokens []string
		var logProbs []float64
		var tops []any
		for _, p := range probs {
			top := map[string]float64{}
			for _, t := range p.top {
				top[t.text] = t.logProb
			}
			tokens, logProbs, tops = append(tokens, p.text), append(logProbs, p.logProb), append(tops, top)
		}
		one["logprobs"] = map[string]any{"tokens": tokens, "token_logprobs": logProbs, "top_logprobs": tops}
	}
	return one
}

func (a *textAnswer) take(i int, t piece) error {
	a.texts[i].WriteString(t.text)
	a.probs[i] = append(a.probs[i], t.logProbs...)
	if a.out == nil || t.text == "" && len(t.logProbs) == 0 {
		return nil
	}
	return a.out.data(a.chunk([]any{a.choice(i, t.text, t.logProbs, "")}, nil))
}

func (a *textAnswer) done(i int, o outcome) error {
	a.tokens += o.tokens
	a.finish[i] = o.finish
	if a.out == nil {
		return nil
	}
	return a.out.data(a.chunk([]any{a.choice(i, "", nil, o.finish)}, nil))
}
