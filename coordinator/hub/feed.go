package hub

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
)

// An Event is one of the feed's.
type Event struct {
	Seq  uint64
	Name string
	Data json.RawMessage
}

// feedKeeps is how many events a reader that comes back can catch up on.
const feedKeeps = 512

// feed hands events to everyone who watches. A watcher that is too slow loses
// its place and gets a snapshot instead.
type feed struct {
	mu       sync.Mutex
	last     uint64
	kept     []Event
	watchers map[chan Event]bool
}

func newFeed() *feed { return &feed{watchers: map[chan Event]bool{}} }

func (f *feed) seq() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers) > 0
}

func (f *feed) publish(name string, data any) {
	raw, err := json.Marshal(data)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	e := Event{f.last, name, raw}
	if f.kept = append(f.kept, e); len(f.kept) > feedKeeps {
		f.kept = append([]Event(nil), f.kept[len(f.kept)-feedKeeps/2:]...)
	}
	for w := range f.watchers {
		select {
		case w <- e:
		default:
			delete(f.watchers, w)
			close(w)
		}
	}
}

// Subscribe returns the events after a number that the caller has seen; ok is
// false where some of them are gone, and a snapshot is due first. The channel
// is closed when ctx ends or the reader is too slow.
func (h *Hub) Subscribe(ctx context.Context, after uint64) (events <-chan Event, ok bool) {
	f := h.feed
	w := make(chan Event, feedKeeps+64)
	f.mu.Lock()
	defer f.mu.Unlock()
	ok = after > 0 && after <= f.last && (len(f.kept) == 0 && after == f.last || len(f.kept) > 0 && f.kept[0].Seq <= after+1)
	if ok {
		for _, e := range f.kept {
			if e.Seq > after {
				w <- e
			}
		}
	}
	f.watchers[w] = true
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.watchers[w] {
			delete(f.watchers, w)
			close(w)
		}
	})
	return w, ok
}

func (f *feed) left(id, name, reason string) {
	f.publish("left", map[string]any{"id": id, "name": name, "reason": reason})
}

// request tells how a request fares, under the name its sender gave it.
func (f *feed) request(s *Stream, state string) {
	id, _, _ := strings.Cut(s.id, "/")
	f.publish("request", map[string]any{"id": id, "state": state, "prompt_total": len(s.request.Prompt), "tokens": s.generated})
}

func (f *feed) stats(s Snapshot) {
	f.publish("stats", map[string]any{"predicted_tok_s": s.PredictedTokS, "measured_tok_s": s.MeasuredTokS, "requests_active": s.Active,
		"requests_queued": s.Queued, "losses": s.Losses, "replays": s.Replays, "workers": s.Workers})
}
