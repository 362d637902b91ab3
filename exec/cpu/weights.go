package cpu

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// A tensor is a weight matrix in one or several row ranges, as its pieces hold
// it.
type tensor struct {
	rows, cols int
	parts      []quant.Matrix
}

// row decodes one row.
func (t *tensor) row(dst []float32, row int) {
	for _, m := range t.parts {
		if row < m.Rows {
			m.Row(dst, row)
			return
		}
		row -= m.Rows
	}
}

// jobs appends to list what computes rows first.. of t, count of them, for
// y [rows of activations × count]: a product for each piece that they lie in.
func (t *tensor) jobs(list []kernel.Job, y []float32, first, count int) []kernel.Job {
	to := 0
	for _, m := range t.parts {
		from := min(first, m.Rows)
		first -= from
		if rows := min(m.Rows-from, count-to); rows > 0 && len(y) > 0 {
			list = append(list, kernel.Job{Y: y[to:], Pitch: count, W: m.RowRange(from, rows)})
			to += rows
		}
	}
	return list
}

// floats tells whether products with t, if there is one, read activations as floats.
func (t *tensor) floats() bool {
	return t != nil && slices.ContainsFunc(t.parts, func(m quant.Matrix) bool { return !m.Type.Quantised() })
}

// layer is what a span holds of one layer, and its KV caches by slot.
type layer struct {
	part   model.LayerPart
	caches []*kernel.Cache

	attnNorm, attnPostNorm, ffnNorm, ffnPostNorm []float32
	q, k, v, o                                   *tensor
	qBias, kBias, vBias, qNorm, kNorm            []float32
	gateUp, down                                 *tensor // dense, or the shared experts
	router                                       *tensor
	routerBias                                   []float32
	experts                                      []expertGroup
	attnFloats, ffnFloats                        bool // whether a product behind the norm reads floats
}

// free empties a slot's cache.
func (l *layer) free(slot int) {
	if slot < len(l.caches) && l.caches[slot] != nil {
		l.caches[slot].Free()
		l.caches[slot] = nil
	}
}

// An expertGroup is consecutive experts that lie together.
type expertGroup struct {
	first, count int
	gateUp, down quant.Matrix
}

type mtpWeights struct {
	enorm, hnorm, norm []float32
	ehProj             *tensor
}

type weights struct {
	embed, head *tensor
	norm        []float32
	mtp         *mtpWeights
	layers      []*layer
	bytes       int64
}

// loadWeights reads the pieces that span needs, each once.
func loadWeights(ctx context.Context, config *model.Config, span model.Span, src shard.Source, report func(exec.Progress)) (*weights, error) {
	found, size, err := shard.ReadSpan(ctx, src, span, func(loaded, total int64) {
		if report != nil {
			report(exec.Progress{Loaded: loaded, Total: total})
		}
	})
	if err != nil {
		return nil, err
	}
	r := &reader{found: found}
	w := &weights{bytes: size}
	if span.Embed {
		w.embed = r.tensor("embed")
	}
	if span.Head {
		w.norm, w.head = r.vector("norm"), r.head(config)
	}
	if span.MTP {
		w.mtp = &mtpWeights{enorm: r.vector("mtp.enorm"), hnorm: r.vector("mtp.hnorm"), norm: r.vector("mtp.norm"), ehProj: r.tensor("mtp.eh_proj")}
		w.embed, w.head = r.either(config.MTPEmbed, "mtp.embed", "embed"), nil
		if config.MTPHead {
			w.head = r.tensor("mtp.head")
		} else {
			w.head = r.head(config)
		}
	}
	for _, part := range config.Parts(span) {
		l := r.layer(config, part)
		l.attnFloats = l.q.floats() || l.k.floats() || l.v.floats()
		l.ffnFloats = l.router.floats() || l.gateUp.floats() ||
			slices.ContainsFunc(l.experts, func(g expertGroup) bool { return !g.gateUp.Type.Quantised() })
		w.layers = append(w.layers, l)
	}
	return w, r.err
}

