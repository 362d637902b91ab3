package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/wire"
)

// Slots is the room for sequences that every worker of a chain must have.
type Slots = wire.SlotPlan

// A Policy is what a plan is good for.
type Policy string

// The policies.
const (
	Auto   Policy = "auto"   // fewest milliseconds a token; others wait in reserve
	Spread Policy = "spread" // everyone takes part, balanced by speed
)

// ParsePolicy reads a policy's name.
func ParsePolicy(name string) (Policy, error) {
	switch p := Policy(name); p {
	case Auto, Spread:
		return p, nil
	}
	return "", fmt.Errorf("policy %.40q: auto or spread", name)
}

// A Worker is what of a worker counts for planning.
type Worker struct {
	ID         string
	Name       string
	Bytes      int64   // for weights and KV cache
	ReadGBs    float64 // weight bytes a second, 10^9
	DispatchMs float64 // fixed cost of a layer
	HopMs      float64 // round trip, readback and framing of a pass
	Slowdown   float64 // computing takes so many times as long as the figures above say; 0: not measured
}

// claimMs is the time one token takes in bytes of weights, by the worker's own
// figures.
func (w Worker) claimMs(read int64, layers int) float64 {
	return float64(read)/(math.Max(w.ReadGBs, 0.01)*1e6) + float64(layers)*w.DispatchMs
}

// A Stage is one worker's part.
type Stage struct {
	Worker string
	Span   model.Span
	Bytes  int64   // weights
	Ms     float64 // predicted, a token, hop included
	// ClaimMs is the time for computing by the worker's own figures; times its
	// Slowdown it is part of Ms.
	ClaimMs float64
}

// A Plan is a chain that covers the model, or what is missing for one.
type Plan struct {
	Stages  []Stage
	Slots   Slots
	Ms      float64 // predicted, a token, without the coordinator's own part
	TokS    float64
	Reasons []string
	Missing int64 // bytes that the room lacks; 0: the plan serves
}

// OK tells whether the plan serves.
func (p *Plan) OK() bool { return len(p.Stages) > 0 }

// cutsPerLayer is into how many parts a layer may be cut: finer cuts fit
// memory better but make planning slower.
const cutsPerLayer = 16

// Make plans. wish is the room for sequences wanted; where it does not fit,
// fewer and shorter sequences are planned for.
func Make(s *Shape, workers []Worker, policy Policy, wish Slots) *Plan {
	ordered := slices.Clone(workers)
	slices.SortStableFunc(ordered, func(a, b Worker) int {
		return cmp.Or(cmp.Compare(b.ReadGBs, a.ReadGBs), cmp.Compare(a.ID, b.ID))
	})
	for _, slots := range smaller(wish) {
		for _, inner := range []bool{policy == Spread && len(workers) > len(s.Layers), true} {
			g := newGrid(s, slots, inner)
			if p := g.best(ordered, policy); p != nil {
				p.explain(s, ordered, policy, wish)
				return p
			}
		}
	}
	least := smaller(wish)
	return lacking(s, ordered, least[len(least)-1])
}

// smaller lists ever smaller rooms for sequences, the wish first.
func smaller(wish Slots) []Slots {
	list := []Slots{wish}
	for s := wish; s.Slots > 1; {
		s.Slots = (s.Slots + 1) / 2
		list = append(list, s)
	}
	for s := list[len(list)-1]; s.Positions > 512; {
		s.Positions = max(512, s.Positions/2)
		list = append(list, s)
	}
	return list
}

// A grid is the places where the model may be cut, with sums up to each.
type grid struct {
	shape *Shape
	slots Slots
	cuts  []model.Cut
	bytes []int64 // weights before the cut
	read  []int64 // read for a token
	kv    []int64
	begun []int // layers that begin before the cut
}

