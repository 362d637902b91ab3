package model

// GLM-4-9B, both as Hugging Face's own GlmForCausalLM and as the ChatGLMModel
// that it was published as: biases on q, k and v, interleaved RoPE on half of
// each head, gate and up fused.
func init() {
	register(architecture{
		name: "glm", hf: []string{"GlmForCausalLM"}, gguf: []string{"chatglm"},
		readHF: func(r *hfConfig) (*Config, error) {
			c := r.common()
			r.rope(c, 0.5, true, true)
			c.QKVBias = r.boolOr("attention_bias", false)
			return c, nil
		},
		readGGUF: func(m *ggufMeta) (*Config, error) {
			return m.common(true), nil
		},
		names: glmNames,
	})
	register(architecture{
		name: "chatglm", hf: []string{"ChatGLMModel", "ChatGLMForConditionalGeneration"},
		readHF: readChatGLM,
		readGGUF: func(m *ggufMeta) (*Config, error) {
			m.fail("%s files are read as glm", m.arch)
			return nil, m.err
		},
		names: chatGLMNames,
	})
}

func readChatGLM(r *hfConfig) (*Config, error) {
	c := &Config{
		Hidden: r.int("hidden_size"), Layers: r.int("num_layers"), Vocab: r.int("padded_vocab_size"),
		Heads: r.int("num_attention_heads"), HeadDim: r.int("kv_channels"), FFN: r.int("ffn_hidden_size"),
		NormEps: r.float("layernorm_epsilon"), QKVBias: r.boolOr("add_qkv_bias", false), Tied: r.boolOr("tie_word_embeddings", false),
		MaxPositions: r.int("seq_length"), EOS: r.ids("eos_token_id"), Pad: r.id("pad_token_id"),
	}
	c.KVHeads = c.Heads
	if r.boolOr("multi_query_attention", false) {
		c.KVHeads = r.int("multi_query_group_num")
	}
	c.RoPE = RoPE{Dims: c.HeadDim / 2, Theta: 10000 * r.floatOr("rope_ratio", 1), Interleaved: true}
	for _, f := range []struct {
		name      string
		otherwise bool
		want      bool
	}{
		{"rmsnorm", true, true}, {"post_layer_norm", true, true}, {"add_bias_linear", false, false},
		{"apply_residual_connection_post_layernorm", false, false},
	} {
		if got := r.boolOr(f.name, f.otherwise); got != f.want {
			r.fail("%s is %v: only %v is known", f.name, got, f.want)
		}
	}
	return c, nil
}

func glmNames(f Format) names {
	n := standardNames(f)
	n.writesFusedQKV, n.writesFusedGateUp = true, true
	return n
}

func chatGLMNames(f Format) names {
	n := glmNames(f)
	if f == HuggingFace {
		n.layer = "transformer.encoder.layers.%d."
		n.embed, n.norm, n.head = "transformer.embedding.word_embeddings.weight", "transformer.encoder.final_layernorm.weight", "transformer.output_layer.weight"
		n.q, n.k, n.v, n.qkv, n.o = "", "", "", "self_attention.query_key_value", "self_attention.dense"
		n.gate, n.up, n.gateUp, n.down = "", "", "mlp.dense_h_to_4h.weight", "mlp.dense_4h_to_h.weight"
	}
	return n
}
