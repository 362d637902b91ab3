package hub

import (
	"errors"
	"fmt"
	"math"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/wire"
)

// checkResult holds a result to what its span must give. What passes can be
// sent on to any worker, so that no worker is blamed for another's rows.
func (h *Hub) checkResult(f *wire.PassFrame, span model.Span) error {
	n, perToken := len(f.Rows), 0
	if span.To.Inside() {
		perToken = h.config.MoE.PerToken
	}
	switch {
	case len(f.Hidden) != n*h.config.Hidden:
		return fmt.Errorf("the result of pass %d has rows of %d numbers, want %d", f.Pass, len(f.Hidden)/max(1, n), h.config.Hidden)
	case len(f.Chosen) != n*perToken:
		return fmt.Errorf("the result of pass %d has %d experts a row, want %d at the end of %v", f.Pass, len(f.Chosen)/max(1, n), perToken, span)
	case h.o.Slots.Round && perToken == 0 && !f.F16:
		return fmt.Errorf("the result of pass %d has f32 rows, want f16", f.Pass)
	}
	for i, e := range f.Chosen {
		if e < 0 || int(e) >= h.config.MoE.Experts {
			return fmt.Errorf("the result of pass %d chooses expert %d of %d in row %d", f.Pass, e, h.config.MoE.Experts, i/perToken)
		}
	}
	return nil
}

var errNotFinite = errors.New("rows with NaN or infinite numbers")

// finite tells whether every number of rows is one.
func finite(s *wire.State) error {
	for _, list := range [...][]float32{s.Hidden, s.Normed, s.Weights} {
		for _, v := range list {
			if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
				return errNotFinite
			}
		}
	}
	return nil
}
