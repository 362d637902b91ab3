//go:build js && wasm

package main

import (
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/wire"
)

// A backend is what computes in this tab.
type backend struct {
	name        string
	capacity    wire.Capacity // Bytes is the page's
	newExecutor func() (exec.Executor, error)
}

// newBackend chooses what computes.
func newBackend(string) (*backend, error) {
	engine, err := kernel.New(kernel.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	readGBs, layerMs := cpu.Measure(engine, measureTime)
	return &backend{
		name:        "cpu " + engine.Variant(),
		capacity:    wire.Capacity{ReadGBs: readGBs, DispatchMs: layerMs, Credit: 4, Threads: 1},
		newExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
	}, nil
}
