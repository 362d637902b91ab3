package jinja

import (
	"fmt"
	"slices"
)

// A Template is parsed once and may be rendered by many goroutines at once.
type Template struct {
	name string
	body []node
}

// Parse reads a template. Errors name it and the line.
func Parse(name, source string) (*Template, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("template %s: %d bytes, at most %d", name, len(source), maxSource)
	}
	tokens, err := lex(source)
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", name, err)
	}
	p := &parser{tokens: tokens}
	body := p.body()
	if p.err == nil && p.peek().kind != tokEOF {
		p.fail("unexpected %s", p.peek().text)
	}
	if p.err != nil {
		return nil, fmt.Errorf("template %s: %w", name, p.err)
	}
	return &Template{name, body}, nil
}

// maxSource bounds a template's size: published ones have under 20 kB.
const maxSource = 1 << 20

type parser struct {
	tokens []tok
	at     int
	depth  int
	err    error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: "+format, append([]any{p.peek().line}, args...)...)
		p.at = len(p.tokens) - 1 // nothing more is read
	}
}

func (p *parser) peek() tok { return p.tokens[p.at] }

func (p *parser) next() tok {
	t := p.tokens[p.at]
	if p.at < len(p.tokens)-1 {
		p.at++
	}
	return t
}

// is tells whether the next token is the operator or name.
func (p *parser) is(text string) bool {
	t := p.peek()
	return (t.kind == tokOp || t.kind == tokName) && t.text == text
}

func (p *parser) take(text string) bool {
	if p.is(text) {
		p.at++
		return true
	}
	return false
}

func (p *parser) want(text string) {
	if !p.take(text) {
		p.fail("want %q", text)
	}
}

func (p *parser) kind(kind int, what string) string {
	t := p.peek()
	if t.kind != kind {
		p.fail("want %s", what)
		return ""
	}
	p.next()
	return t.text
}

func (p *parser) end() { p.kind(tokEnd, "%}") }

// enter guards against templates that are nested without end.
func (p *parser) enter() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested deeper than %d", maxDepth)
	}
	return func() { p.depth-- }
}

// body parses up to a block that begins with one of the given words, or the end.
func (p *parser) body(until ...string) (list []node) {
	defer p.enter()()
	for p.err == nil {
		t := p.peek()
		switch t.kind {
		case tokText:
			p.next()
			list = append(list, textNode(t.text))
		case tokOpen:
			p.next()
			list = append(list, outNode{p.expression(), t.line})
			p.kind(tokClose, "}}")
		case tokBlock:
			if word := p.tokens[p.at+1]; word.kind == tokName && slices.Contains(until, word.text) {
				return list
			}
			p.next()
			if n := p.statement(); n != nil {
				list = append(list, n)
			}
		default:
			return list
		}
	}
	return list
}

// closing takes {% word %}.
func (p *parser) closing(word string) {
	p.kind(tokBlock, "{% "+word+" %}")
	p.want(word)
	p.end()
}

func (p *parser) statement() node {
	line := p.peek().line
	switch word := p.kind(tokName, "a statement"); word {
	case "if":
		return p.ifStatement()
	case "for":
		return p.forStatement(line)
	case "set":
		return p.setStatement(line)
	case "macro":
		return p.macroStatement()
	case "call":
		return p.callStatement(line)
	case "filter":
		var f expr = nameExpr{"\x00", line}
		f = p.filter(f)
		p.end()
		body := p.body("endfilter")
		p.closing("endfilter")
		return filterNode{f, body, line}
	case "generation":
		p.end()
		body := p.body("endgeneration")
		p.closing("endgeneration")
		return groupNode(body)
	case "break", "continue":
		p.end()
		return jumpNode(word)
	default:
		p.fail("unknown statement %q", word)
		return nil
	}
}

func (p *parser) ifStatement() node {
	n := ifNode{condition: p.expression()}
	p.end()
	n.then = p.body("elif", "else", "endif")
	p.kind(tokBlock, "{% endif %}")
	switch {
	case p.take("elif"):
		n.otherwise = []node{p.ifStatement()}
		return n
	case p.take("else"):
		p.end()
		n.otherwise = p.body("endif")
		p.kind(tokBlock, "{% endif %}")
	}
	p.want("endif")
	p.end()
	return n
}

func (p *parser) targets(until string) (names []string) {
	paren := p.take("(")
	for {
		names = append(names, p.kind(tokName, "a name"))
		if !p.take(",") || p.is(until) {
			break
		}
	}
	if paren {
		p.want(")")
	}
	return names
}

func (p *parser) forStatement(line int) node {
	n := forNode{names: p.targets("in"), line: line}
	p.want("in")
	n.list = p.or()
	if p.take("if") {
		n.condition = p.expression()
	}
	if p.is("recursive") {
		p.fail("recursive loops are not known")
	}
	p.end()
	n.body = p.body("else", "endfor")
	p.kind(tokBlock, "{% endfor %}")
	if p.take("else") {
		p.end()
		n.otherwise = p.body("endfor")
		p.kind(tokBlock, "{% endfor %}")
	}
	p.want("endfor")
	p.end()
	return n
}

