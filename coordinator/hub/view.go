package hub

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/coordinator/plan"
)

// rateWindow is over how long speeds are averaged.
const rateWindow = 5 * time.Second

// HopMs is where the milliseconds of a hop go: medians of the last 20.
type HopMs struct {
	Queue    float64 `json:"queue"`
	Wire     float64 `json:"wire"`
	Compute  float64 `json:"compute"`
	Readback float64 `json:"readback"`
}

// HopTime is one worker's hop.
type HopTime struct {
	ID    string `json:"id"`
	HopMs HopMs  `json:"hop_ms"`
}

// A Snapshot is the room as GET /v1/cluster shows it.
type Snapshot struct {
	Seq           uint64     `json:"seq"`
	Build         string     `json:"build"`
	Model         ModelInfo  `json:"model"`
	Policy        string     `json:"policy"`
	Reasons       []string   `json:"reasons"`
	Chains        [][]string `json:"chains"`
	PredictedTokS float64    `json:"predicted_tok_s"`
	MeasuredTokS  float64    `json:"measured_tok_s"`
	Active        int        `json:"requests_active"`
	Queued        int        `json:"requests_queued"`
	Losses        int        `json:"losses"`
	Replays       int        `json:"replays"`
	WireBytes     int64      `json:"wire_bytes"` // of passes and results, since the room was opened
	Tokens        int64      `json:"tokens"`
	Workers       []Worker   `json:"workers"`
}

// ModelInfo is the model of a room.
type ModelInfo struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Layers  int    `json:"layers"`
	Bytes   int64  `json:"bytes"`
	Missing int64  `json:"missing_bytes"`
}

// A Worker is one member of the room.
type Worker struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Kind        string  `json:"kind"`
	State       string  `json:"state"`
	LayerFirst  int     `json:"layer_first"`
	LayerCount  int     `json:"layer_count"`
	Span        string  `json:"span,omitempty"` // with cuts inside layers
	Backend     string  `json:"backend"`
	Device      string  `json:"device,omitempty"`
	Bytes       int64   `json:"bytes"` // offered
	BytesLoaded int64   `json:"bytes_loaded"`
	BytesTotal  int64   `json:"bytes_total"`
	TokS        float64 `json:"tok_s"`
	Tokens      int64   `json:"tokens"`
	HopMs       HopMs   `json:"hop_ms"`
	RTTMs       float64 `json:"rtt_ms"`
	PredictedMs float64 `json:"predicted_ms"`
	Hidden      bool    `json:"hidden"`
	Throttled   bool    `json:"throttled"`
}

// view is what of the room readers may see at any time.
type view struct {
	policy    plan.Policy
	plan      *plan.Plan // the last one made
	serving   *plan.Plan
	wire      atomic.Int64 // bytes of passes and results
	tokens    atomic.Int64
	members   []cluster.View
	predicted map[string]float64 // milliseconds a token at each worker of the chain
	ownMs     float64            // and at the coordinator: embedding, head, sampling
	active    int
	queued    int
	losses    int
	replays   int
	published time.Time
	tokenSent time.Time
	recent    []servedRows // tokens sampled lately
}

func (h *Hub) planned(p *plan.Plan) {
	h.mu.Lock()
	h.view.plan = p
	if !p.OK() {
		h.view.serving = nil
	}
	h.mu.Unlock()
	h.feed.publish("plan", h.planEvent())
}

func (h *Hub) serving(p *plan.Plan) {
	h.mu.Lock()
	h.view.plan, h.view.serving, h.view.predicted = p, p, h.state.Predicted()
	h.mu.Unlock()
	h.peers.Range(func(_, p any) bool { p.(*peer).forgetHops(); return true })
	h.feed.publish("plan", h.planEvent())
}

func (h *Hub) planEvent() any {
	s := h.Snapshot()
	return map[string]any{"model": s.Model, "policy": s.Policy, "chains": s.Chains, "predicted_tok_s": s.PredictedTokS, "reasons": s.Reasons}
}

// refresh copies what the loop owns for readers, and tells the feed what
// changed.
func (h *Hub) refresh() {
	members, active, queued := h.state.View()
	h.mu.Lock()
	changed := cluster.Changed(h.view.members, members)
	h.view.members, h.view.active, h.view.queued = members, active, queued
	h.view.losses, h.view.replays = h.state.Losses, h.state.Replays
	h.view.predicted = h.state.Predicted()
	due := time.Since(h.view.published) >= time.Second
	if due {
		h.view.published = time.Now()
	}
	h.mu.Unlock()
	if !h.feed.watched() {
		return
	}
	if len(changed) == 0 && !due {
		return
	}
	s := h.Snapshot()
	for _, w := range s.Workers {
		if slices.Contains(changed, w.ID) {
			h.feed.publish("worker", w)
		}
	}
	if due {
		h.feed.stats(s)
	}
}

