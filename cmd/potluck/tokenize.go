package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/chat"
)

func tokenizeCommand() *cobra.Command {
	var modelName, file string
	var decode, special bool
	cmd := &cobra.Command{
		Use:   "tokenize",
		Short: "Turn text into token ids, or back",
		Long: `Reads one JSON string a line and prints one JSON array of token ids a line.
With --decode it reads arrays and prints strings.`,
		Example: `  echo '"Hello, world"' | potluck tokenize
  echo '[9707, 11]' | potluck tokenize --file tokenizer.json --decode`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := tokenizerOf(cmd, modelName, file)
			if err != nil {
				return err
			}
			return token.EachLine(cmd.InOrStdin(), cmd.OutOrStdout(), func(line []byte) (any, error) {
				if decode {
					var ids []int32
					if err := json.Unmarshal(line, &ids); err != nil {
						return nil, fmt.Errorf("want a JSON array of ids: %w", err)
					}
					return t.Decode(ids, !special), nil
				}
				var text string
				if err := json.Unmarshal(line, &text); err != nil {
					return nil, fmt.Errorf("want a JSON string: %w", err)
				}
				ids := t.Encode(text, token.EncodeOptions{Special: special})
				if ids == nil {
					ids = []int32{}
				}
				return ids, nil
			})
		},
	}
	cmd.Flags().StringVar(&modelName, "model", "", modelHelp)
	cmd.Flags().StringVar(&file, "file", "", "a tokenizer.json instead of a model")
	cmd.Flags().BoolVar(&decode, "decode", false, "turn ids into text")
	cmd.Flags().BoolVar(&special, "special", false, "with what the post-processor adds; with --decode: show special tokens")
	return cmd
}

func tokenizerOf(cmd *cobra.Command, modelName, file string) (*token.Tokenizer, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return token.FromJSON(data)
	}
	src, err := openModel(cmd.Context(), modelName, "")
	if err != nil {
		return nil, err
	}
	return needTokenizer(src.Manifest())
}

func templateCommand() *cobra.Command {
	var modelName, file string
	var parse bool
	cmd := &cobra.Command{
		Use:   "template",
		Short: "Render a chat template, or parse what a model wrote",
		Long: `Reads one JSON object of template variables a line (messages, tools,
add_generation_prompt …) and prints the prompt as one JSON string, or
{"error": …}, a line.

With --parse it reads {"raw", "tools", "starts_in_reasoning"} a line and prints
{"reasoning", "content", "tool_calls"}: what the API makes of that output.`,
		Example: `  echo '{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}' | potluck template
  echo '{"raw": "<think>Easy.</think>Four."}' | potluck template --parse`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := templateOf(cmd, modelName, file)
			if err != nil {
				return err
			}
			if parse {
				return chat.ParseLines(t, cmd.InOrStdin(), cmd.OutOrStdout())
			}
			return chat.RenderLines(t, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&modelName, "model", "", modelHelp)
	cmd.Flags().StringVar(&file, "file", "", "a Jinja template instead of a model's")
	cmd.Flags().BoolVar(&parse, "parse", false, "parse outputs instead of rendering")
	return cmd
}

func templateOf(cmd *cobra.Command, modelName, file string) (*chat.Template, error) {
	if file != "" {
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		return chat.New(string(source), chat.Hints{})
	}
	src, err := openModel(cmd.Context(), modelName, "")
	if err != nil {
		return nil, err
	}
	t, err := needTokenizer(src.Manifest())
	if err != nil {
		return nil, err
	}
	return openTemplate(src.Manifest(), t)
}