// A reader picks tensors by name and keeps the first error.
type reader struct {
	found map[string][]quant.Matrix
	err   error
}

func (r *reader) tensor(name string) *tensor {
	parts := r.found[name]
	if len(parts) == 0 {
		if r.err == nil {
			r.err = fmt.Errorf("tensor %s is missing", name)
		}
		return &tensor{}
	}
	t := &tensor{cols: parts[0].Cols, parts: parts}
	for _, m := range parts {
		t.rows += m.Rows
	}
	return t
}

func (r *reader) either(first bool, a, b string) *tensor {
	if first {
		return r.tensor(a)
	}
	return r.tensor(b)
}

func (r *reader) head(config *model.Config) *tensor { return r.either(config.Tied, "embed", "head") }

// vector decodes a single row.
func (r *reader) vector(name string) []float32 {
	t := r.tensor(name)
	v := make([]float32, t.cols)
	if len(t.parts) > 0 {
		t.row(v, 0)
	}
	for i, x := range v {
		if r.err == nil && (math.IsNaN(float64(x)) || math.IsInf(float64(x), 0)) {
			r.err = fmt.Errorf("tensor %s: element %d is %v", name, i, x)
		}
	}
	return v
}

func (r *reader) layer(config *model.Config, part model.LayerPart) *layer {
	l := &layer{part: part}
	name := func(s string) string { return model.LayerName(part.Layer, s) }
	if part.Begins {
		l.attnNorm, l.ffnNorm = r.vector(name("attn_norm")), r.vector(name("ffn_norm"))
		l.q, l.k, l.v, l.o = r.tensor(name("q")), r.tensor(name("k")), r.tensor(name("v")), r.tensor(name("o"))
		if config.QKVBias {
			l.qBias, l.kBias, l.vBias = r.vector(name("q_bias")), r.vector(name("k_bias")), r.vector(name("v_bias"))
		}
		if config.QKNorm {
			l.qNorm, l.kNorm = r.vector(name("q_norm")), r.vector(name("k_norm"))
		}
		if config.Sandwich {
			l.attnPostNorm = r.vector(name("attn_post_norm"))
		}
	}
	if config.Sandwich {
		l.ffnPostNorm = r.vector(name("ffn_post_norm"))
	}
	if !config.IsMoE(part.Layer) {
		l.gateUp, l.down = r.tensor(name("gate_up")), r.tensor(name("down"))
		return l
	}
	if part.Begins {
		l.router = r.tensor(name("router"))
		if config.MoE.Correction {
			l.routerBias = r.vector(name("router_bias"))
		}
		if config.MoE.SharedFFN > 0 {
			l.gateUp, l.down = r.tensor(name("shared.gate_up")), r.tensor(name("shared.down"))
		}
	}
	l.experts = r.experts(config, part)
	return l
}

// experts pairs the segments of gate_up and down. Both are cut at whole
// experts, but not always at the same ones.
func (r *reader) experts(config *model.Config, part model.LayerPart) []expertGroup {
	gateUp, down := r.tensor(model.LayerName(part.Layer, "experts.gate_up")), r.tensor(model.LayerName(part.Layer, "experts.down"))
	var groups []expertGroup
	g, d := quant.Groups{Parts: gateUp.parts, Rows: 2 * config.MoE.FFN}, quant.Groups{Parts: down.parts, Rows: config.Hidden}
	for e := 0; e < part.ExpertCount && r.err == nil; {
		count := min(g.Left(), d.Left(), part.ExpertCount-e)
		if count < 1 {
			r.err = fmt.Errorf("layer %d: expert %d does not lie whole in one piece", part.Layer, part.ExpertFirst+e)
			break
		}
		groups = append(groups, expertGroup{part.ExpertFirst + e, count, g.Take(count), d.Take(count)})
		e += count
	}
	return groups
}
