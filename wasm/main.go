//go:build js && wasm

// Command wasm is a tab's worker: it lends the tab to a room. It runs in a
// dedicated Web Worker, where worker.js gives it its options and the page is
// told what happens.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall/js"
	"time"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/internal/version"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/browser"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wasm/pieces"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
)

// options are what the page asks for.
type options struct {
	Token   string `json:"token"`
	Name    string `json:"name"`
	Device  string `json:"device"`
	Bytes   int64  `json:"bytes"`
	Backend string `json:"backend"` // "webgpu", "cpu", or "" for the better one
	Base    string `json:"base"`    // of the coordinator, such as http://host:7777
}

// measureTime is how long a tab measures itself before it joins.
const measureTime = 200 * time.Millisecond

func main() {
	var o options
	if err := json.Unmarshal([]byte(js.Global().Get("potluckOptions").String()), &o); err != nil {
		post(map[string]any{"error": "options: " + err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	js.Global().Set("potluckStop", js.FuncOf(func(js.Value, []js.Value) any { cancel(); return nil }))
	post(map[string]any{"status": worker.Status{State: "measuring"}})
	b, err := newBackend(o.Backend)
	if err != nil {
		post(map[string]any{"error": err.Error()})
		return
	}
	hello := wire.Hello{Token: o.Token, Name: o.Name, Kind: "browser", Build: version.String(), Backend: b.name, Device: o.Device, Capacity: b.capacity}
	hello.Capacity.Bytes = o.Bytes
	if most := b.capacity.Bytes; most > 0 {
		hello.Capacity.Bytes = min(o.Bytes, most)
	}
	err = worker.Run(ctx, worker.Options{
		Link: func(ctx context.Context) (link.Link, error) {
			return browser.Dial(ctx, "ws"+o.Base[len("http"):]+"/v1/join")
		},
		Hello:       hello,
		NewExecutor: func() (exec.Executor, error) { return b.newExecutor() },
		Open: func(ctx context.Context, manifest string) (shard.Source, func(), error) {
			src, err := pieces.Open(ctx, o.Base, manifest)
			return src, nil, err
		},
		Report: func(s worker.Status) {
			post(map[string]any{"status": s, "backend": b.name})
		},
	})
	if err != nil {
		post(map[string]any{"error": err.Error()})
	}
	post(map[string]any{"ended": true})
}

// post tells the page.
func post(message map[string]any) {
	data, err := json.Marshal(message)
	if err != nil {
		data = []byte(fmt.Sprintf(`{"error":%q}`, err.Error()))
	}
	js.Global().Call("potluckPost", string(data))
}
