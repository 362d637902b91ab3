package hub_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/local"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/mem"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/sample"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "test-token"

// slots is the room for sequences in these tests.
var slots = exec.SlotPlan{Slots: 4, Positions: 128, KV: quant.F16, Round: true}

// prompt is "Once upon a time, there was a little fox named Ada."
var prompt = []int32{3242, 3244, 302, 419, 264, 392, 11, 428, 272, 264, 391, 427, 481, 379, 13}

type room struct {
	t   *testing.T
	src shard.Source
	hub *hub.Hub
}

func newEngine(t *testing.T) *kernel.Engine {
	e, err := kernel.New(kernel.Options{Threads: 1})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

func open(t *testing.T, policy plan.Policy, change ...func(o *hub.Options)) *room {
	src, err := embedded.Open()
	require.NoError(t, err)
	_, hash, err := shard.EncodeManifest(src.Manifest())
	require.NoError(t, err)
	o := hub.Options{
		Source: src, Manifest: hash, Name: "tiny", Policy: policy, Slots: slots, Token: token,
		Embed: cpu.New(cpu.Options{Engine: newEngine(t)}), Head: cpu.New(cpu.Options{Engine: newEngine(t)}),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&o)
	}
	h, err := hub.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return &room{t, src, h}
}

// join lends a worker to the room; stop makes it leave in order, kill cuts its
// connection for good. Its executor may be wrapped.
func (r *room) join(name string, bytes int64, wrap ...func(exec.Executor) exec.Executor) (stop, kill func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	engine := newEngine(r.t)
	var mu sync.Mutex
	var current link.Link
	dead := false
	wait.Add(1)
	go func() {
		defer wait.Done()
		_ = worker.Run(ctx, worker.Options{
			Link: func(context.Context) (link.Link, error) {
				mu.Lock()
				defer mu.Unlock()
				if dead {
					return nil, fmt.Errorf("%s is dead", name)
				}
				here, there := mem.Pair(mem.Options{})
				current = here
				wait.Add(1)
				go func() { defer wait.Done(); _ = r.hub.Serve(ctx, there, name) }()
				return here, nil
			},
			Hello: wire.Hello{Token: token, Name: name, Kind: "native", Backend: "cpu reference",
				Capacity: wire.Capacity{Bytes: bytes, ReadGBs: 10, DispatchMs: 0.01, Credit: 4}},
			NewExecutor: func() (exec.Executor, error) {
				var x exec.Executor = cpu.New(cpu.Options{Engine: engine})
				for _, f := range wrap {
					x = f(x)
				}
				return x, nil
			},
			Open: func(context.Context, string) (shard.Source, func(), error) { return r.src, nil, nil },
		})
	}()
	end := func() { cancel(); wait.Wait() }
	r.t.Cleanup(end)
	return end, func() {
		mu.Lock()
		dead = true
		_ = current.Close("killed")
		mu.Unlock()
	}
}

func (r *room) await(what string, ok func(hub.Snapshot) bool) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return ok(r.hub.Snapshot()) }, 10*time.Second, 5*time.Millisecond, what)
}

func holding(n int) func(hub.Snapshot) bool {
	return func(s hub.Snapshot) bool {
		count := 0
		for _, w := range s.Workers {
			if w.State == "ready" && w.LayerCount > 0 {
				count++
			}
		}
		return count == n && s.PredictedTokS > 0
	}
}

func greedy(t *testing.T) *sample.Sampler {
	s, err := sample.New(sample.Params{}, sample.Plain{})
	require.NoError(t, err)
	return s
}

// ask returns an answer's tokens; each is called after every one.
func (r *room) ask(prompt []int32, n int, each func(i int)) []int32 {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := r.hub.Generate(ctx, hub.Request{Prompt: prompt, MaxTokens: n, Sampler: greedy(r.t)})
	require.NoError(r.t, err)
	defer s.Close()
	var ids []int32
	for {
		tok, ok, err := s.Next(ctx)
		require.NoError(r.t, err)
		if !ok {
			return ids
		}
		ids = append(ids, tok.ID)
		if each != nil {
			each(len(ids))
		}
	}
}

