package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The files that are committed are what the generator writes.
func TestCommitted(t *testing.T) {
	kernels, err := filepath.Abs("../..")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	main()
	for _, name := range []string{"kernels_amd64.s", "kernels_amd64.go", "kernels_arm64.s", "kernels_arm64.go"} {
		want, err := os.ReadFile(filepath.Join(kernels, name))
		require.NoError(t, err)
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.True(t, string(want) == string(got), "%s differs from what go generate writes", name)
	}
}
