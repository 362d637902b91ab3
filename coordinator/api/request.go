package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/potluck-llm/potluck/sample"
	"github.com/potluck-llm/potluck/token/jinja"
)

// Limits of a request.
const (
	maxBody  = 32 << 20
	maxStops = 16
	maxN     = 16
	maxTop   = 20
)

// params are what both endpoints share.
type params struct {
	fields    map[string]json.RawMessage
	body      []byte
	stream    bool
	usage     bool
	maxTokens int
	n         int
	stops     []string
	logProbs  bool
	top       int
	ignoreEOS bool
	sampling  sample.Params
}

// ignored are parameters that change nothing here; others that are not known
// are refused, since an answer that ignores them would not be what was asked.
var ignored = map[string]bool{"user": true, "metadata": true, "store": true, "service_tier": true, "parallel_tool_calls": true, "prompt_cache_key": true,
	"safety_identifier": true, "echo": false, "stream_options": true, "model": true}

// known are the parameters of an endpoint, besides the ignored ones.
var (
	sharedParams = []string{"stream", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "n", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "ignore_eos"}
	chatParams   = []string{"messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "chat_template_kwargs", "reasoning_effort"}
	textParams   = []string{"prompt"}
)

// read decodes a body into fields and checks what both endpoints share.
func (s *Server) read(w http.ResponseWriter, r *http.Request, own []string) (*params, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyLimit))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, &apiError{Status: http.StatusBadRequest, Code: "incomplete_body", Message: fmt.Sprintf("the body ends after %d bytes: %v", len(body), err)}
	}
	if err != nil {
		return nil, &apiError{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Message: fmt.Sprintf("the body has more than %d bytes", maxBody)}
	}
	return s.decode(body, own)
}

func (s *Server) decode(body []byte, own []string) (*params, error) {
	bad := func(format string, args ...any) error {
		return &apiError{Status: http.StatusBadRequest, Code: "invalid_json", Message: fmt.Sprintf(format, args...)}
	}
	if !utf8.Valid(body) {
		return nil, bad("the body is not UTF-8")
	}
	p := &params{body: body, n: 1, maxTokens: math.MaxInt32, sampling: sample.Params{
		Temperature: s.o.Defaults.Temperature, TopP: s.o.Defaults.TopP, TopK: s.o.Defaults.TopK, MinP: s.o.Defaults.MinP}}
	if err := json.Unmarshal(body, &p.fields); err != nil {
		return nil, bad("the body is no JSON object: %v", err)
	}
	allowed := map[string]bool{}
	for _, list := range [][]string{sharedParams, own} {
		for _, name := range list {
			allowed[name] = true
		}
	}
	for name, value := range p.fields {
		if !allowed[name] && !ignored[name] && string(value) != "null" {
			return nil, &apiError{Status: http.StatusBadRequest, Code: "unsupported_parameter", Param: name, Message: fmt.Sprintf("%.80s is not supported", name)}
		}
		if string(value) == "null" {
			delete(p.fields, name)
		}
	}
	return p, s.readShared(p)
}

// field decodes a parameter that is there.
func (p *params) field(name string, into any, want string) error {
	raw, ok := p.fields[name]
	if !ok {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(into); err != nil {
		return invalid(name, "must be %s", want)
	}
	return nil
}

func (p *params) whole(name string, into *int, low, high int) error {
	raw, ok := p.fields[name]
	if !ok {
		return nil
	}
	v, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return invalid(name, "must be a whole number")
	}
	if v < int64(low) || v > int64(high) {
		return invalid(name, "is %d, want %d to %d", v, low, high)
	}
	*into = int(v)
	return nil
}

