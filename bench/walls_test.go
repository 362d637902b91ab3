package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSumReadsEverything(t *testing.T) {
	x := make([]uint64, 128)
	want := uint64(0)
	for i := range x {
		x[i] = uint64(i * i)
		want += x[i]
	}
	require.Equal(t, want, sum(x))
}
