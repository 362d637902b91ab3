package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/coordinator/api"
	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/chat"
)

// modelHelp is the description of --model, the same everywhere.
const modelHelp = "a shard store, a GGUF file, a Hugging Face folder, hf:OWNER/NAME[@REVISION], or an https:// folder or .gguf; the embedded demo model when none is given"

// openModel opens what --model names: a store, a file or folder that is first
// converted into a store (kept in the cache), or the embedded model.
func openModel(ctx context.Context, name, weights string) (shard.Source, error) {
	if name == "" {
		if weights == "" || weights == embedded.Weights {
			return embedded.Open()
		}
		return embedded.OpenAs(weights)
	}
	return convert.Open(ctx, name, convert.OpenOptions{Weights: weights, Progress: os.Stderr})
}

// openTokenizer makes the tokenizer of a store; nil where it has none.
func openTokenizer(m *shard.Manifest) (*token.Tokenizer, error) {
	if len(m.Tokenizer) == 0 {
		return nil, nil
	}
	return token.FromJSON(m.Tokenizer)
}

// needTokenizer is openTokenizer where one is needed.
func needTokenizer(m *shard.Manifest) (*token.Tokenizer, error) {
	t, err := openTokenizer(m)
	if err == nil && t == nil {
		err = fmt.Errorf("the model has no tokenizer: only --tokens and bench work with it")
	}
	return t, err
}

// openTemplate makes the chat template of a store, or the built-in one of its
// family.
func openTemplate(m *shard.Manifest, t *token.Tokenizer) (*chat.Template, error) {
	h := chat.Hints{Arch: m.Model.Arch, TokenID: t.ID}
	text := func(id *int32) string {
		if id == nil {
			return ""
		}
		s, _ := t.Text(*id)
		return s
	}
	h.BOS = text(m.Model.BOS)
	if len(m.Model.EOS) > 0 {
		h.EOS = text(&m.Model.EOS[0])
	}
	return chat.New(m.Template, h)
}

// stopTokens are the ids that end an answer: those of the configuration, of
// generation_config and of the tokenizer's family together.
func stopTokens(m *shard.Manifest, t *token.Tokenizer, template *chat.Template) ([]int32, error) {
	seen := map[int32]bool{}
	var ids []int32
	add := func(list ...int32) {
		for _, id := range list {
			if !seen[id] && id >= 0 && int(id) < m.Model.Vocab {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	add(m.Model.EOS...)
	g, err := generation(m)
	if err != nil {
		return nil, err
	}
	add(g.EOS...)
	if t != nil {
		add(t.EOS()...)
		if template != nil {
			for _, text := range template.StopTokens() {
				if id, ok := t.ID(text); ok {
					add(id)
				}
			}
		}
	}
	return ids, nil
}

// hidePadding keeps ids that no token has, rows that only round a vocabulary's
// size, from being sampled.
func hidePadding(t *token.Tokenizer, logits []float32) {
	for id := range logits {
		if !t.Defined(int32(id)) {
			logits[id] = -math.MaxFloat32
		}
	}
}

// generationConfig is what of generation_config.json counts.
type generationConfig struct {
	EOS         []int32
	Temperature *float64 `json:"temperature"`
	TopP        *float64 `json:"top_p"`
	TopK        *int     `json:"top_k"`
	MinP        *float64 `json:"min_p"`
	Sample      *bool    `json:"do_sample"`
}

func generation(m *shard.Manifest) (generationConfig, error) {
	var g generationConfig
	if len(m.Generation) == 0 {
		return g, nil
	}
	if err := json.Unmarshal(m.Generation, &g); err != nil {
		return g, fmt.Errorf("generation_config.json: %w", err)
	}
	var raw struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	if err := json.Unmarshal(m.Generation, &raw); err != nil || len(raw.EOS) == 0 || string(raw.EOS) == "null" {
		return g, err
	}
	var one int32
	if json.Unmarshal(raw.EOS, &one) == nil {
		g.EOS = []int32{one}
		return g, nil
	}
	if err := json.Unmarshal(raw.EOS, &g.EOS); err != nil {
		return g, fmt.Errorf("generation_config.json: eos_token_id: %w", err)
	}
	return g, nil
}

// silent are the sampling parameters of a model that asks for none, as hardly any
// GGUF file does: the plain distribution of a small quantised model is too wide
// to make sense. Any client of the API can set both.
var silent = api.Defaults{Temperature: 0.7, TopP: 0.95}

// defaults are the sampling parameters that the model asks for.
func (g generationConfig) defaults() api.Defaults {
	if g.Temperature == nil && g.TopP == nil && g.TopK == nil && g.MinP == nil && g.Sample == nil {
		return silent
	}
	d := api.Defaults{Temperature: 1, TopP: 1}
	if g.Temperature != nil {
		d.Temperature = *g.Temperature
	}
	if g.Sample != nil && !*g.Sample {
		d.Temperature = 0
	}
	if g.TopP != nil && *g.TopP > 0 {
		d.TopP = *g.TopP
	}
	if g.TopK != nil && *g.TopK > 0 {
		d.TopK = *g.TopK
	}
	if g.MinP != nil {
		d.MinP = *g.MinP
	}
	return d
}

// displayName is what clients call the model: a file by its own name, because
// what converters write into GGUF files says little ("Smollm2 135M 8k Mix1").
func displayName(m *shard.Manifest, argument string) string {
	base, isGGUF := strings.CutSuffix(filepath.Base(strings.TrimSuffix(argument, "/")), ".gguf")
	switch {
	case argument != "" && (isGGUF || m.Model.Name == ""):
		return base
	case m.Model.Name != "":
		return m.Model.Name
	}
	return embedded.Name
}

// slotPlan is room for slots sequences of at most positions each.
func slotPlan(c *model.Config, slots, positions int, activations string) (exec.SlotPlan, error) {
	plan := exec.SlotPlan{Slots: slots, Positions: min(positions, c.MaxPositions), KV: quant.F16, Round: true}
	switch activations {
	case "f16":
	case "f32":
		plan.KV, plan.Round, plan.Exact = quant.F32, false, true
	default:
		return plan, fmt.Errorf("--activations %s: f16 or f32", activations)
	}
	return plan, nil
}
