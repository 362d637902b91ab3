package webgpu

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/potluck-llm/potluck/gpu"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shaders"
)

// A recorder writes a span's layer program as a list of dispatches, loading
// each weight as it comes by. It keeps the first error.
type recorder struct {
	*Executor
	ctx       context.Context
	found     map[string][]quant.Matrix
	recording gpu.Recording
	err       error
	kvBytes   int64

	rows, hidden, normed, q, k, v, attended, projected gpu.Buffer
	gateUp, active                                     gpu.Buffer
	logits, choice, ids, weights, expertUp, expertAct  gpu.Buffer
	table, none                                        gpu.Buffer
}

func (r *recorder) buffer(bytes int64) gpu.Buffer {
	if r.err != nil {
		return 0
	}
	b, err := r.device.NewBuffer(r.ctx, bytes)
	if err != nil {
		r.err = err
		return 0
	}
	r.owned = append(r.owned, b)
	return b
}

// scratch is a buffer of width numbers a row.
func (r *recorder) scratch(width int) gpu.Buffer { return r.buffer(int64(4 * width * MaxRows)) }

// filled is a buffer with data in it, up to the end of a vector: kernels read
// whole ones, and a plane of q6_0 may end in the middle.
func (r *recorder) filled(data []byte) gpu.Buffer {
	b := r.buffer(int64(ceil(len(data), quant.Align) * quant.Align))
	if r.err != nil {
		return 0
	}
	whole := len(data) / 4 * 4
	if err := r.device.Write(b, 0, data[:whole]); err != nil {
		r.err = err
		return 0
	}
	if rest := data[whole:]; len(rest) > 0 {
		var last [4]byte
		copy(last[:], rest)
		if err := r.device.Write(b, int64(whole), last[:]); err != nil {
			r.err = err
		}
	}
	return b
}

func (r *recorder) pipeline(operation, weights string) gpu.Pipeline {
	if r.err != nil {
		return 0
	}
	source, err := shaders.Source(operation, weights, r.lanes)
	if err != nil {
		r.err = err
		return 0
	}
	p, err := r.device.NewPipeline(r.ctx, source)
	if err != nil {
		r.err = fmt.Errorf("kernel %s %s: %w", operation, weights, err)
	}
	return p
}

func (r *recorder) dispatch(p gpu.Pipeline, x, y, z int, args [8]uint32, buffers ...gpu.Buffer) {
	r.recording.Dispatches = append(r.recording.Dispatches, gpu.Dispatch{Pipeline: p, Args: args, Buffers: buffers, X: x, Y: y, Z: z})
}

// record writes the whole list.
func (r *recorder) record() {
	r.prepare()
	c := r.config
	r.recording.In = []gpu.Transfer{{Buffer: r.rows, Bytes: 16}, {Buffer: r.hidden, Bytes: 4 * c.Hidden}}
	inside := func() []gpu.Transfer {
		k := c.MoE.PerToken
		return []gpu.Transfer{{Buffer: r.normed, Bytes: 4 * c.Hidden}, {Buffer: r.ids, Bytes: 4 * k}, {Buffer: r.weights, Bytes: 4 * k}}
	}
	if r.span.From.Inside() {
		r.recording.In = append(r.recording.In, inside()...)
	}
	for _, part := range c.Parts(r.span) {
		r.layer(part)
	}
	r.recording.Out = []gpu.Transfer{{Buffer: r.hidden, Bytes: 4 * c.Hidden}}
	if r.span.To.Inside() {
		r.recording.Out = append(r.recording.Out, inside()...)
	}
}