func (p *parser) setStatement(line int) node {
	n := setNode{line: line, names: p.targets("=")}
	if len(n.names) == 1 && p.take(".") {
		n.attribute = p.kind(tokName, "a name")
	}
	if p.take("=") {
		n.value = p.tuple()
		p.end()
		return n
	}
	if p.is("|") {
		n.filter = p.filter(nameExpr{"\x00", line})
	}
	p.end()
	n.body = p.body("endset")
	p.closing("endset")
	return n
}

// parameters reads (a, b=1).
func (p *parser) parameters() (list []parameter) {
	p.want("(")
	for !p.take(")") && p.err == nil {
		one := parameter{name: p.kind(tokName, "a name")}
		if p.take("=") {
			one.otherwise = p.expression()
		}
		list = append(list, one)
		if !p.is(")") {
			p.want(",")
		}
	}
	return list
}

func (p *parser) macroStatement() node {
	n := macroNode{name: p.kind(tokName, "a name")}
	n.parameters = p.parameters()
	p.end()
	n.body = p.body("endmacro")
	p.closing("endmacro")
	return n
}

func (p *parser) callStatement(line int) node {
	var parameters []parameter
	if p.is("(") {
		parameters = p.parameters()
	}
	call, ok := p.expression().(callExpr)
	if !ok {
		p.fail("call wants a macro")
	}
	p.end()
	body := p.body("endcall")
	p.closing("endcall")
	return callNode{call, macroNode{"caller", parameters, body}, line}
}

// tuple is an expression, or several with commas between.
func (p *parser) tuple() expr {
	line := p.peek().line
	first := p.expression()
	if !p.is(",") {
		return first
	}
	list := listExpr{items: []expr{first}, tuple: true, line: line}
	for p.take(",") {
		if t := p.peek(); t.kind == tokEnd || t.kind == tokClose || p.is(")") {
			break
		}
		list.items = append(list.items, p.expression())
	}
	return list
}

func (p *parser) expression() expr {
	defer p.enter()()
	e := p.or()
	for p.is("if") {
		p.next()
		c := conditionExpr{then: e, condition: p.or()}
		if p.take("else") {
			c.otherwise = p.expression()
		}
		e = c
	}
	return e
}

func (p *parser) or() expr {
	e := p.and()
	for p.take("or") {
		e = logicExpr{"or", e, p.and()}
	}
	return e
}

func (p *parser) and() expr {
	e := p.not()
	for p.take("and") {
		e = logicExpr{"and", e, p.not()}
	}
	return e
}

func (p *parser) not() expr {
	if p.is("not") {
		defer p.enter()()
		p.next()
		return notExpr{p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	first := p.sum()
	var c compareExpr
	for p.err == nil {
		line := p.peek().line
		op := ""
		switch {
		case p.peek().kind == tokOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, p.peek().text), p.is("in"):
			op = p.next().text
		case p.is("not") && p.tokens[min(p.at+1, len(p.tokens)-1)].text == "in":
			p.at += 2
			op = "not in"
		default:
			if c.ops == nil {
				return first
			}
			return c
		}
		if c.ops == nil {
			c.operands = []expr{first}
		}
		c.line = line
		c.ops, c.operands = append(c.ops, op), append(c.operands, p.sum())
	}
	return first
}

func (p *parser) sum() expr {
	e := p.concat()
	for p.peek().kind == tokOp && (p.is("+") || p.is("-")) {
		t := p.next()
		e = mathExpr{t.text, e, p.concat(), t.line}
	}
	return e
}

func (p *parser) concat() expr {
	e := p.product()
	if !p.is("~") {
		return e
	}
	parts := concatExpr{e}
	for p.take("~") {
		parts = append(parts, p.product())
	}
	return parts
}

func (p *parser) product() expr {
	e := p.unary()
	for p.peek().kind == tokOp && slices.Contains([]string{"*", "/", "//", "%"}, p.peek().text) {
		t := p.next()
		e = mathExpr{t.text, e, p.unary(), t.line}
	}
	return e
}

func (p *parser) unary() expr {
	if p.peek().kind == tokOp && (p.is("-") || p.is("+")) {
		defer p.enter()()
		t := p.next()
		return p.filters(signExpr{t.text, p.unaryBare(), t.line})
	}
	return p.filters(p.power())
}

func (p *parser) unaryBare() expr {
	if p.peek().kind == tokOp && (p.is("-") || p.is("+")) {
		defer p.enter()()
		t := p.next()
		return signExpr{t.text, p.unaryBare(), t.line}
	}
	return p.power()
}

func (p *parser) power() expr {
	e := p.postfix(p.primary())
	for p.is("**") {
		defer p.enter()()
		t := p.next()
		e = mathExpr{"**", e, p.unaryBare(), t.line}
	}
	return e
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokString:
		text := t.text
		for p.peek().kind == tokString {
			text += p.next().text
		}
		return constExpr{text}
	case tokNumber:
		v, err := parseNumber(t.text)
		if err != nil {
			p.fail("%v", err)
		}
		return constExpr{v}
	case tokName:
		switch t.text {
		case "true", "True":
			return constExpr{true}
		case "false", "False":
			return constExpr{false}
		case "none", "None":
			return constExpr{nil}
		}
		return nameExpr{t.text, t.line}
	case tokOp:
		defer p.enter()()
		switch t.text {
		case "(":
			if p.take(")") {
				return listExpr{tuple: true, line: t.line}
			}
			e := p.tuple()
			p.want(")")
			return e
		case "[":
			list := listExpr{line: t.line}
			for !p.take("]") && p.err == nil {
				list.items = append(list.items, p.expression())
				if !p.is("]") {
					p.want(",")
				}
			}
			return list
		case "{":
			dict := dictExpr{line: t.line}
			for !p.take("}") && p.err == nil {
				key := p.expression()
				p.want(":")
				dict.keys, dict.values = append(dict.keys, key), append(dict.values, p.expression())
				if !p.is("}") {
					p.want(",")
				}
			}
			return dict
		}
	}
	p.at = max(0, p.at-1)
	p.fail("want an expression, got %q", t.text)
	return constExpr{nil}
}

