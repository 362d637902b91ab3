package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/quant"
)

// file makes a file of a header and n bytes of data.
func file(header string, n int) []byte {
	data := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(data, header...), make([]byte, n)...)
}

func open(data []byte) (*File, error) {
	return New(bytes.NewReader(data), int64(len(data)), "it.safetensors")
}

// Every checkpoint and result of the test data opens, and all its tensors can
// be read.
func TestGoldens(t *testing.T) {
	paths, err := filepath.Glob("../testdata/*/*.safetensors")
	require.NoError(t, err)
	more, err := filepath.Glob("../testdata/models/*/*.safetensors")
	require.NoError(t, err)
	paths = append(paths, more...)
	require.Greater(t, len(paths), 40)
	for _, path := range paths {
		f, err := Open(path)
		require.NoError(t, err)
		total := int64(0)
		for _, name := range f.Names() {
			tensor, ok := f.Tensor(name)
			require.True(t, ok)
			total += tensor.Bytes
			data := make([]byte, tensor.Bytes)
			require.NoError(t, f.ReadAt(tensor, 0, data))
			rows, cols := tensor.Matrix()
			if _, err := tensor.Element(); err != nil {
				continue
			}
			numbers, err := f.Floats(name)
			require.NoError(t, err)
			require.Len(t, numbers, rows*cols)
			// The last row by itself.
			row := make([]byte, len(data)/rows)
			require.NoError(t, f.ReadRows(tensor, rows-1, row))
			require.Equal(t, data[len(data)-len(row):], row)
		}
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Less(t, info.Size()-total, int64(100_000), "the rest is the header")
		require.NoError(t, f.Close())
	}
}

