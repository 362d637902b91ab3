package jinja

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"
)

// Options bound a rendering.
type Options struct {
	Now    time.Time // what strftime_now sees; zero: the current time
	Steps  int       // expressions and statements evaluated; 0: a million
	Output int       // bytes; 0: 16 MiB
}

// A RaisedError is the template's own word: raise_exception(message).
type RaisedError struct{ Message string }

func (e *RaisedError) Error() string { return e.Message }

// ErrBudget is what a template that does too much ends with.
var ErrBudget = errors.New("the template takes too many steps or writes too much")

type renderer struct {
	scope  *scope
	steps  int
	size   int
	limit  int
	depth  int
	now    time.Time
	jump   string
	output *strings.Builder
}

// scope is the names of one block; names are looked up outwards.
type scope struct {
	names map[string]Value
	outer *scope
}

func (s *scope) find(name string) (Value, bool) {
	for ; s != nil; s = s.outer {
		if v, ok := s.names[name]; ok {
			return v, true
		}
	}
	return nil, false
}

// Render writes the template with the given variables.
func (t *Template) Render(vars *Dict, o Options) (string, error) {
	if o.Steps == 0 {
		o.Steps = 1_000_000
	}
	if o.Output == 0 {
		o.Output = 16 << 20
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	global := &scope{names: map[string]Value{}}
	for name, f := range functions {
		global.names[name] = f
	}
	top := &scope{names: map[string]Value{}, outer: global}
	if vars != nil {
		for _, k := range vars.keys {
			top.names[k] = vars.values[k]
		}
	}
	r := &renderer{scope: top, steps: o.Steps, limit: o.Output, now: o.Now, output: &strings.Builder{}}
	if err := r.run(t.body); err != nil {
		return "", fmt.Errorf("template %s: %w", t.name, err)
	}
	return r.output.String(), nil
}

// spend counts a step.
func (r *renderer) spend(n int) error {
	if r.steps -= n; r.steps < 0 {
		return ErrBudget
	}
	return nil
}

// grow counts bytes that are made, shown or not.
func (r *renderer) grow(n int) error {
	if r.size += n; r.size > 4*r.limit {
		return ErrBudget
	}
	return nil
}

func (r *renderer) write(text string) error {
	if r.output.Len()+len(text) > r.limit {
		return ErrBudget
	}
	r.output.WriteString(text)
	return nil
}

// capture runs a body and returns what it writes.
func (r *renderer) capture(body []node) (string, error) {
	outer := r.output
	r.output = &strings.Builder{}
	err := r.run(body)
	text := r.output.String()
	r.output = outer
	if err == nil {
		err = r.grow(len(text))
	}
	return text, err
}

func (r *renderer) run(body []node) error {
	if r.depth++; r.depth > maxDepth {
		return ErrBudget
	}
	defer func() { r.depth-- }()
	for _, n := range body {
		if err := r.spend(1); err != nil {
			return err
		}
		if err := n.run(r); err != nil {
			return err
		}
		if r.jump != "" {
			return nil
		}
	}
	return nil
}

// at puts a line in front of an error, once.
func at(line int, err error) error {
	var raised *RaisedError
	if err == nil || errors.As(err, &raised) || errors.Is(err, ErrBudget) || strings.HasPrefix(err.Error(), "line ") {
		return err
	}
	return fmt.Errorf("line %d: %w", line, err)
}

type node interface{ run(r *renderer) error }

type (
	textNode string
	outNode  struct {
		value expr
		line  int
	}
	groupNode []node
	jumpNode  string
	ifNode    struct {
		condition       expr
		then, otherwise []node
	}
	forNode struct {
		names           []string
		list, condition expr
		body, otherwise []node
		line            int
	}
	setNode struct {
		names     []string
		attribute string
		value     expr
		filter    expr
		body      []node
		line      int
	}
	parameter struct {
		name      string
		otherwise expr
	}
	macroNode struct {
		name       string
		parameters []parameter
		body       []node
	}
	callNode struct {
		call   callExpr
		caller macroNode
		line   int
	}
	filterNode struct {
		filter expr
		body   []node
		line   int
	}
)

func (n textNode) run(r *renderer) error { return r.write(string(n)) }

func (n outNode) run(r *renderer) error {
	v, err := n.value.eval(r)
	if err != nil {
		return at(n.line, err)
	}
	return r.write(str(v))
}

func (n groupNode) run(r *renderer) error { return r.run(n) }

func (n jumpNode) run(r *renderer) error {
	r.jump = string(n)
	return nil
}

func (n ifNode) run(r *renderer) error {
	v, err := n.condition.eval(r)
	if err != nil {
		return err
	}
	if truth(v) {
		return r.run(n.then)
	}
	return r.run(n.otherwise)
}

func (n forNode) run(r *renderer) error {
	v, err := n.list.eval(r)
	if err != nil {
		return at(n.line, err)
	}
	items, err := iterate(v)
	if err != nil {
		return at(n.line, err)
	}
	outer := r.scope
	defer func() { r.scope = outer }()
	if n.condition != nil {
		var kept []Value
		for _, item := range items {
			r.scope = &scope{names: map[string]Value{}, outer: outer}
			if err := r.spend(1); err != nil {
				return err
			}
			if err := r.bind(n.names, item); err != nil {
				return at(n.line, err)
			}
			ok, err := n.condition.eval(r)
			if err != nil {
				return at(n.line, err)
			}
			if truth(ok) {
				kept = append(kept, item)
			}
		}
		items = kept
	}
	if len(items) == 0 {
		r.scope = outer
		return r.run(n.otherwise)
	}
	for i, item := range items {
		r.scope = &scope{names: map[string]Value{"loop": loopDict(items, i)}, outer: outer}
		if err := r.spend(1); err != nil {
			return err
		}
		if err := r.bind(n.names, item); err != nil {
			return at(n.line, err)
		}
		if err := r.run(n.body); err != nil {
			return err
		}
		jump := r.jump
		r.jump = ""
		if jump == "break" {
			break
		}
	}
	return nil
}

func loopDict(items []Value, i int) *Dict {
	n := len(items)
	d := NewDict().Set("index", int64(i+1)).Set("index0", int64(i)).Set("first", i == 0).Set("last", i == n-1).
		Set("length", int64(n)).Set("revindex", int64(n-i)).Set("revindex0", int64(n-i-1)).Set("depth", int64(1)).Set("depth0", int64(0))
	d.Set("previtem", Undefined{"there is no previous item"}).Set("nextitem", Undefined{"there is no next item"})
	if i > 0 {
		d.Set("previtem", items[i-1])
	}
	if i+1 < n {
		d.Set("nextitem", items[i+1])
	}
	d.Set("cycle", callable(func(_ *renderer, args []Value, _ *Dict) (Value, error) {
		if len(args) == 0 {
			return nil, errors.New("no items for cycling given")
		}
		return args[i%len(args)], nil
	}))
	return d
}

// bind gives the values of an item to names.
func (r *renderer) bind(names []string, v Value) error {
	if len(names) == 1 {
		r.scope.names[names[0]] = v
		return nil
	}
	items, err := iterate(v)
	if err != nil {
		return err
	}
	if len(items) != len(names) {
		return fmt.Errorf("%d values for %d names", len(items), len(names))
	}
	for i, name := range names {
		r.scope.names[name] = items[i]
	}
	return nil
}

func (n setNode) run(r *renderer) error {
	var v Value
	var err error
	if n.value != nil {
		v, err = n.value.eval(r)
	} else {
		var text string
		if text, err = r.capture(n.body); err == nil {
			v = text
			if n.filter != nil {
				v, err = r.filtered(n.filter, text)
			}
		}
	}
	if err != nil {
		return at(n.line, err)
	}
	if n.attribute == "" {
		return at(n.line, r.bind(n.names, v))
	}
	held, _ := r.scope.find(n.names[0])
	d, ok := held.(*Dict)
	if !ok || !d.object {
		return at(n.line, fmt.Errorf("cannot assign attribute %q on something that is no namespace", n.attribute))
	}
	d.Set(n.attribute, v)
	return nil
}

// filtered applies a chain of filters to text.
func (r *renderer) filtered(f expr, text string) (Value, error) {
	outer := r.scope
	r.scope = &scope{names: map[string]Value{"\x00": text}, outer: outer}
	defer func() { r.scope = outer }()
	return f.eval(r)
}

func (n filterNode) run(r *renderer) error {
	text, err := r.capture(n.body)
	if err != nil {
		return err
	}
	v, err := r.filtered(n.filter, text)
	if err != nil {
		return at(n.line, err)
	}
	return r.write(str(v))
}

func (n macroNode) run(r *renderer) error {
	r.scope.names[n.name] = n.bound(r.scope)
	return nil
}

// bound is the macro as a function that sees the names around it.
func (n macroNode) bound(outer *scope) callable {
	return func(r *renderer, args []Value, named *Dict) (Value, error) {
		s := &scope{names: map[string]Value{}, outer: outer}
		caller := r.scope
		r.scope = s
		defer func() { r.scope = caller }()
		if len(args) > len(n.parameters) {
			return nil, fmt.Errorf("macro %q takes not more than %d argument(s)", n.name, len(n.parameters))
		}
		for i, p := range n.parameters {
			switch {
			case i < len(args):
				s.names[p.name] = args[i]
				continue
			case named != nil:
				if v, ok := named.Get(p.name); ok {
					s.names[p.name] = v
					continue
				}
			}
			s.names[p.name] = Undefined{fmt.Sprintf("parameter %q was not provided", p.name)}
			if p.otherwise != nil {
				v, err := p.otherwise.eval(r)
				if err != nil {
					return nil, err
				}
				s.names[p.name] = v
			}
		}
		if named != nil {
			if v, ok := named.Get("caller"); ok {
				s.names["caller"] = v
			}
		}
		return r.capture(n.body)
	}
}

func (n callNode) run(r *renderer) error {
	f, err := n.call.of.eval(r)
	if err != nil {
		return at(n.line, err)
	}
	args, named, err := r.arguments(n.call.args, n.call.names, n.call.named)
	if err != nil {
		return at(n.line, err)
	}
	v, err := r.call(f, args, named.Copy().Set("caller", n.caller.bound(r.scope)))
	if err != nil {
		return at(n.line, err)
	}
	return r.write(str(v))
}

type expr interface {
	eval(r *renderer) (Value, error)
}

type (
	constExpr struct{ v Value }
	nameExpr  struct {
		name string
		line int
	}
	listExpr struct {
		items []expr
		tuple bool
		line  int
	}
	dictExpr struct {
		keys, values []expr
		line         int
	}
	conditionExpr struct{ then, condition, otherwise expr }
	logicExpr     struct {
		op   string
		a, b expr
	}
	notExpr     struct{ of expr }
	compareExpr struct {
		ops      []string
		operands []expr
		line     int
	}
	mathExpr struct {
		op   string
		a, b expr
		line int
	}
	concatExpr []expr
	signExpr   struct {
		op   string
		of   expr
		line int
	}
	attributeExpr struct {
		of   expr
		name string
		line int
	}
	itemExpr struct {
		of, key expr
		line    int
	}
	sliceExpr struct {
		of    expr
		parts [3]expr
		line  int
	}
	callExpr struct {
		of    expr
		args  []expr
		names []string
		named []expr
		line  int
	}
	filterExpr struct {
		of    expr
		name  string
		args  []expr
		names []string
		named []expr
		line  int
	}
	testExpr struct {
		of   expr
		name string
		not  bool
		args []expr
		line int
	}
)

func (e constExpr) eval(*renderer) (Value, error) { return e.v, nil }

func (e nameExpr) eval(r *renderer) (Value, error) {
	if v, ok := r.scope.find(e.name); ok {
		return v, nil
	}
	return Undefined{fmt.Sprintf("'%s' is undefined", e.name)}, nil
}

func (e listExpr) eval(r *renderer) (Value, error) {
	list := &List{tuple: e.tuple}
	for _, item := range e.items {
		v, err := item.eval(r)
		if err != nil {
			return nil, at(e.line, err)
		}
		list.Items = append(list.Items, v)
	}
	return list, r.spend(len(e.items))
}

func (e dictExpr) eval(r *renderer) (Value, error) {
	d := NewDict()
	for i, k := range e.keys {
		key, err := k.eval(r)
		if err != nil {
			return nil, at(e.line, err)
		}
		v, err := e.values[i].eval(r)
		if err != nil {
			return nil, at(e.line, err)
		}
		d.Set(str(key), v)
	}
	return d, r.spend(len(e.keys))
}

func (e conditionExpr) eval(r *renderer) (Value, error) {
	c, err := e.condition.eval(r)
	switch {
	case err != nil:
		return nil, err
	case truth(c):
		return e.then.eval(r)
	case e.otherwise == nil:
		return Undefined{"the inline if-expression evaluated to false and no else section was defined"}, nil
	}
	return e.otherwise.eval(r)
}

func (e logicExpr) eval(r *renderer) (Value, error) {
	a, err := e.a.eval(r)
	if err != nil || truth(a) == (e.op == "or") {
		return a, err
	}
	return e.b.eval(r)
}

func (e notExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	return !truth(v), err
}

func (e compareExpr) eval(r *renderer) (Value, error) {
	left, err := e.operands[0].eval(r)
	if err != nil {
		return nil, err
	}
	for i, op := range e.ops {
		right, err := e.operands[i+1].eval(r)
		if err != nil {
			return nil, err
		}
		ok, err := compare(op, left, right)
		if err != nil {
			return nil, at(e.line, err)
		}
		if !ok {
			return false, nil
		}
		left = right
	}
	return true, r.spend(1)
}

func compare(op string, a, b Value) (bool, error) {
	switch op {
	case "==":
		return equal(a, b), nil
	case "!=":
		return !equal(a, b), nil
	case "in", "not in":
		in, err := contains(b, a)
		return in == (op == "in"), err
	}
	order, err := compareOrder(a, b)
	if err != nil {
		return false, fmt.Errorf("'%s' %w", op, err)
	}
	switch op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	}
	return order >= 0, nil
}

