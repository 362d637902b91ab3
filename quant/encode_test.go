package quant

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldens reads a trusted safetensors file.
func goldens(t *testing.T, path string) func(name string) (data []byte, shape []int) {
	t.Helper()
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	length := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	require.NoError(t, json.Unmarshal(file[8:8+length], &header))
	return func(name string) ([]byte, []int) {
		entry, ok := header[name]
		require.True(t, ok, name)
		return file[8+length:][entry.Offsets[0]:entry.Offsets[1]], entry.Shape
	}
}

// What ggml's reference quantiser makes of rows that provoke ties, zeros of
// both signs, denormals and scales that vanish.
func TestEncodeEqualsGGML(t *testing.T) {
	tensor := goldens(t, "../testdata/gguf/encoded.safetensors")
	var names struct {
		Rows       []string `json:"rows"`
		RowsFloats []string `json:"rows_floats"`
	}
	file, err := os.ReadFile("../testdata/gguf/encoded.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(file, &names))

	for _, typ := range []Type{Q4_0, Q4_1, Q8_0} {
		foreign := typ.Foreign()
		source, shape := tensor("source")
		want, _ := tensor(foreign.String())
		rows, cols := shape[0], shape[1]
		numbers := make([]float32, rows*cols)
		DecodeF32(numbers, source)

		planar := make([]byte, typ.Bytes(rows, cols))
		require.NoError(t, Encode(typ, rows, cols, numbers, planar))
		m, err := NewMatrix(typ, rows, cols, planar)
		require.NoError(t, err)
		size := len(want) / rows
		for row := range rows {
			t.Run(fmt.Sprintf("%v/%s", foreign, names.Rows[row]), func(t *testing.T) {
				want := want[row*size : (row+1)*size]
				got := make([]byte, size)
				require.NoError(t, m.Interleave(row, got))
				require.Equal(t, want, got)
				clear(got)
				require.NoError(t, foreign.Encode(got, numbers[row*cols:(row+1)*cols]))
				require.Equal(t, want, got)
			})
		}
	}

	source, shape := tensor("source_floats")
	numbers := make([]float32, shape[0]*shape[1])
	DecodeF32(numbers, source)
	for name, encode := range map[string]func([]byte, []float32){"F16": EncodeF16, "BF16": EncodeBF16} {
		want, _ := tensor(name)
		got := make([]byte, len(want))
		encode(got, numbers)
		for row, size := 0, 2*shape[1]; row < shape[0]; row++ {
			require.Equal(t, want[row*size:(row+1)*size], got[row*size:(row+1)*size], "%s %s", name, names.RowsFloats[row])
		}
	}
}

// Each type keeps numbers to within its step.
func TestRoundTrip(t *testing.T) {
	// Half a step relative to the largest number of a block.
	within := map[Type]float64{F32: 0, F16: 0x1p-11, BF16: 0x1p-8, Q8_0: 0.5/127 + 0x1p-11, Q6_0: 1.0/32 + 1e-3, Q4_1: 1.0/15 + 1e-3, Q4_0: 1.0/8 + 1e-3}
	const rows, cols = 5, 96
	numbers := randomNumbers(rows * cols)
	for _, typ := range Types() {
		data := make([]byte, typ.Bytes(rows, cols))
		for i := range data {
			data[i] = 0xaa
		}
		require.NoError(t, Encode(typ, rows, cols, numbers, data))
		m, err := NewMatrix(typ, rows, cols, data)
		require.NoError(t, err)
		row := make([]float32, cols)
		for r := range rows {
			m.Row(row, r)
			for b := range cols / BlockSize {
				want := numbers[r*cols+b*BlockSize:][:BlockSize]
				var highest float64
				for _, v := range want {
					highest = max(highest, math.Abs(float64(v)))
				}
				for i, v := range want {
					require.InDelta(t, v, row[b*BlockSize+i], highest*within[typ], "%v", typ)
				}
			}
			x := randomNumbers(cols)
			var want float64
			for i := range x {
				want += float64(x[i]) * float64(row[i])
			}
			require.InDelta(t, want, Dot(m, r, x), 1e-7)
		}
		// Filling in pieces gives the same bytes; padding is zero.
		pieces := make([]byte, len(data))
		m, err = NewMatrix(typ, rows, cols, pieces)
		require.NoError(t, err)
		require.NoError(t, m.EncodeRows(3, numbers[3*cols:]))
		require.NoError(t, m.EncodeRows(0, numbers[:3*cols]))
		require.Equal(t, pieces, data, "%v", typ)
		// The interleaved form goes both ways.
		if typ == Q6_0 {
			continue // has none: TestQ6_0Widens
		}
		size, err := typ.Foreign().RowBytes(cols)
		require.NoError(t, err)
		blocks := make([]byte, rows*size)
		require.NoError(t, m.Interleave(0, blocks))
		back := make([]byte, len(data))
		require.NoError(t, typ.Foreign().Repack(typ, rows, cols, blocks, back))
		require.Equal(t, data, back, "%v", typ)
	}
}

// GGUF files get q6_0 as Q8_0 with the scale of least error: no step of either
// half is missed by more than half a step of the rounding.
func TestQ6_0Widens(t *testing.T) {
	const rows, cols = 3, 96
	numbers := randomNumbers(rows * cols)
	for i := range 16 { // two levels of one scale: hit exactly
		numbers[i], numbers[i+16] = float32(i-8), float32(i-8)/2
	}
	numbers[0], numbers[16] = -32, -16
	data := make([]byte, Q6_0.Bytes(rows, cols))
	require.NoError(t, Encode(Q6_0, rows, cols, numbers, data))
	m, err := NewMatrix(Q6_0, rows, cols, data)
	require.NoError(t, err)
	size, err := ForeignQ8_0.RowBytes(cols)
	require.NoError(t, err)
	blocks := make([]byte, rows*size)
	require.NoError(t, m.Interleave(0, blocks))
	require.Error(t, m.Interleave(1, blocks))
	require.Error(t, m.Interleave(0, blocks[1:]))
	row, got := make([]float32, cols), make([]float32, cols)
	for r := range rows {
		m.Row(row, r)
		require.NoError(t, ForeignQ8_0.Decode(got, blocks[r*size:(r+1)*size]))
		for i, v := range row {
			highest := 0.0
			for _, w := range row[i/BlockSize*BlockSize:][:BlockSize] {
				highest = max(highest, math.Abs(float64(w)))
			}
			require.InDelta(t, v, got[i], highest*(0.75/127+0x1p-11), "row %d column %d", r, i)
		}
		if r == 0 {
			require.Equal(t, row[:BlockSize], got[:BlockSize])
		}
	}
}

// Of two types one that holds both's numbers is chosen.
func TestCommon(t *testing.T) {
	for _, c := range []struct{ a, b, want Type }{
		{Q4_0, Q4_0, Q4_0}, {Q4_0, Q4_1, Q4_1}, {Q6_0, Q6_0, Q6_0}, {Q6_0, Q4_1, Q8_0}, {Q4_0, Q6_0, Q8_0}, {Q8_0, Q6_0, Q8_0}, {F16, Q6_0, F16}, {Q4_1, F32, F32}, {0, Q6_0, Q6_0},
	} {
		require.Equal(t, c.want, Common(c.a, c.b))
		require.Equal(t, c.want, Common(c.b, c.a))
	}
}

func TestEncodeRefuses(t *testing.T) {
	const rows, cols = 3, 64
	for _, typ := range Types() {
		data := make([]byte, typ.Bytes(rows, cols))
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			for _, at := range []int{0, 31, 64 + 32, 2*64 + 63} {
				numbers := randomNumbers(rows * cols)
				numbers[at] = bad
				var where *NotFiniteError
				require.ErrorAs(t, Encode(typ, rows, cols, numbers, data), &where, "%v %v", typ, bad)
				require.Equal(t, at/cols, where.Row)
				require.Equal(t, at%cols, where.Column, "%v %v", typ, bad)
				require.Contains(t, where.Error(), "not finite")
			}
		}
	}
	// Finite, but beyond what the type can hold.
	for typ, x := range map[Type]float32{F16: 65520, BF16: math.MaxFloat32, Q4_0: -8 * 65520, Q4_1: 15 * 65520, Q6_0: -32 * 65520, Q8_0: 127 * 65520} {
		numbers := randomNumbers(rows * cols)
		numbers[70] = x
		var where *NotFiniteError
		require.ErrorAs(t, Encode(typ, rows, cols, numbers, make([]byte, typ.Bytes(rows, cols))), &where, "%v", typ)
		require.Equal(t, NotFiniteError{typ, 1, 6, x}, *where)
		require.Contains(t, where.Error(), "beyond")
		numbers[70] = x * 0.99
		require.NoError(t, Encode(typ, rows, cols, numbers, make([]byte, typ.Bytes(rows, cols))), "%v", typ)
	}
	m, err := NewMatrix(Q8_0, 2, 32, make([]byte, Q8_0.Bytes(2, 32)))
	require.NoError(t, err)
	require.Error(t, m.EncodeRows(0, make([]float32, 33)))
	require.Error(t, m.EncodeRows(1, make([]float32, 64)))
	require.Error(t, m.EncodeRows(-1, make([]float32, 32)))
	require.Error(t, Encode(Q8_0, 2, 32, make([]float32, 64), make([]byte, 10)))
	require.Error(t, Encode(Q8_0, 2, 32, make([]float32, 63), make([]byte, 100)))
}

func BenchmarkEncode(b *testing.B) {
	const rows, cols = 16, 4096
	numbers := randomNumbers(rows * cols)
	for _, typ := range Types() {
		data := make([]byte, typ.Bytes(rows, cols))
		b.Run(typ.String(), func(b *testing.B) {
			b.SetBytes(2 * rows * cols) // as bf16, what a source mostly is
			for b.Loop() {
				if err := Encode(typ, rows, cols, numbers, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRow(b *testing.B) {
	const cols = 4096
	for _, typ := range Types() {
		data := make([]byte, typ.Bytes(1, cols))
		require.NoError(b, Encode(typ, 1, cols, randomNumbers(cols), data))
		m, err := NewMatrix(typ, 1, cols, data)
		require.NoError(b, err)
		row := make([]float32, cols)
		b.Run(typ.String(), func(b *testing.B) {
			b.SetBytes(4 * cols)
			for b.Loop() {
				m.Row(row, 0)
			}
		})
	}
}
