package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/safetensors"
	"github.com/potluck-llm/potluck/shard"
)

func convertCommand() *cobra.Command {
	var out, to string
	var o convert.Options
	cmd := &cobra.Command{
		Use:   "convert SOURCE",
		Short: "Turn a model's files into a shard store, or a GGUF file",
		Long: `Turns a Hugging Face folder or a GGUF file into a shard store, the form that
rooms serve. Memory stays small whatever the model's size; stopped at any
moment, the same command goes on where it was.

The source may also lie on a host: hf:OWNER/NAME[@REVISION] on Hugging Face, or
any https:// folder; with /FILE.gguf at the end it is that file. It is read by
ranged requests straight into the store, never copied to this disk as a whole,
and held against the host's hashes. HF_TOKEN opens private and gated models,
HF_ENDPOINT names another Hugging Face host.

With --to gguf it becomes one GGUF file instead, for llama.cpp and its kin;
the source may then also be a store, and keeps its own types unless --weights
says otherwise.

Weights: ` + convert.Recipes + `.`,
		Example: `  potluck convert ./GLM-4.5-Air --out ./GLM-4.5-Air-q4_0
  potluck convert hf:zai-org/GLM-4.5-Air --out ./GLM-4.5-Air-q4_0
  potluck convert model-Q4_K_M.gguf --out ./model   # keeps the file's own types
  potluck convert ./checkpoint --out ./store --weights f32
  potluck convert ./GLM-4.5-Air --to gguf --weights q8_0 --out GLM-4.5-Air-Q8_0.gguf`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run, ok := map[string]func(ctx context.Context, path, out string, o convert.Options) (*convert.Report, error){
				"store": convert.Convert, "gguf": convert.ToGGUF,
			}[to]
			switch {
			case !ok:
				return fmt.Errorf("--to %s: want store or gguf", to)
			case out == "":
				return errors.New("say where it goes: --out FOLDER for a store, --out FILE.gguf for a GGUF file")
			}
			if u, err := url.Parse(args[0]); err == nil && u.Scheme == "http" && u.Hostname() != "localhost" && !strings.HasPrefix(u.Hostname(), "127.") {
				fmt.Fprintln(os.Stderr, "http:// is not encrypted: nothing proves whose bytes these are")
			}
			bar := convert.NewBar(os.Stderr, "converting "+filepath.Base(args[0]))
			o.Progress = bar.Update
			report, err := run(cmd.Context(), args[0], out, o)
			bar.Done()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ", out)
			report.Print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "folder of the store, or the GGUF file (required)")
	cmd.Flags().StringVar(&to, "to", "store", "store or gguf")
	cmd.Flags().StringVar(&o.Weights, "weights", "", "weight types (default: q4_0; of GGUF files the nearest to their own; to GGUF the source's own)")
	cmd.Flags().IntVar(&o.Threads, "threads", 0, "processor threads, 0: all cores")
	cmd.Flags().StringVar(&o.Origin, "origin", "", "what the store says about where it comes from (default: the source's name)")
	cmd.Flags().StringVar(&o.License, "license", "", "the weights' licence, as the store says it (default: what the source says)")
	return cmd
}

func inspectCommand() *cobra.Command {
	var tensor, out string
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "List a model's metadata and tensors",
		Example: `  potluck inspect ./store
  potluck inspect hf:zai-org/GLM-4.5-Air      # only the headers are read
  potluck inspect model.gguf --tensor layers.0.q --out q.safetensors   # decoded to f32`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			if tensor == "" {
				m, err := manifestOf(cmd.Context(), name, "")
				if err != nil {
					return err
				}
				return listStore(cmd, m)
			}
			src, err := openModel(cmd.Context(), name, "")
			if err != nil {
				return err
			}
			if out == "" {
				return errors.New("--tensor needs --out FILE.safetensors")
			}
			return writeTensor(cmd, src, tensor, out)
		},
	}
	cmd.Flags().StringVar(&tensor, "tensor", "", "decode this tensor")
	cmd.Flags().StringVar(&out, "out", "", "safetensors file for it")
	return cmd
}

// manifestOf is the manifest of a model's store, also where there is no store
// yet: listing needs none.
func manifestOf(ctx context.Context, name, weights string) (*shard.Manifest, error) {
	if name != "" {
		if _, err := os.Stat(filepath.Join(name, shard.ManifestFile)); err != nil {
			return convert.Layout(ctx, name, weights)
		}
	}
	src, err := openModel(ctx, name, "")
	if err != nil {
		return nil, err
	}
	return src.Manifest(), nil
}

func listStore(cmd *cobra.Command, m *shard.Manifest) error {
	c, w := m.Model, cmd.OutOrStdout()
	total := int64(0)
	for _, p := range m.Pieces {
		total += p.Bytes
	}
	fmt.Fprintf(w, "%s: %s, %d layers, hidden %d, %d heads of %d (%d KV), vocabulary %d, context %d\n", c.Name, c.Arch, c.Layers, c.Hidden, c.Heads, c.HeadDim, c.KVHeads, c.Vocab, c.MaxPositions)
	if e := c.MoE; e != nil {
		fmt.Fprintf(w, "%d experts of width %d, %d a token, shared width %d, %d dense layers first, prediction layer %v\n", e.Experts, e.FFN, e.PerToken, e.SharedFFN, e.DenseFirst, c.MTP)
	}
	fmt.Fprintf(w, "weights %s, %.1f MB in %d pieces; tokenizer %v, template %v; source %s\n\n", m.Weights, float64(total)/1e6, len(m.Pieces), len(m.Tokenizer) > 0, m.Template != "", m.Source)
	table := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(table, "tensor\ttype\tshape\tbytes")
	for _, t := range m.Tensors {
		fmt.Fprintf(table, "%s\t%v\t%d × %d\t%d\n", t.Name, t.Type, t.Rows, t.Cols, t.Type.Bytes(t.Rows, t.Cols))
	}
	return table.Flush()
}

func writeTensor(cmd *cobra.Command, src shard.Source, name, out string) error {
	t, ok := src.Manifest().Tensor(name)
	if !ok {
		var near []string
		for _, other := range src.Manifest().Tensors {
			if strings.Contains(other.Name, name) && len(near) < 5 {
				near = append(near, other.Name)
			}
		}
		if len(near) == 0 {
			return fmt.Errorf("there is no tensor %s: without --tensor all names are listed", name)
		}
		return fmt.Errorf("there is no tensor %s; near it: %s", name, strings.Join(near, ", "))
	}
	values := make([]float32, t.Rows*t.Cols)
	for _, s := range t.Segments {
		piece, err := src.Piece(cmd.Context(), s.Piece)
		if err != nil {
			return err
		}
		m, err := quant.NewMatrix(t.Type, s.Rows, t.Cols, piece[s.Offset:])
		if err != nil {
			return err
		}
		for r := range s.Rows {
			m.Row(values[(s.Row+r)*t.Cols:(s.Row+r+1)*t.Cols], r)
		}
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	err = safetensors.Write(f, []safetensors.Named{safetensors.F32(name, []int64{int64(t.Rows), int64(t.Cols)}, values)}, nil)
	return errors.Join(err, f.Close())
}