// compareOrder is -1, 0 or 1.
func compareOrder(a, b Value) (int, error) {
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return x.Cmp(y), nil
		}
	}
	if s, ok := a.(string); ok {
		if t, ok := b.(string); ok {
			return strings.Compare(s, t), nil
		}
	}
	if l, ok := a.(*List); ok {
		if m, ok := b.(*List); ok {
			for i := range min(len(l.Items), len(m.Items)) {
				if !equal(l.Items[i], m.Items[i]) {
					return compareOrder(l.Items[i], m.Items[i])
				}
			}
			return len(l.Items) - len(m.Items), nil
		}
	}
	return 0, fmt.Errorf("not supported between instances of '%s' and '%s'", typeName(a), typeName(b))
}

func contains(in, v Value) (bool, error) {
	switch in := in.(type) {
	case string:
		s, ok := v.(string)
		if !ok {
			return false, fmt.Errorf("'in <string>' requires string as left operand, not %s", typeName(v))
		}
		return strings.Contains(in, s), nil
	case *List:
		for _, item := range in.Items {
			if equal(item, v) {
				return true, nil
			}
		}
		return false, nil
	case *Dict:
		s, ok := v.(string)
		if !ok {
			return false, nil
		}
		_, ok = in.Get(s)
		return ok, nil
	case Undefined:
		return false, nil
	}
	return false, fmt.Errorf("argument of type '%s' is not iterable", typeName(in))
}