func newGrid(s *Shape, slots Slots, inner bool) *grid {
	g := &grid{shape: s, slots: slots}
	var bytes, read, kv int64
	layerKV := s.kvBytes(slots)
	mark := func(cut model.Cut, begun int) {
		g.cuts, g.bytes, g.read, g.kv, g.begun = append(g.cuts, cut), append(g.bytes, bytes), append(g.read, read), append(g.kv, kv), append(g.begun, begun)
	}
	for i, l := range s.Layers {
		mark(model.Cut{Layer: i}, i)
		bytes, read, kv = bytes+l.Begin, read+l.Begin, kv+layerKV
		step := l.Experts
		if inner && l.Experts > 1 {
			step = max(1, l.Experts/cutsPerLayer)
		}
		for e := 0; e < l.Experts; e += step {
			if e > 0 {
				mark(model.Cut{Layer: i, Expert: e}, i+1)
			}
			n := min(step, l.Experts-e)
			bytes += l.Expert * int64(n)
			read += l.Expert * int64(l.PerToken) * int64(n) / int64(l.Experts)
		}
	}
	mark(model.Cut{Layer: len(s.Layers)}, len(s.Layers))
	return g
}

// need is what a worker must hold for the part from cut i to cut j.
func (g *grid) need(i, j int) int64 { return g.bytes[j] - g.bytes[i] + g.kv[j] - g.kv[i] }

func (g *grid) claimMs(w Worker, i, j int) float64 {
	return w.claimMs(g.read[j]-g.read[i], max(1, g.begun[j]-g.begun[i]))
}

func (g *grid) ms(w Worker, i, j int) float64 { return w.Takes(g.claimMs(w, i, j)) }

// Takes is what a part with a claim takes, hop and measured slowdown included.
func (w Worker) Takes(claimMs float64) float64 {
	if w.Slowdown > 0 {
		claimMs *= w.Slowdown
	}
	return w.HopMs + claimMs
}

// best is the best chain; with Spread one of as many workers as can take part:
// whoever lends too little for any part must not keep the others from serving.
func (g *grid) best(workers []Worker, policy Policy) *Plan {
	if policy != Spread {
		return g.solve(workers, policy)
	}
	smallest, whole := g.smallest(), g.need(0, len(g.cuts)-1)
	var best *Plan
	rest := slices.DeleteFunc(slices.Clone(workers), func(w Worker) bool { return w.Bytes < smallest })
	for len(rest) > 0 && sumBytes(rest) >= whole {
		p := g.solve(rest, policy)
		if p != nil && (best == nil || len(p.Stages) > len(best.Stages)) {
			best = p
		}
		if best != nil && len(best.Stages) >= min(len(rest)-1, len(g.cuts)-1) {
			break // fewer cannot be more
		}
		least := slices.MinFunc(rest, func(a, b Worker) int { return cmp.Compare(a.Bytes, b.Bytes) })
		rest = slices.DeleteFunc(rest, func(w Worker) bool { return w.ID == least.ID })
	}
	return best
}

// smallest is what the smallest part needs.
func (g *grid) smallest() int64 {
	least := int64(math.MaxInt64)
	for j := 1; j < len(g.cuts); j++ {
		least = min(least, g.need(j-1, j))
	}
	return least
}

func sumBytes(workers []Worker) (total int64) {
	for _, w := range workers {
		total += w.Bytes
	}
	return total
}

// solve finds the best chain by dynamic programming over (workers considered,
// cut reached): the star's hops cost the same in any order, so workers may be
// considered in a fixed one. It is nil where the model does not fit.
func (g *grid) solve(workers []Worker, policy Policy) *Plan {
	n, last := len(workers), len(g.cuts)-1
	if n == 0 {
		return nil
	}
	if policy == Spread {
		n = min(n, last)
	}
	inf := math.Inf(1)
	best := make([][]float64, n+1) // best[k][j]: cost of the parts before cut j with the first k workers
	from := make([][]int32, n+1)
	for k := range best {
		best[k], from[k] = make([]float64, last+1), make([]int32, last+1)
		for j := range best[k] {
			best[k][j], from[k][j] = inf, -1
		}
	}
	best[0][0] = 0
	for k := 1; k <= n; k++ {
		w := workers[k-1]
		for j := 0; j <= last; j++ {
			if policy != Spread && best[k-1][j] < inf { // w waits in reserve
				best[k][j], from[k][j] = best[k-1][j], int32(j)
			}
			for i := j - 1; i >= 0 && g.need(i, j) <= w.Bytes; i-- {
				if best[k-1][i] == inf {
					continue
				}
				cost := best[k-1][i] + g.ms(w, i, j)
				if policy == Spread { // the slowest part counts, then the sum
					cost = math.Max(best[k-1][i], g.ms(w, i, j)+1e-9*float64(j-i))
				}
				if cost < best[k][j] {
					best[k][j], from[k][j] = cost, int32(i)
				}
			}
		}
	}
	end := n
	if policy == Spread { // as many as can take part
		for end > 0 && best[end][last] == inf {
			end--
		}
	}
	if end == 0 || best[end][last] == inf {
		return nil
	}
	return g.trace(workers, from, end)
}