func (p *params) number(name string, into *float64, low, high float64) error {
	if err := p.field(name, into, "a number"); err != nil {
		return err
	}
	if _, ok := p.fields[name]; ok && !(*into >= low && *into <= high) {
		return invalid(name, "is %v, want %v to %v", *into, low, high)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) readShared(p *params) error {
	var model string
	var options struct {
		Usage bool `json:"include_usage"`
	}
	var seed int64
	err := firstError(
		p.field("model", &model, "a string"), p.field("stream", &p.stream, "true or false"), p.field("stream_options", &options, "an object"),
		p.whole("max_tokens", &p.maxTokens, 1, math.MaxInt32), p.whole("max_completion_tokens", &p.maxTokens, 1, math.MaxInt32), p.whole("n", &p.n, 1, maxN),
		p.number("temperature", &p.sampling.Temperature, 0, 2), p.number("top_p", &p.sampling.TopP, 0, 1), p.number("min_p", &p.sampling.MinP, 0, 1),
		p.number("presence_penalty", &p.sampling.PresencePenalty, -2, 2), p.number("frequency_penalty", &p.sampling.FrequencyPenalty, -2, 2),
		p.number("repetition_penalty", &p.sampling.RepetitionPenalty, 0.01, 10), p.field("seed", &seed, "a whole number"), p.field("ignore_eos", &p.ignoreEOS, "true or false"),
		p.topK(), p.readStops(), p.readBias(s.o.Source.Manifest().Model.Vocab))
	if err != nil {
		return err
	}
	if model != "" && model != s.o.Name {
		return modelNotFound(model, s.o.Name)
	}
	if raw, ok := p.fields["top_p"]; ok && p.sampling.TopP == 0 {
		return invalid("top_p", "is %s, want above 0", raw)
	}
	p.usage = options.Usage
	if _, ok := p.fields["seed"]; ok {
		p.sampling.Seed = uint64(seed)
	} else {
		p.sampling.Seed = randomSeed()
	}
	return nil
}

// topK also takes -1, which other servers read as "all".
func (p *params) topK() error {
	if err := p.whole("top_k", &p.sampling.TopK, -1, 1<<30); err != nil {
		return err
	}
	p.sampling.TopK = max(0, p.sampling.TopK)
	return nil
}

func (p *params) readStops() error {
	raw, ok := p.fields["stop"]
	if !ok {
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		p.stops = []string{one}
	} else if json.Unmarshal(raw, &p.stops) != nil {
		return invalid("stop", "must be a string or a list of strings")
	}
	if len(p.stops) > maxStops {
		return invalid("stop", "has %d strings, at most %d", len(p.stops), maxStops)
	}
	for _, stop := range p.stops {
		if stop == "" || len(stop) > 1<<10 {
			return invalid("stop", "a string of %d bytes, want 1 to %d", len(stop), 1<<10)
		}
	}
	return nil
}

func (p *params) readBias(vocab int) error {
	var biases map[string]float64
	if err := p.field("logit_bias", &biases, "an object of token ids and numbers"); err != nil {
		return err
	}
	if len(biases) > 1024 {
		return invalid("logit_bias", "has %d tokens, at most 1024", len(biases))
	}
	for text, bias := range biases {
		id, err := strconv.Atoi(text)
		if err != nil || id < 0 || id >= vocab {
			return invalid("logit_bias", "%.40q is no token id below %d", text, vocab)
		}
		if !(bias >= -100 && bias <= 100) {
			return invalid("logit_bias", "%v for token %d, want -100 to 100", bias, id)
		}
		if p.sampling.LogitBias == nil {
			p.sampling.LogitBias = map[int32]float32{}
		}
		p.sampling.LogitBias[int32(id)] = float32(bias)
	}
	return nil
}

// ordered decodes a parameter with its keys in order.
func (p *params) ordered(name string) (jinja.Value, bool, error) {
	raw, ok := p.fields[name]
	if !ok {
		return nil, false, nil
	}
	v, err := jinja.FromJSON(raw)
	if err != nil {
		return nil, true, invalid(name, "%v", err)
	}
	return v, true, nil
}
