package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/coordinator/api"
	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/ws"
	"github.com/potluck-llm/potluck/sample"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
)

// token admits the bench's own workers.
const token = "bench"

// runRoom measures through a chain of workers over real sockets on this
// machine: a coordinator, o.Workers workers that share the threads, and
// everything that a token passes on its way.
func runRoom(ctx context.Context, src shard.Source, o Options, r *Result) ([]sampleRun, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	room, address, stop, err := openRoom(ctx, src, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	threads := max(1, r.Threads/o.Workers)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	for i := range o.Workers {
		engine, err := kernel.New(kernel.Options{Threads: threads, Exact: o.Exact})
		if err != nil {
			return nil, err
		}
		r.Machine = fmt.Sprintf("%s/%s %s", runtime.GOOS, runtime.GOARCH, engine.Variant())
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer engine.Close()
			_ = worker.Run(ctx, lend(src, engine, address, fmt.Sprintf("worker-%d", i+1)))
		}()
	}
	if err := await(ctx, room, o.Workers); err != nil {
		return nil, err
	}
	r.LoadMs = milliseconds(time.Since(start))
	var runs []sampleRun
	tokens := prompt(o.Prompt, src.Manifest().Model.Vocab)
	for i := 0; i <= o.Runs; i++ {
		before := room.Snapshot()
		run, err := timeRoom(ctx, room, tokens, o.Gen)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			after := room.Snapshot()
			r.WireBytesPerToken = float64(after.WireBytes-before.WireBytes) / float64(o.Prompt+o.Gen)
			runs = append(runs, run)
			report(o.Log, i, o, run)
		}
	}
	r.BytesPerToken = BytesPerToken(src.Manifest(), o.KV, o.positions())
	r.describe(room.Snapshot())
	return runs, nil
}

func openRoom(ctx context.Context, src shard.Source, o Options) (room *hub.Hub, address string, stop func(), err error) {
	_, hash, err := shard.EncodeManifest(src.Manifest())
	if err != nil {
		return nil, "", nil, err
	}
	var engines []*kernel.Engine
	closeEngines := func() {
		for _, e := range engines {
			e.Close()
		}
	}
	for _, threads := range []int{1, o.Threads} {
		e, err := kernel.New(kernel.Options{Threads: threads, Exact: o.Exact})
		if err != nil {
			closeEngines()
			return nil, "", nil, err
		}
		engines = append(engines, e)
	}
	room, err = hub.Open(ctx, hub.Options{Source: src, Manifest: hash, Name: "bench", Policy: plan.Spread, Token: token,
		Slots: exec.SlotPlan{Slots: 1, Positions: o.Prompt + o.Gen + 2, KV: o.KV, Round: !o.Exact},
		Embed: cpu.New(cpu.Options{Engine: engines[0]}), Head: cpu.New(cpu.Options{Engine: engines[1]})})
	if err != nil {
		closeEngines()
		return nil, "", nil, err
	}
	handler, err := api.New(api.Options{Engine: room, Source: src, Name: "bench"})
	if err != nil {
		room.Close()
		closeEngines()
		return nil, "", nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		room.Close()
		closeEngines()
		return nil, "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return room, listener.Addr().String(), func() { room.Close(); _ = server.Close(); closeEngines() }, nil
}

func lend(src shard.Source, engine *kernel.Engine, address, name string) worker.Options {
	return worker.Options{
		Link: func(ctx context.Context) (link.Link, error) { return ws.Dial(ctx, "ws://"+address+"/v1/join", nil) },
		Hello: wire.Hello{Token: token, Name: name, Kind: "native", Backend: "cpu " + engine.Variant(),
			Capacity: wire.Capacity{Bytes: 1 << 40, ReadGBs: 20, DispatchMs: 0.01, Credit: 8, Threads: engine.Threads()}},
		NewExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
		Open:        func(context.Context, string) (shard.Source, func(), error) { return src, nil, nil },
	}
}

// await waits until every worker holds layers.
func await(ctx context.Context, room *hub.Hub, workers int) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		ready := 0
		for _, w := range room.Snapshot().Workers {
			if w.State == "ready" && w.LayerCount > 0 {
				ready++
			}
		}
		if ready == workers {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d workers hold layers after two minutes", ready, workers)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func timeRoom(ctx context.Context, room *hub.Hub, tokens []int32, gen int) (run sampleRun, err error) {
	sampler, err := sample.New(sample.Params{}, kernel.Logits{})
	if err != nil {
		return run, err
	}
	start := time.Now()
	stream, err := room.Generate(ctx, hub.Request{Prompt: tokens, MaxTokens: gen + 1, Sampler: sampler})
	if err != nil {
		return run, err
	}
	defer stream.Close()
	count := 0
	for {
		_, ok, err := stream.Next(ctx)
		if err != nil {
			return run, err
		}
		if !ok {
			break
		}
		if count++; count == 1 {
			run.first = time.Since(start)
			start = time.Now()
		}
	}
	run.decode = time.Since(start)
	if count != gen+1 {
		return run, errors.New("the answer ended early")
	}
	return run, nil
}

// describe adds what the room shows of itself.
func (r *Result) describe(s hub.Snapshot) {
	for _, id := range s.Chains[0] {
		for _, w := range s.Workers {
			if w.ID != id {
				continue
			}
			r.WeightBytes += w.BytesTotal
			layers := fmt.Sprintf("%d to %d", w.LayerFirst, w.LayerFirst+w.LayerCount-1)
			r.Hops = append(r.Hops, Hop{w.Name, layers, w.HopMs.Queue, w.HopMs.Wire, w.HopMs.Compute, w.HopMs.Readback})
		}
	}
}
