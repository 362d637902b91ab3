// Package sample turns logits into tokens, and watches a text for the strings
// that end it.
//
// It takes one row of logits and the tokens before it. A draw depends on seed
// and position alone, so an answer that is computed again, after a worker was
// lost, is the same answer.
package sample

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Params are a request's wishes, named as OpenAI's API names them.
type Params struct {
	Temperature float64 // 0: always the likeliest token
	TopK        int     // 0: all
	TopP        float64 // 0 or 1: all
	MinP        float64 // 0: all
	Seed        uint64

	FrequencyPenalty  float64
	PresencePenalty   float64
	RepetitionPenalty float64 // 0 or 1: none
	LogitBias         map[int32]float32
}

// A Sampler draws tokens: temperature first, then top_k, top_p and min_p. It is
// for one goroutine at a time.
type Sampler struct {
	p      Params
	kept   []candidate
	counts map[int32]int
}

type candidate struct {
	id    int32
	logit float32
	p     float64
}

// New checks the parameters; the error names the one that is out of range.
func New(p Params) (*Sampler, error) {
	between := func(name string, v, low, high float64) error {
		if math.IsNaN(v) || v < low || v > high {
			return fmt.Errorf("%s is %v, want %v to %v", name, v, low, high)
		}
		return nil
	}
	if p.RepetitionPenalty == 0 {
		p.RepetitionPenalty = 1
	}
	if p.TopP == 0 {
		p.TopP = 1
	}
	err := errors.Join(between("temperature", p.Temperature, 0, 100), between("top_p", p.TopP, 0, 1), between("min_p", p.MinP, 0, 1),
		between("top_k", float64(p.TopK), 0, 1<<30), between("frequency_penalty", p.FrequencyPenalty, -2, 2),
		between("presence_penalty", p.PresencePenalty, -2, 2), between("repetition_penalty", p.RepetitionPenalty, 0.01, 100))
	if err != nil {
		return nil, err
	}
	return &Sampler{p: p}, nil
}

// ErrNotFinite is what Sample returns for logits without any number among them.
var ErrNotFinite = errors.New("the logits hold no number: the model's arithmetic broke down")

// Sample draws the token that follows history. logits may be overwritten.
func (s *Sampler) Sample(logits []float32, history []int32) (int32, error) {
	s.adjust(logits, history)
	best := ArgMax(logits)
	if best < 0 {
		return 0, ErrNotFinite
	}
	if s.p.Temperature == 0 {
		return best, nil
	}
	s.collect(logits, best)
	s.trim()
	total := 0.0
	for _, c := range s.kept {
		total += c.p
	}
	draw := uniform(s.p.Seed, uint64(len(history))) * total
	for _, c := range s.kept {
		if draw -= c.p; draw < 0 {
			return c.id, nil
		}
	}
	return s.kept[0].id, nil
}

// adjust applies biases and penalties.
func (s *Sampler) adjust(logits []float32, history []int32) {
	for id, bias := range s.p.LogitBias {
		if id >= 0 && int(id) < len(logits) {
			logits[id] += bias
		}
	}
	if s.p.FrequencyPenalty == 0 && s.p.PresencePenalty == 0 && s.p.RepetitionPenalty == 1 {
		return
	}
	if s.counts == nil {
		s.counts = map[int32]int{}
	}
	clear(s.counts)
	for _, id := range history {
		if id >= 0 && int(id) < len(logits) {
			s.counts[id]++
		}
	}
	for id, n := range s.counts {
		l := logits[id]
		if r := float32(s.p.RepetitionPenalty); l > 0 {
			l /= r
		} else {
			l *= r
		}
		logits[id] = l - float32(s.p.FrequencyPenalty)*float32(n) - float32(s.p.PresencePenalty)
	}
}

// negligible is how far below the likeliest a token's scaled logit may lie and
// still be drawn: e^-30 of its probability.
const negligible = 30

