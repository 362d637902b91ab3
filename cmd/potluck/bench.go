package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/bench"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

func benchCommand() *cobra.Command {
	var modelName, weights string
	var asJSON, walls bool
	var peers []string
	var rounds int
	o := bench.Options{KV: quant.F16, Log: os.Stderr}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure prefill, decode, and where a token's time goes",
		Long: `Measures speed as users meet it: medians of some runs after one that warms up.
With --workers 0 the model runs in this process; with more, through a chain of
that many workers over real sockets on this machine.

--compare NAME=COMMAND runs another program in turns with this one, for the
same threads, prompt and generated tokens; {threads}, {prompt} and {gen} in the
command are replaced, and {runs} by how often each measures. It understands
llama-bench's -o json, whose decoding begins with an empty context: --depth 0
does the same; or give it -d {depth}. Each round also measures what the machine
can at most do (alone: --walls) and, unless the command names {depth}, how long
a program takes as a whole for a prompt of one token.`,
		Example: `  potluck bench
  potluck bench --model ./store --threads 2 --workers 2 --json
  potluck bench --model m.gguf --threads 1 --depth 0 --compare 'llama.cpp=llama-bench -m m.gguf -t {threads} -p {prompt} -n {gen} -r {runs} -o json'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if walls {
				return printWalls(cmd, o.Threads, asJSON)
			}
			src, err := openModel(cmd.Context(), modelName, weights)
			if err != nil {
				return err
			}
			if limit := src.Manifest().Model.MaxPositions; o.Prompt+o.Gen+2 > limit && !cmd.Flags().Changed("prompt") {
				o.Prompt = max(1, limit-o.Gen-2)
			}
			if len(peers) > 0 {
				if !cmd.Flags().Changed("runs") {
					o.Runs = 2
				}
				return compare(cmd, src.Manifest(), modelName, weights, o, peers, rounds, asJSON)
			}
			r, err := bench.Run(cmd.Context(), src, o)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, r)
			}
			return printBench(cmd, r)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&modelName, "model", "", modelHelp)
	flags.StringVar(&weights, "weights", "", "weight type to convert to (default: as stored, else q4_0)")
	flags.IntVar(&o.Threads, "threads", 0, "processor threads of all workers together, 0: all cores")
	flags.IntVar(&o.Prompt, "prompt", 512, "tokens of the prompt")
	flags.IntVar(&o.Gen, "gen", 64, "tokens to decode")
	flags.IntVar(&o.Depth, "depth", -1, "tokens before those to decode, below 0: the prompt")
	flags.IntVar(&o.Workers, "workers", 0, "workers of a chain; 0: in this process")
	flags.IntVar(&o.Runs, "runs", 3, "measured runs (with --compare 2 a round)")
	flags.BoolVar(&walls, "walls", false, "measure how fast this machine reads memory and multiplies, no model")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringArrayVar(&peers, "compare", nil, "NAME=COMMAND of another program; may be given several times")
	flags.IntVar(&rounds, "rounds", 3, "rounds of --compare")
	return cmd
}

// compare runs this program and the peers in turns.
func compare(cmd *cobra.Command, m *shard.Manifest, modelName, weights string, o bench.Options, peers []string, rounds int, asJSON bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := fmt.Sprintf("%s bench --json --threads {threads} --prompt {prompt} --gen {gen} --runs {runs} --depth %d", quoteShell(self), o.Depth)
	if o.Workers > 0 {
		command = strings.Replace(command, "{gen}", strconv.Itoa(o.Gen), 1) + fmt.Sprintf(" --workers %d", o.Workers)
	}
	if modelName != "" {
		command += " --model " + quoteShell(modelName)
	}
	if weights != "" {
		command += " --weights " + quoteShell(weights)
	}
	var list []bench.Peer
	for _, text := range peers {
		p, err := bench.ParsePeer(text)
		if err != nil {
			return err
		}
		list = append(list, p)
	}
	c, err := bench.Compare(cmd.Context(), m, quoteShell(self)+" bench --walls --json --threads {threads}", bench.Peer{Name: "potluck", Command: command}, list, o, rounds)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd, c)
	}
	return c.Print(cmd.OutOrStdout())
}

func printWalls(cmd *cobra.Command, threads int, asJSON bool) error {
	w, err := bench.MeasureWalls(threads)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd, w)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "memory %.1f GB/s, %.0f G 8-bit multiply-adds/s\n", w.ReadGBs, w.GMACs)
	return err
}

func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func printBench(cmd *cobra.Command, r *bench.Result) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 2, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s, %s weights, %d threads, %s, build %s\n", r.Model, r.Weights, r.Threads, r.Machine, r.Build)
	fmt.Fprintf(w, "  prefill %d\t%.1f tok/s\t[%.1f–%.1f]\n", r.Prompt, r.PrefillTokS, r.PrefillSpread.Low, r.PrefillSpread.High)
	fmt.Fprintf(w, "  decode %d\t%.1f tok/s\t[%.1f–%.1f], reads %.1f MB a token: %.1f GB/s\n", r.Gen, r.DecodeTokS, r.DecodeSpread.Low, r.DecodeSpread.High,
		float64(r.BytesPerToken)/1e6, float64(r.BytesPerToken)*r.DecodeTokS/1e9)
	fmt.Fprintf(w, "  first token\t%.1f ms\n  load\t%.1f ms\n", r.FirstTokenMs, r.LoadMs)
	if r.PeakRatio > 0 {
		fmt.Fprintf(w, "  memory\t%.0f MB at most, %.2f × (%.0f MB of weights + %.0f MB of KV cache)\n",
			float64(r.PeakBytes)/1e6, r.PeakRatio, float64(r.WeightBytes)/1e6, float64(r.KVBytes)/1e6)
	}
	if len(r.Hops) > 0 {
		fmt.Fprintf(w, "  wire\t%.0f bytes a token, both ways\n\n", r.WireBytesPerToken)
		fmt.Fprintln(w, "  worker\tlayers\tcompute ms\treadback ms\twire ms\tqueue ms")
		for _, h := range r.Hops {
			fmt.Fprintf(w, "  %s\t%s\t%.3f\t%.3f\t%.3f\t%.3f\n", h.Worker, h.Layers, h.Compute, h.Readback, h.Wire, h.Queue)
		}
		fmt.Fprintf(w, "  coordinator\t\t%.3f\n", r.CoordinatorMs)
	}
	return w.Flush()
}
