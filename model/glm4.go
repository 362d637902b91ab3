package model

// GLM-4-0414: as GLM-4-9B, with norms also after attention and after the FFN.
// GGUF's post_attention_norm is the true post-norm here, unlike in glm4moe.
func init() {
	register(architecture{
		name: "glm4", hf: []string{"Glm4ForCausalLM"}, gguf: []string{"glm4"},
		readHF: func(r *hfConfig) (*Config, error) {
			c := r.common()
			r.rope(c, 0.5, true, true)
			c.QKVBias, c.Sandwich = r.boolOr("attention_bias", false), true
			return c, nil
		},
		readGGUF: func(m *ggufMeta) (*Config, error) {
			c := m.common(true)
			c.Sandwich = true
			return c, nil
		},
		names: func(f Format) names {
			n := standardNames(f)
			if f == GGUF {
				n.attnPostNorm, n.ffnPostNorm = "post_attention_norm.weight", "post_ffw_norm.weight"
				n.writesFusedGateUp = true
			} else {
				n.attnPostNorm, n.ffnPostNorm = "post_self_attn_layernorm.weight", "post_mlp_layernorm.weight"
			}
			return n
		},
	})
}
