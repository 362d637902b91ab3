package gguf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/safetensors"
)

const folder = "../testdata/gguf/"

func open(data []byte) (*File, error) {
	return New(bytes.NewReader(data), int64(len(data)), "it.gguf")
}

// The files that an independent program wrote open, with what files.json says
// of them, and every tensor decodes.
func TestGoldens(t *testing.T) {
	var list struct {
		Files map[string]struct {
			Arch    string `json:"arch"`
			Weights string `json:"weights"`
			Split   int    `json:"split"`
			Version int    `json:"version"`
		} `json:"files"`
	}
	data, err := os.ReadFile(folder + "files.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &list))
	require.Len(t, list.Files, 13)
	for name, want := range list.Files {
		t.Run(name, func(t *testing.T) {
			path := folder + name + ".gguf"
			if want.Split > 0 {
				path = fmt.Sprintf("%s%s-00001-of-%05d.gguf", folder, name, want.Split)
			}
			f, err := Open(path)
			require.NoError(t, err)
			require.Len(t, f.parts, max(1, want.Split))
			require.Equal(t, cmp.Or(want.Version, 3), f.Version)
			defer func() { require.NoError(t, f.Close()) }()
			arch, err := f.String("general.architecture")
			require.NoError(t, err)
			require.Equal(t, want.Arch, arch)
			layers, err := f.Uint(arch + ".block_count")
			require.NoError(t, err)
			require.Positive(t, layers)
			require.Len(t, f.Keys, len(f.Meta))

			types := map[string]bool{}
			total := int64(0)
			for _, tensor := range f.Tensors {
				found, ok := f.Tensor(tensor.Name)
				require.True(t, ok)
				require.Equal(t, tensor, found)
				types[tensor.Type.String()] = true
				numbers, err := f.Floats(tensor.Name)
				require.NoError(t, err)
				require.False(t, slices.ContainsFunc(numbers, func(x float32) bool { return x != x || math.Abs(float64(x)) > 1e3 }), tensor.Name)
				total += tensor.Bytes
			}
			require.Equal(t, total, f.Bytes())
			delete(types, "F32") // norms, in every file
			require.Subset(t, strings.Fields(want.Weights), slices.Collect(maps.Keys(types)))
		})
	}
}

// Tensors lie where they should: unquantised ones are the checkpoint's.
func TestSameAsCheckpoint(t *testing.T) {
	for gguf, hf := range map[string]string{"qwen3": "qwen3", "qwen2-00001-of-00002": "qwen2", "glm4": "glm4"} {
		f, err := Open(folder + gguf + ".gguf")
		require.NoError(t, err)
		set, err := safetensors.OpenFolder("../testdata/models/" + hf)
		require.NoError(t, err)
		for a, b := range map[string]string{
			"token_embd.weight":      "model.embed_tokens.weight",
			"blk.1.attn_v.weight":    "model.layers.1.self_attn.v_proj.weight",
			"blk.1.ffn_down.weight":  "model.layers.1.mlp.down_proj.weight",
			"output_norm.weight":     "model.norm.weight",
			"blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
		} {
			got, err := f.Floats(a)
			require.NoError(t, err)
			want, err := set.Floats(b)
			require.NoError(t, err)
			require.Equal(t, want, got, "%s %s", gguf, a)
			ours, _ := f.Tensor(a)
			theirs, _, _ := set.Tensor(b)
			require.Equal(t, theirs.Shape, ours.Shape)
		}
		require.NoError(t, f.Close())
		require.NoError(t, set.Close())
	}
}

// Every block type decodes to ggml's numbers, bit for bit.
func TestDecodeEqualsGGML(t *testing.T) {
	f, err := Open(folder + "types.gguf")
	require.NoError(t, err)
	defer f.Close()
	golden, err := safetensors.Open(folder + "types.safetensors")
	require.NoError(t, err)
	defer golden.Close()
	types := map[quant.Foreign]int{}
	for _, tensor := range f.Tensors {
		types[tensor.Type]++
		want, err := golden.Floats(tensor.Name)
		require.NoError(t, err)
		got, err := f.Floats(tensor.Name)
		require.NoError(t, err)
		for i := range want {
			require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s: number %d: want %g, got %g", tensor.Name, i, want[i], got[i])
		}
	}
	require.Len(t, types, 16)
	require.Len(t, f.Tensors, len(golden.Names()))
}

// Every block type goes into its native type: without any loss where the forms
// agree, else to within a step.
func TestRepack(t *testing.T) {
	f, err := Open(folder + "types.gguf")
	require.NoError(t, err)
	defer f.Close()
	lossless := map[quant.Foreign]bool{quant.ForeignF32: true, quant.ForeignF16: true, quant.ForeignBF16: true, quant.ForeignQ4_0: true, quant.ForeignQ4_1: true, quant.ForeignQ8_0: true}
	for _, tensor := range f.Tensors {
		native, ok := tensor.Type.Native()
		require.True(t, ok)
		rows, cols := tensor.Matrix()
		src, err := f.ReadTensor(tensor)
		require.NoError(t, err)
		planar := make([]byte, native.Bytes(rows, cols))
		require.NoError(t, tensor.Type.Repack(native, rows, cols, src, planar), tensor.Name)
		m, err := quant.NewMatrix(native, rows, cols, planar)
		require.NoError(t, err)

		want, err := f.Floats(tensor.Name)
		require.NoError(t, err)
		row := make([]float32, cols)
		for r := range rows {
			m.Row(row, r)
			for b := 0; b < cols; b += quant.BlockSize {
				block := want[r*cols+b:][:min(quant.BlockSize, cols-b)]
				highest := 0.0
				for _, x := range block {
					highest = max(highest, math.Abs(float64(x)))
				}
				for i, x := range block {
					got := row[b+i]
					switch {
					case lossless[tensor.Type]:
						require.Equal(t, math.Float32bits(x), math.Float32bits(got), "%s row %d column %d", tensor.Name, r, b+i)
					case tensor.Type == quant.ForeignQ4_K:
						// Scale times quant and minimum may cancel: the error of
						// each is 2^-11 of it, or half an f16 denormal.
						terms := largestTerms(src, (r*cols+b)/quant.BlockSize)
						require.InDelta(t, x, got, terms*0x1p-11+16*0x1p-25, "%s row %d column %d", tensor.Name, r, b+i)
					case native == quant.Q6_0: // the same quants, a product of scales rounded
						require.InDelta(t, x, got, math.Abs(float64(x))*0x1p-11+32*0x1p-25, "%s row %d column %d", tensor.Name, r, b+i)
					default: // a scale that fits better may be up to half larger
						require.InDelta(t, x, got, highest*(0.75/127+0x1p-11)+127*0x1p-25, "%s row %d column %d", tensor.Name, r, b+i)
					}
				}
			}
		}
		lossIntoQ8_0(t, tensor, want, src)
		// Rows in pieces, also out of order, give the same bytes.
		pieces := make([]byte, len(planar))
		m, err = quant.NewMatrix(native, rows, cols, pieces)
		require.NoError(t, err)
		size := len(src) / rows
		require.NoError(t, m.RepackRows(1, tensor.Type, src[size:]))
		require.NoError(t, m.RepackRows(0, tensor.Type, src[:size]))
		require.Equal(t, planar, pieces, tensor.Name)
		require.Error(t, m.RepackRows(1, tensor.Type, src))
		require.Error(t, m.RepackRows(0, tensor.Type, src[:size-1]))
	}
}

// lossIntoQ8_0 holds what is not lost beyond the usual encoding: nothing where a
// block is evenly spaced and so in q8_0's reach, and never more than the usual.
func lossIntoQ8_0(t *testing.T, tensor Tensor, want []float32, src []byte) {
	most, ok := map[quant.Foreign]float64{ // of the usual encoding's squared loss
		quant.ForeignQ5_0: 0, quant.ForeignIQ4_NL: 0, quant.ForeignMXFP4: 0, quant.ForeignIQ4_XS: 0.1, quant.ForeignQ3_K: 0.3,
		quant.ForeignQ5_1: 0.9, quant.ForeignQ2_K: 0.8, quant.ForeignQ5_K: 0.95, quant.ForeignQ6_K: 0.95,
	}[tensor.Type]
	if !ok {
		return
	}
	if strings.Contains(tensor.Name, ".") { // random bits: scales of every size
		most = 1
	}
	rows, cols := tensor.Matrix()
	repacked, data := make([]byte, quant.Q8_0.Bytes(rows, cols)), make([]byte, quant.Q8_0.Bytes(rows, cols))
	require.NoError(t, tensor.Type.Repack(quant.Q8_0, rows, cols, src, repacked))
	m, err := quant.NewMatrix(quant.Q8_0, rows, cols, repacked)
	require.NoError(t, err)
	require.NoError(t, quant.Encode(quant.Q8_0, rows, cols, want, data))
	usual, err := quant.NewMatrix(quant.Q8_0, rows, cols, data)
	require.NoError(t, err)
	lost := func(m quant.Matrix) (sum float64) {
		row := make([]float32, m.Cols)
		for r := range m.Rows {
			m.Row(row, r)
			for i, v := range row {
				d := float64(v) - float64(want[r*m.Cols+i])
				sum += d * d
			}
		}
		return sum
	}
	require.LessOrEqual(t, lost(m), most*lost(usual), "%s: loses %.2f of the usual", tensor.Name, lost(m)/lost(usual))
}

// largestTerms is the largest sum of magnitudes, scale times quant plus minimum,
// that a number of a sub-block of 32 is made of.
func largestTerms(q4k []byte, sub int) float64 {
	b, j := q4k[sub/8*144:], sub%8
	d, dmin := quant.F16ToF32(binary.LittleEndian.Uint16(b)), quant.F16ToF32(binary.LittleEndian.Uint16(b[2:]))
	scales := b[4:16]
	s, m := scales[j%4]&63, scales[j%4+4]&63
	if j >= 4 {
		s, m = scales[j+4]&15|scales[j-4]>>6<<4, scales[j+4]>>4|scales[j]>>6<<4
	}
	return 15*math.Abs(float64(d)*float64(s)) + math.Abs(float64(dmin)*float64(m))
}

// Weights that are not finite are found wherever they hide in a block.
func TestRepackRefusesNaN(t *testing.T) {
	scaleAt := map[quant.Foreign]int{ // offset of a 16-bit scale in a block
		quant.ForeignF16: 0, quant.ForeignQ4_0: 0, quant.ForeignQ4_1: 2, quant.ForeignQ5_0: 0, quant.ForeignQ5_1: 2, quant.ForeignQ8_0: 0,
		quant.ForeignQ2_K: 80, quant.ForeignQ3_K: 108, quant.ForeignQ4_K: 0, quant.ForeignQ5_K: 2, quant.ForeignQ6_K: 208,
		quant.ForeignIQ4_NL: 0, quant.ForeignIQ4_XS: 0,
	}
	f, err := Open(folder + "types.gguf")
	require.NoError(t, err)
	defer f.Close()
	for typ, at := range scaleAt {
		tensor, ok := f.Tensor(typ.String())
		require.True(t, ok)
		src, err := f.ReadTensor(tensor)
		require.NoError(t, err)
		rows, cols := tensor.Matrix()
		numbers, size := typ.Block()
		block := (5*cols + 256) / numbers // of row 5, the one with column 256
		binary.LittleEndian.PutUint16(src[block*size+at:], 0x7e00)
		native, _ := typ.Native()
		var where *quant.NotFiniteError
		err = typ.Repack(native, rows, cols, src, make([]byte, native.Bytes(rows, cols)))
		require.ErrorAs(t, err, &where, "%v", typ)
		require.Equal(t, 5, where.Row, "%v", typ)
		require.GreaterOrEqual(t, where.Column, 256, "%v", typ)
		require.Less(t, where.Column, 256+numbers, "%v", typ)
	}
	for _, typ := range []quant.Foreign{quant.ForeignF32, quant.ForeignBF16} {
		_, size := typ.Block()
		src := make([]byte, 64*size)
		for i := 40 * size; i < 41*size; i++ {
			src[i] = 0xff
		}
		var where *quant.NotFiniteError
		native, _ := typ.Native()
		require.ErrorAs(t, typ.Repack(native, 2, 32, src, make([]byte, native.Bytes(2, 32))), &where)
		require.Equal(t, [2]int{1, 8}, [2]int{where.Row, where.Column})
	}
}

// Types that cannot be decoded are refused by name, unknown ones by number.
func TestTypesRefused(t *testing.T) {
	f, err := Open(folder + "types_refused.gguf")
	require.NoError(t, err)
	defer f.Close()
	require.Len(t, f.Tensors, 14)
	for _, tensor := range f.Tensors {
		if tensor.Name == "F32" { // one that is good
			require.NoError(t, f.CheckType(tensor))
			continue
		}
		require.Equal(t, tensor.Type.String(), tensor.Name, "the tensor is named after its type")
		_, native := tensor.Type.Native()
		require.False(t, native)
		data, err := f.ReadTensor(tensor)
		require.NoError(t, err, "its bytes can be read")
		for _, err := range []error{
			f.CheckType(tensor),
			tensor.Type.Decode(make([]float32, 256), data),
			tensor.Type.Repack(quant.Q8_0, 1, 256, data, make([]byte, 1024)),
			tensor.Type.Encode(data, make([]float32, 256)),
		} {
			require.ErrorContains(t, err, "type "+tensor.Name+" is not")
		}
		_, err = f.Floats(tensor.Name)
		require.ErrorContains(t, err, fmt.Sprintf("types_refused.gguf: tensor %q: element type %s is not supported", tensor.Name, tensor.Name))
	}
	_, err = Open(folder + "types_unknown.gguf")
	require.ErrorContains(t, err, `types_unknown.gguf: tensor "strange"`)
	require.ErrorContains(t, err, "element type 99 is unknown")
}

// Headers cut off at every byte, and data cut off at every tensor's edges, are
// errors that say so.
func TestTruncated(t *testing.T) {
	paths, err := filepath.Glob(folder + "*.gguf")
	require.NoError(t, err)
	require.Len(t, paths, 17)
	for _, path := range paths {
		if strings.Contains(path, "unknown") {
			continue
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		f, err := read(bytes.NewReader(data), int64(len(data)), path)
		require.NoError(t, err)
		first := f.Tensors[0].Offset
		step := int(first)/2000 + 1
		for n := 0; n < int(first); n += step {
			_, err := open(data[:n])
			require.ErrorContains(t, err, "it.gguf: ")
		}
		for _, tensor := range f.Tensors {
			for _, n := range []int64{tensor.Offset, tensor.Offset + 1, tensor.Offset + tensor.Bytes - 1} {
				_, err := open(data[:n])
				require.ErrorContains(t, err, "was it cut off?")
			}
		}
	}
}

// builder makes malformed files.
type builder struct{ bytes.Buffer }

func build(version uint32, tensors, pairs uint64) *builder {
	b := &builder{}
	b.WriteString(magic)
	b.add(version, tensors, pairs)
	return b
}

func (b *builder) add(values ...any) *builder {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b.add(uint64(len(v)))
			b.WriteString(v)
		case []byte:
			b.Write(v)
		default:
			if err := binary.Write(b, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return b
}

func TestRefuses(t *testing.T) {
	u32, u64 := func(n uint32) uint32 { return n }, func(n uint64) uint64 { return n }
	data := make([]byte, 256)
	deep := build(3, 0, 1).add("k", u32(typeArray))
	for range 100 {
		deep.add(u32(typeArray), u64(1))
	}
	tests := []struct {
		name string
		file *builder
		want string
	}{
		{"version 1", build(1, 0, 0).add(data), "version 1: want 2 or 3"},
		{"version 4", build(4, 0, 0).add(data), "version 4"},
		{"big-endian", build(3<<24, 0, 0).add(data), "big-endian"},
		{"absurd tensors", build(3, math.MaxUint64, 0).add(data), "18446744073709551615 tensors before byte 16"},
		{"many tensors", build(3, 9, 0).add(data), "9 tensors before byte 16, the file has 280 bytes"},
		{"absurd pairs", build(3, 0, 1<<40).add(data), "1099511627776 key-value pairs"},
		{"pairs leave no room", build(3, 7, 1).add("k", u32(typeString), string(data[:200]), data[:56]), "7 tensors before byte"},
		{"absurd key", build(3, 0, 1).add(u64(1<<63), data), "key of 9223372036854775808 bytes at byte 24"},
		{"key beyond the file", build(3, 0, 1).add(u64(1000), data), "1000 bytes of a key before byte 32"},
		{"absurd string", build(3, 0, 1).add("k", u32(typeString), u64(1<<62), data), `key "k" (number 0, at byte 24): string of 4611686018427387904 bytes`},
		{"absurd list", build(3, 0, 1).add("k", u32(typeArray), u32(typeUint8), u64(1<<50), data), "1125899906842624 list elements"},
		{"list of unknown", build(3, 0, 1).add("k", u32(typeArray), u32(13), u64(1), data), "list of value type 13"},
		{"unknown value", build(3, 0, 1).add("k", u32(77), data), "value type 77"},
		{"bool of 2", build(3, 0, 1).add("k", u32(typeBool), uint8(2), data), "bool is 2"},
		{"deep lists", deep.add(data), "more than 4 deep"},
		{"huge element", build(3, 0, 1).add("k", u32(typeArray), u32(typeUint64), u64(1), u64(1<<63), data), "beyond 63 bits"},
		{"key twice", build(3, 0, 2).add("k", u32(typeBool), uint8(1), "k", u32(typeBool), uint8(1), data), `key "k" comes twice, again at byte 38`},
		{"alignment 0", build(3, 0, 1).add(alignmentKey, u32(typeUint32), u32(0), data), "want a power of two"},
		{"alignment 48", build(3, 0, 1).add(alignmentKey, u32(typeUint32), u32(48), data), "general.alignment is 48"},
		{"alignment huge", build(3, 0, 1).add(alignmentKey, u32(typeUint32), u32(1<<31), data), "want a power of two"},
		{"alignment of text", build(3, 0, 1).add(alignmentKey, u32(typeString), "x", data), "want a power of two"},
		{"tensor twice", build(3, 2, 0).add("t", u32(1), u64(1), u32(0), u64(0), "t", u32(1), u64(1), u32(0), u64(32), data), `"t" comes twice`},
		{"long tensor name", build(3, 1, 0).add(u64(2000), make([]byte, 3000)), "tensor name of 2000 bytes"},
		{"no dimension", build(3, 1, 0).add("t", u32(0), u32(0), u64(0), data), `tensor "t" (number 0, at byte 24): 0 dimensions`},
		{"five dimensions", build(3, 1, 0).add("t", u32(5), data), "5 dimensions"},
		{"empty dimension", build(3, 1, 0).add("t", u32(2), u64(3), u64(0), u32(0), u64(0), data), "dimension 1 is 0"},
		{"negative dimension", build(3, 1, 0).add("t", u32(1), u64(math.MaxUint64), u32(0), u64(0), data), "dimension 0 is"},
		{"shape overflows", build(3, 1, 0).add("t", u32(3), u64(1<<31), u64(1<<31), u64(1<<31), u32(0), u64(0), data), "larger than any file"},
		{"shape beyond the file", build(3, 1, 0).add("t", u32(2), u64(1<<20), u64(1<<20), u32(0), u64(0), data), "4398046511104 bytes at byte"},
		{"half a block", build(3, 1, 0).add("t", u32(2), u64(33), u64(1), u32(2), u64(0), data), "rows of 33 numbers: Q4_0 has blocks of 32"},
		{"offset unaligned", build(3, 1, 0).add("t", u32(1), u64(1), u32(0), u64(4), data), "not a multiple of the alignment, 32"},
		{"offset beyond", build(3, 1, 0).add("t", u32(1), u64(1), u32(0), u64(1<<20), data), "the file has"},
		{"offset absurd", build(3, 1, 0).add("t", u32(1), u64(1), u32(0), u64(math.MaxUint64), data), "beyond any file"},
		{"overlap", build(3, 2, 0).add("a", u32(1), u64(32), u32(0), u64(0), "b", u32(1), u64(1), u32(0), u64(96), data), `"b": begins at byte 96 of the data, inside "a" that ends at 128`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := open(test.file.Bytes())
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "it.gguf: ")
		})
	}
	_, err := open([]byte("GGML and something that is long enough"))
	require.ErrorContains(t, err, `begins with "GGML"`)
	_, err = Open(filepath.Join(t.TempDir(), "none.gguf"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Open(t.TempDir())
	require.ErrorContains(t, err, "is a folder")
	_, err = NewSplit(nil)
	require.Error(t, err)
}

// A header that goes on for ever is left at MaxHeader, whatever the file's size.
func TestHeaderIsBounded(t *testing.T) {
	start := build(3, 1, 1).add("k", uint32(typeArray), uint32(typeFloat64), uint64(MaxHeader/8-10)).Bytes()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := New(endless(start), 1<<40, "it.gguf")
	runtime.ReadMemStats(&after)
	require.ErrorContains(t, err, fmt.Sprintf("at most %d", MaxHeader))
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*MaxHeader))

	_, err = New(failing{}, 1<<40, "it.gguf")
	require.ErrorIs(t, err, errBroken)
}

// endless is a file that begins with these bytes and goes on with zeros.
type endless []byte

func (e endless) ReadAt(p []byte, offset int64) (int, error) {
	clear(p)
	if offset < int64(len(e)) {
		copy(p, e[offset:])
	}
	return len(p), nil
}

var errBroken = errors.New("disk is broken")

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

// split writes the two parts of a model, with what each says about splitting.
func split(t *testing.T, folder string, says [2][2]uint16, total int32, names [2]string) string {
	t.Helper()
	paths := [2]string{}
	for i := range 2 {
		var b bytes.Buffer
		w, err := NewWriter(&b, []Pair{{splitNumberKey, says[i][0]}, {splitCountKey, says[i][1]}, {splitTotalKey, total}},
			[]Info{{names[i], quant.ForeignF32, []int64{1}}})
		require.NoError(t, err)
		_, err = w.Write([]byte{0, 0, 0, byte(i)})
		require.NoError(t, err)
		require.NoError(t, w.Close())
		paths[i] = filepath.Join(folder, fmt.Sprintf("m-%05d-of-00002.gguf", i+1))
		require.NoError(t, os.WriteFile(paths[i], b.Bytes(), 0o600))
	}
	return paths[0]
}

func TestSplit(t *testing.T) {
	good := [2][2]uint16{{0, 2}, {1, 2}}
	both := [2]string{"a", "b"}

	first := split(t, t.TempDir(), good, 2, both)
	for _, path := range []string{first, strings.Replace(first, "00001", "00002", 1)} {
		f, err := Open(path)
		require.NoError(t, err)
		require.Len(t, f.Tensors, 2)
		b, ok := f.Tensor("b")
		require.True(t, ok)
		require.Equal(t, 1, b.Part)
		data, err := f.ReadTensor(b)
		require.NoError(t, err)
		require.Equal(t, []byte{0, 0, 0, 1}, data)
		require.Equal(t, uint64(0), f.Meta[splitNumberKey], "the metadata are the first part's")
		require.NoError(t, f.Close())
	}

	tests := []struct {
		name  string
		says  [2][2]uint16
		total int32
		names [2]string
		want  string
	}{
		{"same part twice", [2][2]uint16{{0, 2}, {0, 2}}, 2, both, "00002-of-00002.gguf: says it is part 1 of 2, want part 2 of 2"},
		{"swapped", [2][2]uint16{{1, 2}, {0, 2}}, 2, both, "says it is part 2 of 2"},
		{"other count", [2][2]uint16{{0, 2}, {1, 3}}, 2, both, "says it is part 2 of 3"},
		{"count unlike the name", [2][2]uint16{{0, 3}, {1, 3}}, 2, both, "want it named PREFIX-00001-of-00003.gguf"},
		{"number beyond", [2][2]uint16{{7, 2}, {1, 2}}, 2, both, "says it is part 8 of 2"},
		{"other total", good, 3, both, "the parts hold 3 tensors, they hold 2"},
		{"tensor in both", good, 2, [2]string{"a", "a"}, `tensor "a" is in`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Open(split(t, t.TempDir(), test.says, test.total, test.names))
			require.ErrorContains(t, err, test.want)
		})
	}

	require.NoError(t, os.Remove(strings.Replace(first, "00001", "00002", 1)))
	_, err := Open(first)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "part 2 of 2")

	renamed := filepath.Join(t.TempDir(), "model.gguf")
	require.NoError(t, os.Rename(first, renamed))
	_, err = Open(renamed)
	require.ErrorContains(t, err, "want it named")

	// A part by itself, as a reader.
	data, err := os.ReadFile(renamed)
	require.NoError(t, err)
	_, err = open(data)
	require.ErrorContains(t, err, "says it is part 1 of 2, want part 1 of 1")

	require.Nil(t, SplitNames("model.gguf"))
	require.Nil(t, SplitNames("m-00001-of-99999.gguf"))
	require.Equal(t, []string{"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}, SplitNames("m-00002-of-00002.gguf"))
}

// What is written is what is read, for every value type, alignment and size.
func TestWriter(t *testing.T) {
	meta := []Pair{
		{"u8", uint8(200)}, {"i8", int8(-7)}, {"u16", uint16(60000)}, {"i16", int16(-30000)}, {"u32", uint32(1 << 31)}, {"i32", int32(-1 << 31)},
		{"u64", uint64(math.MaxUint64)}, {"i64", int64(math.MinInt64)}, {"f32", float32(1.5)}, {"f64", math.Pi}, {"yes", true}, {"no", false},
		{"text", "Grüße\x00"}, {"empty", ""}, {"texts", []string{"a", "", "ccc"}},
		{"u8s", []uint8{1, 255}}, {"i8s", []int8{-1}}, {"u16s", []uint16{1}}, {"i16s", []int16{-2}}, {"u32s", []uint32{1 << 31}},
		{"i32s", []int32{-1, 2}}, {"u64s", []uint64{1 << 40}}, {"i64s", []int64{-1 << 40}}, {"f32s", []float32{0.5}}, {"f64s", []float64{math.E}}, {"bools", []bool{true, false}}, {"none", []int32{}},
	}
	want := map[string]any{
		"u8": uint64(200), "i8": int64(-7), "u16": uint64(60000), "i16": int64(-30000), "u32": uint64(1 << 31), "i32": int64(-1 << 31),
		"u64": uint64(math.MaxUint64), "i64": int64(math.MinInt64), "f32": 1.5, "f64": math.Pi, "yes": true, "no": false,
		"text": "Grüße\x00", "empty": "", "texts": []string{"a", "", "ccc"},
		"u8s": []int64{1, 255}, "i8s": []int64{-1}, "u16s": []int64{1}, "i16s": []int64{-2}, "u32s": []int64{1 << 31},
		"i32s": []int64{-1, 2}, "u64s": []int64{1 << 40}, "i64s": []int64{-1 << 40}, "f32s": []float64{0.5}, "f64s": []float64{math.E}, "bools": []bool{true, false}, "none": []int64{},
	}
	infos := []Info{
		{"f", quant.ForeignF32, []int64{5}},
		{"q", quant.ForeignQ4_0, []int64{2, 3, 64}},
		{"k", quant.ForeignQ6_K, []int64{1, 256}},
		{"h", quant.ForeignF16, []int64{1, 1}},
	}
	sizes := []int{20, 2 * 3 * 2 * 18, 210, 2}
	for _, alignment := range []uint32{1, 32, 4096} {
		for _, chunk := range []int{1, 7, 1000} {
			var b bytes.Buffer
			w, err := NewWriter(&b, append([]Pair{{alignmentKey, alignment}}, meta...), infos)
			require.NoError(t, err)
			require.ErrorContains(t, w.Close(), `tensor "f": 20 of its 20 bytes are missing, and 3 tensors after it`)
			var data []byte
			for i, n := range sizes {
				data = append(data, bytes.Repeat([]byte{byte(i + 1)}, n)...)
			}
			for piece := range slices.Chunk(data, chunk) {
				n, err := w.Write(piece)
				require.NoError(t, err)
				require.Equal(t, len(piece), n)
			}
			require.NoError(t, w.Close())
			_, err = w.Write([]byte{0})
			require.ErrorContains(t, err, "after the last tensor")
			require.Zero(t, b.Len()%int(alignment))

			f, err := open(b.Bytes())
			require.NoError(t, err)
			require.Equal(t, 3, f.Version)
			require.Equal(t, uint64(alignment), f.Meta[alignmentKey])
			delete(f.Meta, alignmentKey)
			require.Equal(t, want, f.Meta)
			require.Equal(t, "u8", f.Keys[1])
			require.Len(t, f.Tensors, len(infos))
			for i, tensor := range f.Tensors {
				require.Equal(t, infos[i], Info{tensor.Name, tensor.Type, tensor.Shape})
				require.Zero(t, tensor.Offset%int64(alignment))
				data, err := f.ReadTensor(tensor)
				require.NoError(t, err)
				require.Equal(t, bytes.Repeat([]byte{byte(i + 1)}, sizes[i]), data)
			}
		}
	}
	for name, bad := range map[string][]Info{
		"Q4_0 has blocks":    {{"t", quant.ForeignQ4_0, []int64{33}}},
		"comes twice":        {infos[0], infos[0]},
		"impossible":         {{"t", quant.ForeignF32, []int64{1 << 32, 1 << 32}}},
		"dimensions":         {{"t", quant.ForeignF32, nil}},
		"ggml reads at most": {{strings.Repeat("t", 64), quant.ForeignF32, []int64{1}}},
		"is unknown":         {{"t", 99, []int64{1}}},
	} {
		_, err := NewWriter(io.Discard, nil, bad)
		require.ErrorContains(t, err, name)
	}
	_, err := NewWriter(io.Discard, []Pair{{"k", 3}}, nil)
	require.ErrorContains(t, err, `key "k": value of type int`)
	_, err = NewWriter(io.Discard, []Pair{{"k", "a"}, {"k", "b"}}, nil)
	require.ErrorContains(t, err, "comes twice")
	_, err = NewWriter(io.Discard, []Pair{{alignmentKey, uint32(3)}}, nil)
	require.ErrorContains(t, err, "power of two")
}

func TestNestedLists(t *testing.T) {
	b := build(2, 0, 1).add("k", uint32(typeArray), uint32(typeArray), uint64(2),
		uint32(typeInt32), uint64(2), int32(1), int32(-2), uint32(typeString), uint64(1), "x")
	f, err := open(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, 2, f.Version)
	require.Equal(t, []any{[]int64{1, -2}, []string{"x"}}, f.Meta["k"])
}

func TestGetters(t *testing.T) {
	b := build(3, 0, 3).add("n", uint32(typeInt32), int32(5), "negative", uint32(typeInt32), int32(-5), "s", uint32(typeString), "x")
	f, err := open(b.Bytes())
	require.NoError(t, err)
	n, err := f.Uint("n")
	require.NoError(t, err)
	require.Equal(t, uint64(5), n)
	_, err = f.Uint("negative")
	require.ErrorContains(t, err, "it.gguf: key negative is a int64, want uint64")
	_, err = f.Uint("none")
	require.ErrorContains(t, err, "it.gguf: key none is missing")
	_, err = f.Strings("s")
	require.ErrorContains(t, err, "key s is a string, want []string")
	_, err = f.Floats("t")
	require.ErrorContains(t, err, `tensor "t" is missing`)
	_, ok := f.Tensor("t")
	require.False(t, ok)
}

func FuzzNew(f *testing.F) {
	for _, name := range []string{"types_refused", "types_unknown", "types", "llama-gqa-quantised", "qwen2-00001-of-00002"} {
		data, err := os.ReadFile(folder + name + ".gguf")
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add(build(2, 0, 1).add("k", uint32(typeArray), uint32(typeArray), uint64(1), uint32(typeInt32), uint64(2), int32(1), int32(-2)).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		opened, err := open(data)
		if err != nil {
			return
		}
		total := int64(0)
		for _, tensor := range opened.Tensors {
			bytes, err := opened.ReadTensor(tensor)
			require.NoError(t, err)
			total += int64(len(bytes))
			rows, cols := tensor.Matrix()
			size, err := tensor.Type.RowBytes(cols)
			require.NoError(t, err)
			require.Equal(t, tensor.Bytes, int64(rows)*int64(size))
			if native, ok := tensor.Type.Native(); ok {
				if !native.Fits(cols) {
					continue
				}
				// It may hold NaN: an error, never a panic.
				_ = tensor.Type.Repack(native, rows, cols, bytes, make([]byte, native.Bytes(rows, cols)))
			}
		}
		require.LessOrEqual(t, total, int64(len(data)))
	})
}

func BenchmarkRepack(b *testing.B) {
	f, err := Open(folder + "types.gguf")
	require.NoError(b, err)
	defer f.Close()
	for _, tensor := range f.Tensors {
		if tensor.Name != tensor.Type.String() {
			continue
		}
		src, err := f.ReadTensor(tensor)
		require.NoError(b, err)
		src = bytes.Repeat(src, 64)
		rows, cols := tensor.Matrix()
		rows *= 64
		native, _ := tensor.Type.Native()
		dst := make([]byte, native.Bytes(rows, cols))
		b.Run(tensor.Name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				if err := tensor.Type.Repack(native, rows, cols, src, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func Example() {
	f, err := Open("../testdata/gguf/qwen3.gguf")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	layers, err := f.Uint("qwen3.block_count")
	tensor, _ := f.Tensor("blk.0.attn_q.weight")
	fmt.Println(layers, err, tensor.Type, tensor.Shape)
	// Output: 3 <nil> F16 [128 64]
}
