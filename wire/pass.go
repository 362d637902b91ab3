package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/potluck-llm/potluck/quant"
)

// Limits of a pass.
const (
	MaxRows   = 4096
	MaxHidden = 1 << 20
	MaxChosen = 256
	MaxFrame  = 64 << 20
)

const (
	headerBytes = 48
	rowBytes    = 12

	kindPass, kindResult   = 1, 2
	elementF16, elementF32 = 1, 2
	flagInside             = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A passShape is what determines a frame's size.
type passShape struct {
	rows, hidden, chosen int
	f16, inside          bool
}

// size is the frame's length in bytes.
func (s passShape) size() int {
	n := headerBytes + s.rows*rowBytes
	if s.f16 {
		n += (s.rows + 3) / 4 * 4
		n += s.rows * s.hidden * 2
	} else {
		n += s.rows * s.hidden * 4
	}
	if s.inside {
		n += s.rows*s.hidden*4 + s.rows*s.chosen*8
	}
	return (n + 3) / 4 * 4
}

func (s passShape) check() error {
	switch {
	case s.rows < 1 || s.rows > MaxRows:
		return fmt.Errorf("pass of %d rows, want 1 to %d", s.rows, MaxRows)
	case s.hidden < 1 || s.hidden > MaxHidden:
		return fmt.Errorf("pass of hidden size %d, want 1 to %d", s.hidden, MaxHidden)
	case s.inside && (s.chosen < 1 || s.chosen > MaxChosen), !s.inside && s.chosen != 0:
		return fmt.Errorf("pass with %d experts a row", s.chosen)
	case s.size() > MaxFrame:
		return fmt.Errorf("pass of %d bytes, at most %d", s.size(), MaxFrame)
	}
	return nil
}

// AppendPass appends the frame of p to dst. With f16 the hidden rows travel in
// 2 bytes a number and must have been rounded by quant.RoundRow; rows at a cut
// inside a layer always travel as f32.
func AppendPass(dst []byte, p *PassFrame, f16 bool) ([]byte, error) {
	s := passShape{rows: len(p.Rows), f16: f16, inside: len(p.Chosen) > 0}
	if s.rows > 0 {
		s.hidden = len(p.Hidden) / s.rows
		s.chosen = len(p.Chosen) / s.rows
	}
	s.f16 = f16 && !s.inside
	if err := s.check(); err != nil {
		return nil, err
	}
	if len(p.Hidden) != s.rows*s.hidden || s.inside && (len(p.Normed) != len(p.Hidden) || len(p.Chosen) != s.rows*s.chosen || len(p.Weights) != len(p.Chosen)) {
		return nil, fmt.Errorf("pass of %d rows with %d hidden, %d normed, %d chosen and %d weights", s.rows, len(p.Hidden), len(p.Normed), len(p.Chosen), len(p.Weights))
	}
	start := len(dst)
	dst = append(dst, make([]byte, s.size())...)
	frame := dst[start:]
	p.putHeader(frame, s)
	at := headerBytes
	for _, r := range p.Rows {
		binary.LittleEndian.PutUint32(frame[at:], uint32(r.Slot))
		binary.LittleEndian.PutUint32(frame[at+4:], r.Epoch)
		binary.LittleEndian.PutUint32(frame[at+8:], uint32(r.Pos))
		at += rowBytes
	}
	if s.f16 {
		if err := packRows(frame[at:], p.Hidden, s); err != nil {
			return nil, err
		}
	} else {
		quant.EncodeF32(frame[at:], p.Hidden)
		at += 4 * len(p.Hidden)
	}
	if s.inside {
		quant.EncodeF32(frame[at:], p.Normed)
		at += 4 * len(p.Normed)
		for _, id := range p.Chosen {
			binary.LittleEndian.PutUint32(frame[at:], uint32(id))
			at += 4
		}
		quant.EncodeF32(frame[at:], p.Weights)
	}
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(frame[8:], castagnoli))
	return dst, nil
}

func (p *PassFrame) putHeader(frame []byte, s passShape) {
	frame[0], frame[1], frame[2], frame[3] = Version, kindPass, elementF32, 0
	if p.Result {
		frame[1] = kindResult
	}
	if s.f16 {
		frame[2] = elementF16
	}
	if s.inside {
		frame[3] = flagInside
	}
	binary.LittleEndian.PutUint64(frame[8:], p.Pass)
	for i, v := range []uint32{p.Span, uint32(s.rows), uint32(s.hidden), uint32(s.chosen), p.QueueUs, p.ComputeUs, p.ReadbackUs, 0} {
		binary.LittleEndian.PutUint32(frame[16+4*i:], v)
	}
}

