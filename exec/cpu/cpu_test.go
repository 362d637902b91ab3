package cpu_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/exec/exectest"
)

func TestReference(t *testing.T) {
	e, err := kernel.New(kernel.Options{Variant: "reference", Exact: true})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	exectest.Run(t, exectest.Options{New: func() exec.Executor { return cpu.New(cpu.Options{Engine: e}) }, Ends: true, Tolerance: 1e-5})
}
