package model

// Llama 2, 3, 3.1, 3.2 and Mistral's dense models: the plain block. GGUF files
// of Llama have the rows of q and k permuted for interleaved RoPE.
func init() {
	register(architecture{
		name: "llama", hf: []string{"LlamaForCausalLM", "MistralForCausalLM"}, gguf: []string{"llama", "mistral"},
		readHF: func(r *hfConfig) (*Config, error) {
			c := r.common()
			r.rope(c, 1, false, false)
			if r.boolOr("attention_bias", false) || r.boolOr("mlp_bias", false) {
				r.fail("attention_bias and mlp_bias are not known for this architecture")
			}
			return c, nil
		},
		readGGUF: func(m *ggufMeta) (*Config, error) {
			c := m.common(false)
			if m.intOr("expert_count", 0) > 0 {
				m.fail("llama.expert_count: Mixtral's mixture of experts is not known")
			}
			return c, nil
		},
		names: func(f Format) names {
			n := standardNames(f)
			n.permuted = f == GGUF
			return n
		},
	})
}
