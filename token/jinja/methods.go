package jinja

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// method is a Python method bound to its value, nil where there is none.
func method(v Value, name string) Value {
	switch v := v.(type) {
	case string:
		if f, ok := stringMethods[name]; ok {
			return callable(func(r *renderer, args []Value, named *Dict) (Value, error) { return f(r, v, args, named) })
		}
	case *Dict:
		if f, ok := dictMethods[name]; ok {
			return callable(func(r *renderer, args []Value, named *Dict) (Value, error) { return f(r, v, args, named) })
		}
	case *List:
		if f, ok := listMethods[name]; ok {
			return callable(func(r *renderer, args []Value, named *Dict) (Value, error) { return f(r, v, args) })
		}
	}
	return nil
}

type stringMethod func(r *renderer, s string, args []Value, named *Dict) (Value, error)

// simple makes a method of a function of the string alone.
func simple(f func(s string) Value) stringMethod {
	return func(r *renderer, s string, args []Value, _ *Dict) (Value, error) {
		if len(args) > 0 {
			return nil, fmt.Errorf("takes no arguments (%d given)", len(args))
		}
		return f(s), r.grow(len(s))
	}
}

// stripping makes strip, lstrip and rstrip.
func stripping(left, right bool) stringMethod {
	return func(r *renderer, s string, args []Value, named *Dict) (Value, error) {
		cut := unicode.IsSpace
		switch chars := argument(args, named, 0, "chars", nil).(type) {
		case nil:
		case string:
			cut = func(r rune) bool { return strings.ContainsRune(chars, r) }
		default:
			return nil, fmt.Errorf("strip arg must be None or str")
		}
		if left {
			s = strings.TrimLeftFunc(s, cut)
		}
		if right {
			s = strings.TrimRightFunc(s, cut)
		}
		return s, nil
	}
}

// affix makes startswith and endswith.
func affix(has func(s, affix string) bool) stringMethod {
	return func(_ *renderer, s string, args []Value, _ *Dict) (Value, error) {
		if len(args) != 1 {
			return nil, errors.New("wants one argument")
		}
		if l, ok := args[0].(*List); ok && l.tuple {
			for _, one := range l.Items {
				if t, ok := one.(string); ok && has(s, t) {
					return true, nil
				}
			}
			return false, nil
		}
		t, ok := args[0].(string)
		if !ok {
			return nil, fmt.Errorf("first arg must be str or a tuple of str, not %s", typeName(args[0]))
		}
		return has(s, t), nil
	}
}

func textArgument(args []Value, i int) (string, error) {
	if i >= len(args) {
		return "", fmt.Errorf("argument %d is missing", i+1)
	}
	s, ok := args[i].(string)
	if !ok {
		return "", fmt.Errorf("must be str, not %s", typeName(args[i]))
	}
	return s, nil
}

func every(is func(r rune) bool) stringMethod {
	return simple(func(s string) Value {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !is(r) }) < 0
	})
}

func finding(find func(s, part string) int) stringMethod {
	return func(_ *renderer, s string, args []Value, _ *Dict) (Value, error) {
		part, err := textArgument(args, 0)
		if err != nil {
			return nil, err
		}
		i := find(s, part)
		if i > 0 {
			i = runes(s[:i])
		}
		return int64(i), nil
	}
}

