// Package tabexec makes executors of a browser tab's: it is the coordinator of
// one tab, and each executor is a span that the tab holds. So the suite of
// exec/exectest runs what a tab computes, over the real wire, from a native
// test.
package tabexec

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/internal/browsertest"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/ws"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wasm/assets"
	"github.com/potluck-llm/potluck/wire"
)

// patience is how long a tab may take for one thing.
const patience = 60 * time.Second

// A Tab is a tab that lends itself to this test.
type Tab struct {
	t      testing.TB
	server *httptest.Server
	mu     sync.Mutex
	stores map[string]shard.Source
	l      link.Link
	Hello  wire.Hello
	spans  uint32
	passes uint64
	joined chan error
}

// page starts the worker that the query asks for.
const page = `<!doctype html><title>tab</title><script type="module" src="/page.js"></script>`

const script = `const w = new Worker('/worker/worker.js', {type: 'module'});
window.seen = [];
w.onmessage = ({data}) => window.seen.push(data);
w.onerror = e => window.seen.push({error: e.message || 'the worker did not start'});
w.postMessage({start: {token: 'test', name: 'tab', bytes: 1e9, backend: new URLSearchParams(location.search).get('backend')}});`

// Open starts a browser with a tab that computes with the given backend.
func Open(t testing.TB, backend string, flags ...string) *Tab {
	require.True(t, assets.Built(), "the browser's worker is not built: run `make wasm` first (make test does)")
	b := &Tab{t: t, stores: map[string]shard.Source{}, joined: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	})
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, script)
	})
	mux.Handle("GET /worker/", http.StripPrefix("/worker/", http.FileServerFS(assets.Files())))
	mux.HandleFunc("GET /v1/join", b.join)
	mux.HandleFunc("GET /shards/{hash}/{rest...}", b.serve)
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// As the coordinator does, so that the tab may share memory among threads.
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(b.server.Close)
	tab := browsertest.NewTab(t, browsertest.New(t, flags...), true)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the tab says: %s", seen(tab))
		}
	})
	require.NoError(t, tab.Open(strings.Replace(b.server.URL, "127.0.0.1", "localhost", 1)+"/?backend="+backend))
	select {
	case err := <-b.joined:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatalf("the tab did not join: %s; console: %v", seen(tab), tab.Console())
	}
	t.Cleanup(func() { _ = b.l.Close("done") })
	return b
}

// seen are the last messages from the tab's worker.
func seen(tab *browsertest.Tab) (messages string) {
	if err := tab.Evaluate("JSON.stringify(window.seen.slice(-4))", &messages); err != nil {
		return err.Error()
	}
	return messages
}

// join welcomes the tab.
func (b *Tab) join(w http.ResponseWriter, r *http.Request) {
	l, err := ws.Upgrade(w, r)
	if err != nil {
		return
	}
	b.l = l
	m, err := b.receive()
	if err == nil {
		hello, ok := m.(*wire.Hello)
		if !ok {
			err = fmt.Errorf("the tab begins with %T", m)
		} else {
			b.Hello = *hello
			err = b.send(&wire.Welcome{Version: wire.Version, Worker: "w1", HeartbeatMs: 600000})
		}
	}
	b.joined <- err
	<-r.Context().Done()
}

// serve serves manifests and pieces of the stores that were assigned.
func (b *Tab) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	src := b.stores[r.PathValue("hash")]
	b.mu.Unlock()
	if src == nil {
		http.NotFound(w, r)
		return
	}
	if r.PathValue("rest") == shard.ManifestFile {
		data, _, _ := shard.EncodeManifest(src.Manifest())
		_, _ = w.Write(data)
		return
	}
	for i, p := range src.Manifest().Pieces {
		if r.PathValue("rest") == shard.PieceFolder+"/"+p.Hash.String() {
			data, err := src.Piece(r.Context(), i)
			if err == nil {
				_, _ = w.Write(data)
			}
			return
		}
	}
	http.NotFound(w, r)
}