func TestFolders(t *testing.T) {
	single, err := OpenFolder("../testdata/models/qwen3")
	require.NoError(t, err)
	defer single.Close()
	require.Len(t, single.files, 1)

	split, err := OpenFolder("../testdata/models/llama-gqa")
	require.NoError(t, err)
	defer split.Close()
	require.Len(t, split.files, 2, "each part is opened once")
	for _, name := range split.Names() {
		tensor, f, ok := split.Tensor(name)
		require.True(t, ok)
		want, err := f.Floats(name)
		require.NoError(t, err)
		got, err := split.Floats(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NoError(t, split.ReadAt(name, tensor.Bytes-1, make([]byte, 1)))
		require.Error(t, split.ReadAt(name, tensor.Bytes, make([]byte, 1)))
	}
	require.Positive(t, split.Bytes())
	_, err = split.Floats("nothing")
	require.ErrorContains(t, err, `"nothing" is missing`)
	require.Error(t, split.ReadAt("nothing", 0, nil))
	_, _, ok := split.Tensor("nothing")
	require.False(t, ok)
}

func TestFolderRefuses(t *testing.T) {
	part := file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, "neither model.safetensors nor"},
		{"part missing", map[string]string{IndexName: `{"weight_map":{"a":"1.safetensors"}}`}, `tensor "a": part 1.safetensors`},
		{"tensor missing", map[string]string{IndexName: `{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}`, "1.safetensors": string(part)}, `tensor "b" is not in 1.safetensors`},
		{"broken part", map[string]string{IndexName: `{"weight_map":{"a":"1.safetensors"}}`, "1.safetensors": "xyz"}, "1.safetensors: 3 bytes"},
		{"no map", map[string]string{IndexName: `{}`}, "weight_map is missing"},
		{"no JSON", map[string]string{IndexName: `{`}, "unexpected end"},
		{"elsewhere", map[string]string{IndexName: `{"weight_map":{"a":"../1.safetensors"}}`}, "not the name of a file beside"},
		{"absolute", map[string]string{IndexName: `{"weight_map":{"a":"/etc/passwd"}}`}, "not the name of a file beside"},
		{"windows", map[string]string{IndexName: `{"weight_map":{"a":"..\\x"}}`}, "not the name of a file beside"},
		{"no name", map[string]string{IndexName: `{"weight_map":{"a":""}}`}, "not the name of a file beside"},
		{"broken single", map[string]string{SingleName: "12345678"}, "model.safetensors: header length"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			for name, content := range test.files {
				require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
			}
			_, err := OpenFolder(folder)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, folder)
		})
	}
	_, err := OpenFolder(t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Open(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// closing counts which readers were closed.
type closing struct {
	*bytes.Reader
	closed *int
}

func (c closing) Close() error { *c.closed++; return nil }

func TestSetClosesWhatItOpened(t *testing.T) {
	part := file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)
	opened, closed := 0, 0
	index := `{"weight_map":{"a":"1","b":"2"}}`
	_, err := NewSet("there", func(name string) (io.ReaderAt, int64, error) {
		data := part
		switch name {
		case SingleName:
			return nil, 0, fs.ErrNotExist
		case IndexName:
			data = []byte(index)
		}
		opened++
		return closing{bytes.NewReader(data), &closed}, int64(len(data)), nil
	})
	require.ErrorContains(t, err, `tensor "b" is not in 2`)
	require.Equal(t, 3, opened)
	require.Equal(t, opened, closed)
}

func TestRefuses(t *testing.T) {
	good := `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}`
	tests := []struct {
		name, header string
		data         int
		want         string
	}{
		{"overlap", strings.Replace(good, "[8,9]", "[7,8]", 1), 8, `"b": begins at byte 7 of the data, inside "a"`},
		{"gap", strings.Replace(good, "[8,9]", "[9,10]", 1), 10, "a gap"},
		{"gap at the start", strings.Replace(good, "[0,8]", "[1,9]", 1), 10, "a gap"},
		{"out of range", good, 8, `"b": bytes 8 to 9 of the data, the file holds 8`},
		{"data left over", good, 10, "the file has"},
		{"backwards", strings.Replace(good, "[8,9]", "[9,8]", 1), 9, "run backwards"},
		{"size does not fit", strings.Replace(good, "[2]", "[3]", 1), 9, "has 12 bytes, data_offsets [0, 8] hold 8"},
		{"product overflows", strings.Replace(good, "[2]", "[4294967296,4294967296,4]", 1), 9, "larger than any file"},
		{"product overflows around zero", strings.Replace(good, "[2]", "[0,4294967296,4294967296]", 1), 9, "larger than any file"},
		{"negative dimension", strings.Replace(good, "[2]", "[-2]", 1), 9, "shape: \"-2\" is not a whole number"},
		{"fraction", strings.Replace(good, "[2]", "[2.5]", 1), 9, "not a whole number"},
		{"huge dimension", strings.Replace(good, "[2]", "[99999999999999999999]", 1), 9, "not a whole number"},
		{"text dimension", strings.Replace(good, "[2]", `["2"]`, 1), 9, "not a whole number"},
		{"too many dimensions", strings.Replace(good, "[2]", "[1,1,1,1,1,1,1,1,2]", 1), 9, "more than 8 numbers"},
		{"three offsets", strings.Replace(good, "[0,8]", "[0,8,8]", 1), 9, "more than 2 numbers"},
		{"one offset", strings.Replace(good, "[0,8]", "[8]", 1), 9, "1 numbers, want 2"},
		{"unknown type", strings.Replace(good, "F32", "Q4", 1), 9, `dtype "Q4" is unknown`},
		{"type is a number", strings.Replace(good, `"F32"`, "32", 1), 9, `dtype "32" is unknown`},
		{"type missing", strings.Replace(good, `"dtype":"F32",`, "", 1), 9, "dtype is missing"},
		{"shape missing", strings.Replace(good, `"shape":[2],`, "", 1), 9, "shape is missing"},
		{"offsets missing", strings.Replace(good, `,"data_offsets":[0,8]`, "", 1), 9, "0 numbers, want 2"},
		{"name twice", strings.Replace(good, `"b"`, `"a"`, 1), 9, `"a" comes twice`},
		{"key twice", strings.Replace(good, `"dtype":"F32",`, `"dtype":"F32","dtype":"F32",`, 1), 9, `"dtype" comes twice`},
		{"other case", strings.Replace(good, `"dtype":"F32"`, `"DTYPE":"F32"`, 1), 9, "dtype is missing"},
		{"not JSON", `hello`, 0, "at byte"},
		{"JSON stops", `{"a":{`, 0, "unexpected EOF"},
		{"a list", `[]`, 0, `"[" where "{" is wanted`},
		{"two objects", `{}{}`, 0, "something follows"},
		{"metadata not text", `{"__metadata__":{"a":1}}`, 0, `"a" is not a string`},
		{"tensor is text", `{"a":"x"}`, 0, `"x" where "{" is wanted`},
		{"deep", strings.Repeat(`{"a":`, 20000), 0, "max depth"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := open(file(test.header, test.data))
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "it.safetensors: ")
		})
	}
	f, err := open(file(good, 9))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, f.Names())

	// Cut off anywhere.
	whole := file(good, 9)
	for n := range whole {
		_, err := open(whole[:n])
		require.Error(t, err, "%d of %d bytes", n, len(whole))
	}

	// A header length that no file has allocates nothing.
	for _, length := range []uint64{MaxHeader + 1, 1 << 30, math.MaxInt64, math.MaxUint64, 200} {
		data := binary.LittleEndian.AppendUint64(nil, length)
		_, err = open(append(data, make([]byte, 100)...))
		require.ErrorContains(t, err, fmt.Sprintf("header length %d", length))
	}
}

