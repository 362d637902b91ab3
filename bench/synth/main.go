// Command synth writes a checkpoint of GLM-4.5-Air's and INTELLECT-3's shape,
// with random weights, to measure conversions with.
//
//	go run ./bench/synth --out /tmp/air-2 --layers 2
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/internal/synth"
)

func main() {
	out := flag.String("out", "", "folder of the checkpoint (required)")
	layers := flag.Int("layers", 2, "layers, of the model's 46; the first is dense, each other has 4.7 GB")
	shape := flag.String("shape", "air", "air, medium (its 0.7 B in 12 layers) or small")
	seed := flag.Uint64("seed", 1, "seed of the weights")
	flag.Parse()
	if err := run(*out, *shape, *layers, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "synth:", err)
		os.Exit(1)
	}
}

func run(out, shape string, layers int, seed uint64) error {
	s, ok := map[string]synth.Shape{"air": synth.Air, "medium": synth.Medium, "small": synth.Small}[shape]
	if !ok || out == "" || layers < 1 {
		return fmt.Errorf("want --out FOLDER, --shape air, medium or small, --layers of at least 1")
	}
	s.Layers = layers
	start := time.Now()
	bar := convert.NewBar(os.Stderr, "writing "+out)
	total, err := synth.Write(out, s, synth.Options{Seed: seed, Progress: func(done, total int64) {
		bar.Update(convert.Progress{Done: done, Total: total})
	}})
	bar.Done()
	if err == nil {
		took := time.Since(start)
		fmt.Printf("%s: %.2f GB in %v (%.0f MB/s)\n", out, float64(total)/1e9, took.Round(time.Millisecond), float64(total)/1e6/took.Seconds())
	}
	return err
}
