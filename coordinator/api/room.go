package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

func (s *Server) cluster(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	respond(w, s.o.Engine.Snapshot())
}

// pingEvery keeps a quiet feed alive, so that its reader knows.
const pingEvery = 10 * time.Second

// events is the room's feed. Whoever comes back with Last-Event-ID goes on
// there; everybody else begins with a snapshot.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64)
	out := newSSE(w)
	feed, resumed := s.o.Engine.Subscribe(r.Context(), after)
	if !resumed {
		snapshot := s.o.Engine.Snapshot()
		raw, err := json.Marshal(snapshot)
		if err != nil || out.raw(fmt.Sprintf("id: %d\nevent: snapshot\ndata: %s\n\n", snapshot.Seq, raw)) != nil {
			return
		}
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case e, ok := <-feed:
			if !ok {
				return // too slow, or gone: a new connection gets a snapshot
			}
			if out.raw(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Name, e.Data)) != nil {
				return
			}
		case <-ping.C:
			if out.raw("event: ping\ndata: {}\n\n") != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (s *Server) serveManifest(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("hash") != s.hash.String() {
		http.Error(w, "no such manifest here", http.StatusNotFound)
		return
	}
	s.immutable(w, s.hash.String())
	w.Header().Set("Content-Type", "application/json")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.manifest))
}

func (s *Server) servePiece(w http.ResponseWriter, r *http.Request) {
	hash := r.PathValue("hash")
	index, ok := s.pieces[hash]
	if !ok {
		http.Error(w, "no such piece here", http.StatusNotFound)
		return
	}
	data, err := s.o.Source.Piece(r.Context(), index)
	if r.Context().Err() != nil {
		return // nobody waits for it any more, which says nothing of the piece
	}
	if why, ok := s.told.Load(hash); ok && why == errCutOff {
		err = errCutOff
	}
	if err != nil {
		s.damaged(hash, err)
		http.Error(w, "the piece is damaged here", http.StatusGone) // asking again is no use
		return
	}
	// A mapped file that somebody cuts off must cost this answer only.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			s.damaged(hash, errCutOff)
			panic(http.ErrAbortHandler)
		}
	}()
	s.immutable(w, hash)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// errCutOff is a piece whose file became shorter after it was mapped.
var errCutOff = errors.New("its file was cut off while it was in use")

// damaged tells of a piece that cannot be served, once.
func (s *Server) damaged(hash string, err error) {
	if _, told := s.told.Swap(hash, err); !told {
		s.o.Logger.Error("piece not served", "piece", hash, "error", err)
	}
}

// immutable lets whoever fetched something by its hash keep it.
func (s *Server) immutable(w http.ResponseWriter, hash string) {
	w.Header().Set("ETag", `"`+hash+`"`)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
}

// metrics is the room in Prometheus' text format.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	room := s.o.Engine.Snapshot()
	gauge := func(name, kind, help string, value float64) {
		fmt.Fprintf(w, "# HELP potluck_%s %s\n# TYPE potluck_%s %s\npotluck_%s %g\n", name, help, name, kind, name, value)
	}
	gauge("workers", "gauge", "Workers in the room.", float64(len(room.Workers)))
	gauge("requests_active", "gauge", "Requests that hold a slot.", float64(room.Active))
	gauge("requests_queued", "gauge", "Requests that wait.", float64(room.Queued))
	gauge("tokens_total", "counter", "Tokens sampled.", float64(room.Tokens))
	gauge("wire_bytes_total", "counter", "Bytes of passes and results.", float64(room.WireBytes))
	gauge("losses_total", "counter", "Times that a chain lost a worker.", float64(room.Losses))
	gauge("replays_total", "counter", "Sequences replayed.", float64(room.Replays))
	gauge("predicted_tokens_per_second", "gauge", "What the plan predicts.", room.PredictedTokS)
	gauge("measured_tokens_per_second", "gauge", "What was measured lately.", room.MeasuredTokS)
	for _, worker := range room.Workers {
		fmt.Fprintf(w, "potluck_worker_tokens_total{worker=%q,kind=%q} %d\n", worker.ID, worker.Kind, worker.Tokens)
	}
}
