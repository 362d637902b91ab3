package quant

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestForeignTypes(t *testing.T) {
	decodable := 0
	for f, info := range foreignInfos {
		require.True(t, f.Known())
		require.Equal(t, info.name, f.String())
		numbers, bytes := f.Block()
		size, err := f.RowBytes(3 * numbers)
		require.NoError(t, err)
		require.Equal(t, 3*bytes, size)
		_, err = f.RowBytes(-numbers)
		require.Error(t, err)
		if numbers > 1 {
			_, err = f.RowBytes(3*numbers - 1)
			require.ErrorContains(t, err, fmt.Sprintf("%v has blocks of %d", f, numbers))
		}
		native, ok := f.Native()
		require.Equal(t, f.Check() == nil, ok)
		require.Equal(t, ok, native.Valid())
		if ok {
			decodable++
			require.True(t, native.Fits(numbers) || numbers == 1)
		}
	}
	require.Equal(t, 16, decodable)
	for _, typ := range Types() {
		native, ok := typ.Foreign().Native()
		require.True(t, ok)
		if typ == Q6_0 {
			require.Equal(t, Q8_0, native, "files have no such type")
			continue
		}
		require.Equal(t, typ, native, "there and back")
	}
	unknown := Foreign(1234)
	require.ErrorContains(t, unknown.Check(), "type 1234 is unknown")
	_, err := unknown.RowBytes(32)
	require.ErrorContains(t, err, "type 1234 is unknown")
}

func TestForeignSizesAreChecked(t *testing.T) {
	require.ErrorContains(t, ForeignQ4_0.Decode(make([]float32, 32), make([]byte, 17)), "got 17 bytes, want 18")
	require.ErrorContains(t, ForeignQ4_0.Decode(make([]float32, 31), make([]byte, 18)), "row of 31 numbers")
	require.ErrorContains(t, ForeignQ4_0.Encode(make([]byte, 17), make([]float32, 32)), "got 17 bytes, want 18")
	require.ErrorContains(t, ForeignQ6_K.Encode(make([]byte, 210), make([]float32, 256)), "Q6_K is not written")
	require.Error(t, ForeignQ4_0.Repack(Q4_0, 1, 32, make([]byte, 18), make([]byte, 31)))
	require.Error(t, ForeignQ4_0.Repack(Q4_0, 1, 32, make([]byte, 19), make([]byte, 32)))
	require.Error(t, ForeignF32.Repack(Q4_0, 1, 33, make([]byte, 4*33), make([]byte, 1000)))
	m, err := NewMatrix(Q4_0, 2, 64, make([]byte, Q4_0.Bytes(2, 64)))
	require.NoError(t, err)
	for _, n := range []int{35, 37, 3 * 36} {
		require.Error(t, m.Interleave(0, make([]byte, n)))
	}
	require.Error(t, m.Interleave(1, make([]byte, 72)))
	require.Error(t, m.Interleave(-1, make([]byte, 36)))
	require.NoError(t, m.Interleave(1, make([]byte, 36)))
}

// Weights can change their type on the way: what a file holds as bf16 becomes
// q8_0 as if it had been decoded first.
func TestRepackIntoOtherTypes(t *testing.T) {
	const rows, cols = 3, 64
	numbers := randomNumbers(rows * cols)
	src := make([]byte, 2*len(numbers))
	EncodeBF16(src, numbers)
	DecodeBF16(numbers, src)
	for _, typ := range Types() {
		want, got := make([]byte, typ.Bytes(rows, cols)), make([]byte, typ.Bytes(rows, cols))
		require.NoError(t, Encode(typ, rows, cols, numbers, want))
		require.NoError(t, ForeignBF16.Repack(typ, rows, cols, src, got))
		require.Equal(t, want, got, "%v", typ)
	}
}

func Example() {
	weights := make([]float32, 32)
	for i := range weights {
		weights[i] = float32(i-16) / 4
	}
	data := make([]byte, Q4_0.Bytes(1, 32))
	if err := Encode(Q4_0, 1, 32, weights, data); err != nil {
		fmt.Println(err)
		return
	}
	m, err := NewMatrix(Q4_0, 1, 32, data)
	if err != nil {
		fmt.Println(err)
		return
	}
	m.Row(weights, 0)
	fmt.Println(len(data), weights[:4], weights[28:])
	// Output: 32 [-4 -3.5 -3.5 -3] [3 3.5 3.5 3.5]
}