// postfix parses attributes, subscripts and calls.
func (p *parser) postfix(e expr) expr {
	for n := 0; p.err == nil && n < 1000; n++ {
		line := p.peek().line
		switch {
		case p.peek().kind != tokOp:
			return e
		case p.take("."):
			if t := p.peek(); t.kind == tokNumber {
				p.next()
				v, _ := parseNumber(t.text)
				e = itemExpr{e, constExpr{v}, line}
				continue
			}
			e = attributeExpr{e, p.kind(tokName, "a name"), line}
		case p.take("["):
			e = p.subscript(e, line)
		case p.is("("):
			c := callExpr{of: e, line: line}
			c.args, c.names, c.named = p.arguments()
			e = c
		default:
			return e
		}
	}
	return e
}

func (p *parser) subscript(e expr, line int) expr {
	var parts [3]expr
	n, slice := 0, false
	for !p.is("]") && p.err == nil {
		if p.take(":") {
			slice = true
			if n++; n > 2 {
				p.fail("a slice has three parts")
			}
			continue
		}
		if n > 2 {
			break
		}
		parts[n] = p.tuple()
	}
	p.want("]")
	if slice {
		return sliceExpr{e, parts, line}
	}
	if parts[0] == nil {
		p.fail("an empty subscript")
		return e
	}
	return itemExpr{e, parts[0], line}
}

func (p *parser) arguments() (args []expr, names []string, named []expr) {
	p.want("(")
	for !p.take(")") && p.err == nil {
		if p.peek().kind == tokName && p.tokens[p.at+1].kind == tokOp && p.tokens[p.at+1].text == "=" {
			names = append(names, p.next().text)
			p.next()
			named = append(named, p.expression())
		} else {
			args = append(args, p.expression())
		}
		if !p.is(")") {
			p.want(",")
		}
	}
	return args, names, named
}

// filters parses what binds tightest after a value: filters and tests.
func (p *parser) filters(e expr) expr {
	for n := 0; p.err == nil && n < 1000; n++ {
		switch {
		case p.is("|"):
			e = p.filter(e)
		case p.is("is"):
			e = p.test(e)
		default:
			return e
		}
	}
	return e
}

// filter parses one or more filters.
func (p *parser) filter(e expr) expr {
	for p.peek().kind == tokOp && p.take("|") {
		f := filterExpr{of: e, line: p.peek().line, name: p.kind(tokName, "a filter")}
		if p.is("(") {
			f.args, f.names, f.named = p.arguments()
		}
		if filters[f.name] == nil {
			p.fail("unknown filter %q", f.name)
		}
		e = f
	}
	return e
}

func (p *parser) test(e expr) expr {
	t := testExpr{of: e, line: p.next().line}
	t.not = p.take("not")
	t.name = p.kind(tokName, "a test")
	next := p.peek()
	switch {
	case p.is("("):
		t.args, _, _ = p.arguments()
	case next.kind == tokString || next.kind == tokNumber || p.is("[") || p.is("{"),
		next.kind == tokName && !slices.Contains([]string{"and", "or", "else", "if", "not", "is", "in"}, next.text):
		t.args = []expr{p.postfix(p.primary())}
	}
	if tests[t.name] == nil {
		p.fail("unknown test %q", t.name)
	}
	return t
}
