package sample_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/sample"
)

func sampler(t testing.TB, p sample.Params) *sample.Sampler {
	s, err := sample.New(p, kernel.Logits{})
	require.NoError(t, err)
	return s
}

func draw(t testing.TB, s *sample.Sampler, logits []float32, position int) int32 {
	id, err := s.Sample(slices.Clone(logits), make([]int32, position))
	require.NoError(t, err)
	return id
}

func TestGreedyTakesTheFirstOfTheLargest(t *testing.T) {
	s := sampler(t, sample.Params{})
	require.EqualValues(t, 1, draw(t, s, []float32{1, 5, 5, -2}, 0))
	require.EqualValues(t, 2, draw(t, s, []float32{float32(math.NaN()), float32(math.Inf(1)), 3}, 0), "neither NaN nor infinity is a best")
	_, err := s.Sample([]float32{float32(math.NaN())}, nil)
	require.ErrorIs(t, err, sample.ErrNotFinite)
}

// The draws follow the distribution: a chi-square over 40,000 of them.
func TestDistribution(t *testing.T) {
	logits := []float32{0, 1, 2, 3, -1}
	s := sampler(t, sample.Params{Temperature: 1.5, Seed: 9})
	total := 0.0
	want := make([]float64, len(logits))
	for i, l := range logits {
		want[i] = math.Exp(float64(l) / 1.5)
		total += want[i]
	}
	const n = 40000
	counts := make([]float64, len(logits))
	for i := range n {
		counts[draw(t, s, logits, i)]++
	}
	chi := 0.0
	for i := range want {
		e := n * want[i] / total
		chi += (counts[i] - e) * (counts[i] - e) / e
	}
	require.Less(t, chi, 18.5, "4 degrees of freedom, 0.1 %") // seeded: it passes or fails for good
}

// So they do where a vocabulary is weighed piece by piece: a chi-square over its
// sixths. What is no number is never drawn.
func TestDistributionOfManyTokens(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 3))
	logits := make([]float32, 6*700)
	for i := range logits {
		logits[i] = float32(r.NormFloat64()) * 2
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	nowhere := map[int]float32{0: nan, 1023: inf, 1024: -inf, len(logits) - 1: nan}
	for i, l := range nowhere {
		logits[i] = l
	}
	total, want := 0.0, make([]float64, 6)
	for i, l := range logits {
		if _, ok := nowhere[i]; !ok {
			want[i/700] += math.Exp(float64(l) / 0.9)
			total += math.Exp(float64(l) / 0.9)
		}
	}
	s := sampler(t, sample.Params{Temperature: 0.9, Seed: 11})
	const n = 20000
	counts := make([]float64, len(want))
	for i := range n {
		id := draw(t, s, logits, i)
		require.NotContains(t, nowhere, int(id))
		counts[id/700]++
	}
	chi := 0.0
	for i := range want {
		e := n * want[i] / total
		chi += (counts[i] - e) * (counts[i] - e) / e
	}
	require.Less(t, chi, 20.5, "5 degrees of freedom, 0.1 %")
}

// A draw depends on seed and position alone: a replayed answer is the same.
func TestReplays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 500)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	a, b := sampler(t, sample.Params{Temperature: 1, Seed: 5}), sampler(t, sample.Params{Temperature: 1, Seed: 5})
	for range 10 {
		draw(t, b, logits, r.IntN(99)) // other draws in between change nothing
	}
	different := false
	for i := range 50 {
		require.Equal(t, draw(t, a, logits, i), draw(t, b, logits, i))
		different = different || draw(t, a, logits, i) != draw(t, sampler(t, sample.Params{Temperature: 1, Seed: 6}), logits, i)
	}
	require.True(t, different)
}

// What top_k, top_p and min_p leave out is never drawn; what they keep is what
// a full sort keeps.
func TestTruncation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logits := rapid.SliceOfN(rapid.Float32Range(-8, 8), 1, 60).Draw(t, "logits")
		if rapid.IntRange(0, 9).Draw(t, "many") == 0 {
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "filling"), 0))
			for range 1000 + r.IntN(2000) {
				logits = append(logits, float32(r.NormFloat64()*3))
			}
		}
		p := sample.Params{Temperature: rapid.Float64Range(0.1, 3).Draw(t, "temperature"), TopK: rapid.IntRange(0, 20).Draw(t, "top_k"),
			TopP: rapid.Float64Range(0.01, 1).Draw(t, "top_p"), MinP: rapid.Float64Range(0, 1).Draw(t, "min_p"), Seed: rapid.Uint64().Draw(t, "seed")}
		allowed := kept(logits, p, 1e-6)
		s, err := sample.New(p, rapid.SampledFrom([]sample.Vectors{sample.Plain{}, kernel.Logits{}}).Draw(t, "vectors"))
		require.NoError(t, err)
		for i := range 20 {
			id, err := s.Sample(slices.Clone(logits), make([]int32, i))
			require.NoError(t, err)
			require.Contains(t, allowed, id)
		}
		if left := s.Kept(); left != nil {
			require.Subset(t, allowed, left)
			require.Subset(t, left, kept(logits, p, -1e-6))
		}
	})
}

