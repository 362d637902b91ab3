package sample

import "strings"

// Stops watches a text that comes in pieces for strings that end it.
type Stops struct {
	stops   []string
	held    string
	stopped bool
}

// NewStops returns a watcher; empty strings are left out.
func NewStops(stops []string) *Stops {
	s := &Stops{}
	for _, stop := range stops {
		if stop != "" {
			s.stops = append(s.stops, stop)
		}
	}
	return s
}

// Push takes the next piece and returns what may be shown: all but what could
// be the beginning of a stop string. After a stop string nothing is shown any
// more, and stopped is true.
func (s *Stops) Push(text string) (show string, stopped bool) {
	if s.stopped {
		return "", true
	}
	s.held += text
	first := -1
	for _, stop := range s.stops {
		if at := strings.Index(s.held, stop); at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	if first >= 0 {
		show, s.held, s.stopped = s.held[:first], "", true
		return show, true
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > keep; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				keep = n
			}
		}
	}
	show, s.held = s.held[:len(s.held)-keep], s.held[len(s.held)-keep:]
	return show, false
}

// Flush returns what is still held back when the text has ended.
func (s *Stops) Flush() string {
	held := s.held
	s.held = ""
	return held
}
