package chat

import (
	"embed"
	"fmt"
)

// The templates of models that ship none: each in its family's format, in our
// own words.
//
//go:embed templates/*.jinja
var templates embed.FS

// builtIn finds the template of the family that a model's tokens show.
func builtIn(h Hints) (string, error) {
	has := func(text string) bool {
		if h.TokenID == nil {
			return false
		}
		_, ok := h.TokenID(text)
		return ok
	}
	name := ""
	switch {
	case has("<|start_header_id|>"):
		name = "llama-3"
	case h.Arch == "glm4moe" && has("<|im_start|>"):
		name = "intellect-3"
	case has("<|im_start|>") && (h.Arch == "qwen3" || h.Arch == "qwen3moe"):
		name = "qwen3"
	case has("<|im_start|>"):
		name = "chatml"
	case has("[gMASK]"):
		name = "glm-4.5"
	default:
		return "", fmt.Errorf("the model has no chat template, and its tokens are of no family that has one built in: use /v1/completions or --raw")
	}
	data, err := templates.ReadFile("templates/" + name + ".jinja")
	return string(data), err
}