// kept is the plain way to truncate. What lies within slack of a bound stays, or goes
// where slack is below 0: the last bits of a sum are nobody's.
func kept(logits []float32, p sample.Params, slack float64) []int32 {
	order := make([]int32, len(logits))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return 0
	})
	weight := func(id int32) float64 {
		return math.Exp((float64(logits[id]) - float64(logits[order[0]])) / p.Temperature)
	}
	if p.TopK > 0 && len(order) > p.TopK {
		order = order[:p.TopK]
	}
	total, sum := 0.0, 0.0
	for _, id := range order {
		total += weight(id)
	}
	for i, id := range order {
		if sum += weight(id); sum >= (p.TopP+slack)*total {
			order = order[:i+1]
			break
		}
	}
	return slices.DeleteFunc(order, func(id int32) bool { return weight(id) < p.MinP-slack })
}

func TestPenaltiesAndBias(t *testing.T) {
	logits := []float32{2, 2.5, 1}
	history := []int32{1, 1, 1}
	pick := func(p sample.Params) int32 {
		id, err := sampler(t, p).Sample(slices.Clone(logits), history)
		require.NoError(t, err)
		return id
	}
	require.EqualValues(t, 1, pick(sample.Params{}))
	require.EqualValues(t, 0, pick(sample.Params{FrequencyPenalty: 0.5}))
	require.EqualValues(t, 0, pick(sample.Params{PresencePenalty: 1}))
	require.EqualValues(t, 0, pick(sample.Params{RepetitionPenalty: 2}))
	require.EqualValues(t, 2, pick(sample.Params{LogitBias: map[int32]float32{2: 5, 99: 1}}))
}

func TestParamsAreNamed(t *testing.T) {
	for want, p := range map[string]sample.Params{
		"temperature": {Temperature: -1}, "top_p": {TopP: 2}, "min_p": {MinP: -0.1}, "top_k": {TopK: -5},
		"frequency_penalty": {FrequencyPenalty: 3}, "presence_penalty": {PresencePenalty: math.NaN()}, "repetition_penalty": {RepetitionPenalty: -1},
	} {
		_, err := sample.New(p, sample.Plain{})
		require.ErrorContains(t, err, want)
	}
}

func TestLogProbs(t *testing.T) {
	logits := []float32{1, 3, 2}
	total := math.Exp(1) + math.Exp(3) + math.Exp(2)
	p, top := sample.LogProbs(logits, 0, 2)
	require.InDelta(t, math.Log(math.Exp(1)/total), p, 1e-6)
	require.Len(t, top, 2)
	require.EqualValues(t, 1, top[0].ID)
	require.EqualValues(t, 2, top[1].ID)
	require.InDelta(t, math.Log(math.Exp(2)/total), top[1].LogProb, 1e-6)
	_, top = sample.LogProbs(logits, 0, 0)
	require.Empty(t, top)
}

// Stops cut a text as searching the whole of it would, wherever it is split.
func TestStops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SampledFrom([]rune("ab<"))
		text := rapid.StringOfN(letters, 0, 40, -1).Draw(t, "text")
		stops := rapid.SliceOfN(rapid.StringOfN(letters, 1, 4, -1), 0, 3).Draw(t, "stops")
		want, stopped := text, false
		for _, stop := range stops {
			if i := strings.Index(want, stop); i >= 0 {
				want, stopped = want[:i], true
			}
		}
		// Of stops that end at the same byte the one that begins first wins.
		s := sample.NewStops(stops)
		var got strings.Builder
		done := false
		for rest := text; rest != "" && !done; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			show, over := s.Push(rest[:n])
			got.WriteString(show)
			rest, done = rest[n:], over
		}
		if !done {
			got.WriteString(s.Flush())
		}
		require.Equal(t, stopped, done)
		if !stopped {
			require.Equal(t, want, got.String())
		} else {
			require.True(t, strings.HasPrefix(text, got.String()))
			for _, stop := range stops {
				require.NotContains(t, got.String(), stop)
			}
		}
	})
}

func BenchmarkSample152k(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	base := make([]float32, 151936)
	for i := range base {
		base[i] = float32(r.NormFloat64() * 3)
	}
	base[777], base[778], base[991] = 18, 17, 16.5
	logits := make([]float32, len(base))
	for name, p := range map[string]sample.Params{
		"likeliest": {}, "temperature=1": {Temperature: 1}, "top_p=0.95": {Temperature: 0.7, TopP: 0.95},
		"top_k=40": {Temperature: 0.7, TopK: 40}, "min_p=0.05": {Temperature: 1, MinP: 0.05},
	} {
		for vectors, v := range map[string]sample.Vectors{"kernels": kernel.Logits{}, "plain": sample.Plain{}} {
			b.Run(name+"/"+vectors, func(b *testing.B) {
				s, err := sample.New(p, v)
				require.NoError(b, err)
				for b.Loop() {
					copy(logits, base)
					_, err := s.Sample(logits, nil)
					require.NoError(b, err)
				}
			})
		}
	}
}
