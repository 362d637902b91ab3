package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/safetensors"
	"github.com/potluck-llm/potluck/token"
)

// A source is a model's files, whatever their format.
type source struct {
	place   string
	format  model.Format
	config  *model.Config
	shape   model.Shape
	element func(name string) (quant.Foreign, error)
	readAt  func(name string, offset int64, buf []byte) error
	files   []string // for the fingerprint
	close   func() error

	tokenizer, generation json.RawMessage
	template, license     string
	vocabulary            []model.Pair // a GGUF file's tokenizer as it stands there
}

// openSource opens a Hugging Face folder or a GGUF file.
func openSource(path string) (*source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openFolder(path)
	}
	if !strings.HasSuffix(strings.ToLower(path), ".gguf") {
		return nil, fmt.Errorf("%s: want a folder with config.json and safetensors, or a .gguf file", path)
	}
	return openGGUF(path)
}

func openFolder(path string) (*source, error) {
	config, err := os.ReadFile(filepath.Join(path, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("%s is no Hugging Face folder: %w", path, err)
	}
	c, err := model.FromHF(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	set, err := safetensors.OpenFolder(path)
	if err != nil {
		return nil, err
	}
	s := &source{place: path, format: model.HuggingFace, config: c, readAt: set.ReadAt, close: set.Close}
	s.shape = func(name string) (rows, cols int, ok bool) {
		t, _, ok := set.Tensor(name)
		if !ok {
			return 0, 0, false
		}
		rows, cols = t.Matrix()
		return rows, cols, true
	}
	s.element = func(name string) (quant.Foreign, error) {
		t, _, ok := set.Tensor(name)
		if !ok {
			return 0, fmt.Errorf("tensor %s is missing", name)
		}
		return t.Element()
	}
	s.files, _ = filepath.Glob(filepath.Join(path, "*.safetensors"))
	if err := s.readExtras(path); err != nil {
		return nil, errors.Join(err, set.Close())
	}
	if c.Name == "" {
		c.Name = filepath.Base(path)
	}
	return s, nil
}

// readExtras reads tokenizer, template and generation settings, where there are any.
func (s *source) readExtras(path string) error {
	read := func(name string, check bool) (json.RawMessage, error) {
		data, err := os.ReadFile(filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err == nil && check && !json.Valid(data) {
			err = fmt.Errorf("%s: not JSON", filepath.Join(path, name))
		}
		return data, err
	}
	var err error
	if s.tokenizer, err = read("tokenizer.json", true); err != nil {
		return err
	}
	if s.generation, err = read("generation_config.json", true); err != nil {
		return err
	}
	template, err := read("chat_template.jinja", false)
	if err != nil || template != nil {
		s.template = string(template)
		return err
	}
	settings, err := read("tokenizer_config.json", true)
	if err != nil || settings == nil {
		return err
	}
	var t struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(settings, &t); err != nil || len(t.Template) == 0 {
		return err
	}
	if json.Unmarshal(t.Template, &s.template) == nil {
		return nil
	}
	var list []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := json.Unmarshal(t.Template, &list); err != nil {
		return fmt.Errorf("tokenizer_config.json: chat_template: %w", err)
	}
	for _, one := range list {
		if one.Name == "default" || s.template == "" {
			s.template = one.Template
		}
	}
	return nil
}

func openGGUF(path string) (*source, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	s := &source{place: path, format: model.GGUF, close: f.Close, files: []string{path}}
	var freqs []float32
	if _, ok := f.Tensor("rope_freqs.weight"); ok {
		if freqs, err = f.Floats("rope_freqs.weight"); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if s.config, err = model.FromGGUF(f.Meta, freqs); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	s.shape = func(name string) (rows, cols int, ok bool) {
		t, ok := f.Tensor(name)
		if !ok {
			return 0, 0, false
		}
		rows, cols = t.Matrix()
		return rows, cols, true
	}
	s.element = func(name string) (quant.Foreign, error) {
		t, ok := f.Tensor(name)
		if !ok {
			return 0, fmt.Errorf("tensor %s is missing", name)
		}
		return t.Type, f.CheckType(t)
	}
	s.readAt = func(name string, offset int64, buf []byte) error {
		t, ok := f.Tensor(name)
		if !ok {
			return fmt.Errorf("tensor %s is missing", name)
		}
		return f.ReadAt(t, offset, buf)
	}
	s.license, _ = f.Meta["general.license"].(string)
	s.template, _ = f.Meta["tokenizer.chat_template"].(string)
	s.vocabulary = vocabularyPairs(f)
	if kind, _ := f.Meta["tokenizer.ggml.model"].(string); kind != "" && kind != "no_vocab" && kind != "none" {
		t, err := token.FromGGUF(f.Meta)
		if err == nil {
			s.tokenizer, err = t.JSON()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}
	return s, nil
}