// local is what one process gives.
func (r *room) local(prompt []int32, n int) []int32 {
	run, err := local.Open(context.Background(), r.src, newEngine(r.t), slots, nil)
	require.NoError(r.t, err)
	defer run.Close()
	s := greedy(r.t)
	var ids []int32
	require.NoError(r.t, run.Generate(context.Background(), prompt, func(l []float32) (int32, error) { return s.Sample(l, nil) },
		func(id int32) bool { ids = append(ids, id); return len(ids) < n }))
	return ids
}

const gib = 1 << 30

func TestChainAnswersLikeOneProcess(t *testing.T) {
	r := open(t, plan.Spread)
	want := r.local(prompt, 40)
	for i := range 3 {
		r.join(fmt.Sprint("worker", i), gib)
	}
	r.await("three hold layers", holding(3))
	require.Equal(t, want, r.ask(prompt, 40, nil))
}

func TestCutsInsideLayers(t *testing.T) {
	r := open(t, plan.Spread)
	want := r.local(prompt, 20)
	for i := range 11 {
		r.join(fmt.Sprint("worker", i), gib)
	}
	r.await("eleven hold parts of eight layers", holding(11))
	require.Equal(t, want, r.ask(prompt, 20, nil))
}

// A hold stops a worker's passes once: the nth from when left was set to n, until it
// is let go.
type hold struct {
	left atomic.Int64
	free chan struct{}
}

type heldExecutor struct {
	exec.Executor
	*hold
}

