// Package wat assembles WebAssembly's text format: the part of it in which the
// tab's kernels are written, so that building them takes nothing but Go.
//
// It knows one imported memory, exported functions with named parameters and
// locals, folded instructions, blocks, loops and ifs without results, and the
// instructions in the table ops. What it does not know is an error with its line.
package wat

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

var valueTypes = map[string]byte{"i32": 0x7f, "f32": 0x7d, "v128": 0x7b}

// Sections of a module, in the order in which they come.
const (
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionExport   = 7
	sectionCode     = 10
)

type assembler struct {
	types     []string // encoded, each once
	functions map[string]int
	imports   [][]byte
	typeOf    [][]byte
	exports   [][]byte
	bodies    [][]byte
}

// Assemble turns the text of one module into its binary form.
func Assemble(text string) ([]byte, error) {
	module, err := parse(text)
	if err != nil {
		return nil, err
	}
	if module.head() != "module" {
		return nil, fmt.Errorf("line %d: want (module …)", module.line)
	}
	a := &assembler{functions: map[string]int{}}
	var functions []*node
	for i := range module.list[1:] {
		n := &module.list[1+i]
		switch n.head() {
		case "import":
			if err := a.importMemory(n); err != nil {
				return nil, err
			}
		case "func":
			if len(n.list) > 1 && strings.HasPrefix(n.list[1].atom, "$") {
				a.functions[n.list[1].atom] = len(functions)
			}
			functions = append(functions, n)
		default:
			return nil, fmt.Errorf("line %d: %q in a module", n.line, n.head())
		}
	}
	for i, n := range functions {
		if err := a.function(n, i); err != nil {
			return nil, err
		}
	}
	return a.module(), nil
}

func (a *assembler) module() []byte {
	types := make([][]byte, len(a.types))
	for i, t := range a.types {
		types[i] = []byte(t)
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id      byte
		entries [][]byte
	}{{sectionType, types}, {sectionImport, a.imports}, {sectionFunction, a.typeOf}, {sectionExport, a.exports}, {sectionCode, a.bodies}} {
		content := unsigned(nil, uint64(len(s.entries)))
		for _, e := range s.entries {
			content = append(content, e...)
		}
		out = append(unsigned(append(out, s.id), uint64(len(content))), content...)
	}
	return out
}

// importMemory takes (import "m" "n" (memory min [max shared])).
func (a *assembler) importMemory(n *node) error {
	if len(n.list) != 4 || n.list[3].head() != "memory" {
		return fmt.Errorf("line %d: want an imported memory", n.line)
	}
	entry := append(name(name(nil, n.list[1].atom), n.list[2].atom), 0x02)
	var limits []uint64
	flags := byte(0)
	for _, l := range n.list[3].list[1:] {
		if l.atom == "shared" {
			flags |= 2
			continue
		}
		pages, err := strconv.ParseUint(l.atom, 10, 32)
		if err != nil {
			return fmt.Errorf("line %d: memory of %q pages", n.line, l.atom)
		}
		limits = append(limits, pages)
	}
	if len(limits) == 2 {
		flags |= 1
	}
	entry = append(entry, flags)
	for _, pages := range limits {
		entry = unsigned(entry, pages)
	}
	a.imports = append(a.imports, entry)
	return nil
}

// body assembles one function.
type body struct {
	a      *assembler
	locals map[string]int
	labels []string
	code   []byte
}

