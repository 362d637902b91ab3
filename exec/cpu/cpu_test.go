package cpu_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/exec/exectest"
)

func TestReference(t *testing.T) { run(t, kernel.Options{}) }

// With room for next to nothing ahead, all that is computed some columns or heads at a
// time is.
func TestInBands(t *testing.T) {
	run(t, kernel.Options{Threads: 2, Band: 1}, "glm", "glm4", "glm4moe-mtp", "llama-gqa", "llama-mha", "qwen2", "qwen3")
}

func run(t *testing.T, o kernel.Options, models ...string) {
	o.Variant, o.Exact = "reference", true
	e, err := kernel.New(o)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	exectest.Run(t, exectest.Options{New: func() exec.Executor { return cpu.New(cpu.Options{Engine: e}) }, Ends: true, Tolerance: 1e-5, Models: models})
}
