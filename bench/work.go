package bench

import (
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// BytesPerToken is how many bytes decoding one token reads: all weights but for the
// embedding (unless it is the head too), the prediction layer and the experts that
// are not chosen; and the keys and values, of type kv, of so many positions.
func BytesPerToken(m *shard.Manifest, kv quant.Type, positions int) int64 {
	total := int64(positions) * int64(m.Model.Layers) * kv.Bytes(1, 2*m.Model.KVDim())
	eachRead(m, func(t *shard.Tensor, share float64) {
		total += int64(float64(t.Type.Bytes(t.Rows, t.Cols)) * share)
	})
	return total
}

// MACsPerToken is how many multiply-adds a token of a prompt takes on average:
// one a weight and row, the head's for the last token only, and attention's
// scores and sums over half of the prompt.
func MACsPerToken(m *shard.Manifest, prompt int) float64 {
	c := m.Model
	total := float64(c.Layers) * float64(c.QDim()) * float64(prompt+1)
	head := "head"
	if c.Tied {
		head = "embed"
	}
	eachRead(m, func(t *shard.Tensor, share float64) {
		macs := float64(t.Rows) * float64(t.Cols) * share
		if t.Name == head {
			macs /= float64(prompt)
		}
		total += macs
	})
	return total
}

// eachRead calls f with every tensor that decoding a token reads, and which
// share of it.
func eachRead(m *shard.Manifest, f func(t *shard.Tensor, share float64)) {
	c := m.Model
	layers := map[string]int{}
	for _, t := range c.Tensors() {
		layers[t.Name] = t.Layer
	}
	for i := range m.Tensors {
		t := &m.Tensors[i]
		layer, share := layers[t.Name], 1.0
		switch {
		case t.Name == "embed" && !c.Tied, c.MTP && layer == c.Layers:
			continue
		case layer >= 0 && layer < c.Layers && c.IsMoE(layer) &&
			(t.Name == model.LayerName(layer, "experts.gate_up") || t.Name == model.LayerName(layer, "experts.down")):
			share = float64(c.MoE.PerToken) / float64(c.MoE.Experts)
		}
		f(t, share)
	}
}
