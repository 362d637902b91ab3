package plan_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// air is GLM-4.5-Air's shape, which is INTELLECT-3's too.
func air(t testing.TB) *plan.Shape {
	config, err := os.ReadFile("testdata/intellect-3.json")
	require.NoError(t, err)
	c, err := model.FromHF(config)
	require.NoError(t, err)
	c.MTP = false
	return plan.NewShape(c, func(model.Tensor) quant.Type { return quant.Q4_0 })
}

// small is a dense model of n layers, each of some MB.
func small(n int) *plan.Shape {
	c := &model.Config{Arch: "llama", Hidden: 1024, Layers: n, Vocab: 32000, Heads: 16, KVHeads: 4, HeadDim: 64, FFN: 2048, NormEps: 1e-5,
		RoPE: model.RoPE{Dims: 64, Theta: 1e4}, MaxPositions: 2048}
	return plan.NewShape(c, func(model.Tensor) quant.Type { return quant.Q4_0 })
}

var slots = plan.Slots{Slots: 1, Positions: 1024, KV: quant.F16, Round: true}

func workers(n int, gb, speed float64) []plan.Worker {
	var list []plan.Worker
	for i := range n {
		id := fmt.Sprintf("w%03d", i)
		list = append(list, plan.Worker{ID: id, Name: id, Bytes: int64(gb * 1e9), ReadGBs: speed, DispatchMs: 0.1, HopMs: 2})
	}
	return list
}

// check holds a plan to what every plan must be: it covers the model once, in
// order, within every worker's memory.
func check(t *testing.T, s *plan.Shape, list []plan.Worker, p *plan.Plan) {
	t.Helper()
	require.True(t, p.OK(), "%v", p.Reasons)
	at := model.Cut{}
	held := map[string]bool{}
	capacity := map[string]int64{}
	for _, w := range list {
		capacity[w.ID] = w.Bytes
	}
	total := int64(0)
	for _, st := range p.Stages {
		require.Equal(t, at, st.Span.From)
		require.True(t, st.Span.From.Before(st.Span.To))
		require.NoError(t, s.Config.CheckSpan(st.Span))
		require.False(t, held[st.Worker], "%s has two parts", st.Worker)
		held[st.Worker] = true
		require.LessOrEqual(t, st.Bytes, capacity[st.Worker])
		at = st.Span.To
		total += st.Bytes
	}
	require.Equal(t, model.Cut{Layer: s.Config.Layers}, at)
	require.Equal(t, s.Bytes(), total)
	require.NotEmpty(t, p.Reasons)
	require.Positive(t, p.TokS)
}

func TestArithmeticOfIntellect3(t *testing.T) {
	s := air(t)
	require.InDelta(t, 60.19e9, float64(s.Bytes()+s.Ends), 0.01e9)
	require.InDelta(t, 7.29e9, float64(s.ReadPerToken())+0.349e9, 0.02e9, "with the head")
	var text bytes.Buffer
	plan.Describe(&text, s, nil, plan.Auto, plan.Slots{Slots: 1, Positions: 4096, KV: quant.F16})
	require.Contains(t, text.String(), "60.2 GB")
	require.Contains(t, text.String(), "7.3 GB")
	require.Contains(t, text.String(), "188416 bytes")
	require.Regexp(t, `one machine with 64 GB +yes`, text.String())
	require.Regexp(t, `one machine with 8 GB +no: needs`, text.String())
}

// Thirty-one tabs of two gigabytes hold a model whose layers are 1.3 GB each
// only with cuts inside layers.
func TestCutsInsideLayers(t *testing.T) {
	s := air(t)
	list := workers(34, 2, 30)
	p := plan.Make(s, list, plan.Auto, slots)
	check(t, s, list, p)
	inside := 0
	for _, st := range p.Stages {
		if st.Span.To.Inside() {
			inside++
		}
	}
	require.Greater(t, inside, 10)
}

func TestAutoLeavesSlowHopsInReserve(t *testing.T) {
	s := small(12)
	list := workers(3, 8, 50)
	list[1].HopMs, list[2].HopMs = 500, 500
	p := plan.Make(s, list, plan.Auto, slots)
	check(t, s, list, p)
	require.Len(t, p.Stages, 1)
	require.Equal(t, "w000", p.Stages[0].Worker)
}

