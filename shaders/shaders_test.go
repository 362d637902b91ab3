package shaders_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gogpu/naga"
	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shaders"
)

// Every kernel compiles natively, for every type of weights, so that a slip shows
// without a browser.
func TestCompile(t *testing.T) {
	compile := func(operation, weights string) {
		for _, lanes := range shaders.Lanes {
			t.Run(fmt.Sprintf("%s %s %d", operation, weights, lanes), func(t *testing.T) {
				source, err := shaders.Source(operation, weights, lanes)
				require.NoError(t, err)
				_, err = naga.Compile(source)
				require.NoError(t, err)
			})
		}
	}
	for _, operation := range shaders.Plain {
		compile(operation, "")
	}
	for _, operation := range shaders.Weighted {
		for _, weights := range quant.Types() {
			compile(operation, weights.String())
		}
	}
}

// Every file belongs to a kernel, and says what it computes and what bounds it.
func TestFiles(t *testing.T) {
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	known := strings.Join(append(append([]string{}, shaders.Plain...), shaders.Weighted...), " ")
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".wgsl")
		if !ok {
			continue
		}
		require.Contains(t, known, name)
		data, err := os.ReadFile(e.Name())
		require.NoError(t, err)
		require.Contains(t, string(data), "Bound by", name)
	}
	_, err = shaders.Source("matmul", "q9", 1)
	require.Error(t, err)
	_, err = shaders.Source("matmul", "q4_0", 3)
	require.Error(t, err)
}
