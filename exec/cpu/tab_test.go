//go:build !js

package cpu_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/internal/tabexec"
)

// The suite in a real browser, with the tab's own kernels.
func TestInTab(t *testing.T) {
	tab := tabexec.Open(t, "cpu")
	require.True(t, strings.HasPrefix(tab.Hello.Backend, "cpu relaxed SIMD"), tab.Hello.Backend)
	// Activations of 8 bits let a router of this small model choose otherwise.
	exectest.Run(t, exectest.Options{New: tab.New, Tolerance: 1e-4, Quantised: 0.15,
		Models: []string{"glm4moe", "llama-gqa", "qwen2", "qwen3"}})
}
