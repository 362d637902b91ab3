package bench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

func TestBytesPerToken(t *testing.T) {
	src, err := embedded.Open()
	require.NoError(t, err)
	m := src.Manifest()
	c := m.Model
	want := int64(0)
	for _, tensor := range m.Tensors {
		bytes := tensor.Type.Bytes(tensor.Rows, tensor.Cols)
		switch {
		case tensor.Name == "embed" && !c.Tied, // one row of it
			strings.HasPrefix(tensor.Name, model.LayerName(c.Layers, "")), strings.HasPrefix(tensor.Name, "mtp."): // the prediction layer
			continue
		case strings.Contains(tensor.Name, ".experts."):
			bytes = bytes * int64(c.MoE.PerToken) / int64(c.MoE.Experts)
		}
		want += bytes
	}
	empty := BytesPerToken(m, quant.F16, 0)
	require.Equal(t, want, empty)
	// A position has a key and a value of KVDim halves in each layer.
	require.Equal(t, int64(100*c.Layers*2*c.KVDim()*2), BytesPerToken(m, quant.F16, 100)-empty)
	require.Less(t, BytesPerToken(m, quant.Q8_0, 100), BytesPerToken(m, quant.F16, 100))
}

func TestPositions(t *testing.T) {
	for _, test := range []struct {
		o    Options
		want int
	}{{Options{Prompt: 512, Depth: -1, Gen: 64}, 544}, {Options{Prompt: 512, Gen: 64}, 32}, {Options{Depth: 2048, Gen: 1}, 2049}} {
		require.Equal(t, test.want, test.o.positions())
	}
}
