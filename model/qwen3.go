package model

// Qwen3: as Llama, with an RMSNorm over each head of q and k before RoPE, and
// heads whose size is their own.
func init() {
	register(architecture{
		name: "qwen3", hf: []string{"Qwen3ForCausalLM"}, gguf: []string{"qwen3"},
		readHF: readQwen3,
		readGGUF: func(m *ggufMeta) (*Config, error) {
			c := m.common(false)
			c.QKNorm = true
			return c, nil
		},
		names: standardNames,
	})
}

func readQwen3(r *hfConfig) (*Config, error) {
	c := r.common()
	r.rope(c, 1, false, false)
	c.QKNorm = true
	if r.boolOr("attention_bias", false) {
		r.fail("attention_bias is not known for this architecture")
	}
	return c, nil
}
