package token

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxLine is the longest line in bytes that EachLine reads.
const MaxLine = 64 << 20

// EachLine turns every line of in into a line of JSON. An error names the line
// and ends it; what was turned before is written.
func EachLine(in io.Reader, out io.Writer, turn func(line []byte) (any, error)) (err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), MaxLine)
	w := bufio.NewWriter(out)
	defer func() { err = errors.Join(err, w.Flush()) }()
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	n := 1
	for ; lines.Scan(); n++ {
		v, err := turn(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := encoder.Encode(v); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n, err)
	}
	return nil
}
