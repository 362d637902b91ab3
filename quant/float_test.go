package quant

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// f16Value computes a half's value from its definition.
func f16Value(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	exponent, fraction := int(h>>10&31), float64(h&0x3ff)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	default:
		return sign * math.Ldexp(1024+fraction, exponent-25)
	}
}

func TestEveryF16(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		got, want := F16ToF32(h), f16Value(h)
		if math.IsNaN(want) {
			require.True(t, math.IsNaN(float64(got)), "%#04x", h)
			require.Equal(t, h|0x200, F32ToF16(got), "a NaN is quiet and keeps its payload")
			continue
		}
		require.Equal(t, math.Float64bits(want), math.Float64bits(float64(got)), "%#04x", h)
		require.Equal(t, h, F32ToF16(got), "%#04x back", h)
	}
}

func TestEveryBF16(t *testing.T) {
	for i := range 1 << 16 {
		b := uint16(i)
		x := BF16ToF32(b)
		require.Equal(t, uint32(b)<<16, math.Float32bits(x))
		if x != x {
			require.Equal(t, b|0x40, F32ToBF16(x))
			continue
		}
		require.Equal(t, b, F32ToBF16(x))
	}
}

// Between two neighbours the nearer one wins, in the middle the even one.
func TestF16RoundsToNearestEven(t *testing.T) {
	for h := uint16(0); h < 0x7bff; h++ {
		low, high := f16Value(h), f16Value(h+1)
		middle := float32((low + high) / 2) // exact: one bit more than a half has
		require.Equal(t, h+h&1, F32ToF16(middle), "tie above %#04x", h)
		require.Equal(t, h, F32ToF16(math.Nextafter32(middle, 0)), "below the tie above %#04x", h)
		require.Equal(t, h+1, F32ToF16(math.Nextafter32(middle, 1e9)), "beyond the tie above %#04x", h)
		require.Equal(t, (h+h&1)|0x8000, F32ToF16(-middle), "negative tie above %#04x", h)
	}
	require.Equal(t, uint16(0x7bff), F32ToF16(math.Nextafter32(65520, 0)))
	require.Equal(t, uint16(0x7c00), F32ToF16(65520))
	require.Equal(t, uint16(0xfc00), F32ToF16(-1e38))
	require.Equal(t, uint16(0x7c00), F32ToF16(float32(math.Inf(1))))
}

func TestBF16RoundsToNearestEven(t *testing.T) {
	for b := uint16(0); b < 0x7f7f; b++ {
		tie := math.Float32frombits(uint32(b)<<16 | 0x8000)
		require.Equal(t, b+b&1, F32ToBF16(tie))
		require.Equal(t, b, F32ToBF16(math.Float32frombits(math.Float32bits(tie)-1)))
		require.Equal(t, b+1, F32ToBF16(math.Float32frombits(math.Float32bits(tie)+1)))
	}
	require.Equal(t, uint16(0x7f80), F32ToBF16(math.MaxFloat32))
}

// The functions for whole slices do what those for one number do, at every
// length.
func TestBulkConversions(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 19 {
		src := make([]byte, 4*n)
		for i := range src {
			src[i] = byte(random.Uint32())
		}
		numbers, back := make([]float32, n), make([]byte, 4*n)

		DecodeF32(numbers, src)
		EncodeF32(back, numbers)
		require.Equal(t, src, back)

		DecodeF16(numbers, src)
		EncodeF16(back, numbers)
		for i, x := range numbers {
			h := binary.LittleEndian.Uint16(src[2*i:])
			require.Equal(t, math.Float32bits(F16ToF32(h)), math.Float32bits(x))
			require.Equal(t, F32ToF16(x), binary.LittleEndian.Uint16(back[2*i:]))
		}

		DecodeBF16(numbers, src)
		EncodeBF16(back, numbers)
		for i, x := range numbers {
			b := binary.LittleEndian.Uint16(src[2*i:])
			require.Equal(t, math.Float32bits(BF16ToF32(b)), math.Float32bits(x))
			require.Equal(t, F32ToBF16(x), binary.LittleEndian.Uint16(back[2*i:]))
		}
	}
}