var stringMethods = map[string]stringMethod{
	"strip": stripping(true, true), "lstrip": stripping(true, false), "rstrip": stripping(false, true),
	"startswith": affix(strings.HasPrefix), "endswith": affix(strings.HasSuffix),
	"upper": simple(func(s string) Value { return strings.ToUpper(s) }), "lower": simple(func(s string) Value { return strings.ToLower(s) }),
	"title": simple(func(s string) Value { return title(s) }), "capitalize": simple(func(s string) Value { return capitalize(s) }),
	"isdigit": every(unicode.IsDigit), "isnumeric": every(unicode.IsNumber), "isalpha": every(unicode.IsLetter), "isspace": every(unicode.IsSpace),
	"isalnum": every(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
	"isupper": simple(func(s string) Value { return s == strings.ToUpper(s) && s != strings.ToLower(s) }),
	"islower": simple(func(s string) Value { return s == strings.ToLower(s) && s != strings.ToUpper(s) }),
	"find":    finding(strings.Index), "rfind": finding(strings.LastIndex),
	"split": splitting(false), "rsplit": splitting(true), "splitlines": splitLines, "join": joinMethod, "replace": replaceMethod, "count": countMethod,
	"removeprefix": cutting(strings.TrimPrefix), "removesuffix": cutting(strings.TrimSuffix), "format": formatMethod,
}

func cutting(cut func(s, affix string) string) stringMethod {
	return func(_ *renderer, s string, args []Value, _ *Dict) (Value, error) {
		affix, err := textArgument(args, 0)
		return cut(s, affix), err
	}
}

func texts(parts []string) *List {
	l := &List{}
	for _, p := range parts {
		l.Items = append(l.Items, p)
	}
	return l
}

func splitting(fromRight bool) stringMethod {
	return func(r *renderer, s string, args []Value, named *Dict) (Value, error) {
		most := -1
		if n, ok := integer(argument(args, named, 1, "maxsplit", int64(-1))); ok && n.IsInt64() && n.Int64() < 1<<30 {
			most = int(n.Int64())
		}
		by := argument(args, named, 0, "sep", nil)
		if by == nil {
			return texts(splitSpace(s, most, fromRight)), r.grow(len(s))
		}
		sep, ok := by.(string)
		if !ok {
			return nil, fmt.Errorf("must be str or None, not %s", typeName(by))
		}
		if sep == "" {
			return nil, errors.New("empty separator")
		}
		parts := strings.Split(s, sep)
		if most >= 0 && len(parts) > most+1 {
			if fromRight {
				head := strings.Join(parts[:len(parts)-most], sep)
				parts = append([]string{head}, parts[len(parts)-most:]...)
			} else {
				parts = strings.SplitN(s, sep, most+1)
			}
		}
		return texts(parts), errors.Join(r.grow(len(s)), r.spend(len(parts)))
	}
}

// splitSpace splits at runs of white space, at most that many times.
func splitSpace(s string, most int, fromRight bool) []string {
	fields := strings.Fields(s)
	if most < 0 || len(fields) <= most+1 {
		return fields
	}
	if fromRight {
		rest := strings.TrimSpace(s)
		var tail []string
		for range most {
			i := strings.LastIndexFunc(rest, unicode.IsSpace)
			tail = append(tail, strings.TrimSpace(rest[i:]))
			rest = strings.TrimRightFunc(rest[:i], unicode.IsSpace)
		}
		tail = append(tail, rest)
		slices.Reverse(tail)
		return tail
	}
	var head []string
	rest := strings.TrimLeftFunc(s, unicode.IsSpace)
	for range most {
		i := strings.IndexFunc(rest, unicode.IsSpace)
		head = append(head, rest[:i])
		rest = strings.TrimLeftFunc(rest[i:], unicode.IsSpace)
	}
	return append(head, rest)
}

func splitLines(r *renderer, s string, _ []Value, _ *Dict) (Value, error) {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	if s == "" {
		return &List{}, nil
	}
	return texts(strings.Split(strings.TrimSuffix(s, "\n"), "\n")), r.grow(len(s))
}

func joinMethod(r *renderer, s string, args []Value, _ *Dict) (Value, error) {
	if len(args) != 1 {
		return nil, errors.New("join() takes exactly one argument")
	}
	items, err := iterate(args[0])
	if err != nil {
		return nil, err
	}
	parts := make([]string, len(items))
	total := len(s) * len(items)
	for i, one := range items {
		text, ok := one.(string)
		if !ok {
			return nil, fmt.Errorf("sequence item %d: expected str instance, %s found", i, typeName(one))
		}
		parts[i] = text
		total += len(text)
	}
	if total > r.limit {
		return nil, ErrBudget
	}
	return strings.Join(parts, s), r.grow(total)
}

func replaceMethod(r *renderer, s string, args []Value, named *Dict) (Value, error) {
	from, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	to, err := textArgument(args, 1)
	if err != nil {
		return nil, err
	}
	count := -1
	if n, ok := integer(argument(args, named, 2, "count", int64(-1))); ok && n.IsInt64() && n.Int64() < 1<<30 {
		count = int(n.Int64())
	}
	return r.replace(s, from, to, count)
}

func countMethod(_ *renderer, s string, args []Value, _ *Dict) (Value, error) {
	part, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	return int64(strings.Count(s, part)), nil
}

// formatMethod knows {} and {0} and {name}, without format specifications.
func formatMethod(r *renderer, s string, args []Value, named *Dict) (Value, error) {
	var b strings.Builder
	next := 0
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		if strings.HasPrefix(s[i:], "{{") || strings.HasPrefix(s[i:], "}}") {
			b.WriteByte(s[i])
			s = s[i+2:]
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if s[i] == '}' || end < 0 {
			return nil, errors.New("format: a single brace")
		}
		field := s[i+1 : i+end]
		s = s[i+end+1:]
		var v Value
		ok := false
		if field == "" {
			v, ok, next = argument(args, nil, next, "", nil), next < len(args), next+1
		} else if n, err := parseNumber(field); err == nil {
			var k int
			if k, ok = index(n, len(args)); ok {
				v = args[k]
			}
		} else {
			v, ok = named.Get(field)
		}
		if !ok {
			return nil, fmt.Errorf("format: no value for {%s}", field)
		}
		b.WriteString(str(v))
	}
	b.WriteString(s)
	return b.String(), r.grow(b.Len())
}

var dictMethods = map[string]func(r *renderer, d *Dict, args []Value, named *Dict) (Value, error){
	"items": func(r *renderer, d *Dict, _ []Value, _ *Dict) (Value, error) { return pairs(d), r.spend(len(d.keys)) },
	"keys": func(r *renderer, d *Dict, _ []Value, _ *Dict) (Value, error) {
		return texts(d.keys), r.spend(len(d.keys))
	},
	"values": func(r *renderer, d *Dict, _ []Value, _ *Dict) (Value, error) {
		l := &List{}
		for _, k := range d.keys {
			l.Items = append(l.Items, d.values[k])
		}
		return l, r.spend(len(d.keys))
	},
	"get": func(_ *renderer, d *Dict, args []Value, named *Dict) (Value, error) {
		if len(args) == 0 {
			return nil, errors.New("get expected at least 1 argument, got 0")
		}
		if key, ok := args[0].(string); ok {
			if v, ok := d.Get(key); ok {
				return v, nil
			}
		}
		return argument(args, named, 1, "default", nil), nil
	},
	"copy": func(r *renderer, d *Dict, _ []Value, _ *Dict) (Value, error) { return d.Copy(), r.spend(len(d.keys)) },
}

var listMethods = map[string]func(r *renderer, l *List, args []Value) (Value, error){
	"count": func(r *renderer, l *List, args []Value) (Value, error) {
		n := int64(0)
		for _, item := range l.Items {
			if len(args) == 1 && equal(item, args[0]) {
				n++
			}
		}
		return n, r.spend(len(l.Items))
	},
	"index": func(r *renderer, l *List, args []Value) (Value, error) {
		for i, item := range l.Items {
			if len(args) == 1 && equal(item, args[0]) {
				return int64(i), r.spend(i)
			}
		}
		return nil, errors.New("the value is not in list")
	},
}
