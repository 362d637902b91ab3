package cpu

import (
	"math"

	"github.com/potluck-llm/potluck/model"
)

// routerScratch is room for one row's routing.
type routerScratch struct {
	scores, choice []float32
	groups         []float32
	taken          []bool
}

// route chooses each row's experts and their weights.
func (x *Executor) route(l *layer, s *state) {
	b, m := &x.buf, x.config.MoE
	logits := b.scratch.Room(s.n * m.Experts)
	x.mul(logits, l.router, &b.input)
	b.chosen, b.weights = grow(b.chosen, s.n*m.PerToken), grow(b.weights, s.n*m.PerToken)
	for i := range s.n {
		b.router.choose(m, logits[i*m.Experts:(i+1)*m.Experts], l.routerBias,
			b.chosen[i*m.PerToken:(i+1)*m.PerToken], b.weights[i*m.PerToken:(i+1)*m.PerToken])
	}
	s.chosen, s.weights = b.chosen, b.weights
}

// choose is the router of model.MoE for one row of logits. ids come out
// ascending; of equal scores the lower id is chosen. The correction bias
// decides which experts are chosen and never enters their weights.
func (r *routerScratch) choose(m *model.MoE, logits, bias []float32, ids []int32, weights []float32) {
	r.scores, r.choice, r.taken = grow(r.scores, m.Experts), grow(r.choice, m.Experts), grow(r.taken, m.Experts)
	if m.Sigmoid {
		for i, v := range logits {
			r.scores[i] = float32(1 / (1 + math.Exp(-float64(v))))
		}
	} else {
		softmax(r.scores, logits)
	}
	copy(r.choice, r.scores)
	for i := range bias {
		r.choice[i] += bias[i]
	}
	clear(r.taken)
	if m.Groups > 1 {
		r.dropGroups(m)
	}
	for range m.PerToken {
		r.take(r.choice, r.taken)
	}
	k, sum := 0, float32(0)
	for id, taken := range r.taken {
		if taken && !math.IsInf(float64(r.choice[id]), -1) && k < len(ids) {
			ids[k], weights[k] = int32(id), r.scores[id]
			sum += weights[k]
			k++
		}
	}
	for k < len(ids) { // only NaN scores can leave room: still a valid pass
		ids[k], weights[k] = 0, 0
		k++
	}
	scale := float32(m.Scale)
	if m.Normalise {
		scale /= sum + 1e-20
	}
	for i := range weights {
		weights[i] *= scale
	}
}

// take marks the largest value that is not yet taken.
func (r *routerScratch) take(values []float32, taken []bool) {
	best := -1
	for i, v := range values {
		if !taken[i] && (best < 0 || v > values[best]) {
			best = i
		}
	}
	if best >= 0 {
		taken[best] = true
	}
}

// dropGroups keeps the TopGroups groups whose two best choices sum highest and
// puts the others out of reach.
func (r *routerScratch) dropGroups(m *model.MoE) {
	size := m.Experts / m.Groups
	r.groups = grow(r.groups, m.Groups)
	for g := range r.groups {
		first, second := float32(math.Inf(-1)), float32(math.Inf(-1))
		for _, v := range r.choice[g*size : (g+1)*size] {
			if v > first {
				first, second = v, first
			} else if v > second {
				second = v
			}
		}
		r.groups[g] = first + second
	}
	kept := make([]bool, m.Groups)
	for range m.TopGroups {
		r.take(r.groups, kept)
	}
	for g, keep := range kept {
		for i := g * size; !keep && i < (g+1)*size; i++ {
			r.choice[i] = float32(math.Inf(-1))
		}
	}
}

func softmax(dst, x []float32) {
	largest := x[0]
	for _, v := range x {
		largest = max(largest, v)
	}
	sum := 0.0
	for i, v := range x {
		e := math.Exp(float64(v - largest))
		dst[i] = float32(e)
		sum += e
	}
	for i := range dst {
		dst[i] = float32(float64(dst[i]) / sum)
	}
}
