package webgpu

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/gpu"
	"github.com/potluck-llm/potluck/quant"
)

// memory is a device that only has buffers.
type memory struct {
	gpu.Device
	buffers [][]byte
}

func (m *memory) NewBuffer(_ context.Context, size int64) (gpu.Buffer, error) {
	m.buffers = append(m.buffers, make([]byte, size))
	return gpu.Buffer(len(m.buffers) - 1), nil
}

func (m *memory) Write(b gpu.Buffer, offset int64, data []byte) error {
	copy(m.buffers[b][offset:], data)
	return nil
}

// A plane's last vector is whole, or a device would leave it out.
func TestPlanesEndWithWholeVectors(t *testing.T) {
	for _, typ := range quant.Types() {
		const rows, cols = 3, 3 * quant.BlockSize
		data := make([]byte, typ.Bytes(rows, cols))
		for i := range data {
			data[i] = byte(i)
		}
		w, err := quant.NewMatrix(typ, rows, cols, data)
		require.NoError(t, err)
		m := &memory{}
		r := &recorder{Executor: &Executor{device: m}, ctx: context.Background()}
		quants, scales := r.planes(w)
		require.NoError(t, r.err)
		for b, plane := range map[gpu.Buffer][]byte{quants: w.Quants, scales: w.Scales} {
			if len(plane) == 0 {
				continue
			}
			require.Zero(t, len(m.buffers[b])%quant.Align, "%v", typ)
			require.Equal(t, plane, m.buffers[b][:len(plane)], "%v", typ)
		}
	}
}