func (g *grid) trace(workers []Worker, from [][]int32, k int) *Plan {
	p := &Plan{Slots: g.slots}
	for j := len(g.cuts) - 1; k > 0; k-- {
		i := int(from[k][j])
		if i < j {
			w := workers[k-1]
			stage := Stage{Worker: w.ID, Span: model.Span{From: g.cuts[i], To: g.cuts[j]}, Bytes: g.bytes[j] - g.bytes[i], Ms: g.ms(w, i, j), ClaimMs: g.claimMs(w, i, j)}
			p.Stages = append(p.Stages, stage)
			p.Ms += stage.Ms
		}
		j = i
	}
	slices.Reverse(p.Stages)
	p.TokS = 1000 / p.Ms
	return p
}

// lacking says what the room lacks.
func lacking(s *Shape, workers []Worker, least Slots) *Plan {
	need := s.Bytes() + s.kvBytes(least)*int64(len(s.Layers))
	have := sumBytes(workers)
	largest := Worker{}
	for _, w := range workers {
		if w.Bytes > largest.Bytes {
			largest = w
		}
	}
	p := &Plan{Slots: least, Missing: max(need-have, 1)}
	if need <= have { // it fits in sum, not in parts: no worker holds the largest indivisible part
		p.Missing = max(1, s.largestPart(least)-largest.Bytes)
	}
	p.Reasons = []string{fmt.Sprintf("needs %s, the room has %s", GB(need), GB(have))}
	if need <= have {
		p.Reasons[0] += ", but what each has left beside whole experts is too small for another"
	}
	if largest.Bytes > 0 {
		p.Reasons = append(p.Reasons, fmt.Sprintf("%d more like %s would do", (p.Missing+largest.Bytes-1)/largest.Bytes, largest.Name))
	}
	return p
}

// largestPart is the largest part that no cut divides.
func (s *Shape) largestPart(slots Slots) int64 {
	g := newGrid(s, slots, true)
	part := int64(0)
	for j := 1; j < len(g.cuts); j++ {
		part = max(part, g.need(j-1, j))
	}
	return part
}

// explain gives the reasons in plain sentences.
func (p *Plan) explain(s *Shape, workers []Worker, policy Policy, wish Slots) {
	used := map[string]bool{}
	for _, st := range p.Stages {
		used[st.Worker] = true
	}
	add := func(format string, args ...any) { p.Reasons = append(p.Reasons, fmt.Sprintf(format, args...)) }
	if policy == Spread {
		add("everyone takes part: %d of %d hold layers", len(p.Stages), len(workers))
	} else {
		add("fewest milliseconds a token: %.1f with %d of %d computers", p.Ms, len(p.Stages), len(workers))
	}
	smallest := newGrid(s, p.Slots, true).smallest()
	for _, w := range workers {
		switch {
		case used[w.ID]:
		case w.Bytes < smallest:
			add("%s lends %s, too little for any part", w.Name, GB(w.Bytes))
		case policy == Spread:
			add("%s waits in reserve: no part is left for it", w.Name)
		default:
			add("%s waits in reserve: its hop of %.1f ms would cost more than it computes", w.Name, w.HopMs)
		}
	}
	if p.Slots.Slots < wish.Slots || p.Slots.Positions < wish.Positions {
		add("memory allows %d conversations of %d tokens at once", p.Slots.Slots, p.Slots.Positions)
	}
}

// GB prints bytes as people say them, GB = 10^9.
func GB(bytes int64) string {
	if bytes < 1e9 {
		return fmt.Sprintf("%.0f MB", float64(bytes)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/1e9)
}