// prepare makes the buffers that all layers share.
func (r *recorder) prepare() {
	c := r.config
	r.rows, r.hidden, r.normed = r.buffer(16*MaxRows), r.scratch(c.Hidden), r.scratch(c.Hidden)
	r.q, r.k, r.v, r.attended = r.scratch(c.QDim()), r.scratch(c.KVDim()), r.scratch(c.KVDim()), r.scratch(c.QDim())
	r.projected, r.none = r.scratch(c.Hidden), r.buffer(16)
	width := c.FFN
	if m := c.MoE; m != nil {
		width = max(width, m.SharedFFN)
		r.logits, r.choice = r.scratch(m.Experts), r.scratch(2*m.Experts)
		r.ids, r.weights = r.scratch(m.PerToken), r.scratch(m.PerToken)
		r.expertUp, r.expertAct = r.scratch(m.PerToken*2*m.FFN), r.scratch(m.PerToken*m.FFN)
	}
	r.gateUp, r.active = r.scratch(2*max(1, width)), r.scratch(max(1, width))
	r.table = r.filled(r.angles())
}

// angles are cosine and sine of every position and pair: computed here in f64,
// since a GPU's sine of a large angle is anybody's guess.
func (r *recorder) angles() []byte {
	rope := r.config.RoPE
	pairs := rope.Dims / 2
	data := make([]byte, 8*pairs*r.plan.Positions)
	for i := range pairs {
		f := math.Pow(rope.Theta, -2*float64(i)/float64(rope.Dims))
		if len(rope.Divisors) > 0 {
			f /= rope.Divisors[i]
		}
		for p := range r.plan.Positions {
			sin, cos := math.Sincos(float64(p) * f)
			at := 8 * (p*pairs + i)
			binary.LittleEndian.PutUint32(data[at:], bits(cos))
			binary.LittleEndian.PutUint32(data[at+4:], bits(sin))
		}
	}
	return data
}

func ceil(a, b int) int { return (a + b - 1) / b }

// name is a layer's tensor.
func name(layer int, tensor string) string { return model.LayerName(layer, tensor) }

// vector loads a single f32 row.
func (r *recorder) vector(name string) gpu.Buffer {
	parts := r.found[name]
	if len(parts) == 0 {
		r.missing(name)
		return 0
	}
	return r.filled(parts[0].Quants)
}

func (r *recorder) missing(name string) {
	if r.err == nil {
		r.err = fmt.Errorf("tensor %s is missing", name)
	}
}

// planes loads both planes of a matrix.
func (r *recorder) planes(m quant.Matrix) (quants, scales gpu.Buffer) {
	quants, scales = r.filled(m.Quants), r.none
	if len(m.Scales) > 0 {
		scales = r.filled(m.Scales)
	}
	return quants, scales
}

// foldRows is how many workgroups the matmul kernel has in x before z.
const foldRows = 32768

// matmul records y = x · wᵀ, part by part where w lies in several pieces.
func (r *recorder) matmul(y, x gpu.Buffer, tensor string) {
	parts := r.found[tensor]
	if len(parts) == 0 {
		r.missing(tensor)
		return
	}
	total, first := 0, 0
	for _, m := range parts {
		total += m.Rows
	}
	for _, m := range parts {
		if m.Cols%quant.BlockSize != 0 {
			r.err = fmt.Errorf("tensor %s has %d columns: the graphics device wants a multiple of %d", tensor, m.Cols, quant.BlockSize)
			return
		}
		quants, scales := r.planes(m)
		groups := ceil(m.Rows, 64/r.lanes)
		r.dispatch(r.pipeline("matmul", m.Type.String()), min(groups, foldRows), 1, ceil(groups, foldRows),
			[8]uint32{uint32(m.Rows), uint32(m.Cols / quant.BlockSize), uint32(total), uint32(first)}, quants, scales, x, y)
		first += m.Rows
	}
}

func (r *recorder) norm(y, x gpu.Buffer, weight string, dim, groups int) {
	r.dispatch(r.pipeline("rmsnorm_f32", ""), groups, 1, 1, [8]uint32{uint32(dim), uint32(groups), bits(r.config.NormEps)}, x, r.vector(weight), y)
}

func (r *recorder) add(y, x gpu.Buffer, dim int, bias bool) {
	r.dispatch(r.pipeline("add_f32", ""), ceil(dim, 64), 1, 1, [8]uint32{uint32(dim), flag(bias)}, x, y)
}

