// Package exectest holds every executor to the same suite: the reference's
// numbers for each architecture, the same bits however the model is split, and
// the rules of slots.
//
// The reference is an independent implementation; its checkpoints, logits and
// hidden states lie in testdata/models at the top of the repository.
package exectest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// Options describe the executor under test.
type Options struct {
	// New returns an executor without a span.
	New func() exec.Executor
	// Ends tells whether it computes embedding, head and prediction layer
	// itself; otherwise a CPU does, as the coordinator's.
	Ends bool
	// Tolerance is the largest relative L2 error of a sequence's logits and
	// hidden states at f32 weights and activations.
	Tolerance float64
	// Quantised is the same at quantised weights, whose products may quantise
	// activations too; 0: Tolerance.
	Quantised float64
	// Models are the folders of testdata/models to run; nil: all of them. The
	// files of testdata/gguf always run.
	Models []string
}

// Run runs the whole suite.
func Run(t *testing.T, o Options) {
	models := o.Models
	if models == nil {
		models = ModelNames(t)
	}
	for _, name := range models {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, o, name)
			t.Run("golden", b.golden)
			t.Run("decode", b.decode)
			t.Run("splits", b.splits)
			t.Run("together", b.together)
		})
	}
	for name, golden := range GGUFNames(t) {
		t.Run("gguf/"+name, func(t *testing.T) {
			store, err := OpenGGUF(Testdata("gguf", name), quant.F32)
			require.NoError(t, err)
			newBenchOf(t, o, store, Testdata(golden)).golden(t)
		})
	}
	b := newBench(t, o, "glm4moe")
	t.Run("types", b.types)
	t.Run("slots", b.slots)
	t.Run("refusals", b.refusals)
}

// Testdata is the path of a file below testdata at the top of the repository.
func Testdata(parts ...string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(append([]string{filepath.Dir(file), "..", "..", "testdata"}, parts...)...)
}

