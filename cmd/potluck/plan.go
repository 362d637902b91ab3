package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// defaultWeights are those of stores made of floats.
const defaultWeights = "q4_0"

func planCommand() *cobra.Command {
	var modelName, weights, policy, rooms string
	var slots, positions int
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what a model needs, and which rooms can run it",
		Long: `Says without a cluster what a model needs: its size, what each token reads, its
KV cache, and which rooms can run it. --model may be a store, model files here
or on a host, of which only the headers are read, or just a config.json: no
weights are needed.

A room is given as GB[@GB/s][xCOUNT], several with commas between.`,
		Example: `  potluck plan --model config.json
  potluck plan --model hf:PrimeIntellect/INTELLECT-3
  potluck plan --model ./GLM-4.5-Air-q4_0 --room 2@40x30        # thirty tabs of 2 GB
  potluck plan --model config.json --room 64@80,2@30x10 --policy spread`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			shape, err := shapeOf(cmd.Context(), modelName, weights)
			if err != nil {
				return err
			}
			p, err := plan.ParsePolicy(policy)
			if err != nil {
				return fmt.Errorf("--policy: %w", err)
			}
			wish := plan.Slots{Slots: slots, Positions: min(positions, shape.Config.MaxPositions), KV: quant.F16, Round: true}
			list, err := parseRooms(rooms)
			if err != nil {
				return err
			}
			plan.Describe(cmd.OutOrStdout(), shape, list, p, wish)
			return nil
		},
	}
	cmd.Flags().StringVar(&modelName, "model", "", "a store, a config.json, model files here, hf:OWNER/NAME or a URL; the embedded model when none is given")
	cmd.Flags().StringVar(&weights, "weights", defaultWeights, "weight types, where the model is no store yet")
	cmd.Flags().StringVar(&policy, "policy", "auto", "auto or spread")
	cmd.Flags().StringVar(&rooms, "room", "", "the room's workers, as GB[@GB/s][xCOUNT],…; some typical rooms when none is given")
	cmd.Flags().IntVar(&slots, "slots", 1, "conversations at once")
	cmd.Flags().IntVar(&positions, "context", 4096, "tokens of a conversation")
	return cmd
}

// shapeOf reads a store's shape, that of model files, or a configuration's
// without weights.
func shapeOf(ctx context.Context, name, weights string) (*plan.Shape, error) {
	if config := configOnly(name); config != "" {
		return shapeOfConfig(config, weights)
	}
	if strings.HasSuffix(strings.ToLower(name), ".gguf") && weights == defaultWeights {
		weights = "" // such a file has types of its own
	}
	m, err := manifestOf(ctx, name, weights)
	if err != nil {
		return nil, err
	}
	return plan.ShapeOf(m), nil
}

// configOnly is the config.json that name is, or that lies alone in the folder
// name; "" where there is more to read.
func configOnly(name string) string {
	if strings.HasSuffix(name, ".json") {
		return name
	}
	config := filepath.Join(name, "config.json")
	weights, _ := filepath.Glob(filepath.Join(name, "*.safetensors"))
	_, err := os.Stat(config)
	if _, store := os.Stat(filepath.Join(name, shard.ManifestFile)); name == "" || store == nil || err != nil || len(weights) > 0 {
		return ""
	}
	return config
}

func shapeOfConfig(config, weights string) (*plan.Shape, error) {
	data, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("%s is not JSON", config)
	}
	c, err := model.FromHF(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	t, err := quant.ParseType(weights)
	if err != nil {
		return nil, fmt.Errorf("--weights: %w", err)
	}
	c.MTP = false // whether the weights have one is not in the config
	return plan.NewShape(c, func(model.Tensor) quant.Type { return t }), nil
}

// parseRooms reads 2@40x30,64@80.
func parseRooms(text string) ([]plan.Worker, error) {
	var list []plan.Worker
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		count := 1
		each, times, ok := strings.Cut(part, "x")
		var err error
		if ok {
			if count, err = strconv.Atoi(times); err != nil || count < 1 || count > 1000 {
				return nil, fmt.Errorf("--room %s: want 1 to 1000 workers behind x", part)
			}
		}
		memory, speed, ok := strings.Cut(each, "@")
		gb, err := strconv.ParseFloat(memory, 64)
		if err != nil || !(gb > 0 && gb < 1e6) {
			return nil, fmt.Errorf("--room %s: want gigabytes first", part)
		}
		readGBs := 40.0
		if ok {
			if readGBs, err = strconv.ParseFloat(speed, 64); err != nil || !(readGBs > 0 && readGBs < 1e6) {
				return nil, fmt.Errorf("--room %s: want GB/s behind @", part)
			}
		}
		for range count {
			id := fmt.Sprintf("%s GB #%d", memory, len(list)+1)
			list = append(list, plan.Worker{ID: id, Name: id, Bytes: int64(gb * 1e9), ReadGBs: readGBs, DispatchMs: 0.2, HopMs: 3})
		}
	}
	return list, nil
}
