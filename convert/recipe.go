package convert

import (
	"fmt"
	"strings"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// Recipes describes what Options.Weights may be.
const Recipes = "q4_0, q4_1, q6_0, q8_0, f16, bf16 or f32: that type; mixed: q4_0 with embedding, head, values and down projections in q8_0; source: as near to the source's own types as there is"

// typesOf chooses the type of every tensor. Tensors that a block type does not
// fit (their columns are no multiple of 32) become f16.
func (s *source) typesOf(recipe string, tensors []model.Tensor) (func(t model.Tensor) quant.Type, error) {
	choose := map[string]quant.Type{}
	for _, t := range tensors {
		typ, err := s.typeOf(recipe, t)
		if err != nil {
			return nil, err
		}
		if !typ.Fits(t.Cols) {
			typ = quant.F16
		}
		choose[t.Name] = typ
	}
	return func(t model.Tensor) quant.Type { return choose[t.Name] }, nil
}

func (s *source) typeOf(recipe string, t model.Tensor) (quant.Type, error) {
	if recipe == "source" {
		return s.nearest(t)
	}
	return recipeType(recipe, t.Name)
}

// recipeType is the type that a recipe gives to a tensor, whatever the source.
func recipeType(recipe, name string) (quant.Type, error) {
	if recipe == "mixed" {
		name = name[strings.LastIndexByte(name, '.')+1:]
		if name == "embed" || name == "head" || name == "v" || name == "down" {
			return quant.Q8_0, nil
		}
		return quant.Q4_0, nil
	}
	typ, err := quant.ParseType(recipe)
	if err != nil {
		return 0, fmt.Errorf("weights %q: want %s", recipe, Recipes)
	}
	return typ, nil
}

// nearest is the native type that loses least of the source's, of all parts.
func (s *source) nearest(t model.Tensor) (quant.Type, error) {
	best := quant.Type(0)
	for _, p := range t.Parts {
		f, err := s.element(p.Source)
		if err != nil {
			return 0, err
		}
		native, ok := f.Native()
		if !ok {
			return 0, fmt.Errorf("tensor %s: type %v cannot be read", p.Source, f)
		}
		best = quant.Common(best, native)
	}
	return best, nil
}