// layer records what the span holds of one layer.
func (r *recorder) layer(part model.LayerPart) {
	c := r.config
	moe := c.IsMoE(part.Layer)
	if part.Begins {
		r.attention(part.Layer)
		r.norm(r.normed, r.hidden, name(part.Layer, "ffn_norm"), c.Hidden, 1)
		switch {
		case !moe:
			r.feedForward(part.Layer, "gate_up", "down", c.FFN)
		default:
			r.route(part.Layer)
			if c.MoE.SharedFFN > 0 {
				r.feedForward(part.Layer, "shared.gate_up", "shared.down", c.MoE.SharedFFN)
			}
		}
	}
	if moe {
		r.experts(part)
	}
	if part.Ends && r.plan.Round {
		r.dispatch(r.pipeline("round_f16", ""), 1, 1, 1, [8]uint32{uint32(c.Hidden)}, r.hidden)
	}
}

func (r *recorder) attention(layer int) {
	c := r.config
	r.norm(r.normed, r.hidden, name(layer, "attn_norm"), c.Hidden, 1)
	r.matmul(r.q, r.normed, name(layer, "q"))
	r.matmul(r.k, r.normed, name(layer, "k"))
	r.matmul(r.v, r.normed, name(layer, "v"))
	if c.QKVBias {
		r.add(r.q, r.vector(name(layer, "q_bias")), c.QDim(), true)
		r.add(r.k, r.vector(name(layer, "k_bias")), c.KVDim(), true)
		r.add(r.v, r.vector(name(layer, "v_bias")), c.KVDim(), true)
	}
	if c.QKNorm {
		r.normHeads(r.q, r.attended, name(layer, "q_norm"), c.Heads)
		r.normHeads(r.k, r.projected, name(layer, "k_norm"), c.KVHeads)
	}
	r.turn(r.q, c.Heads)
	r.turn(r.k, c.KVHeads)
	keys, values := r.cache(), r.cache()
	packed := r.plan.KV == quant.F16
	words := c.KVDim()
	if packed {
		words /= 2
	}
	r.dispatch(r.pipeline("kvstore", ""), ceil(words, 64), 1, 1, [8]uint32{uint32(c.KVDim()), uint32(r.plan.Positions), flag(packed)}, r.rows, r.k, r.v, keys, values)
	r.dispatch(r.pipeline("attention", ""), c.Heads, 1, 1, [8]uint32{uint32(c.Heads), uint32(c.KVHeads), uint32(c.HeadDim), uint32(r.plan.Positions),
		bits(1 / math.Sqrt(float64(c.HeadDim))), flag(packed)}, r.rows, r.q, keys, values, r.attended)
	r.matmul(r.projected, r.attended, name(layer, "o"))
	if c.Sandwich {
		r.norm(r.attendedHidden(), r.projected, name(layer, "attn_post_norm"), c.Hidden, 1)
		r.add(r.hidden, r.attendedHidden(), c.Hidden, false)
		return
	}
	r.add(r.hidden, r.projected, c.Hidden, false)
}

// attendedHidden is a scratch of the hidden size that is free after attention.
func (r *recorder) attendedHidden() gpu.Buffer { return r.normed }

// normHeads norms each head, through a scratch that is free then: a kernel may
// not read and write one buffer.
func (r *recorder) normHeads(x, scratch gpu.Buffer, weight string, heads int) {
	c := r.config
	if scratch == r.projected && heads*c.HeadDim > c.Hidden {
		scratch = r.scratch(heads * c.HeadDim)
	}
	r.norm(scratch, x, weight, c.HeadDim, heads)
	r.copy(x, scratch, heads*c.HeadDim)
}

// copy records y = x.
func (r *recorder) copy(y, x gpu.Buffer, dim int) {
	r.dispatch(r.pipeline("copy_f32", ""), ceil(dim, 64), 1, 1, [8]uint32{uint32(dim)}, x, y)
}

func (r *recorder) turn(x gpu.Buffer, heads int) {
	c := r.config
	pairs := c.RoPE.Dims / 2
	r.dispatch(r.pipeline("rope_f32", ""), ceil(heads*pairs, 64), 1, 1, [8]uint32{uint32(heads), uint32(c.HeadDim), uint32(pairs), flag(c.RoPE.Interleaved)}, r.rows, r.table, x)
}

