package model

import "fmt"

// Sources lists every tensor of the model with the parts of the source's
// tensors that it is made of, after checking that each is there and has the
// shape that the configuration says. Call Probe first.
func (c *Config) Sources(f Format, shape Shape) ([]Tensor, error) {
	n, err := c.namesOf(f, shape)
	if err != nil {
		return nil, err
	}
	b := builder{config: c, names: n, shape: shape}
	tensors := c.Tensors()
	for i := range tensors {
		if err := b.build(&tensors[i]); err != nil {
			return nil, err
		}
	}
	return tensors, nil
}

// A builder finds the parts of one tensor after another.
type builder struct {
	config *Config
	names  names
	shape  Shape
}

func (b *builder) build(t *Tensor) error {
	c, n := b.config, b.names
	layer := fmt.Sprintf(n.layer, t.Layer)
	local := t.Name
	if prefix := LayerName(t.Layer, ""); len(local) > len(prefix) && local[:len(prefix)] == prefix {
		local = local[len(prefix):]
	}
	moe := c.MoE
	switch local {
	case "embed":
		return b.whole(t, n.embed)
	case "norm":
		return b.whole(t, n.norm)
	case "head":
		return b.whole(t, n.head)
	case "mtp.enorm":
		return b.whole(t, layer+n.enorm)
	case "mtp.hnorm":
		return b.whole(t, layer+n.hnorm)
	case "mtp.eh_proj":
		return b.whole(t, layer+n.ehProj)
	case "mtp.norm":
		return b.whole(t, layer+n.mtpNorm)
	case "mtp.embed":
		return b.whole(t, layer+n.mtpEmbed)
	case "mtp.head":
		return b.whole(t, layer+n.mtpHead)
	case "attn_norm":
		return b.whole(t, layer+n.attnNorm)
	case "attn_post_norm":
		return b.whole(t, layer+n.attnPostNorm)
	case "ffn_norm":
		return b.whole(t, layer+n.ffnNorm)
	case "ffn_post_norm":
		return b.whole(t, layer+n.ffnPostNorm)
	case "q_norm":
		return b.whole(t, layer+n.qNorm)
	case "k_norm":
		return b.whole(t, layer+n.kNorm)
	case "q":
		return b.attention(t, layer, n.q, ".weight", 0, c.Heads)
	case "k":
		return b.attention(t, layer, n.k, ".weight", c.QDim(), c.KVHeads)
	case "v":
		return b.attention(t, layer, n.v, ".weight", c.QDim()+c.KVDim(), 0)
	case "q_bias":
		return b.attention(t, layer, n.q, ".bias", 0, c.Heads)
	case "k_bias":
		return b.attention(t, layer, n.k, ".bias", c.QDim(), c.KVHeads)
	case "v_bias":
		return b.attention(t, layer, n.v, ".bias", c.QDim()+c.KVDim(), 0)
	case "o":
		return b.whole(t, layer+n.o+".weight")
	case "gate_up":
		return b.gateUp(t, layer, n.gate, n.up, n.gateUp)
	case "down":
		return b.whole(t, layer+n.down)
	case "router":
		return b.whole(t, layer+n.router)
	case "router_bias":
		return b.whole(t, layer+n.routerBias)
	case "shared.gate_up":
		return b.gateUp(t, layer, n.sharedGate, n.sharedUp, "")
	case "shared.down":
		return b.whole(t, layer+n.sharedDown)
	case "experts.gate_up":
		return b.expertsGateUp(t, layer, moe)
	case "experts.down":
		return b.expertsDown(t, layer, moe)
	}
	return fmt.Errorf("tensor %s has no known source", t.Name)
}

// want checks that the source has a tensor of rows × cols.
func (b *builder) want(name string, rows, cols int) error {
	r, c, ok := b.shape(name)
	if !ok {
		return fmt.Errorf("tensor %s is missing", name)
	}
	if rows == 1 || cols == 1 { // vectors may be stored lying or standing
		r, c, rows, cols = 1, r*c, 1, rows*cols
	}
	if r != rows || c != cols {
		return fmt.Errorf("tensor %s is %d × %d, the config wants %d × %d", name, r, c, rows, cols)
	}
	return nil
}

