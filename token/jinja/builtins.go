package jinja

import (
	"errors"
	"fmt"
	"html"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

type filter func(r *renderer, v Value, args []Value, named *Dict) (Value, error)

type test func(v Value, args []Value) (bool, error)

// functions, filters and tests are Jinja2's and the reference library's that
// chat templates use. They are filled in by init, since some call others.
var (
	functions map[string]callable
	filters   map[string]filter
	tests     map[string]test
)

// argument is the i-th argument or the one of that name.
func argument(args []Value, named *Dict, i int, name string, otherwise Value) Value {
	if i >= 0 && i < len(args) {
		return args[i]
	}
	if named != nil {
		if v, ok := named.Get(name); ok {
			return v
		}
	}
	return otherwise
}

func init() {
	functions = map[string]callable{
		"raise_exception": func(_ *renderer, args []Value, named *Dict) (Value, error) {
			return nil, &RaisedError{str(argument(args, named, 0, "message", ""))}
		},
		"strftime_now": func(r *renderer, args []Value, named *Dict) (Value, error) {
			return strftime(r.now, str(argument(args, named, 0, "format", ""))), nil
		},
		"range":     rangeOf,
		"namespace": namespace,
		"dict": func(_ *renderer, args []Value, named *Dict) (Value, error) {
			d := NewDict()
			if len(args) > 0 {
				if from, ok := args[0].(*Dict); ok {
					d = from.Copy()
				}
			}
			for _, k := range named.keys {
				d.Set(k, named.values[k])
			}
			return d, nil
		},
		"joiner": func(_ *renderer, args []Value, named *Dict) (Value, error) {
			between, used := argument(args, named, 0, "sep", ", "), false
			return callable(func(*renderer, []Value, *Dict) (Value, error) {
				if !used {
					used = true
					return "", nil
				}
				return between, nil
			}), nil
		},
	}
	filters = map[string]filter{
		"tojson": toJSONFilter, "items": itemsFilter, "length": length, "count": length, "join": join, "default": defaultFilter, "d": defaultFilter,
		"first": first, "last": last, "list": list, "string": textFilter(func(s string) Value { return s }), "safe": textFilter(func(s string) Value { return s }),
		"lower": textFilter(func(s string) Value { return strings.ToLower(s) }), "upper": textFilter(func(s string) Value { return strings.ToUpper(s) }),
		"capitalize": textFilter(func(s string) Value { return capitalize(s) }), "title": textFilter(func(s string) Value { return title(s) }),
		"escape": textFilter(func(s string) Value { return escape(s) }), "e": textFilter(func(s string) Value { return escape(s) }),
		"trim": trimFilter, "replace": replaceFilter, "reverse": reverse, "sort": sortFilter, "unique": unique, "dictsort": dictSort, "abs": abs, "int": intFilter, "float": floatFilter,
		"map": mapFilter, "select": selecting(true, false), "reject": selecting(false, false), "selectattr": selecting(true, true), "rejectattr": selecting(false, true),
		"indent": indentFilter, "sum": sumFilter, "min": extreme(-1), "max": extreme(1), "round": roundFilter, "attr": attrFilter, "wordcount": textFilter(func(s string) Value { return int64(len(strings.Fields(s))) }),
	}
	tests = map[string]test{
		"defined":   func(v Value, _ []Value) (bool, error) { _, no := v.(Undefined); return !no, nil },
		"undefined": func(v Value, _ []Value) (bool, error) { _, yes := v.(Undefined); return yes, nil },
		"none":      func(v Value, _ []Value) (bool, error) { return v == nil, nil },
		"string":    func(v Value, _ []Value) (bool, error) { _, yes := v.(string); return yes, nil },
		"mapping":   func(v Value, _ []Value) (bool, error) { d, yes := v.(*Dict); return yes && !d.object, nil },
		"iterable":  func(v Value, _ []Value) (bool, error) { _, err := iterate(v); return err == nil, nil },
		"sequence": func(v Value, _ []Value) (bool, error) {
			switch v.(type) {
			case string, *List, *Dict, Undefined:
				return true, nil
			}
			return false, nil
		},
		"number":  func(v Value, _ []Value) (bool, error) { _, i := integer(v); _, f := v.(float64); return i || f, nil },
		"integer": func(v Value, _ []Value) (bool, error) { _, i := integer(v); _, b := v.(bool); return i && !b, nil },
		"float":   func(v Value, _ []Value) (bool, error) { _, f := v.(float64); return f, nil },
		"boolean": func(v Value, _ []Value) (bool, error) { _, b := v.(bool); return b, nil },
		"true":    func(v Value, _ []Value) (bool, error) { b, ok := v.(bool); return ok && b, nil },
		"false":   func(v Value, _ []Value) (bool, error) { b, ok := v.(bool); return ok && !b, nil },
		"callable": func(v Value, _ []Value) (bool, error) {
			_, ok := v.(callable)
			return ok, nil
		},
		"odd": parity(1), "even": parity(0),
		"lower": func(v Value, _ []Value) (bool, error) {
			s := str(v)
			return s == strings.ToLower(s) && s != strings.ToUpper(s), nil
		},
		"upper": func(v Value, _ []Value) (bool, error) {
			s := str(v)
			return s == strings.ToUpper(s) && s != strings.ToLower(s), nil
		},
		"sameas": comparing("=="), "equalto": comparing("=="), "eq": comparing("=="), "ne": comparing("!="), "in": comparing("in"),
		"lt": comparing("<"), "le": comparing("<="), "gt": comparing(">"), "ge": comparing(">="), "greaterthan": comparing(">"), "lessthan": comparing("<"),
		"divisibleby": func(v Value, args []Value) (bool, error) {
			if len(args) != 1 {
				return false, errors.New("divisibleby wants a number")
			}
			rest, err := arithmetic("%", v, args[0])
			return err == nil && !truth(rest), err
		},
	}
}

func parity(want int64) test {
	return func(v Value, _ []Value) (bool, error) {
		rest, err := arithmetic("%", v, int64(2))
		return err == nil && equal(rest, want), err
	}
}

func comparing(op string) test {
	return func(v Value, args []Value) (bool, error) {
		if len(args) != 1 {
			return false, fmt.Errorf("the test wants one argument, got %d", len(args))
		}
		return compare(op, v, args[0])
	}
}

func textFilter(f func(string) Value) filter {
	return func(r *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
		s := str(v)
		return f(s), r.grow(len(s))
	}
}

// maxRange bounds range(), as the sandbox does.
const maxRange = 100000

func rangeOf(r *renderer, args []Value, _ *Dict) (Value, error) {
	var n [3]int64
	n[2] = 1
	if len(args) < 1 || len(args) > 3 {
		return nil, errors.New("range expects 1 to 3 arguments")
	}
	for i, a := range args {
		k, ok := integer(a)
		if !ok || !k.IsInt64() {
			return nil, fmt.Errorf("'%s' object cannot be interpreted as an integer", typeName(a))
		}
		n[i] = k.Int64()
	}
	if len(args) == 1 {
		n[0], n[1] = 0, n[0]
	}
	if n[2] == 0 {
		return nil, errors.New("range() arg 3 must not be zero")
	}
	l := &List{}
	for i := n[0]; n[2] > 0 && i < n[1] || n[2] < 0 && i > n[1]; i += n[2] {
		if len(l.Items) >= maxRange {
			return nil, fmt.Errorf("range too big, the sandbox blocks ranges larger than %d", maxRange)
		}
		l.Items = append(l.Items, i)
	}
	return l, r.spend(len(l.Items))
}

func namespace(_ *renderer, args []Value, named *Dict) (Value, error) {
	d := NewDict()
	d.object = true
	for _, a := range args {
		if from, ok := a.(*Dict); ok {
			for _, k := range from.keys {
				d.Set(k, from.values[k])
			}
		}
	}
	for _, k := range named.keys {
		d.Set(k, named.values[k])
	}
	return d, nil
}

// strftime formats as Python does in the C locale.
func strftime(t time.Time, format string) string {
	layouts := map[byte]string{'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday",
		'j': "002", 'Z': "MST", 'z': "-0700", 'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'e': "_2", 'h': "Jan"}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch layout, ok := layouts[format[i]]; {
		case ok:
			b.WriteString(t.Format(layout))
		case format[i] == '%':
			b.WriteByte('%')
		default:
			b.WriteString(format[i-1 : i+1])
		}
	}
	return b.String()
}