// tokenTimes keeps the way of a pass that gave tokens.
func (h *Hub) tokenTimes(d headDone) {
	h.mu.Lock()
	h.view.recent = append(h.view.recent, servedRows{time.Now(), len(d.job.wants)})
	total := float64(time.Since(d.job.began).Microseconds()) / 1e3
	coordinator := total
	for _, hop := range d.job.hops {
		coordinator -= hop.HopMs.Queue + hop.HopMs.Wire + hop.HopMs.Compute + hop.HopMs.Readback
	}
	few := d.job.rows <= fewRows
	if few {
		h.view.ownMs += (max(0, coordinator) - h.view.ownMs) / 8
	}
	due := time.Since(h.view.tokenSent) >= 500*time.Millisecond && few
	if due {
		h.view.tokenSent = time.Now()
	}
	h.mu.Unlock()
	if !due || !h.feed.watched() {
		return
	}
	h.feed.publish("token", map[string]any{"total_ms": total, "coordinator_ms": max(0, coordinator), "hops": d.job.hops})
}

// Snapshot returns the room as it is.
func (h *Hub) Snapshot() Snapshot {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	v := &h.view
	s := Snapshot{Seq: h.feed.seq(), Build: build(), Policy: string(v.policy), Active: v.active, Queued: v.queued, Losses: v.losses, Replays: v.replays,
		WireBytes: v.wire.Load(), Tokens: v.tokens.Load(), Reasons: []string{}, Chains: [][]string{}, Workers: []Worker{}}
	s.Model = ModelInfo{ID: h.o.Name, Name: h.o.Name, Layers: h.config.Layers, Bytes: h.state.Bytes()}
	if v.plan != nil {
		s.Reasons, s.Model.Missing = v.plan.Reasons, v.plan.Missing
	}
	if v.serving != nil {
		var chain []string
		total := v.ownMs
		for _, st := range v.serving.Stages {
			chain = append(chain, st.Worker)
			if ms, ok := v.predicted[st.Worker]; ok {
				total += ms
			} else {
				total += st.Ms
			}
		}
		s.Chains, s.PredictedTokS = append(s.Chains, chain), 1000/total
	}
	for len(v.recent) > 0 && now.Sub(v.recent[0].at) > rateWindow {
		v.recent = v.recent[1:]
	}
	if n := len(v.recent); n > 1 {
		tokens := 0
		for _, r := range v.recent[1:] {
			tokens += r.rows
		}
		if span := v.recent[n-1].at.Sub(v.recent[0].at).Seconds(); span > 0 {
			s.MeasuredTokS = float64(tokens) / span
		}
	}
	seen := map[string]bool{}
	for _, m := range v.members {
		seen[m.ID] = true
		s.Workers = append(s.Workers, h.worker(m, v.predicted[m.ID], now))
	}
	h.peers.Range(func(key, value any) bool { // welcomed, but not measured yet
		if p := value.(*peer); !seen[p.id] {
			s.Workers = append(s.Workers, h.worker(cluster.View{ID: p.id, State: cluster.Joining}, 0, now))
		}
		return true
	})
	return s
}

func (h *Hub) worker(m cluster.View, predicted float64, now time.Time) Worker {
	w := Worker{ID: m.ID, Name: m.Name, Kind: m.Kind, State: m.State, LayerFirst: m.LayerFirst, LayerCount: m.LayerCount, Span: m.Span,
		BytesLoaded: m.Loaded, BytesTotal: m.Total, PredictedMs: predicted}
	value, ok := h.peers.Load(m.ID)
	if !ok {
		w.State = cluster.Leaving
		return w
	}
	p := value.(*peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Name, w.Kind, w.Backend, w.Device, w.Bytes = p.hello.Name, p.hello.Kind, p.hello.Backend, p.hello.Device, p.hello.Capacity.Bytes
	w.TokS, w.Tokens, w.HopMs, w.RTTMs = p.tokS(now), p.rows, medianHop(p.hops), p.rtt
	w.Hidden, w.Throttled = p.stats.Hidden, p.stats.Throttled
	return w
}
