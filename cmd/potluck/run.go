package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/local"
	"github.com/potluck-llm/potluck/safetensors"
	"github.com/potluck-llm/potluck/sample"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/chat"
	"github.com/potluck-llm/potluck/token/jinja"
)

type runFlags struct {
	model, weights, activations string
	threads                     int
	tokens, logits              string
	hidden                      bool
	prompt                      string
	raw, noThinking             bool
	maxTokens, context          int
	temperature, topP, minP     float64
	topK                        int
	seed                        uint64
}

func runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Answer a prompt, or compute logits, in this process",
		Long: `Runs the model in this process, without a room.

With --prompt the answer goes to standard output, and nothing else does. With
--tokens and --logits nothing is sampled: the logits of every position (and with
--hidden the state after every layer) are written as safetensors.`,
		Example: `  potluck run -p "What is the capital of France?" --temperature 0
  potluck run -p "Once upon a time" --raw --max-tokens 50
  potluck run --model ./checkpoint --tokens 1,2,3 --logits out.safetensors --hidden --weights f32 --activations f32`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", modelHelp)
	flags.StringVar(&f.weights, "weights", "", "weight type to convert to: f32, q8_0 or q4_0 (default: as stored, else q4_0)")
	flags.StringVar(&f.activations, "activations", "f16", "what travels between layers: f16 or f32 (f32 also multiplies weights by unrounded activations)")
	flags.IntVar(&f.threads, "threads", 0, "processor threads, 0: all cores")
	flags.StringVar(&f.tokens, "tokens", "", "token ids, as 1,2,3")
	flags.StringVar(&f.logits, "logits", "", "safetensors file for the logits of --tokens")
	flags.BoolVar(&f.hidden, "hidden", false, "write hidden states too: hidden.0 is the embedding, the last is after the final norm")
	flags.StringVarP(&f.prompt, "prompt", "p", "", "the question, or with --raw the text to continue")
	flags.BoolVar(&f.raw, "raw", false, "continue the text as it is, without the chat template")
	flags.BoolVar(&f.noThinking, "no-thinking", false, "ask for an answer without reasoning")
	flags.IntVar(&f.maxTokens, "max-tokens", 512, "length of the answer in tokens")
	flags.IntVar(&f.context, "context", 4096, "room for prompt and answer in tokens")
	flags.Float64Var(&f.temperature, "temperature", -1, "0 always takes the likeliest token (default: the model's own)")
	flags.Float64Var(&f.topP, "top-p", -1, "sample from the likeliest tokens that reach this probability (default: the model's own)")
	flags.IntVar(&f.topK, "top-k", -1, "sample from this many of the likeliest tokens (default: the model's own)")
	flags.Float64Var(&f.minP, "min-p", -1, "leave out tokens less likely than this share of the likeliest")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of the sampling")
	return cmd
}

func (f *runFlags) run(cmd *cobra.Command) error {
	switch {
	case f.tokens == "" && f.prompt == "":
		return errors.New("say what to run: --prompt TEXT, or --tokens 1,2,3 --logits FILE (potluck run --help has examples)")
	case f.tokens != "" && f.prompt != "":
		return errors.New("--prompt and --tokens exclude each other")
	case f.tokens != "" && f.logits == "":
		return errors.New("--tokens needs --logits FILE: nothing is sampled from tokens")
	}
	ctx := cmd.Context()
	src, err := openModel(ctx, f.model, f.weights)
	if err != nil {
		return err
	}
	engine, err := kernel.New(kernel.Options{Threads: f.threads})
	if err != nil {
		return err
	}
	defer engine.Close()
	plan, err := slotPlan(src.Manifest().Model, 1, f.context, f.activations)
	if err != nil {
		return err
	}
	if f.tokens != "" {
		return f.writeLogits(ctx, src, engine, plan)
	}
	return f.answer(ctx, src, engine, plan, cmd.OutOrStdout())
}