// cache is room for one layer's keys or values.
func (r *recorder) cache() gpu.Buffer {
	bytes := int64(r.plan.Slots) * int64(r.plan.Positions) * int64(r.config.KVDim()) * 4
	if r.plan.KV == quant.F16 {
		bytes /= 2
	}
	r.kvBytes += bytes
	return r.buffer(bytes)
}

func (r *recorder) feedForward(layer int, gateUp, down string, width int) {
	c := r.config
	r.matmul(r.gateUp, r.normed, name(layer, gateUp))
	r.dispatch(r.pipeline("swiglu_f32", ""), ceil(width, 64), 1, 1, [8]uint32{uint32(width)}, r.gateUp, r.active)
	r.matmul(r.projected, r.active, name(layer, down))
	if c.Sandwich {
		r.norm(r.normed, r.projected, name(layer, "ffn_post_norm"), c.Hidden, 1)
		r.add(r.hidden, r.normed, c.Hidden, false)
		return
	}
	r.add(r.hidden, r.projected, c.Hidden, false)
}

func (r *recorder) route(layer int) {
	m := r.config.MoE
	r.matmul(r.logits, r.normed, name(layer, "router"))
	bias := r.none
	if m.Correction {
		bias = r.vector(name(layer, "router_bias"))
	}
	if m.Groups > 32 {
		r.err = fmt.Errorf("%d groups of experts do not run on the graphics device: at most 32", m.Groups)
	}
	r.dispatch(r.pipeline("router_f32", ""), 1, 1, 1, [8]uint32{uint32(m.Experts), uint32(m.PerToken), uint32(max(1, m.Groups)), uint32(max(1, m.TopGroups)),
		bits(m.Scale), flag(m.Sigmoid), flag(m.Correction), flag(m.Normalise)}, r.logits, bias, r.choice, r.ids, r.weights)
}

// experts records the chosen experts' part, group by group in ascending order.
func (r *recorder) experts(part model.LayerPart) {
	c, m := r.config, r.config.MoE
	up := quant.Groups{Parts: r.found[name(part.Layer, "experts.gate_up")], Rows: 2 * m.FFN}
	down := quant.Groups{Parts: r.found[name(part.Layer, "experts.down")], Rows: c.Hidden}
	for e := 0; e < part.ExpertCount && r.err == nil; {
		count := min(up.Left(), down.Left(), part.ExpertCount-e)
		if count < 1 {
			r.err = fmt.Errorf("layer %d: expert %d does not lie whole in one piece", part.Layer, part.ExpertFirst+e)
			return
		}
		r.expertGroup(part.ExpertFirst+e, count, up.Take(count), down.Take(count))
		e += count
	}
}

func (r *recorder) expertGroup(first, count int, up, down quant.Matrix) {
	c, m := r.config, r.config.MoE
	if up.Cols%quant.BlockSize != 0 || down.Cols%quant.BlockSize != 0 {
		r.err = fmt.Errorf("experts of %d × %d: the graphics device wants multiples of %d columns", up.Cols, down.Cols, quant.BlockSize)
		return
	}
	k := m.PerToken
	quants, scales := r.planes(up)
	r.dispatch(r.pipeline("experts_up", up.Type.String()), ceil(2*m.FFN, 64/r.lanes), k, 1,
		[8]uint32{uint32(2 * m.FFN), uint32(up.Cols / quant.BlockSize), uint32(k), uint32(first), uint32(count)}, quants, scales, r.normed, r.ids, r.expertUp)
	r.dispatch(r.pipeline("swiglu_f32", ""), ceil(k*m.FFN, 64), 1, 1, [8]uint32{uint32(k * m.FFN)}, r.expertUp, r.expertAct)
	quants, scales = r.planes(down)
	r.dispatch(r.pipeline("experts_down", down.Type.String()), ceil(c.Hidden, 64/r.lanes), 1, 1,
		[8]uint32{uint32(c.Hidden), uint32(down.Cols / quant.BlockSize), uint32(k), uint32(first), uint32(count)}, quants, scales, r.expertAct, r.ids, r.weights, r.hidden)
}
