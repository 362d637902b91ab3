package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/mem"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var slots = wire.SlotPlan{Slots: 2, Positions: 32, KV: quant.F16, Round: true}

// A desk is a test in the coordinator's place: it meets the worker again and
// again, as often as that connects.
type desk struct {
	t      *testing.T
	src    shard.Source
	links  chan link.Link
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex
	states []string
	opened int   // stores
	closed int   // of them
	open   error // what opening one gives
}

func lend(t *testing.T) *desk {
	src, err := embedded.Open()
	require.NoError(t, err)
	engine, err := kernel.New(kernel.Options{Threads: 1})
	require.NoError(t, err)
	t.Cleanup(engine.Close)
	ctx, cancel := context.WithCancel(context.Background())
	d := &desk{t: t, src: src, links: make(chan link.Link, 1), cancel: cancel, ended: make(chan error, 1)}
	go func() {
		d.ended <- worker.Run(ctx, worker.Options{
			Link: func(ctx context.Context) (link.Link, error) {
				here, there := mem.Pair(mem.Options{})
				select {
				case d.links <- there:
					return here, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
			Hello:       wire.Hello{Token: "t", Name: "ana", Kind: "native", Capacity: wire.Capacity{Bytes: 1 << 30}},
			NewExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
			Open: func(context.Context, string) (shard.Source, func(), error) {
				d.mu.Lock()
				defer d.mu.Unlock()
				if d.open != nil {
					return nil, nil, d.open
				}
				d.opened++
				return d.src, func() {
					d.mu.Lock()
					defer d.mu.Unlock()
					d.closed++
				}, nil
			},
			Report: func(s worker.Status) {
				d.mu.Lock()
				defer d.mu.Unlock()
				if n := len(d.states); n == 0 || d.states[n-1] != s.State {
					d.states = append(d.states, s.State)
				}
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		_ = d.end()
		require.Equal(t, d.opened, d.closed, "a store was left open")
	})
	return d
}

// end waits for the worker and returns what Run did.
func (d *desk) end() error {
	select {
	case err := <-d.ended:
		d.ended <- err
		return err
	case <-time.After(10 * time.Second):
		d.t.Error("the worker does not end")
		return nil
	}
}

// A visit is one connection of the worker.
type visit struct {
	*desk
	l   link.Link
	ctx context.Context
}

// meet takes the next connection and its hello.
func (d *desk) meet() (*visit, *wire.Hello) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	d.t.Cleanup(cancel)
	v := &visit{desk: d, ctx: ctx}
	select {
	case v.l = <-d.links:
	case <-ctx.Done():
		d.t.Fatal("the worker does not come")
	}
	d.t.Cleanup(func() { _ = v.l.Close("bye") })
	return v, expect[*wire.Hello](v)
}

// welcome meets the worker and lets it in.
func (d *desk) welcome(heartbeatMs int) (*visit, *wire.Hello) {
	v, hello := d.meet()
	v.tell(&wire.Welcome{Version: wire.Version, Worker: "w1", Resume: "key", HeartbeatMs: heartbeatMs})
	return v, hello
}

func (v *visit) tell(m any) {
	v.t.Helper()
	data, err := wire.EncodeControl(m)
	require.NoError(v.t, err)
	require.NoError(v.t, v.l.Send(v.ctx, link.Message{Data: data}))
}

// expect returns the next message of that type; progress, statistics and pings
// may come before it.
func expect[T any](v *visit) T {
	v.t.Helper()
	for {
		m, err := v.l.Receive(v.ctx)
		require.NoError(v.t, err)
		require.False(v.t, m.Binary, "a result instead of a message")
		message, err := wire.DecodeControl(m.Data)
		require.NoError(v.t, err)
		if wanted, ok := message.(T); ok {
			return wanted
		}
		switch message.(type) {
		case *wire.Progress, *wire.Stats, *wire.Ping, *wire.Pong:
		default:
			v.t.Fatalf("the worker sends %s: %+v", wire.TypeOf(message), message)
		}
	}
}

// result returns the next result.
func (v *visit) result() *wire.PassFrame {
	v.t.Helper()
	for {
		m, err := v.l.Receive(v.ctx)
		require.NoError(v.t, err)
		if !m.Binary {
			message, err := wire.DecodeControl(m.Data)
			require.NoError(v.t, err)
			_, failed := message.(*wire.Failed)
			require.False(v.t, failed, "%+v", message)
			continue
		}
		frame := &wire.PassFrame{}
		require.NoError(v.t, wire.DecodePass(m.Data, frame))
		require.True(v.t, frame.Result)
		return frame
	}
}

func (v *visit) pass(id uint64, span uint32, pos int32) {
	v.t.Helper()
	hidden := make([]float32, v.src.Manifest().Model.Hidden)
	for i := range hidden {
		hidden[i] = float32(i%7) - 3
	}
	data, err := wire.AppendPass(nil, &wire.PassFrame{Pass: id, Span: span, State: wire.State{Rows: []wire.Row{{Slot: 0, Epoch: 1, Pos: pos}}, Hidden: hidden}}, true)
	require.NoError(v.t, err)
	require.NoError(v.t, v.l.Send(v.ctx, link.Message{Binary: true, Data: data}))
}

// assign gives the worker layers and waits until it has them.
func (v *visit) assign(number uint32, from, to int) *wire.Ready {
	v.tell(&wire.Assign{Span: number, Manifest: "m", Range: model.Span{From: model.Cut{Layer: from}, To: model.Cut{Layer: to}}, Slots: slots})
	ready := expect[*wire.Ready](v)
	require.Equal(v.t, number, ready.Span)
	return ready
}

func TestALifeInTheRoom(t *testing.T) {
	d := lend(t)
	v, hello := d.welcome(5000)
	require.Equal(t, "t", hello.Token)
	require.Equal(t, wire.Version, hello.Version)
	require.Empty(t, hello.Resume)
	ready := v.assign(1, 0, 3)
	require.Positive(t, ready.WeightBytes)
	require.Positive(t, ready.StepMs)

	v.pass(10, 1, 0)
	first := v.result()
	require.EqualValues(t, 10, first.Pass)
	require.EqualValues(t, 1, first.Span)
	require.Len(t, first.Hidden, d.src.Manifest().Model.Hidden)
	require.True(t, first.F16)
	v.pass(11, 1, 1)
	second := v.result()

	v.pass(12, 1, 5) // a hole
	require.Equal(t, "stale_slot", expect[*wire.Failed](v).Code)
	v.pass(13, 9, 0)
	failed := expect[*wire.Failed](v)
	require.Equal(t, "unknown_span", failed.Code)
	require.EqualValues(t, 13, failed.Pass)
	v.tell(&wire.Cancel{Pass: 14})
	v.pass(14, 1, 2)
	require.Equal(t, "cancelled", expect[*wire.Failed](v).Code)
	v.tell(&wire.Trim{Span: 1, Slot: 0, Length: 1}) // the second position again
	v.pass(15, 1, 1)
	require.Equal(t, second.Hidden, v.result().Hidden)
	v.tell(&wire.Trim{Span: 77, Slot: 0, Length: 0}) // of a span that is gone: nothing
	v.tell(&wire.Ping{Nonce: 42})
	require.EqualValues(t, 42, expect[*wire.Pong](v).Nonce)
	v.tell(&wire.Release{Span: 1})
	v.pass(16, 1, 2)
	require.Equal(t, "unknown_span", expect[*wire.Failed](v).Code)

	d.cancel()
	require.Equal(t, "stopped", expect[*wire.Leave](v).Reason)
	require.NoError(t, d.end())
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Equal(t, []string{"joining", "idle", "loading", "ready"}, d.states[:4])
	require.Equal(t, "ended", d.states[len(d.states)-1])
}

// A lost connection costs nothing that was loaded: the worker comes back as the
// same one, and the same span is ready without its store.
func TestComingBack(t *testing.T) {
	d := lend(t)
	v, _ := d.welcome(5000)
	v.assign(1, 0, 3)
	v.pass(1, 1, 0)
	want := v.result().Hidden
	require.NoError(t, v.l.Close("lost"))

	v, hello := d.welcome(5000)
	require.Equal(t, "key", hello.Resume)
	v.assign(2, 0, 3)
	v.pass(1, 2, 0) // the slot is free again
	require.Equal(t, want, v.result().Hidden)
	require.Equal(t, 1, d.opened)

	require.NoError(t, v.l.Close("lost"))
	v, _ = d.welcome(5000)
	v.assign(3, 3, 5) // other layers: loaded
	require.Equal(t, 2, d.opened)
}

func TestWhatCannotBeLoaded(t *testing.T) {
	d := lend(t)
	v, _ := d.welcome(5000)
	d.mu.Lock()
	d.open = errors.New("the store is on fire")
	d.mu.Unlock()
	v.tell(&wire.Assign{Span: 1, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3}}, Slots: slots})
	refuse := expect[*wire.Refuse](v)
	require.Equal(t, "load_failed", refuse.Code)
	require.Contains(t, refuse.Reason, "on fire")
	d.mu.Lock()
	d.open = fmt.Errorf("small: %w", exec.ErrNoRoom)
	d.mu.Unlock()
	v.tell(&wire.Assign{Span: 2, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3}}, Slots: slots})
	require.Equal(t, "no_room", expect[*wire.Refuse](v).Code)
	d.mu.Lock()
	d.open = nil
	d.mu.Unlock()
	v.tell(&wire.Assign{Span: 3, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3000}}, Slots: slots})
	require.Equal(t, "load_failed", expect[*wire.Refuse](v).Code)
	v.tell(&wire.Assign{Span: 4, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3}}, Slots: wire.SlotPlan{KV: quant.F16}})
	require.Equal(t, "load_failed", expect[*wire.Refuse](v).Code)
	v.assign(5, 0, 3)
}

