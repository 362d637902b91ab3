package model

// Qwen3-MoE: Qwen3 with a softmax router over all experts in every layer,
// without correction bias and shared experts.
func init() {
	register(architecture{
		name: "qwen3moe", hf: []string{"Qwen3MoeForCausalLM"}, gguf: []string{"qwen3moe"},
		readHF: func(r *hfConfig) (*Config, error) {
			c, err := readQwen3(r)
			if err != nil {
				return nil, err
			}
			experts := "num_experts"
			if !r.has(experts) {
				experts = "num_local_experts" // transformers v5
			}
			c.MoE = &MoE{
				Experts: r.int(experts), PerToken: r.int("num_experts_per_tok"), FFN: r.int("moe_intermediate_size"),
				Normalise: r.boolOr("norm_topk_prob", false), Scale: 1,
			}
			var dense []int
			r.read("mlp_only_layers", &dense, false)
			if len(dense) > 0 || r.intOr("decoder_sparse_step", 1) != 1 {
				r.fail("mlp_only_layers and decoder_sparse_step: dense layers between the others are not known")
			}
			return c, nil
		},
		readGGUF: func(m *ggufMeta) (*Config, error) {
			c := m.common(false)
			c.QKNorm = true
			c.MoE = m.moe(false, true)
			return c, nil
		},
		names: standardNames,
	})
}