// ModelNames lists the checkpoints in testdata/models.
func ModelNames(t testing.TB) []string {
	entries, err := os.ReadDir(Testdata("models"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	require.Subset(t, names, cases(t), "testdata/models lacks cases of its versions.json")
	return names
}

// cases lists the checkpoints that there must be, so that a lost folder is no
// case left out.
func cases(t testing.TB) (names []string) {
	var index struct {
		Cases map[string]any `json:"cases"`
	}
	data, err := os.ReadFile(Testdata("models", "versions.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &index))
	for name := range index.Cases {
		names = append(names, name)
	}
	require.NotEmpty(t, names)
	return names
}

// GGUFNames lists the files of testdata/gguf that hold a model (the first of
// each split one), with the golden that belongs to each.
func GGUFNames(t testing.TB) map[string]string {
	var index struct {
		Files map[string]struct {
			Golden string `json:"golden"`
			Split  int    `json:"split"`
		} `json:"files"`
	}
	data, err := os.ReadFile(Testdata("gguf", "files.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &index))
	names := map[string]string{}
	for name, f := range index.Files {
		file := name + ".gguf"
		if f.Split > 0 {
			file = fmt.Sprintf("%s-00001-of-%05d.gguf", name, f.Split)
		}
		if !strings.HasSuffix(f.Golden, ".safetensors") {
			f.Golden += "/golden.safetensors"
		}
		names[file] = f.Golden
	}
	require.NotEmpty(t, names)
	return names
}

// Exact is an engine that multiplies f32 as it is, for the parts of a chain
// that are not under test. It is closed with the test.
func Exact(t testing.TB) *kernel.Engine {
	e, err := kernel.New(kernel.Options{Threads: 1, Variant: "reference", Exact: true})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// bench is one checkpoint, its golden and the executor under test.
type bench struct {
	o      Options
	store  *shard.Memory
	config *model.Config
	want   *Golden
	engine *kernel.Engine
}

func newBench(t *testing.T, o Options, name string) *bench {
	folder := Testdata("models", name)
	store, err := OpenFolder(folder, quant.F32)
	require.NoError(t, err)
	return newBenchOf(t, o, store, filepath.Join(folder, "golden.safetensors"))
}

func newBenchOf(t *testing.T, o Options, store *shard.Memory, golden string) *bench {
	config := store.Manifest().Model
	want, err := OpenGolden(golden, config.Layers)
	require.NoError(t, err)
	return &bench{o, store, config, want, Exact(t)}
}

// exactPlan is room for a few short sequences with nothing rounded.
var exactPlan = exec.SlotPlan{Slots: 4, Positions: 64, KV: quant.F32}

// roundedPlan is the same as rooms run it.
var roundedPlan = exec.SlotPlan{Slots: 4, Positions: 64, KV: quant.F16, Round: true}

// chain loads executors for the spans between the given cuts, with embedding
// and head at the ends.
func (b *bench) chain(t *testing.T, src shard.Source, plan exec.SlotPlan, cuts ...model.Cut) *exec.Chain {
	ends := []model.Cut{{}}
	ends = append(append(ends, cuts...), model.Cut{Layer: b.config.Layers})
	var executors []exec.Executor
	load := func(x exec.Executor, span model.Span) {
		require.NoError(t, x.Load(context.Background(), span, plan, src, nil), "%v", span)
		executors = append(executors, x)
	}
	last := ends[len(ends)-1]
	if !b.o.Ends {
		load(cpu.New(cpu.Options{Engine: b.engine}), model.Span{Embed: true})
	}
	for i := 1; i < len(ends); i++ {
		load(b.o.New(), model.Span{From: ends[i-1], To: ends[i], Embed: b.o.Ends && i == 1, Head: b.o.Ends && i == len(ends)-1})
	}
	if !b.o.Ends {
		load(cpu.New(cpu.Options{Engine: b.engine}), model.Span{From: last, To: last, Head: true})
	}
	c := exec.NewChain(executors...)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// rowsOf makes rows for tokens of a sequence from position first on.
func rowsOf(slot int32, epoch uint32, first, count int) []exec.Row {
	rows := make([]exec.Row, count)
	for i := range rows {
		rows[i] = exec.Row{Slot: slot, Epoch: epoch, Pos: int32(first + i)}
	}
	return rows
}

// pass makes a pass of tokens that wants logits of every row.
func pass(slot int32, epoch uint32, first int, tokens []int32) *exec.Pass {
	p := &exec.Pass{Tokens: tokens}
	p.Rows = rowsOf(slot, epoch, first, len(tokens))
	for i := range tokens {
		p.Want = append(p.Want, int32(i))
	}
	return p
}

func logitsOf(t *testing.T, c *exec.Chain, p *exec.Pass) []float32 {
	var out exec.Pass
	require.NoError(t, c.Step(context.Background(), p, &out))
	return append([]float32(nil), out.Logits...)
}

// RelativeL2 is |got - want| / |want|.
func RelativeL2(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(diff / norm)
}

func near(t *testing.T, got, want []float32, tolerance float64, format string, args ...any) {
	t.Helper()
	if e := RelativeL2(got, want); !(e <= tolerance) {
		t.Errorf("%s: relative L2 error %.2e, want at most %.0e", fmt.Sprintf(format, args...), e, tolerance)
	}
}

// golden compares logits, hidden states and the prediction layer with the
// reference, each sequence in one pass.
func (b *bench) golden(t *testing.T) {
	c := b.chain(t, b.store, exactPlan)
	for s, tokens := range b.want.Inputs {
		p := pass(int32(s), 1, 0, tokens)
		traced := map[int][]float32{}
		if b.o.Ends {
			p.Trace = func(i int, hidden []float32) { traced[i] = append([]float32(nil), hidden...) }
		}
		var out exec.Pass
		require.NoError(t, c.Step(context.Background(), p, &out))
		near(t, out.Logits, b.want.Logits[s], b.o.Tolerance, "sequence %d: logits", s)
		near(t, out.Final, b.want.Hidden[b.config.Layers][s], b.o.Tolerance, "sequence %d: final state", s)
		if b.o.Ends {
			require.Len(t, traced, b.config.Layers+1)
			for i, h := range b.want.Hidden {
				near(t, traced[i], h[s], b.o.Tolerance, "sequence %d: hidden state %d", s, i)
			}
		} else {
			b.hiddenStates(t, s, tokens)
		}
		if b.want.MTPLogits != nil {
			require.True(t, b.config.MTP)
			if b.o.Ends {
				b.prediction(t, s, tokens, out.Final)
			}
		}
	}
}

// hiddenStates compares each layer's rows by cutting the model after it.
func (b *bench) hiddenStates(t *testing.T, s int, tokens []int32) {
	for layer := 0; layer+1 < b.config.Layers; layer++ {
		x := b.o.New()
		span := model.Span{From: model.Cut{Layer: layer}, To: model.Cut{Layer: layer + 1}}
		require.NoError(t, x.Load(context.Background(), span, exactPlan, b.store, nil))
		in := &exec.Pass{}
		in.Rows, in.Hidden = rowsOf(0, 1, 0, len(tokens)), b.want.Hidden[layer][s]
		var out exec.Pass
		require.NoError(t, x.Step(context.Background(), in, &out))
		near(t, out.Hidden, b.want.Hidden[layer+1][s], b.o.Tolerance, "sequence %d: hidden state %d", s, layer+1)
		require.NoError(t, x.Close())
	}
}

func (b *bench) prediction(t *testing.T, s int, tokens []int32, final []float32) {
	x := b.o.New()
	last := model.Cut{Layer: b.config.Layers}
	require.NoError(t, x.Load(context.Background(), model.Span{From: last, To: last, MTP: true}, exactPlan, b.store, nil))
	defer x.Close()
	n := len(tokens) - 1
	p := pass(0, 1, 0, tokens[1:])
	p.Hidden = final[:n*b.config.Hidden]
	var out exec.Pass
	require.NoError(t, x.Step(context.Background(), p, &out))
	near(t, out.Final, b.want.MTPHidden[s], b.o.Tolerance, "sequence %d: prediction layer's state", s)
	near(t, out.Logits, b.want.MTPLogits[s], b.o.Tolerance, "sequence %d: prediction layer's logits", s)
}

// decode compares token by token, and odd chunks, with the reference.
func (b *bench) decode(t *testing.T) {
	c := b.chain(t, b.store, exactPlan)
	tokens := b.want.Inputs[0]
	for epoch, chunk := range []int{1, 2, 5, 11} {
		var got []float32
		for first := 0; first < len(tokens); first += chunk {
			end := min(first+chunk, len(tokens))
			got = append(got, logitsOf(t, c, pass(0, uint32(epoch+1), first, tokens[first:end]))...)
		}
		near(t, got, b.want.Logits[0], b.o.Tolerance, "%d tokens at a time", chunk)
	}
}

// splits asks for the same bits from 1 to 8 spans, and from cuts inside layers.
func (b *bench) splits(t *testing.T) {
	tokens := b.want.Inputs[0]
	run := func(cuts ...model.Cut) []float32 {
		c := b.chain(t, b.store, roundedPlan, cuts...)
		got := logitsOf(t, c, pass(0, 1, 0, tokens[:20]))
		return append(got, logitsOf(t, c, pass(0, 1, 20, tokens[20:21]))...)
	}
	want := run()
	near(t, want, b.want.Logits[0][:len(want)], 2e-2, "f16 activations") // about 1e-3, but an expert may change
	for n := 2; n <= 8; n++ {
		if n == 6 || n == 7 {
			continue
		}
		var cuts []model.Cut
		for i := 1; i < n; i++ {
			cuts = append(cuts, model.Cut{Layer: b.config.Layers * i / n})
		}
		require.Equal(t, want, run(cuts...), "%d spans", n)
	}
	if b.config.MoE == nil {
		return
	}
	layer, experts := b.config.Layers-1, b.config.MoE.Experts
	for _, cuts := range [][]model.Cut{
		{{Layer: layer, Expert: 1}, {Layer: layer, Expert: experts - 1}},
		{{Layer: layer, Expert: experts / 2}},
		{{Layer: layer, Expert: experts/2 + 1}, {Layer: layer, Expert: experts/2 + 2}},
		{{Layer: b.config.MoE.DenseFirst, Expert: 3}, {Layer: layer, Expert: 2}},
	} {
		if cuts[0] == cuts[len(cuts)-1] && len(cuts) > 1 || len(cuts) > 1 && cuts[1].Before(cuts[0]) {
			continue
		}
		require.Equal(t, want, run(cuts...), "cuts at %v", cuts)
	}
}

// together runs two sequences in the same passes and asks for what each gives
// by itself.
func (b *bench) together(t *testing.T) {
	c := b.chain(t, b.store, exactPlan)
	one, two := b.want.Inputs[0], b.want.Inputs[1]
	both := &exec.Pass{Tokens: append(append([]int32(nil), one[:9]...), two[:14]...)}
	both.Rows = append(rowsOf(2, 7, 0, 9), rowsOf(0, 3, 0, 14)...)
	logitsOf(t, c, both)
	step := &exec.Pass{Tokens: []int32{one[9], two[14], two[15]}, Want: []int32{0, 2}}
	step.Rows = []exec.Row{{Slot: 2, Epoch: 7, Pos: 9}, {Slot: 0, Epoch: 3, Pos: 14}, {Slot: 0, Epoch: 3, Pos: 15}}
	got := logitsOf(t, c, step)
	v := b.config.Vocab
	require.Len(t, got, 2*v)
	near(t, got[:v], b.want.Logits[0][9*v:10*v], b.o.Tolerance, "first sequence")
	near(t, got[v:], b.want.Logits[1][15*v:16*v], b.o.Tolerance, "second sequence")
}

// types runs the narrower weights against the same weights decoded, so only
// the arithmetic differs.
func (b *bench) types(t *testing.T) {
	folder := Testdata("models", "glm4moe")
	for _, typ := range []quant.Type{quant.F16, quant.BF16, quant.Q8_0, quant.Q6_0, quant.Q4_1, quant.Q4_0} {
		t.Run(typ.String(), func(t *testing.T) {
			store, err := OpenFolder(folder, typ)
			require.NoError(t, err)
			decoded, err := shard.Recode(context.Background(), store, quant.F32)
			require.NoError(t, err)
			p := pass(0, 1, 0, b.want.Inputs[0][:16])
			reference := &bench{Options{New: func() exec.Executor { return cpu.New(cpu.Options{Engine: b.engine}) }, Ends: true}, decoded, b.config, b.want, b.engine}
			want := logitsOf(t, reference.chain(t, decoded, exactPlan), p)
			got := logitsOf(t, b.chain(t, store, exactPlan), p)
			tolerance := b.o.Tolerance
			if typ.Quantised() && b.o.Quantised > 0 {
				tolerance = b.o.Quantised
			}
			near(t, got, want, tolerance, "logits")
		})
	}
}

// slots holds the executor to the rule of ErrStaleSlot.
func (b *bench) slots(t *testing.T) {
	c := b.chain(t, b.store, exactPlan)
	tokens := b.want.Inputs[0]
	v := b.config.Vocab
	step := func(p *exec.Pass) error {
		var out exec.Pass
		return c.Step(context.Background(), p, &out)
	}
	require.NoError(t, step(pass(0, 5, 0, tokens[:8])))
	for name, stale := range map[string]*exec.Pass{
		"a hole":              pass(0, 5, 9, tokens[9:10]),
		"a repeat":            pass(0, 5, 7, tokens[7:8]),
		"another epoch":       pass(0, 6, 8, tokens[8:9]),
		"a slot never begun":  pass(1, 1, 3, tokens[3:4]),
		"the same use, again": pass(0, 5, 0, tokens[:4]),
	} {
		err := step(stale)
		require.ErrorIs(t, err, exec.ErrStaleSlot, name)
	}
	near(t, logitsOf(t, c, pass(0, 5, 8, tokens[8:10])), b.want.Logits[0][8*v:10*v], b.o.Tolerance, "after refusals")

	c.Trim(0, 4)
	near(t, logitsOf(t, c, pass(0, 5, 4, tokens[4:6])), b.want.Logits[0][4*v:6*v], b.o.Tolerance, "after a trim")
	c.Trim(0, 0)
	near(t, logitsOf(t, c, pass(0, 5, 0, tokens[:6])), b.want.Logits[0][:6*v], b.o.Tolerance, "freed, same epoch")
	near(t, logitsOf(t, c, pass(0, 9, 0, b.want.Inputs[1][:6])), b.want.Logits[1][:6*v], b.o.Tolerance, "a new epoch takes the slot")
}

// refusals asks for an error, and no harm, from malformed passes.
func (b *bench) refusals(t *testing.T) {
	x := b.o.New()
	var out exec.Pass
	require.Error(t, x.Step(context.Background(), &exec.Pass{}, &out), "before Load")
	require.Error(t, x.Load(context.Background(), model.Span{From: model.Cut{Layer: 2}, To: model.Cut{Layer: 1}}, exactPlan, b.store, nil), "backwards")
	require.Error(t, x.Load(context.Background(), model.Span{To: model.Cut{Layer: 99}}, exactPlan, b.store, nil), "too long")
	require.Error(t, x.Load(context.Background(), model.Span{To: model.Cut{Layer: 1}}, exec.SlotPlan{}, b.store, nil), "no slots")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, x.Load(cancelled, model.Span{To: model.Cut{Layer: 1}}, exactPlan, b.store, nil), context.Canceled)

	require.NoError(t, x.Load(context.Background(), model.Span{To: model.Cut{Layer: 1}}, exactPlan, b.store, nil))
	good := &exec.Pass{}
	good.Rows, good.Hidden = rowsOf(0, 1, 0, 2), make([]float32, 2*b.config.Hidden)
	for i := range good.Hidden {
		good.Hidden[i] = float32(i%7) - 3
	}
	change := func(f func(p *exec.Pass)) *exec.Pass {
		p := *good
		p.Rows = append([]exec.Row(nil), good.Rows...)
		f(&p)
		return &p
	}
	for name, bad := range map[string]*exec.Pass{
		"too few values":      change(func(p *exec.Pass) { p.Hidden = p.Hidden[1:] }),
		"tokens":              change(func(p *exec.Pass) { p.Tokens = []int32{1, 2} }),
		"a slot too many":     change(func(p *exec.Pass) { p.Rows[1].Slot = 4 }),
		"a negative slot":     change(func(p *exec.Pass) { p.Rows[1].Slot = -1 }),
		"a position too many": change(func(p *exec.Pass) { p.Rows[1].Pos = 64 }),
		"a wanted row":        change(func(p *exec.Pass) { p.Want = []int32{2} }),
		"experts":             change(func(p *exec.Pass) { p.Chosen = []int32{1} }),
	} {
		require.Error(t, x.Step(context.Background(), bad, &out), name)
	}
	require.True(t, errors.Is(x.Step(cancelled, good, &out), context.Canceled))
	require.NoError(t, x.Step(context.Background(), good, &out), "still serves")
	require.Len(t, out.Hidden, len(good.Hidden))
	require.NoError(t, x.Close())
}