func (a *assembler) function(n *node, index int) error {
	b := &body{a: a, locals: map[string]int{}}
	var params, results, declared []byte
	rest := n.list[1:]
	for ; len(rest) > 0; rest = rest[1:] {
		part := &rest[0]
		switch part.head() {
		case "export":
			a.exports = append(a.exports, unsigned(append(name(nil, part.list[1].atom), 0x00), uint64(index)))
			continue
		case "param", "local":
			if len(part.list) != 3 || valueTypes[part.list[2].atom] == 0 {
				return fmt.Errorf("line %d: want ($name type)", part.line)
			}
			if _, twice := b.locals[part.list[1].atom]; twice {
				return fmt.Errorf("line %d: %s is there already", part.line, part.list[1].atom)
			}
			b.locals[part.list[1].atom] = len(b.locals)
			if part.head() == "param" {
				params = append(params, valueTypes[part.list[2].atom])
			} else {
				declared = append(declared, valueTypes[part.list[2].atom])
			}
			continue
		case "result":
			results = append(results, valueTypes[part.list[1].atom])
			continue
		}
		if !strings.HasPrefix(part.atom, "$") { // the function's name
			break
		}
	}
	for _, t := range declared {
		b.code = append(b.code, 1, t)
	}
	b.code = append(unsigned(nil, uint64(len(declared))), b.code...)
	if err := b.all(rest); err != nil {
		return err
	}
	b.code = append(b.code, 0x0b)
	a.bodies = append(a.bodies, append(unsigned(nil, uint64(len(b.code))), b.code...))
	signature := append(unsigned([]byte{0x60}, uint64(len(params))), params...)
	signature = append(unsigned(signature, uint64(len(results))), results...)
	a.typeOf = append(a.typeOf, unsigned(nil, uint64(a.typeIndex(string(signature)))))
	return nil
}

func (a *assembler) typeIndex(signature string) int {
	for i, t := range a.types {
		if t == signature {
			return i
		}
	}
	a.types = append(a.types, signature)
	return len(a.types) - 1
}

func (b *body) all(nodes []node) error {
	for i := range nodes {
		if err := b.instruction(&nodes[i]); err != nil {
			return err
		}
	}
	return nil
}

// instruction assembles one folded instruction: its operands, then itself.
func (b *body) instruction(n *node) error {
	if !n.isList() || n.head() == "" {
		return fmt.Errorf("line %d: %q: want an instruction in parentheses", n.line, n.atom)
	}
	word, rest := n.head(), n.list[1:]
	switch word {
	case "block", "loop":
		opcode := byte(0x02)
		if word == "loop" {
			opcode = 0x03
		}
		if len(rest) == 0 || rest[0].isList() {
			return fmt.Errorf("line %d: a %s without a label", n.line, word)
		}
		b.code = append(b.code, opcode, 0x40)
		b.labels = append(b.labels, rest[0].atom)
		err := b.all(rest[1:])
		b.labels = b.labels[:len(b.labels)-1]
		b.code = append(b.code, 0x0b)
		return err
	case "if":
		return b.branches(n)
	case "local.get", "local.set", "local.tee", "br", "br_if", "call":
		return b.named(n)
	case "i32.const", "i64.const", "f32.const", "v128.const":
		return b.constant(n)
	}
	o, ok := ops[word]
	if !ok {
		return fmt.Errorf("line %d: no instruction %q", n.line, word)
	}
	imm, operands := split(rest)
	if err := b.all(operands); err != nil {
		return err
	}
	if o.prefix == 0 {
		b.code = append(b.code, byte(o.code))
	} else {
		b.code = unsigned(append(b.code, o.prefix), uint64(o.code))
	}
	return b.immediates(n, o, imm)
}

// split parts an instruction's immediates from its operands.
func split(nodes []node) (immediates, operands []node) {
	for i := range nodes {
		if nodes[i].isList() {
			return nodes[:i], nodes[i:]
		}
	}
	return nodes, nil
}

func (b *body) branches(n *node) error {
	for i := range n.list[1:] {
		part := &n.list[1+i]
		switch part.head() {
		case "then":
			b.code = append(b.code, 0x04, 0x40)
			b.labels = append(b.labels, "")
			if err := b.all(part.list[1:]); err != nil {
				return err
			}
		case "else":
			b.code = append(b.code, 0x05)
			if err := b.all(part.list[1:]); err != nil {
				return err
			}
		default:
			if err := b.instruction(part); err != nil {
				return err
			}
		}
	}
	b.labels = b.labels[:len(b.labels)-1]
	b.code = append(b.code, 0x0b)
	return nil
}

// named assembles what refers to a local, a label or a function.
func (b *body) named(n *node) error {
	if len(n.list) < 2 || n.list[1].isList() {
		return fmt.Errorf("line %d: %s of what?", n.line, n.head())
	}
	target := n.list[1].atom
	if err := b.all(n.list[2:]); err != nil {
		return err
	}
	opcodes := map[string]byte{"local.get": 0x20, "local.set": 0x21, "local.tee": 0x22, "br": 0x0c, "br_if": 0x0d, "call": 0x10}
	index, ok := 0, false
	switch n.head() {
	case "call":
		index, ok = b.a.functions[target]
	case "br", "br_if":
		for i := len(b.labels) - 1; i >= 0 && !ok; i-- {
			index, ok = len(b.labels)-1-i, b.labels[i] == target
		}
	default:
		index, ok = b.locals[target]
	}
	if !ok {
		return fmt.Errorf("line %d: there is no %s", n.line, target)
	}
	b.code = unsigned(append(b.code, opcodes[n.head()]), uint64(index))
	return nil
}