// What a coordinator may not do ends the connection, not the worker.
func TestRudeCoordinators(t *testing.T) {
	for name, rude := range map[string]func(v *visit){
		"a span twice": func(v *visit) {
			v.assign(1, 0, 3)
			v.tell(&wire.Assign{Span: 1, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3}}, Slots: slots})
		},
		"a message of workers": func(v *visit) { v.tell(&wire.Ready{Span: 1}) },
		"no JSON": func(v *visit) {
			require.NoError(v.t, v.l.Send(v.ctx, link.Message{Data: []byte("hi")}))
		},
		"half a pass": func(v *visit) {
			require.NoError(v.t, v.l.Send(v.ctx, link.Message{Binary: true, Data: make([]byte, 20)}))
		},
		"a result": func(v *visit) {
			data, err := wire.AppendPass(nil, &wire.PassFrame{Result: true, State: wire.State{Rows: make([]wire.Row, 1), Hidden: make([]float32, 4)}}, true)
			require.NoError(v.t, err)
			require.NoError(v.t, v.l.Send(v.ctx, link.Message{Binary: true, Data: data}))
		},
		"it leaves": func(v *visit) { v.tell(&wire.Leave{Reason: "home"}) },
	} {
		t.Run(name, func(t *testing.T) {
			d := lend(t)
			v, _ := d.welcome(5000)
			rude(v)
			v, _ = d.welcome(5000) // it comes back
			v.tell(&wire.Ping{Nonce: 1})
			require.EqualValues(t, 1, expect[*wire.Pong](v).Nonce)
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Run("for good", func(t *testing.T) {
		d := lend(t)
		v, _ := d.meet()
		v.tell(&wire.Error{Code: "token", Message: "this invitation is wrong"})
		var refused *worker.Refused
		require.ErrorAs(t, d.end(), &refused)
		require.Equal(t, "token", refused.Code)
		require.Contains(t, refused.Error(), "this invitation is wrong")
	})
	t.Run("another version", func(t *testing.T) {
		d := lend(t)
		v, _ := d.meet()
		v.tell(&wire.Welcome{Version: wire.Version + 1})
		require.ErrorContains(t, d.end(), "version")
	})
	t.Run("for now", func(t *testing.T) {
		d := lend(t)
		v, _ := d.meet()
		v.tell(&wire.Error{Code: "busy", Message: "full", RetryMs: 1})
		d.welcome(5000)
	})
	t.Run("no welcome", func(t *testing.T) {
		d := lend(t)
		v, _ := d.meet()
		v.tell(&wire.Ping{Nonce: 1})
		d.welcome(5000)
	})
}

// A coordinator that says nothing any more is given up, its connection open or not.
func TestSilence(t *testing.T) {
	d := lend(t)
	start := time.Now()
	v, _ := d.welcome(30)
	expect[*wire.Ping](v)
	d.welcome(5000)
	require.Less(t, time.Since(start), 10*time.Second)
}

// Stopping in the middle of a load ends the load.
func TestStoppingWhileLoading(t *testing.T) {
	d := lend(t)
	d.src = stuck{d.src}
	v, _ := d.welcome(5000)
	v.tell(&wire.Assign{Span: 1, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3}}, Slots: slots})
	v.tell(&wire.Ping{Nonce: 7})
	require.EqualValues(t, 7, expect[*wire.Pong](v).Nonce, "a load does not look like silence")
	v.tell(&wire.Release{Span: 1}) // while it loads
	v.tell(&wire.Assign{Span: 2, Manifest: "m", Range: model.Span{To: model.Cut{Layer: 3}}, Slots: slots})
	v.tell(&wire.Ping{Nonce: 8})
	require.EqualValues(t, 8, expect[*wire.Pong](v).Nonce)
	d.cancel()
	require.NoError(t, d.end())
}

// stuck is a store whose pieces never come.
type stuck struct{ shard.Source }

func (stuck) Piece(ctx context.Context, _ int) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
