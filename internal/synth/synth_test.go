package synth_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/synth"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/safetensors"
)

func TestWrite(t *testing.T) {
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	total, err := synth.Write(a, synth.Small, synth.Options{Seed: 1, FileBytes: 1 << 20})
	require.NoError(t, err)
	_, err = synth.Write(b, synth.Small, synth.Options{Seed: 1})
	require.NoError(t, err)
	_, err = synth.Write(c, synth.Small, synth.Options{Seed: 2})
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(a, "*.safetensors"))
	require.NoError(t, err)
	require.Greater(t, len(files), 3)

	config, err := os.ReadFile(filepath.Join(a, "config.json"))
	require.NoError(t, err)
	m, err := model.FromHF(config)
	require.NoError(t, err)
	sets := make([]*safetensors.Set, 3)
	for i, folder := range []string{a, b, c} {
		sets[i], err = safetensors.OpenFolder(folder)
		require.NoError(t, err)
		defer sets[i].Close()
	}
	require.Equal(t, total, sets[0].Bytes())
	shape := func(name string) (rows, cols int, ok bool) {
		t, _, ok := sets[0].Tensor(name)
		rows, cols = t.Matrix()
		return rows, cols, ok
	}
	require.NoError(t, m.Probe(model.HuggingFace, shape))
	_, err = m.Sources(model.HuggingFace, shape)
	require.NoError(t, err)

	// The seed alone decides, whatever the files; weights have the usual size.
	const name = "model.layers.1.mlp.experts.3.down_proj.weight"
	var values [3][]float32
	for i, set := range sets {
		values[i], err = set.Floats(name)
		require.NoError(t, err)
	}
	require.Equal(t, values[0], values[1])
	require.NotEqual(t, values[0], values[2])
	var sum, squares float64
	for _, v := range values[0] {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	n := float64(len(values[0]))
	require.InDelta(t, 0, sum/n, 0.002)
	require.InEpsilon(t, 1.0/float64(synth.Small.Width), squares/n, 0.05)
}

// Air has the published number of weights: 106.85 billion, in two bytes each.
func TestAir(t *testing.T) {
	require.InEpsilon(t, 213.7e9, float64(synth.Air.Bytes()), 1e-3)
}
