package model

// GLM-4.5, GLM-4.5-Air, GLM-4.6 and INTELLECT-3: half-split RoPE on the first
// half of each head, biases on q, k and v, QK norm in some, a sigmoid router
// with correction bias and groups, shared experts, the first layers dense, and
// a prediction layer that finetunes often leave out. GGUF calls the norm before
// the FFN post_attention_norm.
func init() {
	register(architecture{
		name: "glm4moe", hf: []string{"Glm4MoeForCausalLM"}, gguf: []string{"glm4moe"},
		readHF: readGLM4MoE,
		readGGUF: func(m *ggufMeta) (*Config, error) {
			c := m.common(false)
			c.MoE = m.moe(true, true)
			c.MoE.Correction = true
			predict := m.intOr("nextn_predict_layers", 0)
			if predict < 0 || predict > 1 {
				m.fail("glm4moe.nextn_predict_layers is %d, want 0 or 1", predict)
			}
			c.Layers -= predict
			c.MTP = predict == 1
			return c, nil
		},
		names: func(f Format) names {
			n := standardNames(f)
			if f == GGUF {
				n.ffnNorm = "post_attention_norm.weight"
			}
			return n
		},
	})
}

func readGLM4MoE(r *hfConfig) (*Config, error) {
	c := r.common()
	r.rope(c, 0.5, false, true)
	c.QKVBias = r.boolOr("attention_bias", false)
	c.QKNorm = r.boolOr("use_qk_norm", false)
	c.MTP = r.intOr("num_nextn_predict_layers", 0) > 0
	c.MoE = &MoE{
		Experts: r.int("n_routed_experts"), PerToken: r.int("num_experts_per_tok"), FFN: r.int("moe_intermediate_size"),
		Groups: r.intOr("n_group", 1), TopGroups: r.intOr("topk_group", 1),
		Sigmoid: true, Correction: true, Normalise: r.boolOr("norm_topk_prob", true),
		Scale: r.floatOr("routed_scaling_factor", 1), DenseFirst: r.intOr("first_k_dense_replace", 0),
	}
	c.MoE.SharedFFN = r.intOr("n_shared_experts", 0) * c.MoE.FFN
	return c, nil
}
