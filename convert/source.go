package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/potluck-llm/potluck/convert/remote"
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
	at      func(name string) (file string, offset int64) // where it lies, for errors
	folder  folder
	remote  *remote.Model // nil: the files lie on this machine

	tokenizer, generation json.RawMessage
	template, license     string
	vocabulary, general   []model.Pair // a GGUF file's tokenizer and notes as they stand there
}

// openCheckpoint opens a Hugging Face folder.
func (s *source) openCheckpoint() error {
	config, err := s.folder.read("config.json")
	if err != nil {
		return fmt.Errorf("%s is no Hugging Face folder: %w", s.place, err)
	}
	c, err := model.FromHF(config)
	if err != nil {
		return fmt.Errorf("%s: %w", s.place, err)
	}
	set, err := safetensors.NewSet(s.place, s.folder.open)
	if err != nil {
		return err
	}
	s.format, s.config, s.readAt = model.HuggingFace, c, set.ReadAt
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
	s.at = func(name string) (file string, offset int64) {
		t, f, ok := set.Tensor(name)
		if !ok {
			return s.place, 0
		}
		return f.Name(), t.Offset
	}
	if err := s.readExtras(); err != nil {
		return err
	}
	if c.Name == "" {
		c.Name = baseName(s.place)
	}
	return nil
}

// baseName is what people call a model: the end of its path or URL.
func baseName(place string) string {
	if remote.Is(place) {
		place, _, _ = strings.Cut(place, "@")
		place, _, _ = strings.Cut(place, "?")
	}
	return filepath.Base(place)
}

// origin says where the weights came from: of a host its name and the commit.
func (s *source) origin() string {
	if s.remote == nil || s.remote.Revision == "" {
		return baseName(s.place)
	}
	place, _, _ := strings.Cut(strings.TrimPrefix(s.place, "hf:"), "@")
	return place + "@" + s.remote.Revision
}

// readExtras reads tokenizer, template and generation settings, where there are any.
func (s *source) readExtras() error {
	read := func(name string, check bool) (json.RawMessage, error) {
		data, err := s.folder.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err == nil && check && !json.Valid(data) {
			err = fmt.Errorf("%s: %s: not JSON", s.place, name)
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

func (s *source) openGGUF(name string) error {
	f, err := openGGUFParts(s.folder, name)
	if err != nil {
		return fmt.Errorf("%s: %w", s.place, err)
	}
	s.format = model.GGUF
	var freqs []float32
	if _, ok := f.Tensor("rope_freqs.weight"); ok {
		if freqs, err = f.Floats("rope_freqs.weight"); err != nil {
			return err
		}
	}
	if s.config, err = model.FromGGUF(f.Meta, freqs); err != nil {
		return fmt.Errorf("%s: %w", s.place, err)
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
	s.at = func(name string) (file string, offset int64) {
		t, _ := f.Tensor(name)
		return f.PartName(t), t.Offset
	}
	s.license, _ = f.Meta["general.license"].(string)
	s.template, _ = f.Meta["tokenizer.chat_template"].(string)
	s.vocabulary, s.general = pairsBelow(f, "tokenizer.ggml."), pairsBelow(f, "general.")
	if s.generation, err = samplingSettings(f.Meta); err != nil {
		return fmt.Errorf("%s: %w", s.place, err)
	}
	if kind, _ := f.Meta["tokenizer.ggml.model"].(string); kind != "" && kind != "no_vocab" && kind != "none" {
		t, err := token.FromGGUF(f.Meta)
		if err == nil {
			s.tokenizer, err = t.JSON()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.place, err)
		}
	}
	return nil
}
