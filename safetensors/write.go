package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/potluck-llm/potluck/quant"
)

// A Named is a tensor to be written. Data gives its bytes, little endian, row
// after row: exactly as many as dtype and shape say.
type Named struct {
	Name  string
	DType string
	Shape []int64
	Data  io.Reader
}

// F32 is a tensor of float32.
func F32(name string, shape []int64, numbers []float32) Named {
	data := make([]byte, 4*len(numbers))
	quant.EncodeF32(data, numbers)
	return Named{name, "F32", shape, bytes.NewReader(data)}
}

// I64 is a tensor of int64.
func I64(name string, shape []int64, numbers []int64) Named {
	data := make([]byte, 8*len(numbers))
	for i, n := range numbers {
		binary.LittleEndian.PutUint64(data[8*i:], uint64(n))
	}
	return Named{name, "I64", shape, bytes.NewReader(data)}
}

// Write writes a file of tensors, in their order. Their data is read as it is
// written: none is ever held as a whole.
func Write(w io.Writer, tensors []Named, metadata map[string]string) error {
	header, sizes, err := makeHeader(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))); err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for i, t := range tensors {
		n, err := io.Copy(w, io.LimitReader(t.Data, sizes[i]+1))
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if n != sizes[i] {
			return fmt.Errorf("tensor %q: data of %d bytes or more, %s of shape %v has %d", t.Name, n, t.DType, t.Shape, sizes[i])
		}
	}
	return nil
}

// makeHeader returns the header, padded with spaces so that the data begins at
// a multiple of 8, and each tensor's size.
func makeHeader(tensors []Named, metadata map[string]string) (header []byte, sizes []int64, err error) {
	var b bytes.Buffer
	b.WriteByte('{')
	if len(metadata) > 0 {
		text, err := json.Marshal(metadata)
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(&b, `"__metadata__":%s`, text)
	}
	seen := map[string]bool{"__metadata__": true}
	offset := int64(0)
	for _, t := range tensors {
		size, ok := sizeOf(t.Shape, dtypeBytes[t.DType])
		if dtypeBytes[t.DType] == 0 || !ok || seen[t.Name] {
			return nil, nil, fmt.Errorf("tensor %q: %s of shape %v: unknown type, impossible shape, or a name that comes twice", t.Name, t.DType, t.Shape)
		}
		seen[t.Name] = true
		name, err := json.Marshal(t.Name)
		if err != nil {
			return nil, nil, err
		}
		shape, err := json.Marshal(append([]int64{}, t.Shape...))
		if err != nil {
			return nil, nil, err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, t.DType, shape, offset, offset+size)
		offset += size
		sizes = append(sizes, size)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	return b.Bytes(), sizes, nil
}
