// Package jinja renders the Jinja templates that models ship as chat templates.
//
// It takes a template and variables in their given order and gives text, the
// same as Jinja2 in the sandbox of the reference library: Python's values, how
// they print, its string methods, and its errors. A template has a budget of
// steps and of output, so none can hang or flood its host.
package jinja

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Value is nil (None), bool, int64, *big.Int, float64, string, *List, *Dict,
// Undefined, or something that can be called.
type Value any

// Undefined is the value of a name that is not defined. It prints as nothing
// and is false; anything else done with it is an error.
type Undefined struct{ what string }

// A List is a list or a tuple.
type List struct {
	Items []Value
	tuple bool
}

// A Dict keeps the order of its keys.
type Dict struct {
	keys   []string
	values map[string]Value
	object bool // a namespace: attributes may be set
}

// NewDict returns an empty dict.
func NewDict() *Dict { return &Dict{values: map[string]Value{}} }

// Set adds or replaces a key and returns the dict.
func (d *Dict) Set(key string, v Value) *Dict {
	if _, ok := d.values[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.values[key] = v
	return d
}

// Get returns a key's value.
func (d *Dict) Get(key string) (Value, bool) {
	v, ok := d.values[key]
	return v, ok
}

// Keys lists the keys in order; the caller must not change it.
func (d *Dict) Keys() []string { return d.keys }

// Delete removes a key.
func (d *Dict) Delete(key string) {
	if _, ok := d.values[key]; !ok {
		return
	}
	delete(d.values, key)
	for i, k := range d.keys {
		if k == key {
			d.keys = append(d.keys[:i:i], d.keys[i+1:]...)
			return
		}
	}
}

// Copy returns a dict with the same entries.
func (d *Dict) Copy() *Dict {
	c := NewDict()
	for _, k := range d.keys {
		c.Set(k, d.values[k])
	}
	return c
}

// A callable is a function, method or macro.
type callable func(r *renderer, args []Value, named *Dict) (Value, error)

// maxDepth bounds nesting: of JSON, expressions, and calls.
const maxDepth = 200

// FromJSON reads JSON and keeps the order of keys and whether a number was
// written as an integer.
func FromJSON(data []byte) (Value, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := decodeValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err == nil {
		return nil, fmt.Errorf("something follows the value")
	}
	return v, nil
}

func decodeValue(d *json.Decoder, depth int) (Value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Number:
		return parseNumber(t.String())
	case json.Delim:
		if t == '[' {
			list := &List{}
			for d.More() {
				v, err := decodeValue(d, depth+1)
				if err != nil {
					return nil, err
				}
				list.Items = append(list.Items, v)
			}
			_, err := d.Token()
			return list, err
		}
		dict := NewDict()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := decodeValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			dict.Set(key.(string), v)
		}
		_, err := d.Token()
		return dict, err
	case string, bool:
		return t, nil
	}
	return nil, nil
}

func parseNumber(text string) (Value, error) {
	if strings.ContainsAny(text, ".eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, err
		}
		return f, nil
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	if len(text) > 4300 { // Python's own limit
		return nil, fmt.Errorf("an integer of %d digits", len(text))
	}
	b, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return nil, fmt.Errorf("%.40q is no number", text)
	}
	return b, nil
}

// truth is Python's bool().
func truth(v Value) bool {
	switch v := v.(type) {
	case nil, Undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case *big.Int:
		return v.Sign() != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *List:
		return len(v.Items) > 0
	case *Dict:
		return len(v.keys) > 0 || v.object
	}
	return true
}

// typeName is Python's name of a value's type.
func typeName(v Value) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *List:
		if v.tuple {
			return "tuple"
		}
		return "list"
	case *Dict:
		if v.object {
			return "Namespace"
		}
		return "dict"
	case Undefined:
		return "Undefined"
	}
	return "function"
}

// str is Python's str().
func str(v Value) string {
	switch v := v.(type) {
	case string:
		return v
	case Undefined:
		return ""
	}
	return repr(v)
}

