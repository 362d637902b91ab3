// Command write assembles the tab's kernels into the folder given, or prints one
// module's text.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/potluck-llm/potluck/wasm/simd/internal/source"
	"github.com/potluck-llm/potluck/wasm/simd/internal/wat"
)

func main() {
	text := flag.String("text", "", "print this module's text instead, such as kernels_relaxed.wasm")
	flag.Parse()
	if err := run(*text, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(text, folder string) error {
	if o, ok := source.All()[text]; ok {
		fmt.Print(source.Module(o))
		return nil
	}
	for file, o := range source.All() {
		module, err := wat.Assemble(source.Module(o))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := os.WriteFile(filepath.Join(folder, file), module, 0o644); err != nil {
			return err
		}
	}
	return nil
}