// packRows writes the rows' scales and f16 numbers, and checks that nothing is
// lost.
func packRows(dst []byte, hidden []float32, s passShape) error {
	data := dst[(s.rows+3)/4*4:]
	for r := range s.rows {
		row := hidden[r*s.hidden : (r+1)*s.hidden]
		scale := quant.PackRow(data[r*s.hidden*2:], row)
		if scale < 0 || scale > 255 {
			return fmt.Errorf("row %d has scale 2^%d", r, scale)
		}
		dst[r] = byte(scale)
		factor := float32(math.Ldexp(1, scale))
		for i, v := range row {
			if back := quant.F16ToF32(binary.LittleEndian.Uint16(data[(r*s.hidden+i)*2:])) * factor; back != v {
				return fmt.Errorf("row %d, element %d: %g is no f16 times 2^%d: rows must be rounded first", r, i, v, scale)
			}
		}
	}
	return nil
}

// DecodePass reads a binary frame into p, reusing its slices.
func DecodePass(frame []byte, p *PassFrame) error {
	s, err := readHeader(frame, p)
	if err != nil {
		return err
	}
	p.Rows = resize(p.Rows, s.rows)
	at := headerBytes
	for i := range p.Rows {
		p.Rows[i] = Row{
			Slot:  int32(binary.LittleEndian.Uint32(frame[at:])),
			Epoch: binary.LittleEndian.Uint32(frame[at+4:]),
			Pos:   int32(binary.LittleEndian.Uint32(frame[at+8:])),
		}
		at += rowBytes
	}
	p.Hidden = resize(p.Hidden, s.rows*s.hidden)
	if s.f16 {
		scales := frame[at : at+s.rows]
		at += (s.rows + 3) / 4 * 4
		for r := range s.rows {
			row := p.Hidden[r*s.hidden : (r+1)*s.hidden]
			quant.UnpackRow(row, frame[at+r*s.hidden*2:], int(scales[r]))
			// Any other scale may stand for numbers that cannot be sent on.
			if want := quant.RowScale(row); int(scales[r]) != want {
				return fmt.Errorf("pass frame: row %d has scale 2^%d, its numbers want 2^%d", r, scales[r], want)
			}
		}
	} else {
		quant.DecodeF32(p.Hidden, frame[at:at+4*len(p.Hidden)])
		at += 4 * len(p.Hidden)
	}
	p.Normed, p.Chosen, p.Weights = p.Normed[:0], p.Chosen[:0], p.Weights[:0]
	if s.inside {
		p.Normed, p.Chosen, p.Weights = resize(p.Normed, s.rows*s.hidden), resize(p.Chosen, s.rows*s.chosen), resize(p.Weights, s.rows*s.chosen)
		quant.DecodeF32(p.Normed, frame[at:at+4*len(p.Normed)])
		at += 4 * len(p.Normed)
		for i := range p.Chosen {
			p.Chosen[i] = int32(binary.LittleEndian.Uint32(frame[at:]))
			at += 4
		}
		quant.DecodeF32(p.Weights, frame[at:at+4*len(p.Weights)])
	}
	return nil
}

// readHeader checks everything that a frame's size and header can tell.
func readHeader(frame []byte, p *PassFrame) (s passShape, err error) {
	if len(frame) < headerBytes || len(frame) > MaxFrame {
		return s, fmt.Errorf("pass frame of %d bytes, want %d to %d", len(frame), headerBytes, MaxFrame)
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(frame[at:]) }
	switch {
	case frame[0] != Version:
		return s, fmt.Errorf("pass frame of version %d, want %d", frame[0], Version)
	case frame[1] != kindPass && frame[1] != kindResult:
		return s, fmt.Errorf("pass frame of kind %d", frame[1])
	case frame[2] != elementF16 && frame[2] != elementF32:
		return s, fmt.Errorf("pass frame of element type %d", frame[2])
	case frame[3]&^flagInside != 0 || word(44) != 0:
		return s, fmt.Errorf("pass frame with unknown flags %#x, %#x", frame[3], word(44))
	case word(20) > MaxRows || word(24) > MaxHidden || word(28) > MaxChosen:
		return s, fmt.Errorf("pass frame of %d rows × %d with %d experts, at most %d × %d with %d", word(20), word(24), word(28), MaxRows, MaxHidden, MaxChosen)
	}
	s = passShape{rows: int(word(20)), hidden: int(word(24)), chosen: int(word(28)), f16: frame[2] == elementF16, inside: frame[3] == flagInside}
	if err := s.check(); err != nil {
		return s, err
	}
	if len(frame) != s.size() {
		return s, fmt.Errorf("pass frame of %d bytes, its header says %d", len(frame), s.size())
	}
	if got, want := crc32.Checksum(frame[8:], castagnoli), word(4); got != want {
		return s, fmt.Errorf("pass frame: checksum %08x, its header says %08x", got, want)
	}
	p.Result, p.F16 = frame[1] == kindResult, s.f16
	p.Pass, p.Span = binary.LittleEndian.Uint64(frame[8:]), word(16)
	p.QueueUs, p.ComputeUs, p.ReadbackUs = word(32), word(36), word(40)
	return s, nil
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