// collect keeps the candidates that can be drawn at all, in order of ids.
func (s *Sampler) collect(logits []float32, best int32) {
	s.kept = s.kept[:0]
	t := s.p.Temperature
	floor := float64(logits[best]) - negligible*t
	if s.p.MinP > 0 {
		floor = max(floor, float64(logits[best])+t*math.Log(s.p.MinP))
	}
	least := float32(floor)
	for id, l := range logits {
		if l >= least { // false for NaN
			s.kept = append(s.kept, candidate{int32(id), l, math.Exp((float64(l) - float64(logits[best])) / t)})
		}
	}
}

// compare puts likelier candidates first, of equals the lower id.
func compare(a, b candidate) int {
	switch {
	case a.logit > b.logit:
		return -1
	case a.logit < b.logit:
		return 1
	}
	return int(a.id - b.id)
}

// firstNucleus is how many of the likeliest candidates are looked at first for
// top_p: mostly they are enough, and sorting a whole vocabulary costs more than
// the head's product.
const firstNucleus = 128

// trim applies top_k and top_p; min_p was applied by collect.
func (s *Sampler) trim() {
	if s.p.TopK > 0 && len(s.kept) > s.p.TopK {
		selectFirst(s.kept, s.p.TopK)
		s.kept = s.kept[:s.p.TopK]
		slices.SortFunc(s.kept, compare)
	}
	if s.p.TopP >= 1 {
		return
	}
	total := 0.0
	for _, c := range s.kept {
		total += c.p
	}
	for n := firstNucleus; ; n *= 8 {
		n = min(n, len(s.kept))
		selectFirst(s.kept, n)
		slices.SortFunc(s.kept[:n], compare)
		sum := 0.0
		for i, c := range s.kept[:n] {
			if sum += c.p; sum >= s.p.TopP*total {
				s.kept = s.kept[:i+1]
				return
			}
		}
		if n == len(s.kept) {
			return
		}
	}
}

// selectFirst moves the n first candidates, in no order, to the front.
func selectFirst(list []candidate, n int) {
	low, high := 0, len(list)-1
	for low < high && n < len(list) {
		pivot := list[low+(high-low)/2]
		i, j := low, high
		for i <= j {
			for compare(list[i], pivot) < 0 {
				i++
			}
			for compare(list[j], pivot) > 0 {
				j--
			}
			if i <= j {
				list[i], list[j] = list[j], list[i]
				i++
				j--
			}
		}
		switch {
		case n <= j:
			high = j
		case n >= i:
			low = i
		default:
			return
		}
	}
}

// uniform is a number in [0, 1) that depends on seed and position alone:
// SplitMix64's finaliser over both.
func uniform(seed, position uint64) float64 {
	x := seed ^ (position+1)*0x9e3779b97f4a7c15
	for range 2 {
		x += 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return float64(x>>11) / (1 << 53)
}

// ArgMax is the index of the largest value, the lowest of equals; -1 where all
// are NaN or -Inf.
func ArgMax(logits []float32) int32 {
	best, index := float32(math.Inf(-1)), int32(-1)
	for i, v := range logits {
		if v > best && !math.IsInf(float64(v), 1) {
			best, index = v, int32(i)
		}
	}
	return index
}

// A TokenLogProb is a token and the logarithm of its probability.
type TokenLogProb struct {
	ID      int32
	LogProb float64
}

// LogProbs returns the chosen token's log probability at temperature 1, and
// the top likeliest ones.
func LogProbs(logits []float32, chosen int32, top int) (float64, []TokenLogProb) {
	best := ArgMax(logits)
	if best < 0 || int(chosen) >= len(logits) || chosen < 0 {
		return math.Inf(-1), nil
	}
	sum := 0.0
	for _, l := range logits {
		if d := float64(l) - float64(logits[best]); d > -80 {
			sum += math.Exp(d)
		}
	}
	norm := float64(logits[best]) + math.Log(sum)
	var list []TokenLogProb
	for id, l := range logits {
		p := float64(l) - norm
		if top == 0 || len(list) == top && p <= list[top-1].LogProb || math.IsNaN(p) {
			continue
		}
		at, _ := slices.BinarySearchFunc(list, p, func(t TokenLogProb, p float64) int {
			if t.LogProb >= p {
				return -1
			}
			return 1
		})
		if list = slices.Insert(list, at, TokenLogProb{int32(id), p}); len(list) > top {
			list = list[:top]
		}
	}
	return float64(logits[chosen]) - norm, list
}