func (e mathExpr) eval(r *renderer) (Value, error) {
	a, err := e.a.eval(r)
	if err != nil {
		return nil, err
	}
	b, err := e.b.eval(r)
	if err != nil {
		return nil, err
	}
	if err := r.spend(1); err != nil {
		return nil, err
	}
	v, err := r.math(e.op, a, b)
	return v, at(e.line, err)
}

func (r *renderer) math(op string, a, b Value) (Value, error) {
	for _, v := range []Value{a, b} {
		if u, ok := v.(Undefined); ok {
			return nil, errors.New(u.what)
		}
	}
	if s, ok := a.(string); ok && op == "+" {
		t, ok := b.(string)
		if !ok {
			return nil, fmt.Errorf("can only concatenate str (not \"%s\") to str", typeName(b))
		}
		return s + t, r.grow(len(s) + len(t))
	}
	if l, ok := a.(*List); ok && op == "+" {
		if m, ok := b.(*List); ok && l.tuple == m.tuple {
			return &List{Items: append(append([]Value(nil), l.Items...), m.Items...), tuple: l.tuple}, r.spend(len(l.Items) + len(m.Items))
		}
	}
	if s, ok := a.(string); ok && op == "*" {
		if n, ok := b.(int64); ok {
			n = max(0, n)
			if n > int64(r.limit) || n*int64(len(s)) > int64(r.limit) {
				return nil, ErrBudget
			}
			return strings.Repeat(s, int(n)), r.grow(int(n) * len(s))
		}
	}
	return arithmetic(op, a, b)
}