func toJSONFilter(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	o := jsonOptions{ascii: truth(argument(args, named, 0, "ensure_ascii", false)), sortKeys: truth(argument(args, named, 3, "sort_keys", false)), item: ", ", key: ": "}
	switch indent := argument(args, named, 1, "indent", nil).(type) {
	case nil:
	case string:
		o.pretty, o.indent = true, indent
	default:
		n, ok := integer(indent)
		if !ok || !n.IsInt64() || n.Int64() > 100 {
			return nil, fmt.Errorf("tojson: indent %s", repr(indent))
		}
		o.pretty, o.indent = true, strings.Repeat(" ", int(max(0, n.Int64())))
	}
	if o.pretty {
		o.item = ","
	}
	if l, ok := argument(args, named, 2, "separators", nil).(*List); ok && len(l.Items) == 2 {
		o.item, o.key = str(l.Items[0]), str(l.Items[1])
	}
	var b strings.Builder
	if err := toJSON(&b, v, o, 0); err != nil {
		return nil, err
	}
	return b.String(), r.grow(b.Len())
}

func pairs(d *Dict) *List {
	l := &List{}
	for _, k := range d.keys {
		l.Items = append(l.Items, &List{Items: []Value{k, d.values[k]}, tuple: true})
	}
	return l
}

