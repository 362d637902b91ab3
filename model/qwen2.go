package model

// Qwen2 and Qwen2.5: as Llama, with biases on q, k and v.
func init() {
	register(architecture{
		name: "qwen2", hf: []string{"Qwen2ForCausalLM"}, gguf: []string{"qwen2"},
		readHF: func(r *hfConfig) (*Config, error) {
			c := r.common()
			r.rope(c, 1, false, false)
			c.QKVBias = true
			return c, nil
		},
		readGGUF: func(m *ggufMeta) (*Config, error) {
			c := m.common(false)
			c.QKVBias = true
			return c, nil
		},
		names: standardNames,
	})
}
