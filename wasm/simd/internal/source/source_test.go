package source

import (
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/wasm/assets"
	"github.com/potluck-llm/potluck/wasm/simd/internal/wat"
)

// The modules that a tab gets are what this source says.
func TestModulesAreBuiltFromThisSource(t *testing.T) {
	for file, o := range All() {
		want, err := wat.Assemble(Module(o))
		require.NoError(t, err)
		have, err := fs.ReadFile(assets.Files(), file)
		require.NoError(t, err)
		require.True(t, string(want) == string(have), "%s is not what its source makes: run go generate ./wasm/simd", file)
	}
}
