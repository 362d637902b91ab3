package api

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/sample"
)

func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// A piece is what one token adds to an answer.
type piece struct {
	text     string
	logProbs []tokenProb
}

type tokenProb struct {
	text    string
	logProb float64
	top     []tokenProb
}

// outcome is how an answer ended.
type outcome struct {
	finish string
	tokens int
	err    error
}

// requestID is the client's name for its request, or one of ours.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' || c == '/' }) {
		return fmt.Sprintf("req-%016x", randomSeed())
	}
	return id
}

// answer generates one answer and calls take for every piece of its text, in
// order. It returns when the answer has ended or the client is gone.
func (s *Server) answer(ctx context.Context, id string, p *params, prompt []int32, choice int, special bool, take func(piece) error) outcome {
	sampling := p.sampling
	sampling.Seed += uint64(choice)
	sampler, err := sample.New(sampling, kernel.Logits{})
	if err != nil {
		return outcome{err: &apiError{Status: http.StatusBadRequest, Code: "invalid_value", Message: err.Error()}}
	}
	request := hub.Request{ID: id, Prompt: prompt, MaxTokens: p.maxTokens, Sampler: sampler, Stop: s.o.Stop, LogProbs: p.logProbs, Top: p.top, Allowed: s.o.Tokenizer.Defined}
	if p.ignoreEOS {
		request.Stop = nil
	}
	stream, err := s.o.Engine.Generate(ctx, request)
	if err != nil {
		return outcome{err: err}
	}
	defer stream.Close()
	text := s.o.Tokenizer.Stream(!special)
	stops := sample.NewStops(p.stops)
	var out outcome
	for {
		t, ok, err := stream.Next(ctx)
		if err != nil {
			out.err = err
			return out
		}
		if !ok {
			break
		}
		out.tokens++
		show, stopped := stops.Push(text.Push(t.ID))
		if err := take(piece{show, s.probs(p, t)}); err != nil {
			out.err = err
			return out
		}
		if stopped {
			out.finish = "stop"
			return out
		}
	}
	show, stopped := stops.Push(text.Flush())
	if !stopped {
		show += stops.Flush()
	}
	out.finish = stream.Finish()
	if stopped {
		out.finish = "stop"
	}
	if show != "" {
		out.err = take(piece{text: show})
	}
	return out
}

// probs is a token's log probability as the API shows it.
func (s *Server) probs(p *params, t hub.Token) []tokenProb {
	if !p.logProbs {
		return nil
	}
	name := func(id int32) string { text, _ := s.o.Tokenizer.Text(id); return text }
	one := tokenProb{text: name(t.ID), logProb: t.LogProb}
	for _, alternative := range t.Top {
		one.top = append(one.top, tokenProb{text: name(alternative.ID), logProb: alternative.LogProb})
	}
	return []tokenProb{one}
}

// all generates the n answers of a request side by side. take and done are
// called for one at a time. The first error ends all of them.
func (s *Server) all(ctx context.Context, id string, p *params, prompts [][]int32, special bool, take func(choice int, t piece) error, done func(choice int, o outcome) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var wait sync.WaitGroup
	var first error
	fail := func(err error) {
		if err != nil && first == nil {
			first = err
			cancel()
		}
	}
	for choice := range len(prompts) * p.n {
		wait.Add(1)
		go func() {
			defer wait.Done()
			o := s.answer(ctx, id, p, prompts[choice/p.n], choice, special, func(t piece) error {
				mu.Lock()
				defer mu.Unlock()
				return take(choice, t)
			})
			mu.Lock()
			defer mu.Unlock()
			if o.err == nil {
				o.err = done(choice, o)
			}
			fail(o.err)
		}()
	}
	wait.Wait()
	if errors.Is(first, context.Canceled) && ctx.Err() != nil {
		return context.Canceled
	}
	return first
}