func (b *Tab) send(message any) error {
	data, err := wire.EncodeControl(message)
	if err != nil {
		return err
	}
	return b.l.Send(context.Background(), link.Message{Data: data})
}

// receive returns the next message of weight: a control message or a result.
func (b *Tab) receive() (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		m, err := b.l.Receive(ctx)
		if err != nil {
			return nil, err
		}
		if m.Binary {
			frame := &wire.PassFrame{}
			return frame, wire.DecodePass(m.Data, frame)
		}
		message, err := wire.DecodeControl(m.Data)
		if err != nil {
			return nil, err
		}
		switch message := message.(type) {
		case *wire.Ping:
			_ = b.send(&wire.Pong{Nonce: message.Nonce})
		case *wire.Progress, *wire.Stats:
		default:
			return message, nil
		}
	}
}

// New returns an executor whose span the tab holds.
func (b *Tab) New() exec.Executor { return &executor{tab: b} }

// executor is a span at the tab.
type executor struct {
	tab    *Tab
	span   uint32
	config *model.Config
	rng    model.Span
	plan   exec.SlotPlan
	stats  exec.Stats
}

func (x *executor) Load(ctx context.Context, span model.Span, slots exec.SlotPlan, src shard.Source, _ func(exec.Progress)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, hash, err := shard.EncodeManifest(src.Manifest())
	if err != nil {
		return err
	}
	x.tab.mu.Lock()
	x.tab.stores[hash.String()] = src
	x.tab.mu.Unlock()
	x.tab.spans++
	x.span = x.tab.spans
	if slots.KV == 0 {
		return errors.New("a slot plan without a type of KV cache cannot travel")
	}
	if err := x.tab.send(&wire.Assign{Span: x.span, Manifest: hash.String(), Range: span, Slots: slots}); err != nil {
		return err
	}
	m, err := x.tab.receive()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.Ready:
		x.config, x.rng, x.plan = src.Manifest().Model, span, slots
		x.stats = exec.Stats{Backend: x.tab.Hello.Backend, WeightBytes: m.WeightBytes}
		return nil
	case *wire.Refuse:
		return fmt.Errorf("the tab refuses: %s: %s", m.Code, m.Reason)
	}
	return fmt.Errorf("the tab answers an assignment with %T", m)
}

func (x *executor) Step(ctx context.Context, in, out *exec.Pass) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.config == nil {
		return errors.New("no span is loaded")
	}
	if err := in.Check(x.config, x.rng, x.plan); err != nil {
		return err
	}
	x.tab.passes++
	data, err := wire.AppendPass(nil, &wire.PassFrame{Pass: x.tab.passes, Span: x.span, State: in.State}, x.plan.Round)
	if err != nil {
		return err
	}
	if err := x.tab.l.Send(ctx, link.Message{Binary: true, Data: data}); err != nil {
		return err
	}
	m, err := x.tab.receive()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.PassFrame:
		out.State = m.State
		out.Logits, out.Final = out.Logits[:0], out.Final[:0]
		x.stats.Passes++
		return nil
	case *wire.Failed:
		if m.Code == "stale_slot" {
			return fmt.Errorf("%w: %s", exec.ErrStaleSlot, m.Reason)
		}
		return fmt.Errorf("the tab fails: %s: %s", m.Code, m.Reason)
	}
	return fmt.Errorf("the tab answers a pass with %T", m)
}

func (x *executor) Trim(slot, length int) {
	_ = x.tab.send(&wire.Trim{Span: x.span, Slot: int32(slot), Length: int32(length)})
}

func (x *executor) Stats() exec.Stats { return x.stats }

func (x *executor) Close() error {
	if x.config == nil {
		return nil
	}
	x.config = nil
	return x.tab.send(&wire.Release{Span: x.span})
}