func parseTokens(list string, vocab int) ([]int32, error) {
	var ids []int32
	for _, s := range strings.Split(list, ",") {
		id, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("--tokens: %q is not a token id", s)
		}
		if id < 0 || int(id) >= vocab {
			return nil, fmt.Errorf("--tokens: %d is outside the vocabulary of %d", id, vocab)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

// writeLogits runs the tokens as one pass and writes what came of it.
func (f *runFlags) writeLogits(ctx context.Context, src shard.Source, engine *kernel.Engine, plan exec.SlotPlan) error {
	c := src.Manifest().Model
	tokens, err := parseTokens(f.tokens, c.Vocab)
	if err != nil {
		return err
	}
	if len(tokens) > plan.Positions {
		return fmt.Errorf("--tokens: %d tokens, there is room for %d (--context)", len(tokens), plan.Positions)
	}
	runner, err := local.Open(ctx, src, engine, plan, nil)
	if err != nil {
		return err
	}
	defer runner.Close()
	want := make([]int32, len(tokens))
	for i := range want {
		want[i] = int32(i)
	}
	states := map[int][]float32{}
	var trace func(int, []float32)
	if f.hidden {
		trace = func(i int, h []float32) { states[i] = append([]float32(nil), h...) }
	}
	runner.Reset()
	logits, err := runner.Step(ctx, 0, tokens, want, trace)
	if err != nil {
		return err
	}
	n := int64(len(tokens))
	tensors := []safetensors.Named{safetensors.F32("logits", []int64{n, int64(c.Vocab)}, logits)}
	for i := 0; f.hidden && i <= c.Layers; i++ {
		tensors = append(tensors, safetensors.F32(fmt.Sprintf("hidden.%d", i), []int64{n, int64(c.Hidden)}, states[i]))
	}
	out, err := os.Create(f.logits)
	if err != nil {
		return err
	}
	if err := safetensors.Write(out, tensors, nil); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// answer prints the answer to a prompt as it comes.
func (f *runFlags) answer(ctx context.Context, src shard.Source, engine *kernel.Engine, plan exec.SlotPlan, out io.Writer) error {
	m := src.Manifest()
	tokenizer, err := needTokenizer(m)
	if err != nil {
		return err
	}
	template, err := openTemplate(m, tokenizer)
	if err != nil && !f.raw {
		return err
	}
	prompt, err := f.encode(tokenizer, template)
	if err != nil {
		return err
	}
	stops, err := stopTokens(m, tokenizer, template)
	if err != nil {
		return err
	}
	sampler, err := f.sampler(m)
	if err != nil {
		return err
	}
	runner, err := local.Open(ctx, src, engine, plan, nil)
	if err != nil {
		return err
	}
	defer runner.Close()
	stream := tokenizer.Stream(!f.raw)
	history := append([]int32(nil), prompt...)
	count := 0
	err = runner.Generate(ctx, prompt, func(logits []float32) (int32, error) {
		hidePadding(tokenizer, logits)
		return sampler.Sample(logits, history)
	}, func(id int32) bool {
		for _, stop := range stops {
			if id == stop {
				return false
			}
		}
		history = append(history, id)
		fmt.Fprint(out, stream.Push(id))
		count++
		return count < f.maxTokens
	})
	fmt.Fprintln(out, stream.Flush())
	return err
}

func (f *runFlags) encode(tokenizer *token.Tokenizer, template *chat.Template) ([]int32, error) {
	if f.raw {
		return tokenizer.Encode(f.prompt, token.EncodeOptions{Special: true}), nil
	}
	message := jinja.NewDict().Set("role", "user").Set("content", f.prompt)
	vars := jinja.NewDict().Set("messages", &jinja.List{Items: []jinja.Value{message}}).Set("add_generation_prompt", true)
	if f.noThinking {
		vars.Set("enable_thinking", false)
	}
	text, err := template.Render(vars, time.Now())
	if err != nil {
		return nil, err
	}
	return tokenizer.Encode(text, token.EncodeOptions{}), nil
}

func (f *runFlags) sampler(m *shard.Manifest) (*sample.Sampler, error) {
	g, err := generation(m)
	if err != nil {
		return nil, err
	}
	d := g.defaults()
	p := sample.Params{Temperature: d.Temperature, TopP: d.TopP, TopK: d.TopK, MinP: d.MinP, Seed: f.seed}
	if f.temperature >= 0 {
		p.Temperature = f.temperature
	}
	if f.topP >= 0 {
		p.TopP = f.topP
	}
	if f.topK >= 0 {
		p.TopK = f.topK
	}
	if f.minP >= 0 {
		p.MinP = f.minP
	}
	return sample.New(p, kernel.Logits{})
}
