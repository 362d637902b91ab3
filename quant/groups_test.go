package quant_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/quant"
)

func TestGroups(t *testing.T) {
	part := func(first, rows int) quant.Matrix {
		values := make([]float32, rows*2)
		for i := range values {
			values[i] = float32(first + i/2)
		}
		data := make([]byte, quant.F32.Bytes(rows, 2))
		quant.EncodeF32(data, values)
		m, err := quant.NewMatrix(quant.F32, rows, 2, data)
		require.NoError(t, err)
		return m
	}
	g := quant.Groups{Parts: []quant.Matrix{part(0, 6), part(6, 3), part(9, 9)}, Rows: 3}
	var firsts []float32
	for _, count := range []int{1, 1, 1, 2, 1} {
		require.LessOrEqual(t, count, g.Left())
		m := g.Take(count)
		require.Equal(t, 3*count, m.Rows)
		row := make([]float32, 2)
		quant.DecodeF32(row, m.Quants[:8])
		firsts = append(firsts, row[0])
	}
	require.Equal(t, []float32{0, 3, 6, 9, 15}, firsts)
	require.Zero(t, g.Left())
}
