// Command fetch puts SmolLM2-135M-Instruct into the user's cache, unless it is
// there, and says how to open a room with it. `make model` runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/potluck-llm/potluck/internal/realmodel"
)

func main() {
	folder := flag.String("folder", "", "where to put the file (default: potluck/models in the user's cache)")
	onlyPath := flag.Bool("path", false, "print the file's path and nothing else on standard output")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *folder, *onlyPath); err != nil {
		fmt.Fprintln(os.Stderr, "make model:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, folder string, onlyPath bool) error {
	path, err := realmodel.Fetch(ctx, realmodel.Options{Folder: folder, Out: os.Stderr})
	if err != nil {
		return err
	}
	if onlyPath {
		fmt.Println(path)
		return nil
	}
	fmt.Printf("%s (Apache-2.0, %d MB, sha256 as pinned) is at\n  %s\n\nOpen a room with it:\n  bin/potluck serve --model %s\n", realmodel.Name, realmodel.Size/1_000_000, path, path)
	return nil
}