func (b *body) constant(n *node) error {
	args := n.list[1:]
	wrong := func(err error) error { return fmt.Errorf("line %d: %s: %w", n.line, n.head(), err) }
	if len(args) == 0 {
		return wrong(strconv.ErrSyntax)
	}
	switch n.head() {
	case "i32.const", "i64.const":
		v, err := strconv.ParseInt(args[0].atom, 0, 64)
		if err != nil {
			return wrong(err)
		}
		if n.head() == "i32.const" {
			b.code = signed(append(b.code, 0x41), int64(int32(v)))
		} else {
			b.code = signed(append(b.code, 0x42), v)
		}
	case "f32.const":
		v, err := strconv.ParseFloat(args[0].atom, 32)
		if err != nil {
			return wrong(err)
		}
		b.code = binary.LittleEndian.AppendUint32(append(b.code, 0x43), math.Float32bits(float32(v)))
	default:
		b.code = append(b.code, simdPrefix, 12)
		before := len(b.code)
		for _, arg := range args[1:] {
			if args[0].atom == "f32x4" {
				v, err := strconv.ParseFloat(arg.atom, 32)
				if err != nil {
					return wrong(err)
				}
				b.code = binary.LittleEndian.AppendUint32(b.code, math.Float32bits(float32(v)))
				continue
			}
			v, err := strconv.ParseInt(arg.atom, 0, 64)
			if err != nil {
				return wrong(err)
			}
			width := map[string]int{"i8x16": 1, "i16x8": 2, "i32x4": 4}[args[0].atom]
			b.code = append(b.code, binary.LittleEndian.AppendUint64(nil, uint64(v))[:width]...)
		}
		if len(b.code)-before != 16 {
			return wrong(fmt.Errorf("%d bytes, want 16", len(b.code)-before))
		}
	}
	return nil
}

func (b *body) immediates(n *node, o op, imm []node) error {
	want := map[immediate]int{lane: 1, lanes: 16}[o.imm]
	switch o.imm {
	case zero:
		b.code = append(b.code, 0)
	case memory, atomic:
		offset, align := uint64(0), uint64(1)<<o.align
		for _, i := range imm {
			key, value, _ := strings.Cut(i.atom, "=")
			v, err := strconv.ParseUint(value, 10, 32)
			switch {
			case err != nil:
				return fmt.Errorf("line %d: %q: %w", n.line, i.atom, err)
			case key == "offset":
				offset = v
			case key == "align" && v > 0 && v&(v-1) == 0 && o.imm == memory:
				align = v
			default:
				return fmt.Errorf("line %d: %q at a memory access", n.line, i.atom)
			}
		}
		log := byte(0)
		for ; align > 1; align >>= 1 {
			log++
		}
		b.code = unsigned(append(b.code, log), offset)
		return nil
	}
	if len(imm) != want {
		return fmt.Errorf("line %d: %s with %d immediates, want %d", n.line, n.head(), len(imm), want)
	}
	for _, i := range imm {
		v, err := strconv.ParseUint(i.atom, 10, 5)
		if err != nil {
			return fmt.Errorf("line %d: lane %q", n.line, i.atom)
		}
		b.code = append(b.code, byte(v))
	}
	return nil
}

// unsigned and signed append LEB128.
func unsigned(out []byte, v uint64) []byte { return binary.AppendUvarint(out, v) }

func signed(out []byte, v int64) []byte {
	for {
		low := byte(v & 0x7f)
		v >>= 7
		if v == 0 && low&0x40 == 0 || v == -1 && low&0x40 != 0 {
			return append(out, low)
		}
		out = append(out, low|0x80)
	}
}

// name appends a quoted name without its quotes.
func name(out []byte, quoted string) []byte {
	text := strings.Trim(quoted, `"`)
	return append(unsigned(out, uint64(len(text))), text...)
}