func itemsFilter(r *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	switch v := v.(type) {
	case *Dict:
		return pairs(v), r.spend(len(v.keys))
	case Undefined:
		return &List{}, nil
	}
	return nil, errors.New("Can only get item pairs from a mapping.")
}

func length(_ *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	switch v := v.(type) {
	case string:
		return int64(runes(v)), nil
	case *List:
		return int64(len(v.Items)), nil
	case *Dict:
		return int64(len(v.keys)), nil
	case Undefined:
		return int64(0), nil
	}
	return nil, fmt.Errorf("object of type '%s' has no len()", typeName(v))
}

func join(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	attribute := argument(args, named, 1, "attribute", nil)
	parts := make([]string, len(items))
	total := 0
	for i, one := range items {
		if attribute != nil {
			if one, err = item(one, attribute); err != nil {
				return nil, err
			}
		}
		parts[i] = str(one)
		total += len(parts[i])
	}
	between := str(argument(args, named, 0, "d", ""))
	return strings.Join(parts, between), r.grow(total + len(between)*len(parts))
}

func defaultFilter(_ *renderer, v Value, args []Value, named *Dict) (Value, error) {
	otherwise := argument(args, named, 0, "default_value", "")
	_, missing := v.(Undefined)
	if missing || truth(argument(args, named, 1, "boolean", false)) && !truth(v) {
		return otherwise, nil
	}
	return v, nil
}

func first(_ *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil || len(items) == 0 {
		return Undefined{"No first item, sequence was empty."}, err
	}
	return items[0], nil
}

func last(_ *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil || len(items) == 0 {
		return Undefined{"No last item, sequence was empty."}, err
	}
	return items[len(items)-1], nil
}

func list(r *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	return &List{Items: slices.Clone(items)}, r.spend(len(items))
}

func trimFilter(_ *renderer, v Value, args []Value, named *Dict) (Value, error) {
	if chars, ok := argument(args, named, 0, "chars", nil).(string); ok {
		return strings.Trim(str(v), chars), nil
	}
	return strings.TrimFunc(str(v), unicode.IsSpace), nil
}

func replaceFilter(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	count, ok := integer(argument(args, named, 2, "count", int64(-1)))
	if !ok || !count.IsInt64() {
		count = big.NewInt(-1)
	}
	return r.replace(str(v), str(argument(args, named, 0, "old", "")), str(argument(args, named, 1, "new", "")), int(count.Int64()))
}

func (r *renderer) replace(s, from, to string, count int) (Value, error) {
	if n := strings.Count(s, from); n*len(to)+len(s) > r.limit {
		return nil, ErrBudget
	}
	out := strings.Replace(s, from, to, count)
	return out, r.grow(len(out))
}

func reverse(r *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	if s, ok := v.(string); ok {
		chars := []rune(s)
		slices.Reverse(chars)
		return string(chars), r.grow(len(s))
	}
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	items = slices.Clone(items)
	slices.Reverse(items)
	return &List{Items: items}, r.spend(len(items))
}