func (b *builder) has(name string) bool { _, _, ok := b.shape(name); return ok }

// units is what parts of t count: rows, or elements of a vector.
func units(t *Tensor) (count, width int) {
	if t.Rows == 1 {
		return t.Cols, 1
	}
	return t.Rows, t.Cols
}

func (b *builder) whole(t *Tensor, name string) error {
	n, _ := units(t)
	t.Parts = []Part{{Source: name, Rows: n, Stride: 1}}
	return b.want(name, t.Rows, t.Cols)
}

// attention finds q, k or v by itself, or at row from of the fused tensor.
func (b *builder) attention(t *Tensor, layer, stem, suffix string, from, heads int) error {
	if !b.names.permuted {
		heads = 0
	}
	rows, width := units(t)
	own, fused := layer+stem+suffix, layer+b.names.qkv+suffix
	if b.names.qkv != "" && (stem == "" || !b.has(own)) {
		t.Parts = []Part{{Source: fused, From: from, Rows: rows, Stride: 1}}
		return b.want(fused, b.config.QDim()+2*b.config.KVDim(), width)
	}
	t.Parts = []Part{{Source: own, Rows: rows, Stride: 1, Heads: heads}}
	return b.want(own, t.Rows, t.Cols)
}

// gateUp interleaves the rows of two tensors, or of the halves of a fused one
// (in GGUF that one goes by the name of up).
func (b *builder) gateUp(t *Tensor, layer, gate, up, fused string) error {
	width := t.Rows / 2
	if fused == "" || !b.has(layer+fused) {
		fused = up
	}
	if gate == "" || !b.has(layer+gate) {
		name := layer + fused
		t.Parts = []Part{{Source: name, Rows: width, Stride: 2}, {Source: name, From: width, To: 1, Rows: width, Stride: 2}}
		return b.want(name, t.Rows, t.Cols)
	}
	t.Parts = []Part{{Source: layer + gate, Rows: width, Stride: 2}, {Source: layer + up, To: 1, Rows: width, Stride: 2}}
	if err := b.want(layer+gate, width, t.Cols); err != nil {
		return err
	}
	return b.want(layer+up, width, t.Cols)
}

func (b *builder) expertsGateUp(t *Tensor, layer string, m *MoE) error {
	add := func(name string, from, to int) {
		t.Parts = append(t.Parts, Part{Source: name, From: from, To: to, Rows: m.FFN, Stride: 2})
	}
	n, all := b.names, m.Experts*m.FFN
	for e := range m.Experts {
		to := e * 2 * m.FFN
		switch fused := layer + n.stackedGateUp; {
		case n.stackedGateUp != "" && b.has(fused):
			add(fused, to, to)
			add(fused, to+m.FFN, to+1)
			if err := b.want(fused, 2*all, t.Cols); err != nil {
				return err
			}
		case n.stackedGate != "":
			add(layer+n.stackedGate, e*m.FFN, to)
			add(layer+n.stackedUp, e*m.FFN, to+1)
			for _, name := range []string{n.stackedGate, n.stackedUp} {
				if err := b.want(layer+name, all, t.Cols); err != nil {
					return err
				}
			}
		default:
			expert := layer + fmt.Sprintf(n.expert, e)
			add(expert+n.expertGate, 0, to)
			add(expert+n.expertUp, 0, to+1)
			for _, name := range []string{n.expertGate, n.expertUp} {
				if err := b.want(expert+name, m.FFN, t.Cols); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *builder) expertsDown(t *Tensor, layer string, m *MoE) error {
	hidden := t.Rows / m.Experts
	if stacked := layer + b.names.stackedDown; b.has(stacked) || b.names.expert == "" {
		return b.whole(t, stacked)
	}
	for e := range m.Experts {
		name := layer + fmt.Sprintf(b.names.expert, e) + b.names.expertDown
		t.Parts = append(t.Parts, Part{Source: name, To: e * hidden, Rows: hidden, Stride: 1})
		if err := b.want(name, hidden, t.Cols); err != nil {
			return err
		}
	}
	return nil
}