// The file may be shorter than it was when it was opened.
func TestReadsCutShort(t *testing.T) {
	whole := file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	f, err := New(bytes.NewReader(whole[:len(whole)-1]), int64(len(whole)), "it")
	require.NoError(t, err)
	_, err = f.Floats("a")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, `it: tensor "a": at byte 62`)
	_, err = f.Floats("b")
	require.ErrorContains(t, err, "missing")
	a, _ := f.Tensor("a")
	require.Error(t, f.ReadAt(a, -1, make([]byte, 1)))
	require.Error(t, f.ReadAt(a, math.MaxInt64, make([]byte, 1)))
	require.Error(t, f.ReadAt(a, 0, make([]byte, 9)))
	require.NoError(t, f.Close())
}

func TestWrite(t *testing.T) {
	halves := make([]byte, 6)
	quant.EncodeF16(halves, []float32{1, -2, 0.5})
	var b bytes.Buffer
	require.NoError(t, Write(&b, []Named{
		F32("weights \"x\"", []int64{2, 2}, []float32{1, 2, 3, 4}),
		{"halves", "F16", []int64{3}, bytes.NewReader(halves)},
		I64("ids", []int64{2}, []int64{-1, 1 << 40}),
		{"empty", "U8", []int64{0, 3}, bytes.NewReader(nil)},
		{"scalar", "U8", nil, bytes.NewReader([]byte{7})},
	}, map[string]string{"format": "pt"}))

	f, err := open(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"format": "pt"}, f.Metadata)
	require.ElementsMatch(t, []string{`weights "x"`, "halves", "ids", "empty", "scalar"}, f.Names())
	numbers, err := f.Floats(`weights "x"`)
	require.NoError(t, err)
	require.Equal(t, []float32{1, 2, 3, 4}, numbers)
	numbers, err = f.Floats("halves")
	require.NoError(t, err)
	require.Equal(t, []float32{1, -2, 0.5}, numbers)
	ids, _ := f.Tensor("ids")
	require.Zero(t, (b.Len()-9-6-16-16)%8, "the data is aligned")
	data := make([]byte, 16)
	require.NoError(t, f.ReadAt(ids, 0, data))
	require.Equal(t, int64(-1), int64(binary.LittleEndian.Uint64(data)))
	_, err = f.Floats("ids")
	require.ErrorContains(t, err, `"ids": dtype I64 is not supported`)

	require.ErrorContains(t, Write(io.Discard, []Named{{"short", "U8", []int64{2}, bytes.NewReader([]byte{1})}}, nil), "data of 1 bytes")
	require.ErrorContains(t, Write(io.Discard, []Named{{"long", "U8", []int64{2}, bytes.NewReader([]byte{1, 2, 3})}}, nil), "data of 3 bytes")
	require.Error(t, Write(io.Discard, []Named{{"what", "U7", []int64{2}, bytes.NewReader(nil)}}, nil))
	a := Named{"a", "U8", []int64{0}, bytes.NewReader(nil)}
	require.Error(t, Write(io.Discard, []Named{a, a}, nil))
}

func FuzzNew(f *testing.F) {
	f.Add(file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}`, 9))
	f.Add(file(`{"a":{"dtype":"BF16","shape":[0,3],"data_offsets":[0,0],"x":[{}]}}`, 0))
	for _, name := range []string{"../testdata/models/glm4moe/model.safetensors", "../testdata/gguf/encoded.safetensors"} {
		data, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		opened, err := open(data)
		if err != nil {
			return
		}
		total := int64(0)
		for _, name := range opened.Names() {
			tensor, ok := opened.Tensor(name)
			require.True(t, ok)
			total += tensor.Bytes
			require.NoError(t, opened.ReadAt(tensor, 0, make([]byte, tensor.Bytes)))
			rows, cols := tensor.Matrix()
			require.Equal(t, tensor.Bytes, int64(rows)*int64(cols)*dtypeBytes[tensor.DType])
			if _, err := tensor.Element(); err == nil {
				_, err := opened.Floats(name)
				require.NoError(t, err)
			}
		}
		require.LessOrEqual(t, total, int64(len(data)))
	})
}

func Example() {
	var b bytes.Buffer
	if err := Write(&b, []Named{F32("norm", []int64{3}, []float32{1, 2, 3})}, nil); err != nil {
		fmt.Println(err)
		return
	}
	f, err := New(bytes.NewReader(b.Bytes()), int64(b.Len()), "tiny.safetensors")
	if err != nil {
		fmt.Println(err)
		return
	}
	numbers, err := f.Floats("norm")
	fmt.Println(f.Names(), numbers, err)
	// Output: [norm] [1 2 3] <nil>
}