// sorted sorts by key, stably.
func sorted(items []Value, key func(Value) (Value, error), descending bool) (*List, error) {
	items = slices.Clone(items)
	var failed error
	slices.SortStableFunc(items, func(a, b Value) int {
		x, err := key(a)
		if err == nil {
			var y Value
			if y, err = key(b); err == nil {
				var order int
				if order, err = compareOrder(x, y); err == nil {
					if descending {
						return -order
					}
					return order
				}
			}
		}
		if failed == nil {
			failed = err
		}
		return 0
	})
	return &List{Items: items}, failed
}

func sortFilter(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	attribute := argument(args, named, 2, "attribute", nil)
	sensitive := truth(argument(args, named, 1, "case_sensitive", false))
	key := func(v Value) (w Value, err error) {
		w = v
		if attribute != nil {
			w, err = item(v, attribute)
		}
		if s, ok := w.(string); ok && !sensitive {
			w = strings.ToLower(s)
		}
		return w, err
	}
	l, err := sorted(items, key, truth(argument(args, named, 0, "reverse", false)))
	return l, errors.Join(err, r.spend(len(items)))
}

func unique(r *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	l := &List{}
	for _, one := range items {
		if err := r.spend(len(l.Items)); err != nil {
			return nil, err
		}
		if in, _ := contains(l, one); !in {
			l.Items = append(l.Items, one)
		}
	}
	return l, nil
}

func dictSort(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	d, ok := v.(*Dict)
	if !ok {
		return nil, fmt.Errorf("'%s' object has no attribute 'items'", typeName(v))
	}
	at := 0
	if argument(args, named, 1, "by", "key") == "value" {
		at = 1
	}
	key := func(v Value) (Value, error) {
		w := v.(*List).Items[at]
		if s, ok := w.(string); ok && !truth(argument(args, named, 0, "case_sensitive", false)) {
			w = strings.ToLower(s)
		}
		return w, nil
	}
	l, err := sorted(pairs(d).Items, key, truth(argument(args, named, 2, "reverse", false)))
	return l, errors.Join(err, r.spend(len(d.keys)))
}

func abs(_ *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
	if f, ok := v.(float64); ok {
		return math.Abs(f), nil
	}
	i, ok := integer(v)
	if !ok {
		return nil, fmt.Errorf("bad operand type for abs(): '%s'", typeName(v))
	}
	return small(new(big.Int).Abs(i)), nil
}

func intFilter(_ *renderer, v Value, args []Value, named *Dict) (Value, error) {
	otherwise := argument(args, named, 0, "default", int64(0))
	switch v := v.(type) {
	case string:
		text := strings.TrimSpace(v)
		if i, ok := new(big.Int).SetString(text, 10); ok && len(text) < 4300 {
			return small(i), nil
		}
		if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			i, _ := big.NewFloat(f).Int(nil)
			return small(i), nil
		}
		return otherwise, nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return otherwise, nil
		}
		i, _ := big.NewFloat(v).Int(nil)
		return small(i), nil
	}
	if i, ok := integer(v); ok {
		return small(i), nil
	}
	return otherwise, nil
}

func floatFilter(_ *renderer, v Value, args []Value, named *Dict) (Value, error) {
	if f, ok := float(v); ok {
		return f, nil
	}
	if s, ok := v.(string); ok {
		if f, err := strconv.ParseFloat(strings.TrimSpace(s), 64); err == nil {
			return f, nil
		}
	}
	return argument(args, named, 0, "default", 0.0), nil
}

func roundFilter(_ *renderer, v Value, args []Value, named *Dict) (Value, error) {
	f, ok := float(v)
	digits, okDigits := integer(argument(args, named, 0, "precision", int64(0)))
	if !ok || !okDigits || !digits.IsInt64() || digits.Int64() > 300 || digits.Int64() < -300 {
		return nil, fmt.Errorf("round of '%s'", typeName(v))
	}
	power := math.Pow(10, float64(digits.Int64()))
	switch argument(args, named, 1, "method", "common") {
	case "ceil":
		return math.Ceil(f*power) / power, nil
	case "floor":
		return math.Floor(f*power) / power, nil
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(max(0, digits.Int64())), 64), 64)
	return rounded, err
}

