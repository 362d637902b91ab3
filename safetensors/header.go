package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// parseHeader reads the JSON header. It walks the tokens itself: encoding/json
// would take the last of two equal keys, and "DTYPE" for "dtype". Offsets are
// still relative to the data.
func parseHeader(header []byte) (map[string]Tensor, map[string]string, error) {
	d := &decoder{json.NewDecoder(bytes.NewReader(header))}
	d.UseNumber()
	tensors := map[string]Tensor{}
	var metadata map[string]string
	err := d.object(func(name string) (err error) {
		if name == "__metadata__" {
			metadata, err = d.metadata()
			return err
		}
		tensors[name], err = d.tensor(name)
		if err != nil {
			return fmt.Errorf("tensor %.200q: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("something follows the JSON object at byte %d", d.InputOffset())
	}
	return tensors, metadata, nil
}

type decoder struct{ *json.Decoder }

// object reads { key: value, … } and calls value to read each; a key that
// comes twice is an error.
func (d *decoder) object(value func(key string) error) error {
	if err := d.delimiter('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // a decoder gives nothing else here
		if seen[key] {
			return fmt.Errorf("%.200q comes twice, again at byte %d", key, d.InputOffset())
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	return d.delimiter('}')
}

func (d *decoder) metadata() (map[string]string, error) {
	metadata := map[string]string{}
	err := d.object(func(key string) error {
		token, err := d.token()
		if err != nil {
			return err
		}
		value, ok := token.(string)
		if !ok {
			return fmt.Errorf("__metadata__: %.200q is not a string", key)
		}
		metadata[key] = value
		return nil
	})
	return metadata, err
}

func (d *decoder) tensor(name string) (Tensor, error) {
	t := Tensor{Name: name}
	var offsets []int64
	var shape, dtype bool
	err := d.object(func(key string) (err error) {
		switch key {
		case "dtype":
			dtype = true
			t.DType, err = d.dtype()
		case "shape":
			shape = true
			t.Shape, err = d.integers(key, 8)
		case "data_offsets":
			offsets, err = d.integers(key, 2)
		default:
			var ignored json.RawMessage
			err = d.Decode(&ignored)
		}
		return err
	})
	switch {
	case err != nil:
		return t, err
	case !dtype:
		return t, errors.New("dtype is missing")
	case !shape:
		return t, errors.New("shape is missing")
	case len(offsets) != 2:
		return t, fmt.Errorf("data_offsets has %d numbers, want 2", len(offsets))
	case offsets[0] > offsets[1]:
		return t, fmt.Errorf("data_offsets [%d, %d] run backwards", offsets[0], offsets[1])
	}
	t.Offset, t.Bytes = offsets[0], offsets[1]-offsets[0]
	want, ok := sizeOf(t.Shape, dtypeBytes[t.DType])
	if !ok {
		return t, fmt.Errorf("shape %v of %s is larger than any file", t.Shape, t.DType)
	}
	if want != t.Bytes {
		return t, fmt.Errorf("%s of shape %v has %d bytes, data_offsets [%d, %d] hold %d", t.DType, t.Shape, want, offsets[0], offsets[1], t.Bytes)
	}
	return t, nil
}

func (d *decoder) dtype() (string, error) {
	token, err := d.token()
	if err != nil {
		return "", err
	}
	name, ok := token.(string)
	if !ok || dtypeBytes[name] == 0 {
		return "", fmt.Errorf("dtype %.40q is unknown", fmt.Sprint(token))
	}
	return name, nil
}

// integers reads an array of at most limit numbers ≥ 0.
func (d *decoder) integers(key string, limit int) ([]int64, error) {
	if err := d.delimiter('['); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	numbers := []int64{}
	for d.More() {
		token, err := d.token()
		if err != nil {
			return nil, err
		}
		number, ok := token.(json.Number)
		n, err := number.Int64()
		if !ok || err != nil || n < 0 {
			return nil, fmt.Errorf("%s: %.40q is not a whole number ≥ 0 of 63 bits", key, fmt.Sprint(token))
		}
		if len(numbers) == limit {
			return nil, fmt.Errorf("%s has more than %d numbers", key, limit)
		}
		numbers = append(numbers, n)
	}
	return numbers, d.delimiter(']')
}

func (d *decoder) delimiter(want json.Delim) error {
	token, err := d.token()
	if err != nil {
		return err
	}
	if got, ok := token.(json.Delim); !ok || got != want {
		return fmt.Errorf("%.40q where %q is wanted, at byte %d", fmt.Sprint(token), want.String(), d.InputOffset())
	}
	return nil
}

func (d *decoder) token() (json.Token, error) {
	token, err := d.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("at byte %d: %w", d.InputOffset(), err)
	}
	return token, nil
}

// sizeOf multiplies a shape; false when int64 cannot hold the product, also
// with the dimensions that follow a zero left out.
func sizeOf(shape []int64, elementBytes int64) (int64, bool) {
	size := elementBytes
	empty := false
	for _, n := range shape {
		if n == 0 {
			empty = true
			continue
		}
		if size > math.MaxInt64/n {
			return 0, false
		}
		size *= n
	}
	if empty {
		return 0, true
	}
	return size, true
}