func (h heldExecutor) Step(ctx context.Context, in, out *exec.Pass) error {
	if h.left.Add(-1) == 0 {
		select {
		case <-h.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.Executor.Step(ctx, in, out)
}

func TestLosingAWorkerInTheMiddle(t *testing.T) {
	for _, how := range []string{"leaves", "is killed"} {
		t.Run(how, func(t *testing.T) {
			r := open(t, plan.Spread)
			want := r.local(prompt, 40)
			r.join("ana", gib)
			h := &hold{free: make(chan struct{})}
			stop, kill := r.join("ben", gib, func(x exec.Executor) exec.Executor { return heldExecutor{x, h} })
			r.join("cai", gib)
			r.await("three hold layers", holding(3))
			h.left.Store(7) // before, its layers were tried
			done := make(chan []int32, 1)
			go func() { done <- r.ask(prompt, 40, nil) }()
			r.await("ben is in a pass", func(hub.Snapshot) bool { return h.left.Load() <= 0 })
			if how == "leaves" {
				stop()
			} else {
				kill()
			}
			r.await("the chain lost one", func(s hub.Snapshot) bool { return s.Losses >= 1 })
			close(h.free)
			require.Equal(t, want, <-done)
			r.await("two hold layers", holding(2))
		})
	}
}

func TestJoiningInTheMiddle(t *testing.T) {
	r := open(t, plan.Spread)
	want := r.local(prompt, 60)
	r.join("ana", gib)
	r.await("one holds layers", holding(1))
	got := r.ask(prompt, 60, func(i int) {
		if i == 5 {
			r.join("ben", gib)
			r.await("two hold layers", holding(2))
		}
	})
	require.Equal(t, want, got)
}

func TestManyAtOnce(t *testing.T) {
	r := open(t, plan.Spread)
	r.join("ana", gib)
	r.join("ben", gib)
	r.await("two hold layers", holding(2))
	var wait sync.WaitGroup
	for i := range 7 { // more than there are slots
		p := append(append([]int32(nil), prompt[:5+i]...), 264)
		want := r.local(p, 25)
		wait.Add(1)
		go func() {
			defer wait.Done()
			if got := r.ask(p, 25, nil); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("request %d: got %v, want %v", i, got, want)
			}
		}()
	}
	wait.Wait()
	r.await("no request is left", func(s hub.Snapshot) bool { return s.Active == 0 && s.Queued == 0 })
}

func TestWaitingForMemory(t *testing.T) {
	r := open(t, plan.Auto)
	done := make(chan []int32)
	go func() { done <- r.ask(prompt, 5, nil) }()
	r.join("phone", 2<<20)
	r.await("the room says what it lacks", func(s hub.Snapshot) bool { return s.Model.Missing > 0 && s.Queued == 1 })
	r.join("laptop", gib)
	require.Equal(t, r.local(prompt, 5), <-done)
}

func TestAClientThatGoesFreesItsSlot(t *testing.T) {
	r := open(t, plan.Auto)
	r.join("ana", gib)
	r.await("ready", holding(1))
	s, err := r.hub.Generate(context.Background(), hub.Request{Prompt: prompt, MaxTokens: 100, Sampler: greedy(t)})
	require.NoError(t, err)
	_, ok, err := s.Next(context.Background())
	require.NoError(t, err)
	require.True(t, ok)
	s.Close()
	r.await("nothing runs", func(s hub.Snapshot) bool { return s.Active == 0 && s.Queued == 0 })
}

// strangers send what no worker may; each gets one error, and the room serves on.
func TestStrangers(t *testing.T) {
	r := open(t, plan.Auto)
	r.join("ana", gib)
	r.await("ready", holding(1))
	hello := func(change func(h *wire.Hello)) link.Message {
		h := &wire.Hello{Version: wire.Version, Token: token, Name: "eve", Kind: "native"}
		change(h)
		data, err := wire.EncodeControl(h)
		require.NoError(t, err)
		return link.Message{Data: data}
	}
	pass, err := wire.AppendPass(nil, &wire.PassFrame{State: wire.State{Rows: []wire.Row{{}}, Hidden: []float32{1}}}, true)
	require.NoError(t, err)
	control := func(m any) link.Message {
		data, err := wire.EncodeControl(m)
		require.NoError(t, err)
		return link.Message{Data: data}
	}
	good := hello(func(*wire.Hello) {})
	for name, c := range map[string]struct {
		code     string
		messages []link.Message
	}{
		"wrong token":         {"token", []link.Message{hello(func(h *wire.Hello) { h.Token = "guess" })}},
		"wrong version":       {"version", []link.Message{hello(func(h *wire.Hello) { h.Version = 9 })}},
		"long name":           {"protocol", []link.Message{hello(func(h *wire.Hello) { h.Name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" })}},
		"unknown kind":        {"protocol", []link.Message{hello(func(h *wire.Hello) { h.Kind = "toaster" })}},
		"absurd capacity":     {"protocol", []link.Message{hello(func(h *wire.Hello) { h.Capacity.Bytes = -1 })}},
		"no JSON":             {"protocol", []link.Message{{Data: []byte("hi")}}},
		"not UTF-8":           {"protocol", []link.Message{{Data: []byte("{\"type\":\"hello\xff\"}")}}},
		"a pass first":        {"protocol", []link.Message{{Binary: true, Data: pass}}},
		"ready first":         {"protocol", []link.Message{control(&wire.Ready{})}},
		"hello twice":         {"protocol", []link.Message{good, good}},
		"a pass, no result":   {"protocol", []link.Message{good, {Binary: true, Data: pass}}},
		"half a frame":        {"protocol", []link.Message{good, {Binary: true, Data: pass[:20]}}},
		"a flipped bit":       {"protocol", []link.Message{good, {Binary: true, Data: append(append([]byte(nil), pass[:50]...), append([]byte{pass[50] ^ 1}, pass[51:]...)...)}}},
		"unknown type":        {"protocol", []link.Message{good, {Data: []byte(`{"type":"dance"}`)}}},
		"assign from below":   {"protocol", []link.Message{good, control(&wire.Assign{Slots: slots})}},
		"pong to nothing":     {"protocol", []link.Message{good, control(&wire.Pong{Nonce: 99})}},
		"impossible progress": {"protocol", []link.Message{good, control(&wire.Progress{Loaded: 5, Total: 2})}},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := mem.Pair(mem.Options{})
			served := make(chan error, 1)
			go func() { served <- r.hub.Serve(context.Background(), there, "stranger") }()
			for _, m := range c.messages {
				require.NoError(t, here.Send(context.Background(), m))
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			for {
				m, err := here.Receive(ctx)
				require.NoError(t, err, "no error message came")
				message, err := wire.DecodeControl(m.Data)
				require.NoError(t, err)
				if e, ok := message.(*wire.Error); ok {
					require.Equal(t, c.code, e.Code, e.Message)
					require.NotEmpty(t, e.Message)
					break
				}
			}
			require.Error(t, <-served)
		})
	}
	require.Equal(t, r.local(prompt, 10), r.ask(prompt, 10, nil), "the room serves on")
}