func TestAllFinite(t *testing.T) {
	for n := 1; n < 12; n++ {
		for bad := range n {
			for _, x := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
				numbers := make([]float32, n)
				for i := range numbers {
					numbers[i] = 65504
				}
				data := make([]byte, 4*n)
				EncodeF32(data, numbers)
				require.True(t, allFiniteF32(data))
				EncodeF16(data, numbers)
				require.True(t, allFinite16(data[:2*n], 0x7c00))
				EncodeBF16(data, numbers)
				require.True(t, allFinite16(data[:2*n], 0x7f80))

				numbers[bad] = x
				EncodeF32(data, numbers)
				require.False(t, allFiniteF32(data))
				EncodeF16(data, numbers)
				require.False(t, allFinite16(data[:2*n], 0x7c00))
				EncodeBF16(data, numbers)
				require.False(t, allFinite16(data[:2*n], 0x7f80))
			}
		}
	}
}

func TestRoundRow(t *testing.T) {
	tests := []struct {
		highest float32
		scale   int
	}{
		{0, 0}, {1, 0}, {math.Nextafter32(32768, 0), 0},
		{32768, 1}, {65535, 1}, {65536, 2}, {1e6, 5}, {0x1p127, 113},
	}
	random := rand.New(rand.NewPCG(3, 4))
	for _, test := range tests {
		row := []float32{test.highest, -test.highest / 3}
		for range 30 {
			row = append(row, test.highest*(random.Float32()-0.5))
		}
		require.Equal(t, test.scale, RowScale(row), "%g", test.highest)
		if test.scale > 0 {
			scaled := math.Ldexp(float64(test.highest), -test.scale)
			require.True(t, scaled >= 16384 && scaled < 32768)
		}

		packed, unpacked := make([]byte, 2*len(row)), make([]float32, len(row))
		require.Equal(t, test.scale, PackRow(packed, row))
		UnpackRow(unpacked, packed, test.scale)
		rounded := append([]float32(nil), row...)
		require.Equal(t, test.scale, RoundRow(rounded))
		require.Equal(t, rounded, unpacked, "what travels is what stays")
		for i := range row {
			require.InDelta(t, row[i], rounded[i], float64(test.highest)/1024)
		}

		// Rounding once more, and sending what was rounded, change nothing.
		again := append([]float32(nil), rounded...)
		s := PackRow(packed, again)
		UnpackRow(unpacked, packed, s)
		require.Equal(t, rounded, unpacked)
	}
	UnpackRow(make([]float32, 1), []byte{0, 1}, math.MinInt32)
	UnpackRow(make([]float32, 1), []byte{0, 1}, math.MaxInt32)
}

func BenchmarkFloats(b *testing.B) {
	numbers, data := randomNumbers(4096), make([]byte, 4*4096)
	for _, bench := range []struct {
		name string
		size int
		run  func()
	}{
		{"DecodeF16", 2, func() { DecodeF16(numbers, data) }},
		{"DecodeBF16", 2, func() { DecodeBF16(numbers, data) }},
		{"EncodeBF16", 2, func() { EncodeBF16(data, numbers) }},
		{"EncodeF16", 2, func() { EncodeF16(data, numbers) }},
		{"RoundRow", 4, func() { RoundRow(numbers) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			EncodeF16(data, randomNumbers(8192))
			b.SetBytes(int64(bench.size * len(numbers)))
			for b.Loop() {
				bench.run()
			}
		})
	}
}

func randomNumbers(n int) []float32 {
	random := rand.New(rand.NewPCG(5, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(random.NormFloat64() * 0.02)
	}
	return x
}
