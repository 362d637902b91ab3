//go:build js && wasm

package main

import (
	"context"
	"fmt"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/exec/webgpu"
	"github.com/potluck-llm/potluck/gpu/browser"
	"github.com/potluck-llm/potluck/wasm/simd"
	"github.com/potluck-llm/potluck/wire"
)

// A backend is what computes in this tab.
type backend struct {
	name        string
	capacity    wire.Capacity // Bytes is the most that the page may lend; 0: no limit
	newExecutor func() (exec.Executor, error)
}

// newBackend chooses what computes: the graphics device, unless there is none or
// it is only simulated, which the processor beats. want decides otherwise.
func newBackend(want string) (*backend, error) {
	if want != "cpu" {
		b, err := newGPU(want == "webgpu")
		if err == nil || want == "webgpu" {
			return b, err
		}
	}
	return newCPU()
}

func newGPU(evenSoftware bool) (*backend, error) {
	device, err := browser.Open(context.Background())
	if err != nil {
		return nil, err
	}
	info := device.Info()
	if info.Software && !evenSoftware {
		device.Close()
		return nil, fmt.Errorf("%s is no graphics chip", info.Name)
	}
	c := wire.Capacity{MaxBinding: info.MaxBinding, ReadGBs: 30, DispatchMs: 0.3, ReadbackMs: 2, Credit: 4, Threads: 1}
	if info.Software {
		c.ReadGBs = 0.3
	}
	return &backend{name: "webgpu " + info.Name, capacity: c, newExecutor: func() (exec.Executor, error) { return webgpu.New(device), nil }}, nil
}

// memoryBytes is what weights and caches may take of the 4 GiB that a program in
// a tab can address: pieces pass through it, too.
const memoryBytes = 3 << 30

func newCPU() (*backend, error) {
	simd.Register()
	engine, err := kernel.New(kernel.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	readGBs, layerMs := cpu.Measure(engine, measureTime)
	name, threads := "cpu "+engine.Variant(), simd.Threads()
	if threads > 1 {
		name += fmt.Sprintf(", %d threads", threads)
	}
	return &backend{
		name:        name,
		capacity:    wire.Capacity{Bytes: memoryBytes, ReadGBs: readGBs, DispatchMs: layerMs, Credit: 4, Threads: threads},
		newExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
	}, nil
}