func mapFilter(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	l := &List{}
	for _, one := range items {
		if err := r.spend(1); err != nil {
			return nil, err
		}
		var w Value
		if attribute, ok := named.Get("attribute"); ok {
			w = one
			for _, part := range strings.Split(str(attribute), ".") {
				if w, err = item(w, part); err != nil {
					return nil, err
				}
			}
			if _, missing := w.(Undefined); missing {
				w = argument(nil, named, -1, "default", w)
			}
		} else {
			name := str(argument(args, nil, 0, "", ""))
			f := filters[name]
			if f == nil {
				return nil, fmt.Errorf("no filter named %q", name)
			}
			if w, err = f(r, one, args[1:], named); err != nil {
				return nil, err
			}
		}
		l.Items = append(l.Items, w)
	}
	return l, nil
}

// selecting makes select, reject, selectattr and rejectattr.
func selecting(keep, attribute bool) filter {
	return func(r *renderer, v Value, args []Value, _ *Dict) (Value, error) {
		items, err := iterate(v)
		if err != nil {
			return nil, err
		}
		var name Value
		if attribute {
			if len(args) == 0 {
				return nil, errors.New("missing parameter for attribute name")
			}
			name, args = args[0], args[1:]
		}
		check := test(func(v Value, _ []Value) (bool, error) { return truth(v), nil })
		if len(args) > 0 {
			if check = tests[str(args[0])]; check == nil {
				return nil, fmt.Errorf("no test named %q", str(args[0]))
			}
			args = args[1:]
		}
		l := &List{}
		for _, one := range items {
			if err := r.spend(1); err != nil {
				return nil, err
			}
			w := one
			if attribute {
				if w, err = item(one, name); err != nil {
					return nil, err
				}
			}
			ok, err := check(w, args)
			if err != nil {
				return nil, err
			}
			if ok == keep {
				l.Items = append(l.Items, one)
			}
		}
		return l, nil
	}
}

func indentFilter(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	prefix, ok := argument(args, named, 0, "width", int64(4)).(string)
	if !ok {
		n, isInt := integer(argument(args, named, 0, "width", int64(4)))
		if !isInt || !n.IsInt64() || n.Int64() < 0 || n.Int64() > 1000 {
			return nil, errors.New("indent: width out of range")
		}
		prefix = strings.Repeat(" ", int(n.Int64()))
	}
	lines := strings.Split(str(v), "\n")
	if len(lines)*len(prefix) > r.limit {
		return nil, ErrBudget
	}
	for i, line := range lines {
		if (i > 0 || truth(argument(args, named, 1, "first", false))) && (line != "" || truth(argument(args, named, 2, "blank", false))) {
			lines[i] = prefix + line
		}
	}
	out := strings.Join(lines, "\n")
	return out, r.grow(len(out))
}

func sumFilter(r *renderer, v Value, args []Value, named *Dict) (Value, error) {
	items, err := iterate(v)
	if err != nil {
		return nil, err
	}
	total := argument(args, named, 1, "start", int64(0))
	for _, one := range items {
		if attribute := argument(args, named, 0, "attribute", nil); attribute != nil {
			if one, err = item(one, attribute); err != nil {
				return nil, err
			}
		}
		if total, err = r.math("+", total, one); err != nil {
			return nil, err
		}
	}
	return total, r.spend(len(items))
}

func extreme(sign int) filter {
	return func(_ *renderer, v Value, _ []Value, _ *Dict) (Value, error) {
		items, err := iterate(v)
		if err != nil || len(items) == 0 {
			return Undefined{"No aggregated item, sequence was empty."}, err
		}
		best := items[0]
		for _, one := range items[1:] {
			order, err := compareOrder(one, best)
			if err != nil {
				return nil, err
			}
			if order*sign > 0 {
				best = one
			}
		}
		return best, nil
	}
}

func attrFilter(_ *renderer, v Value, args []Value, named *Dict) (Value, error) {
	return item(v, argument(args, named, 0, "name", ""))
}

func capitalize(s string) string {
	for i, r := range s {
		if i == 0 {
			return string(unicode.ToTitle(r)) + strings.ToLower(s[len(string(r)):])
		}
	}
	return s
}

func title(s string) string {
	var b strings.Builder
	word := false
	for _, r := range s {
		if word {
			b.WriteRune(unicode.ToLower(r))
		} else {
			b.WriteRune(unicode.ToTitle(r))
		}
		word = unicode.IsLetter(r)
	}
	return b.String()
}

func escape(s string) string {
	return strings.NewReplacer("&#34;", "&#34;", "&#39;", "&#39;").Replace(html.EscapeString(s))
}
