package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/potluck-llm/potluck/token"
)

// bodyLimit is how long a request's body may take to arrive: the largest one
// over 2 Mbit/s.
const bodyLimit = 2 * time.Minute

// maxAnswers is how many answers one request may ask for, prompts × n.
const maxAnswers = 128

// A reporter is a ResponseWriter of a request whose refusal is logged.
type reporter struct {
	http.ResponseWriter
	logger *slog.Logger
	r      *http.Request
}

// Unwrap lets http.ResponseController reach the connection.
func (w *reporter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// report logs what a client was refused, and where it came from: once.
func report(w http.ResponseWriter, e *apiError) {
	if w, ok := w.(*reporter); ok {
		w.logger.Warn("request refused", "from", w.r.RemoteAddr, "request", w.r.Method+" "+w.r.URL.Path, "status", e.Status, "error", e.Message)
	}
}

// encode turns a prompt into tokens. One that cannot fit by its length alone is
// refused before that work.
func (s *Server) encode(param, text string, o token.EncodeOptions) ([]int32, error) {
	if most := s.o.Positions * s.longest; len(text) > most+shortPrompt {
		return nil, &apiError{Status: http.StatusBadRequest, Code: "context_length_exceeded", Param: param,
			Message: fmt.Sprintf("%s: the prompt has %d bytes, this model has room for %d tokens with the answer", param, len(text), s.o.Positions)}
	}
	return s.o.Tokenizer.Encode(text, o), nil
}

// shortPrompt is how many bytes are always turned into tokens, so that the
// refusal names their number.
const shortPrompt = 256 << 10

// longestToken is the most bytes of text that one token stands for, with room
// for normalisation, which may shorten a text.
func longestToken(t *token.Tokenizer, vocab int) int {
	longest := 1
	for id := range vocab {
		text, _ := t.Text(int32(id))
		longest = max(longest, len(text))
	}
	return 4 * longest
}
