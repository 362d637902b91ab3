package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// writeLimit is how long one event may take to leave: a client that reads
// nothing for so long is gone.
const writeLimit = 30 * time.Second

// sse writes server-sent events.
type sse struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func newSSE(w http.ResponseWriter) *sse { return &sse{w: w, control: http.NewResponseController(w)} }

func (s *sse) begin() {
	if s.begun {
		return
	}
	s.begun = true
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy must not hold tokens back
	s.w.WriteHeader(http.StatusOK)
}

func (s *sse) raw(text string) error {
	s.begin()
	_ = s.control.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := fmt.Fprint(s.w, text); err != nil {
		return err
	}
	return s.control.Flush()
}

// data writes an event of OpenAI's kind.
func (s *sse) data(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.raw("data: " + string(raw) + "\n\n")
}

func (s *sse) done() error { return s.raw("data: [DONE]\n\n") }

// fail ends a stream with an error, as a status where nothing was sent yet.
func (s *sse) fail(err error) {
	if !s.begun {
		failed(s.w, err)
		return
	}
	e := apiErrorOf(err)
	report(s.w, e)
	_ = s.data(e.body())
	_ = s.done()
}