func TestSpreadUsesEveryoneBySpeed(t *testing.T) {
	s := small(24)
	list := workers(4, 8, 10)
	list[2].ReadGBs = 40
	p := plan.Make(s, list, plan.Spread, slots)
	check(t, s, list, p)
	require.Len(t, p.Stages, 4)
	layers := map[string]int{}
	for _, st := range p.Stages {
		layers[st.Worker] = st.Span.To.Layer - st.Span.From.Layer
	}
	require.Greater(t, layers["w002"], layers["w000"])
	// More workers than layers: the rest waits.
	many := workers(30, 8, 10)
	p = plan.Make(s, many, plan.Spread, slots)
	check(t, s, many, p)
	require.Len(t, p.Stages, 24)
}

func TestWhatIsMissing(t *testing.T) {
	s := air(t)
	p := plan.Make(s, workers(2, 8, 40), plan.Auto, slots)
	require.False(t, p.OK())
	require.InDelta(t, 43.6e9, float64(p.Missing), 1e9)
	require.Contains(t, p.Reasons[1], "more like w000")
	require.False(t, plan.Make(s, nil, plan.Auto, slots).OK())
}

func TestSmallRoomsGetSmallerConversations(t *testing.T) {
	s := small(12)
	wish := plan.Slots{Slots: 64, Positions: 2048, KV: quant.F16, Round: true}
	list := workers(1, float64(s.Bytes())/1e9+0.05, 40)
	p := plan.Make(s, list, plan.Auto, wish)
	check(t, s, list, p)
	require.Less(t, p.Slots.Slots, 64)
	require.Contains(t, fmt.Sprint(p.Reasons), "memory allows")
}

// brute tries every way to give consecutive layers to the workers in turn.
func brute(s *plan.Shape, list []plan.Worker) float64 {
	best := math.Inf(1)
	kv := int64(2*s.Config.KVDim()*2) * int64(slots.Positions)
	var try func(k, layer int, ms float64)
	try = func(k, layer int, ms float64) {
		if layer == s.Config.Layers {
			best = math.Min(best, ms)
			return
		}
		if k == len(list) {
			return
		}
		try(k+1, layer, ms)
		need, read := int64(0), int64(0)
		for end := layer; end < s.Config.Layers; end++ {
			need += s.Layers[end].Bytes() + kv
			read += s.Layers[end].Read()
			if need > list[k].Bytes {
				return
			}
			n := end - layer + 1
			try(k+1, end+1, ms+list[k].HopMs+float64(read)/(list[k].ReadGBs*1e6)+float64(n)*list[k].DispatchMs)
		}
	}
	try(0, 0, 0)
	return best
}

func TestEqualsBruteForce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	fitted := 0
	for range 300 {
		s := small(1 + r.IntN(7))
		var list []plan.Worker
		for i := range 1 + r.IntN(4) {
			id := fmt.Sprint(i)
			list = append(list, plan.Worker{ID: id, Name: id, Bytes: int64(r.IntN(40)) << 20, ReadGBs: 1 + 50*r.Float64(), DispatchMs: r.Float64(), HopMs: 5 * r.Float64()})
		}
		p := plan.Make(s, list, plan.Auto, slots)
		want := brute(s, list)
		if math.IsInf(want, 1) {
			continue // fits with smaller conversations, if at all
		}
		fitted++
		check(t, s, list, p)
		require.InDelta(t, want, p.Ms, 1e-6*want)
	}
	require.Greater(t, fitted, 50)
}

// Another worker never makes a plan worse.
func TestMoreIsNeverWorse(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	s := small(10)
	for range 50 {
		list := workers(1+r.IntN(5), 0.1, 5+20*r.Float64())
		before := plan.Make(s, list, plan.Auto, slots)
		more := append(append([]plan.Worker(nil), list...), plan.Worker{ID: "new", Name: "new", Bytes: int64(r.IntN(100)) << 20, ReadGBs: 1 + 50*r.Float64(), HopMs: 3})
		after := plan.Make(s, more, plan.Auto, slots)
		if before.OK() && before.Slots == after.Slots {
			require.True(t, after.OK())
			require.LessOrEqual(t, after.Ms, before.Ms+1e-9)
		}
	}
}

func TestLargeRoomsPlanInTime(t *testing.T) {
	s := air(t)
	for _, policy := range []plan.Policy{plan.Auto, plan.Spread} {
		list := workers(300, 1.2, 30)
		start := time.Now()
		p := plan.Make(s, list, policy, slots)
		require.Less(t, time.Since(start), 5*time.Second)
		check(t, s, list, p)
	}
}

func TestParsePolicy(t *testing.T) {
	p, err := plan.ParsePolicy("spread")
	require.NoError(t, err)
	require.Equal(t, plan.Spread, p)
	_, err = plan.ParsePolicy("magic")
	require.ErrorContains(t, err, "magic")
}
