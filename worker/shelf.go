package worker

import (
	"fmt"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/wire"
)

// A loaded is a span that is ready to compute.
type loaded struct {
	key              string
	assign           wire.Assign
	x                exec.Executor
	hidden, perToken int
	closed           func() // of its store; may be nil
}

// close ends the span and then the use of its pieces.
func (l *loaded) close() {
	if l.x != nil {
		_ = l.x.Close()
	}
	if l.closed != nil {
		l.closed()
	}
}

// keyOf says which assignments the same weights serve.
func keyOf(a *wire.Assign) string {
	return fmt.Sprintf("%s %+v %+v", a.Manifest, a.Range, a.Slots)
}

// A shelf keeps spans that no session uses: after a lost connection the same
// ones are mostly asked for again, and need not be loaded twice.
type shelf struct{ spans []*loaded }

// put keeps a span, its slots freed.
func (s *shelf) put(l *loaded) {
	for slot := range l.assign.Slots.Slots {
		l.x.Trim(slot, 0)
	}
	s.spans = append(s.spans, l)
}

// take gives the span of that key back, nil where there is none.
func (s *shelf) take(key string) *loaded {
	for i, l := range s.spans {
		if l.key == key {
			s.spans = append(s.spans[:i], s.spans[i+1:]...)
			return l
		}
	}
	return nil
}

// clear closes everything: room for something else.
func (s *shelf) clear() {
	for _, l := range s.spans {
		l.close()
	}
	s.spans = nil
}