// arithmetic follows Python: integers stay integers, / gives floats, // and %
// round down.
func arithmetic(op string, a, b Value) (Value, error) {
	x, okA := integer(a)
	y, okB := integer(b)
	if okA && okB && op != "/" {
		return integers(op, x, y)
	}
	f, okA := float(a)
	g, okB := float(b)
	if !okA || !okB {
		return nil, fmt.Errorf("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	}
	if g == 0 && (op == "/" || op == "//" || op == "%") {
		return nil, errors.New("division by zero")
	}
	switch op {
	case "+":
		return f + g, nil
	case "-":
		return f - g, nil
	case "*":
		return f * g, nil
	case "/":
		return f / g, nil
	case "//":
		return math.Floor(f / g), nil
	case "%":
		return f - g*math.Floor(f/g), nil
	}
	return math.Pow(f, g), nil
}

func integers(op string, x, y *big.Int) (Value, error) {
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(x, y)
	case "-":
		z.Sub(x, y)
	case "*":
		z.Mul(x, y)
	case "//", "%":
		if y.Sign() == 0 {
			return nil, errors.New("integer division or modulo by zero")
		}
		m := new(big.Int)
		z.DivMod(x, y, m)
		if m.Sign() != 0 && y.Sign() < 0 { // Go's rest is never negative, Python's has the divisor's sign
			z.Sub(z, big.NewInt(1))
			m.Add(m, y)
		}
		if op == "%" {
			z = m
		}
	case "**":
		if y.Sign() < 0 {
			f, _ := new(big.Float).SetInt(x).Float64()
			g, _ := new(big.Float).SetInt(y).Float64()
			return math.Pow(f, g), nil
		}
		if x.BitLen() > 1 && (!y.IsInt64() || y.Int64()*int64(x.BitLen()) > 1<<14) {
			return nil, ErrBudget
		}
		z.Exp(x, y, nil)
	}
	if z.BitLen() > 1<<14 {
		return nil, ErrBudget
	}
	return small(z), nil
}

func small(z *big.Int) Value {
	if z.IsInt64() {
		return z.Int64()
	}
	return z
}

func integer(v Value) (*big.Int, bool) {
	switch v := v.(type) {
	case int64:
		return big.NewInt(v), true
	case *big.Int:
		return v, true
	case bool:
		if v {
			return big.NewInt(1), true
		}
		return new(big.Int), true
	}
	return nil, false
}

func float(v Value) (float64, bool) {
	if f, ok := v.(float64); ok {
		return f, true
	}
	i, ok := integer(v)
	if !ok {
		return 0, false
	}
	f, _ := new(big.Float).SetInt(i).Float64()
	return f, true
}

func (e concatExpr) eval(r *renderer) (Value, error) {
	var b strings.Builder
	for _, part := range e {
		v, err := part.eval(r)
		if err != nil {
			return nil, err
		}
		text := str(v)
		if err := r.grow(len(text)); err != nil {
			return nil, err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (e signExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	if f, ok := v.(float64); ok {
		if e.op == "-" {
			f = -f
		}
		return f, nil
	}
	i, ok := integer(v)
	if !ok {
		return nil, at(e.line, fmt.Errorf("bad operand type for unary %s: '%s'", e.op, typeName(v)))
	}
	if e.op == "-" {
		i = new(big.Int).Neg(i)
	}
	return small(i), nil
}

func (e attributeExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	if u, ok := v.(Undefined); ok {
		return nil, at(e.line, errors.New(u.what))
	}
	if d, ok := v.(*Dict); ok && d.object {
		if w, ok := d.Get(e.name); ok {
			return w, nil
		}
	} else if m := method(v, e.name); m != nil {
		return m, nil
	}
	if d, ok := v.(*Dict); ok {
		if w, ok := d.Get(e.name); ok {
			return w, nil
		}
	}
	return Undefined{fmt.Sprintf("'%s' has no attribute '%s'", objectName(v), e.name)}, r.spend(1)
}

func objectName(v Value) string {
	if v == nil {
		return "None"
	}
	return typeName(v) + " object"
}

func (e itemExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	key, err := e.key.eval(r)
	if err != nil {
		return nil, err
	}
	w, err := item(v, key)
	return w, at(e.line, err)
}

func item(v, key Value) (Value, error) {
	missing := Undefined{fmt.Sprintf("%s has no element %s", objectName(v), repr(key))}
	switch v := v.(type) {
	case Undefined:
		return nil, errors.New(v.what)
	case *Dict:
		s, ok := key.(string)
		if !ok {
			return missing, nil
		}
		if w, ok := v.Get(s); ok {
			return w, nil
		}
		if m := method(v, s); m != nil {
			return m, nil
		}
		return Undefined{fmt.Sprintf("'%s' has no attribute '%s'", objectName(v), s)}, nil
	case *List:
		if i, ok := index(key, len(v.Items)); ok {
			return v.Items[i], nil
		}
	case string:
		if i, ok := index(key, runes(v)); ok {
			return string([]rune(v)[i]), nil
		}
	}
	if s, ok := key.(string); ok {
		if m := method(v, s); m != nil {
			return m, nil
		}
	}
	return missing, nil
}

// index is a Python index within n, from the end where negative.
func index(key Value, n int) (int, bool) {
	k, ok := integer(key)
	if !ok || !k.IsInt64() {
		return 0, false
	}
	i := k.Int64()
	if i < 0 {
		i += int64(n)
	}
	return int(i), i >= 0 && i < int64(n)
}

func (e sliceExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	var bounds [3]Value
	for i, part := range e.parts {
		if part != nil {
			if bounds[i], err = part.eval(r); err != nil {
				return nil, err
			}
		}
	}
	switch v := v.(type) {
	case string:
		chars := []rune(v)
		picked, err := sliceIndexes(bounds, len(chars))
		if err != nil {
			return nil, at(e.line, err)
		}
		var b strings.Builder
		for _, i := range picked {
			b.WriteRune(chars[i])
		}
		return b.String(), r.spend(len(picked) / 16)
	case *List:
		picked, err := sliceIndexes(bounds, len(v.Items))
		if err != nil {
			return nil, at(e.line, err)
		}
		list := &List{tuple: v.tuple}
		for _, i := range picked {
			list.Items = append(list.Items, v.Items[i])
		}
		return list, r.spend(len(picked))
	case Undefined:
		return nil, at(e.line, errors.New(v.what))
	}
	return nil, at(e.line, fmt.Errorf("'%s' cannot be sliced", objectName(v)))
}

// sliceIndexes is what Python's slice(start, stop, step).indices gives.
func sliceIndexes(bounds [3]Value, n int) ([]int, error) {
	step := int64(1)
	if bounds[2] != nil {
		i, ok := integer(bounds[2])
		if !ok || !i.IsInt64() || i.Sign() == 0 {
			return nil, errors.New("slice step must be an integer other than zero")
		}
		step = i.Int64()
	}
	bound := func(v Value, otherwise int64) (int64, error) {
		if v == nil {
			return otherwise, nil
		}
		i, ok := integer(v)
		if !ok || !i.IsInt64() {
			return 0, errors.New("slice indices must be integers or None")
		}
		k := i.Int64()
		if k < 0 {
			k += int64(n)
		}
		if step > 0 {
			return min(max(k, 0), int64(n)), nil
		}
		return min(max(k, -1), int64(n)-1), nil
	}
	first, last := int64(0), int64(n)
	if step < 0 {
		first, last = int64(n)-1, -1
	}
	start, err := bound(bounds[0], first)
	if err != nil {
		return nil, err
	}
	stop, err := bound(bounds[1], last)
	if err != nil {
		return nil, err
	}
	var picked []int
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		picked = append(picked, int(i))
		if step > int64(n) || step < -int64(n) {
			break
		}
	}
	return picked, nil
}

func (r *renderer) arguments(args []expr, names []string, named []expr) ([]Value, *Dict, error) {
	values := make([]Value, len(args))
	for i, a := range args {
		v, err := a.eval(r)
		if err != nil {
			return nil, nil, err
		}
		values[i] = v
	}
	dict := NewDict()
	for i, name := range names {
		v, err := named[i].eval(r)
		if err != nil {
			return nil, nil, err
		}
		dict.Set(name, v)
	}
	return values, dict, nil
}

func (r *renderer) call(f Value, args []Value, named *Dict) (Value, error) {
	if err := r.spend(1); err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case callable:
		if r.depth++; r.depth > maxDepth {
			return nil, ErrBudget
		}
		defer func() { r.depth-- }()
		return f(r, args, named)
	case Undefined:
		return nil, errors.New(f.what)
	}
	return nil, fmt.Errorf("'%s' object is not callable", typeName(f))
}

func (e callExpr) eval(r *renderer) (Value, error) {
	f, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	args, named, err := r.arguments(e.args, e.names, e.named)
	if err != nil {
		return nil, err
	}
	v, err := r.call(f, args, named)
	return v, at(e.line, err)
}

func (e filterExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	args, named, err := r.arguments(e.args, e.names, e.named)
	if err != nil {
		return nil, err
	}
	if err := r.spend(1); err != nil {
		return nil, err
	}
	w, err := filters[e.name](r, v, args, named)
	return w, at(e.line, err)
}

func (e testExpr) eval(r *renderer) (Value, error) {
	v, err := e.of.eval(r)
	if err != nil {
		return nil, err
	}
	args, _, err := r.arguments(e.args, nil, nil)
	if err != nil {
		return nil, err
	}
	ok, err := tests[e.name](v, args)
	return ok != e.not, at(e.line, err)
}

// iterate lists what a loop runs over.
func iterate(v Value) ([]Value, error) {
	switch v := v.(type) {
	case *List:
		return v.Items, nil
	case *Dict:
		items := make([]Value, len(v.keys))
		for i, k := range v.keys {
			items[i] = k
		}
		return items, nil
	case string:
		items := make([]Value, 0, utf8.RuneCountInString(v))
		for _, c := range v {
			items = append(items, string(c))
		}
		return items, nil
	case Undefined:
		return nil, nil
	}
	return nil, fmt.Errorf("'%s' object is not iterable", typeName(v))
}