// repr is Python's repr().
func repr(v Value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	case *big.Int:
		return v.String()
	case float64:
		return floatText(v)
	case string:
		return quote(v)
	case Undefined:
		return "Undefined"
	case *List:
		parts := make([]string, len(v.Items))
		for i, item := range v.Items {
			parts[i] = repr(item)
		}
		switch {
		case !v.tuple:
			return "[" + strings.Join(parts, ", ") + "]"
		case len(parts) == 1:
			return "(" + parts[0] + ",)"
		}
		return "(" + strings.Join(parts, ", ") + ")"
	case *Dict:
		parts := make([]string, len(v.keys))
		for i, k := range v.keys {
			parts[i] = quote(k) + ": " + repr(v.values[k])
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "<function>"
}

// floatText is Python's repr of a float: the shortest digits, an exponent
// below 1e-4 and from 1e16 on.
func floatText(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// quote is Python's repr of a string.
func quote(s string) string {
	mark := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		mark = '"'
	}
	var b strings.Builder
	b.WriteRune(mark)
	for _, r := range s {
		switch {
		case r == mark || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0x100 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case r >= 0x100 && !unicode.IsPrint(r) && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r >= 0x10000 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteRune(mark)
	return b.String()
}

// jsonOptions are those of Python's json.dumps that templates use.
type jsonOptions struct {
	ascii    bool
	indent   string // "": on one line
	pretty   bool
	sortKeys bool
	item     string // separators
	key      string
}

// toJSON is Python's json.dumps.
func toJSON(b *strings.Builder, v Value, o jsonOptions, level int) error {
	if level > maxDepth {
		return fmt.Errorf("tojson: nested deeper than %d", maxDepth)
	}
	line := func(level int) {
		if o.pretty {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(o.indent, level))
		}
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64, *big.Int:
		b.WriteString(repr(v))
	case float64:
		switch {
		case math.IsNaN(v):
			b.WriteString("NaN")
		case math.IsInf(v, 0):
			b.WriteString(strings.Replace(strings.Replace(floatText(v), "inf", "Infinity", 1), "+", "", 1))
		default:
			b.WriteString(floatText(v))
		}
	case string:
		jsonString(b, v, o.ascii)
	case *List:
		if len(v.Items) == 0 {
			b.WriteString("[]")
			return nil
		}
		b.WriteByte('[')
		for i, item := range v.Items {
			if i > 0 {
				b.WriteString(o.item)
			}
			line(level + 1)
			if err := toJSON(b, item, o, level+1); err != nil {
				return err
			}
		}
		line(level)
		b.WriteByte(']')
	case *Dict:
		if len(v.keys) == 0 {
			b.WriteString("{}")
			return nil
		}
		keys := v.keys
		if o.sortKeys {
			keys = append([]string(nil), keys...)
			sort.Strings(keys)
		}
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(o.item)
			}
			line(level + 1)
			jsonString(b, k, o.ascii)
			b.WriteString(o.key)
			if err := toJSON(b, v.values[k], o, level+1); err != nil {
				return err
			}
		}
		line(level)
		b.WriteByte('}')
	default:
		return fmt.Errorf("Object of type %s is not JSON serializable", typeName(v))
	}
	return nil
}

func jsonString(b *strings.Builder, s string, ascii bool) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < ' ' || ascii && r > 0x7f && r < 0x10000: // 0x7f stays, as Python's json writes it
			fmt.Fprintf(b, `\u%04x`, r)
		case ascii && r >= 0x10000:
			high, low := utf16(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

func utf16(r rune) (high, low rune) {
	r -= 0x10000
	return 0xd800 + r>>10, 0xdc00 + r&0x3ff
}

// JSON is v as compact JSON in its own order.
func JSON(v Value) (string, error) {
	var b strings.Builder
	err := toJSON(&b, v, jsonOptions{item: ", ", key: ": "}, 0)
	return b.String(), err
}

// runes counts characters.
func runes(s string) int { return utf8.RuneCountInString(s) }

// equal is Python's ==.
func equal(a, b Value) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x.Cmp(y) == 0
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case string:
		s, ok := b.(string)
		return ok && a == s
	case Undefined:
		_, ok := b.(Undefined)
		return ok
	case *List:
		l, ok := b.(*List)
		if !ok || len(a.Items) != len(l.Items) || a.tuple != l.tuple {
			return false
		}
		for i := range a.Items {
			if !equal(a.Items[i], l.Items[i]) {
				return false
			}
		}
		return true
	case *Dict:
		d, ok := b.(*Dict)
		if !ok || len(a.keys) != len(d.keys) {
			return false
		}
		for k, v := range a.values {
			if w, ok := d.values[k]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	case float64: // NaN
		return false
	}
	return false
}

// number is a value as an exact number; bools count, NaN and infinities do not.
func number(v Value) (*big.Float, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewFloat(1), true
		}
		return new(big.Float), true
	case int64:
		return new(big.Float).SetPrec(64).SetInt64(v), true
	case *big.Int:
		return new(big.Float).SetInt(v), true
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return big.NewFloat(v), true
		}
	}
	return nil, false
}
