package model

import "fmt"

// A Cut is a place where a model can be cut: before layer Layer (Expert 0), or
// inside that layer before one of its experts. The part before an inner cut
// computes attention, router, shared experts and its own experts.
type Cut struct {
	Layer  int `json:"layer"`
	Expert int `json:"expert,omitempty"`
}

// Inside tells whether the cut lies inside a layer.
func (c Cut) Inside() bool { return c.Expert > 0 }

// Before tells whether c lies before d.
func (c Cut) Before(d Cut) bool {
	return c.Layer < d.Layer || c.Layer == d.Layer && c.Expert < d.Expert
}

func (c Cut) String() string {
	if c.Inside() {
		return fmt.Sprintf("%d.%d", c.Layer, c.Expert)
	}
	return fmt.Sprint(c.Layer)
}

// A Span is a contiguous range of a model, from a cut to a cut, with or
// without the embedding before it and the final norm and head after it.
// An MTP span is the prediction layer alone: it takes token ids and the
// trunk's rows after the final norm, and gives logits.
type Span struct {
	From  Cut  `json:"from"`
	To    Cut  `json:"to"`
	Embed bool `json:"embed,omitempty"`
	Head  bool `json:"head,omitempty"`
	MTP   bool `json:"mtp,omitempty"`
}

func (s Span) String() string {
	text := fmt.Sprintf("layers %v to %v", s.From, s.To)
	if s.MTP {
		text = "prediction layer"
	}
	if s.Embed {
		text += " with embedding"
	}
	if s.Head {
		text += " with head"
	}
	return text
}

// Whole is the span of the whole trunk.
func (c *Config) Whole() Span { return Span{To: Cut{Layer: c.Layers}, Embed: true, Head: true} }

// CheckSpan tells whether s is a span of this model.
func (c *Config) CheckSpan(s Span) error {
	for _, cut := range []Cut{s.From, s.To} {
		if cut.Layer < 0 || cut.Layer > c.Layers || cut.Expert < 0 ||
			cut.Expert > 0 && (cut.Layer == c.Layers || cut.Expert >= c.Experts(cut.Layer)) {
			return fmt.Errorf("span %v: no cut at %v: the model has %d layers", s, cut, c.Layers)
		}
	}
	switch {
	case s.To.Before(s.From):
		return fmt.Errorf("span %v ends before it begins", s)
	case s.Embed && s.From != Cut{}:
		return fmt.Errorf("span %v: the embedding lies before layer 0", s)
	case s.Head && s.To != Cut{Layer: c.Layers}:
		return fmt.Errorf("span %v: the head lies after layer %d", s, c.Layers-1)
	case s.MTP && !c.MTP:
		return fmt.Errorf("span %v: the model has no prediction layer", s)
	case s.MTP && (s.Embed || s.Head || s.From != s.To):
		return fmt.Errorf("span %v: the prediction layer is a span of its own", s)
	}
	return nil
}

// A LayerPart is what a span holds of one layer: its beginning (attention,
// router, shared experts, or all of a dense layer) or not, some of its
// experts, and its end (where the residual is rounded) or not.
type LayerPart struct {
	Layer       int
	Begins      bool
	ExpertFirst int
	ExpertCount int // 0 in a dense layer
	Ends        bool
}

// Parts lists what the span holds, layer by layer.
func (c *Config) Parts(s Span) []LayerPart {
	if s.MTP {
		return []LayerPart{{Layer: c.Layers, Begins: true, ExpertCount: c.Experts(c.Layers), Ends: true}}
	}
	var parts []LayerPart
	for layer := s.From.Layer; layer <= s.To.Layer && layer < c.Layers; layer++ {
		part := LayerPart{Layer: layer, Begins: true, ExpertCount: c.Experts(layer), Ends: true}
		if layer == s.From.Layer && s.From.Inside() {
			part.Begins = false
			part.ExpertFirst = s.From.Expert
			part.ExpertCount -= s.From.Expert
		}
		if layer == s.To.Layer {
			if !s.To.Inside() {
				break
			}
			part.Ends = false
			part.ExpertCount = s.To.Expert - part.ExpertFirst
		}
		if s.From == s.To {
			break
		}
		parts = append(parts, part)
	}
	return parts
}
