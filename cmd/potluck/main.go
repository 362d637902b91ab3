// Command potluck runs one large language model on many machines: a
// coordinator, its workers, and the tools around them. Each file here is one
// subcommand and only wires packages together.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/internal/version"
)

// heapGrowth is by how many percent the heap may grow before it is collected,
// unless GOGC says otherwise. Tokens leave hardly any garbage, so collecting
// early costs little, and a lent machine's memory is better used for weights.
const heapGrowth = 40

// heapSlack counts as heap and is never touched, so takes no memory: a heap of a
// megabyte is not collected for the next half. Each collection has pages of the
// program read that nothing else needs, two megabytes of them.
var heapSlack []byte

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
		heapSlack = make([]byte, 8<<20)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			os.Exit(130)
		}
		fmt.Fprintln(os.Stderr, "potluck:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "potluck",
		Short: "Run one large language model together, in browser tabs and on native machines",
		Long: `Potluck runs one large language model on many machines that could not hold it
alone: browser tabs and native programs each take some layers.

A coordinator (potluck serve) gives an OpenAI-compatible API, a chat page and a
live picture of the room. Everybody else opens its join link in a browser, or
runs potluck worker.`,
		Example: `  potluck serve                                    # the embedded demo model, on this machine alone
  potluck serve --model ./GLM-4.5-Air-q4_0         # a converted model
  potluck worker --join http://192.168.1.5:7777    # lend this machine
  potluck run -p "What is the capital of France?"  # no room, just an answer`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.AddCommand(versionCommand(), runCommand(), tokenizeCommand(), templateCommand(), serveCommand(), workerCommand(), convertCommand(), planCommand(), inspectCommand(), benchCommand(), perplexityCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print this build's version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "potluck", version.String())
			return err
		},
	}
}

// newLogger writes to standard error: standard output is for answers.
func newLogger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
