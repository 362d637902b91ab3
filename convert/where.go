package convert

import (
	"errors"
	"fmt"
	"math"

	"github.com/potluck-llm/potluck/quant"
)

// located adds to the error about a number that cannot be stored where in the
// source's files it lies: in row of tensor name, which has rows of cols.
func (s *source) located(err error, name string, row, cols int) error {
	var bad *quant.NotFiniteError
	if !errors.As(err, &bad) {
		return err
	}
	file, offset := s.at(name)
	if element, e := s.element(name); e == nil {
		numbers, bytes := element.Block()
		offset += (int64(row)*int64(cols) + int64(bad.Column)) / int64(numbers) * int64(bytes)
	}
	moved := *bad
	moved.Row = row
	return fmt.Errorf("%s, byte %d: %w", file, offset, &moved)
}

// finiteVector tells whether a decoded vector of the source has only numbers.
func (s *source) finiteVector(name string, values []float32) error {
	for i, v := range values {
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return fmt.Errorf("from %s: %w", name, s.located(&quant.NotFiniteError{Type: quant.F32, Column: i, Value: v}, name, 0, len(values)))
		}
	}
	return nil
}
