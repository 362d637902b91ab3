//go:build !js

package webgpu_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/exec/exectest"
	"github.com/potluck-llm/potluck/internal/browsertest"
	"github.com/potluck-llm/potluck/internal/tabexec"
)

// The whole suite on WebGPU's software adapter, in a real browser.
func TestInBrowser(t *testing.T) {
	tab := tabexec.Open(t, "webgpu", browsertest.WebGPU...)
	require.True(t, strings.HasPrefix(tab.Hello.Backend, "webgpu "), tab.Hello.Backend)
	exectest.Run(t, exectest.Options{New: tab.New, Tolerance: 2e-3})
}
