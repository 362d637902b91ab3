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
	p       Params
	v       Vectors
	weights []float32 // of all tokens
	sums    []float64 // of each chunk of them
	kept    []candidate
	counts  map[int32]int
}

// Vectors is the arithmetic over a whole vocabulary, which vector instructions do ten
// times as fast as Plain: package exec/cpu/kernel has it.
type Vectors interface {
	// ArgMax is the index of the largest number, of equal ones the lowest; -1 where
	// there is none. NaN and infinities are not numbers.
	ArgMax(x []float32) int
	// Max is the largest of x, which holds no NaN; -Inf where there is none.
	Max(x []float32) float32
	// Exps replaces each of x, none above 0, by its exponential and returns their sum.
	Exps(x []float32) float32
}

type candidate struct {
	id    int32
	logit float32
	p     float64
}

// New checks the parameters; the error names the one that is out of range.
func New(p Params, v Vectors) (*Sampler, error) {
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
	return &Sampler{p: p, v: v}, nil
}

// ErrNotFinite is what Sample returns for logits without any number among them.
var ErrNotFinite = errors.New("the logits hold no number: the model's arithmetic broke down")

// Sample draws the token that follows history. logits may be overwritten.
func (s *Sampler) Sample(logits []float32, history []int32) (int32, error) {
	s.adjust(logits, history)
	best := int32(s.v.ArgMax(logits))
	if best < 0 {
		return 0, ErrNotFinite
	}
	if s.p.Temperature == 0 {
		return best, nil
	}
	total := s.weigh(logits, best)
	draw := uniform(s.p.Seed, uint64(len(history)))
	if s.topK() == 0 && s.p.TopP >= 1 && s.p.MinP == 0 {
		return s.draw(draw*total, best), nil
	}
	s.collect(logits, total)
	draw *= s.trim(total)
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

// chunk is how many weights have a sum of their own.
const chunk = 1024

// weigh writes the weight of each token, e^((logit-best)/temperature), and returns
// their sum. What is no number weighs nothing, nor does what lies more than 87
// temperatures below.
func (s *Sampler) weigh(logits []float32, best int32) (total float64) {
	if cap(s.weights) < len(logits) {
		s.weights = make([]float32, len(logits))
	}
	s.weights, s.sums = s.weights[:len(logits)], s.sums[:0]
	none, slope := float32(math.Inf(-1)), float32(min(1/s.p.Temperature, math.MaxFloat32))
	for i, l := range logits {
		d := l - logits[best]
		if !(d <= 0) {
			d = none
		}
		s.weights[i] = d * slope
	}
	for from := 0; from < len(logits); from += chunk {
		sum := float64(s.v.Exps(s.weights[from:min(from+chunk, len(logits))]))
		s.sums = append(s.sums, sum)
		total += sum
	}
	s.weights[best] = 1 // to the last bit, so that no min_p leaves it out
	return total
}

// draw returns the token at which the weights add up to draw.
func (s *Sampler) draw(draw float64, best int32) int32 {
	for c, sum := range s.sums {
		if draw >= sum {
			draw -= sum
			continue
		}
		for i, p := range s.weights[c*chunk : min((c+1)*chunk, len(s.weights))] {
			if draw -= float64(p); draw < 0 {
				return int32(c*chunk + i)
			}
		}
	}
	return best // the last bit of a sum is nobody's
}

// topK is how many of the weighed tokens top_k leaves; 0: all.
func (s *Sampler) topK() int {
	if s.p.TopK >= len(s.weights) {
		return 0
	}
	return s.p.TopK
}

// collect keeps, in order of ids, the candidates that top_k, top_p and min_p may
// leave, and not many more: those that weigh less than a bound cannot be among them.
func (s *Sampler) collect(logits []float32, total float64) {
	var largest []float32 // of each chunk
	for from := 0; from < len(s.weights); from += chunk {
		largest = append(largest, s.v.Max(s.weights[from:min(from+chunk, len(s.weights))]))
	}
	least := float32(0)
	switch k := s.topK(); {
	case k == 0: // all below the second bound together weigh less than what top_p leaves out
		least = float32(max(s.p.MinP, (1-s.p.TopP)*total/float64(len(logits))))
	case k <= len(largest): // so many chunks have one at least as large
		sorted := slices.Sorted(slices.Values(largest))
		least = sorted[len(sorted)-k]
	}
	s.kept = s.kept[:0]
	for c, m := range largest {
		if m < least {
			continue
		}
		for i, p := range s.weights[c*chunk : min((c+1)*chunk, len(s.weights))] {
			if p >= least {
				id := c*chunk + i
				s.kept = append(s.kept, candidate{int32(id), logits[id], float64(p)})
			}
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

// trim applies top_k, top_p and min_p to the candidates and returns what is left of
// total, the weight of all tokens.
func (s *Sampler) trim(total float64) (left float64) {
	if k := s.topK(); k > 0 {
		if len(s.kept) > k {
			selectFirst(s.kept, k)
			s.kept = s.kept[:k]
			slices.SortFunc(s.kept, compare)
		}
		total = weight(s.kept)
	}
	if s.p.TopP < 1 {
		s.kept = nucleus(s.kept, s.p.TopP*total)
	}
	if s.p.MinP > 0 {
		s.kept = slices.DeleteFunc(s.kept, func(c candidate) bool { return c.p < s.p.MinP })
	}
	return weight(s.kept)
}

func weight(list []candidate) (sum float64) {
	for _, c := range list {
		sum += c.p
	}
	return sum
}

// nucleus are the likeliest of list that together weigh enough, if list does.
func nucleus(list []candidate, enough float64) []candidate {
	for n := firstNucleus; ; n *= 8 {
		n = min(n, len(list))
		selectFirst(list, n)
		slices.SortFunc(list[:n], compare)
		sum := 0.0
		for i, c := range list[:n] {
			if sum += c.p; sum >= enough {
				return list[:i+1]
			}
		}
		if n == len(list) {
			return list
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

// A TokenLogProb is a token and the logarithm of its probability.
type TokenLogProb struct {
	ID      int32
	LogProb float64
}

// LogProbs returns the chosen token's log probability at temperature 1, and
// the top likeliest ones.
func LogProbs(logits []float32, chosen int32, top int) (float64, []TokenLogProb) {
	best := Plain{}.ArgMax(logits)
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
