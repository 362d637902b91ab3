package main

import (
	"encoding/json"
	"fmt"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/bench"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/local"
	"github.com/potluck-llm/potluck/token"
)

func perplexityCommand() *cobra.Command {
	var modelName, weights, activations, file string
	var threads int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "perplexity",
		Short: "Measure how well a model foretells a text",
		Long: `Foretells each token of a text file from all tokens before it, in one sequence,
and prints the perplexity: e to the mean negative log likelihood. Two engines
that run the same file right agree; what a weight type or 8-bit activations cost
shows as a ratio.`,
		Example: `  potluck perplexity --model m.gguf --file bench/real/text.txt
  potluck perplexity --model m.gguf --file bench/real/text.txt --activations f32 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return fmt.Errorf("say which text to foretell: --file TEXT.txt")
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if !utf8.Valid(text) {
				return fmt.Errorf("%s: not UTF-8", file)
			}
			ctx := cmd.Context()
			src, err := openModel(ctx, modelName, weights)
			if err != nil {
				return err
			}
			m := src.Manifest()
			tokenizer, err := needTokenizer(m)
			if err != nil {
				return err
			}
			tokens := tokenizer.Encode(string(text), token.EncodeOptions{Special: true})
			if len(tokens) > m.Model.MaxPositions {
				return fmt.Errorf("%s: %d tokens, the model has room for %d: shorten the text", file, len(tokens), m.Model.MaxPositions)
			}
			engine, err := kernel.New(kernel.Options{Threads: threads})
			if err != nil {
				return err
			}
			defer engine.Close()
			plan, err := slotPlan(m.Model, 1, max(1, len(tokens)), activations)
			if err != nil {
				return err
			}
			runner, err := local.Open(ctx, src, engine, plan, nil)
			if err != nil {
				return err
			}
			defer runner.Close()
			p, err := bench.MeasurePerplexity(ctx, runner, tokens, progressOn(os.Stderr))
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "perplexity %.4f over %d tokens (%.5f ± %.5f nats a token)\n", p.Value, p.Tokens, p.NLL, p.Error)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&modelName, "model", "", modelHelp)
	flags.StringVar(&weights, "weights", "", "weight type to convert to: f32, q8_0 or q4_0 (default: as stored, else q4_0)")
	flags.StringVar(&activations, "activations", "f16", "what travels between layers: f16 or f32 (f32 also multiplies weights by unrounded activations)")
	flags.StringVar(&file, "file", "", "the text (required)")
	flags.IntVar(&threads, "threads", 0, "processor threads, 0: all cores")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// progressOn counts tokens on a terminal, and nowhere else.
func progressOn(out *os.File) func(done, total int) {
	if !isTerminal(out) {
		return nil
	}
	return func(done, total int) {
		fmt.Fprintf(out, "\r%d of %d tokens", done, total)
		if done == total {
			fmt.Fprintln(out)
		}
	}
}
