package source

import "fmt"

// A weightType as products see it: bytes of a block in the two planes.
type weightType struct {
	name           string
	quants, scales int
}

var types = []weightType{{"q4_0", 16, 2}, {"q4_1", 16, 4}, {"q6_0", 24, 4}, {"q8_0", 32, 2}}

// Where the parts of a group of activations lie, behind its numbers.
const (
	atD = 16 * iota
	atS
	atN8
	atN80
	atN32 // of first halves, then of second ones
	_
	groupTail
)

// numberBytes are those of a group's activations.
func (g *generator) numberBytes() int {
	if g.relaxed() {
		return 8 * 16
	}
	return 16 * 16
}

func (g *generator) groupBytes() int { return g.numberBytes() + groupTail }

// arrange quantises a row: arrange(dst, x, blocks).
func (g *generator) arrange() {
	g.line(`(func (export "group_bytes") (result i32) (i32.const %d))`, g.groupBytes())
	g.line(`(func (export "memory_pages") (result i32) (memory.size))`)
	g.line(`(func (export "arrange")%s`, params("dst", "x", "blocks"))
	g.locals("i32", "b", "at", "sum0", "sum1")
	g.locals("v128", append(numbered("v", 8), "m")...)
	g.locals("f32", "largest", "d")
	g.while("blocks", bin("i32.lt_u", get("b"), get("blocks")), func() {
		g.line(" (if (i32.eqz %s) (then", bin("i32.and", get("b"), number(3)))
		for i := 0; i < g.groupBytes(); i += 16 {
			g.store("v128.store", get("dst"), i, ints(0))
		}
		g.line(" ))")
		g.set("at", bin("i32.add", get("dst"), times(bin("i32.and", get("b"), number(3)), 4)))
		for i := range 8 {
			g.set(fmt.Sprint("v", i), load(get("x"), 16*i))
			m := fmt.Sprintf("(f32x4.abs %s)", get("v%d", i))
			if i > 0 {
				m = bin("f32x4.max", get("m"), m)
			}
			g.set("m", m)
		}
		lane := func(i int) string { return fmt.Sprintf("(f32x4.extract_lane %d %s)", i, get("m")) }
		g.set("largest", bin("f32.max", bin("f32.max", lane(0), lane(1)), bin("f32.max", lane(2), lane(3))))
		// Smaller blocks are zeros, as in kernel.tiny.
		g.line(" (if (i32.eqz (f32.lt %s (f32.const 0x1p-100))) (then", get("largest"))
		g.set("d", bin("f32.div", get("largest"), "(f32.const 127)"))
		g.set("m", fmt.Sprintf("(f32x4.splat (f32.div (f32.const 127) %s))", get("largest")))
		for i := range 8 {
			v := fmt.Sprint("v", i)
			// 1.5·2^23 has an ulp of 1: the addition rounds to the nearest integer.
			g.set(v, bin("i32x4.sub", bin("f32x4.add", bin("f32x4.mul", get("%s", v), get("m")), floats(12582912)), ints("0x4b400000")))
		}
		ilane := func(i int) string { return fmt.Sprintf("(i32x4.extract_lane %d %s)", i, get("m")) }
		for half := range 2 {
			v := func(i int) string { return get("v%d", 4*half+i) }
			g.set("m", bin("i32x4.add", bin("i32x4.add", v(0), v(1)), bin("i32x4.add", v(2), v(3))))
			g.set(fmt.Sprint("sum", half), bin("i32.add", bin("i32.add", ilane(0), ilane(1)), bin("i32.add", ilane(2), ilane(3))))
			g.set("m", bin("i8x16.narrow_i16x8_s", bin("i16x8.narrow_i32x4_s", v(0), v(1)), bin("i16x8.narrow_i32x4_s", v(2), v(3))))
			if g.relaxed() {
				for j := range 4 {
					g.store("i32.store", get("at"), 16*(4*half+j), ilane(j))
				}
				continue
			}
			g.set("v0", bin("i16x8.shr_s", bin("i16x8.shl", get("m"), number(8)), number(8)))
			g.set("m", bin("i16x8.shr_s", get("m"), number(8)))
			for j := range 4 {
				g.store("i32.store", get("at"), 16*(8*half+2*j), fmt.Sprintf("(i32x4.extract_lane %d %s)", j, get("v0")))
				g.store("i32.store", get("at"), 16*(8*half+2*j+1), ilane(j))
			}
		}
		tail := g.numberBytes()
		g.store("i32.store", get("at"), tail+atN32, times(get("sum0"), -32))
		g.store("i32.store", get("at"), tail+atN32+16, times(get("sum1"), -32))
		g.set("sum0", bin("i32.add", get("sum0"), get("sum1")))
		g.store("f32.store", get("at"), tail+atD, get("d"))
		g.store("f32.store", get("at"), tail+atS, bin("f32.mul", get("d"), "(f32.convert_i32_s "+get("sum0")+")"))
		g.store("i32.store", get("at"), tail+atN8, times(get("sum0"), -8))
		g.store("i32.store", get("at"), tail+atN80, times(get("sum0"), -128))
		g.line(" ))")
		g.add("b", 1)
		g.add("x", 128)
		g.line(" (if (i32.eqz %s) (then", bin("i32.and", get("b"), number(3)))
		g.add("dst", g.groupBytes())
		g.line(" ))")
	})
	g.line(")")
}

// An operand is a vector of a group of a row's weights: the expression that makes
// it of the locals t0.., and the vector of activations that it multiplies.
type operand struct {
	expr string
	x    int
}

// A part of a block has an integer sum and a scale of its own: the whole block, or
// of q6_0 each half.
type part struct {
	first, second []operand // of two sums, if there are any of second
	shift         int       // 2^shift is how much more those of first count
	offset        int       // where activations have what takes the weights' offset back; 0: they have none
	scale         int       // 0 or 1, as scaleRead counts
}

func (p part) operands() []operand { return append(p.first[:len(p.first):len(p.first)], p.second...) }

// parts of row r, whose words are in locals t{r}_0.. .
func (g *generator) parts(t weightType, r int) []part {
	word := func(i int) string { return get("t%d_%d", r, i) }
	if t.name == "q6_0" {
		return []part{g.sixes(word, 0), g.sixes(word, 1)}
	}
	var p part
	low := func(v string) string { return bin("v128.and", v, shorts("0x000f")) }
	for i := range t.quants / 4 {
		w := word(i)
		switch {
		case t.quants == 16 && g.relaxed():
			p.first = append(p.first, operand{bin("v128.and", w, bytes(15)), i}, operand{bin("v128.and", bin("i16x8.shr_u", w, number(4)), bytes(15)), i + 4})
		case t.quants == 16:
			p.first = append(p.first, operand{low(w), 2 * i}, operand{low(bin("i16x8.shr_u", w, number(8))), 2*i + 1},
				operand{low(bin("i16x8.shr_u", w, number(4))), 2 * (i + 4)}, operand{bin("i16x8.shr_u", w, number(12)), 2*(i+4) + 1})
		case g.Dot == Unsigned:
			p.first = append(p.first, operand{w, i})
		case g.relaxed(): // the second factor has 7 bits: 16·(upper 4) + (lower 4)
			p.first = append(p.first, operand{bin("v128.and", bin("i16x8.shr_u", w, number(4)), bytes(15)), i})
			p.second = append(p.second, operand{bin("v128.and", w, bytes(15)), i})
			p.shift = 4
		default:
			p.first = append(p.first, operand{bin("i16x8.shr_s", bin("i16x8.shl", w, number(8)), number(8)), 2 * i}, operand{bin("i16x8.shr_s", w, number(8)), 2*i + 1})
		}
	}
	switch {
	case t.name == "q4_0":
		p.offset = atN8
	case t.name == "q8_0" && g.relaxed():
		p.offset = atN80
	}
	return []part{p}
}

// sixes is a half of a block of q6_0. Words 0..3 hold nibbles, the second half's in
// the upper places. The high bits of numbers 4i.. of the first half are in word 4 or
// 5, as i is even or odd, in the lowest places of its bytes or from i = 2 on in the
// next, those of the second half four places above.
func (g *generator) sixes(word func(i int) string, half int) part {
	splat, places := bytes, []int{0}
	if !g.relaxed() {
		splat, places = shorts, []int{0, 8}
	}
	p := part{offset: atN32 + 16*half, scale: half}
	for i := range 4 {
		for j, place := range places {
			place += 4 * half
			low := field(word(i), place, 0, splat(0x0f))
			high := field(word(4+i%2), place+i/2*2, 4, splat(0x30))
			p.first = append(p.first, operand{bin("v128.or", low, high), len(places)*(4*half+i) + j})
		}
	}
	if g.Dot == Pairs { // 16 bits hold four products of 63 and an activation, not eight
		p.first, p.second = p.first[:2], p.first[2:]
	}
	return p
}

// field moves bits of v from one place to another, where mask keeps them.
func field(v string, from, to int, mask string) string {
	switch {
	case from > to:
		v = bin("i16x8.shr_u", v, number(from-to))
	case from < to:
		v = bin("i16x8.shl", v, number(to-from))
	}
	return bin("v128.and", v, mask)
}

// dot adds the product of a vector of weights and one of activations to sum.
func (g *generator) dot(sum, x, w string) string {
	op, add := "i32x4.dot_i16x8_s", "i32x4.add"
	switch g.Dot {
	case Fours, Unsigned:
		return "(i32x4.relaxed_dot_i8x16_i7x16_add_s " + x + " " + w + " " + sum + ")"
	case Pairs: // eight products of 15 and two activations fit 16 bits
		op, add = "i16x8.relaxed_dot_i8x16_i7x16_s", "i16x8.add"
	}
	if sum == ints(0) {
		return bin(op, x, w)
	}
	return bin(add, sum, bin(op, x, w))
}

// startsWithOffset tells whether a part's sum may begin with the weights' offset,
// which costs nothing.
func (g *generator) startsWithOffset(p part) bool {
	return p.offset > 0 && g.Dot != Pairs && len(p.second) == 0
}

// start is what a part's first sum begins with.
func (g *generator) start(p part, x string) string {
	if g.startsWithOffset(p) {
		return load(x, g.numberBytes()+p.offset)
	}
	return ints(0)
}

// total is a part's sum after all operands, of its first and its second sum.
func (g *generator) total(p part, first, second, x string) string {
	if g.Dot == Pairs {
		first = "(i32x4.extadd_pairwise_i16x8_s " + first + ")"
		second = "(i32x4.extadd_pairwise_i16x8_s " + second + ")"
	}
	if p.shift > 0 {
		first = bin("i32x4.shl", first, number(p.shift))
	}
	if p.offset > 0 && !g.startsWithOffset(p) {
		first = bin("i32x4.add", first, load(x, g.numberBytes()+p.offset))
	}
	if len(p.second) > 0 {
		first = bin("i32x4.add", first, second)
	}
	return first
}

// readGroup reads a group of row r, at q{r} and d{r}, into t{r}_i, s{r} and m{r}.
func (g *generator) readGroup(t weightType, r int) {
	q, d := get("q%d", r), get("d%d", r)
	for from := 0; from < t.quants; from += 16 {
		at := min(from, t.quants-16) // of 24 bytes, the last vector holds two words again
		for b := range 4 {
			g.set(fmt.Sprint("v", b), load(q, b*t.quants+at))
		}
		g.transpose("v")
		for i := (from - at) / 4; i < 4; i++ {
			w := get("v%d", i)
			if t.quants == 32 && g.relaxed() {
				w = bin("v128.xor", w, bytes(-128))
			}
			g.set(fmt.Sprintf("t%d_%d", r, at/4+i), w)
		}
	}
	switch t.name {
	case "q8_0":
		g.set(fmt.Sprint("s", r), halves("(v128.load16x4_s "+d+")"))
	case "q4_0":
		g.set(fmt.Sprint("s", r), normalHalfBits(bin("i32x4.shl", "(v128.load16x4_s "+d+")", number(13))))
	default: // scale, minimum, scale, minimum … or two scales
		g.set("v0", load(d, 0))
		g.set(fmt.Sprint("s", r), normalHalfBits(bin("i32x4.shr_s", bin("i32x4.shl", get("v0"), number(16)), number(3))))
		g.set(fmt.Sprint("m", r), normalHalfBits(bin("i32x4.shr_s", get("v0"), number(3))))
	}
}

func (g *generator) groupLocals(t weightType, rows int) {
	g.locals("v128", append(append(numbered("v", 4), numbered("u", 4)...), "half")...)
	for r := range rows {
		g.locals("v128", numbered(fmt.Sprintf("t%d_", r), t.quants/4)...)
	}
	g.locals("v128", append(numbered("s", rows), numbered("m", rows)...)...)
}

// accumulate adds a part's sums in a group, of rows from the first on, to the results.
func (g *generator) accumulate(t weightType, p part, first, rows, cols int, scale func(r, number int) string) {
	for r := first; r < first+rows; r++ {
		for c := range cols {
			a := fmt.Sprintf("a%d_%d", r, c)
			x := get("x%d", c)
			g.set(a, g.madd(bin("f32x4.mul", scale(r, p.scale), load(x, g.numberBytes()+atD)), fmt.Sprintf("(f32x4.convert_i32x4_s %s)", get("i%d_%d", r, c)), get("%s", a)))
			if t.name == "q4_1" {
				g.set(a, g.madd(scale(r, 1), load(x, g.numberBytes()+atS), get("%s", a)))
			}
		}
	}
}

// scaleRead is what readGroup has read of row r: 0 is its scale, 1 its minimum or
// second scale.
func scaleRead(r, number int) string { return get("%s%d", []string{"s", "m"}[number], r) }

func (g *generator) results(rows, cols int) {
	for c := range cols {
		for r := range rows {
			g.store("f32.store", bin("i32.add", get("y"), times(get("ldy"), c)), 4*r, across(get("a%d_%d", r, c)))
		}
	}
}

func (g *generator) sumLocals(rows, cols int) {
	for r := range rows {
		g.locals("v128", append(numbered(fmt.Sprintf("i%d_", r), cols), numbered(fmt.Sprintf("a%d_", r), cols)...)...)
	}
}

// streams is how many rows one row of activations is multiplied with at a time.
// They lie far apart: memory is read faster in several streams than in one.
const streams = 4

// columns multiplies one row of weights as it lies with cols rows of activations.
func (g *generator) columns(t weightType, cols int) {
	g.line("(func $%s_1x%d%s", t.name, cols, params("y", "ldy", "q0", "d0", "blocks", "x0", "ldx"))
	for c := 1; c < cols; c++ {
		g.locals("i32", fmt.Sprint("x", c))
	}
	g.groupLocals(t, 1)
	g.sumLocals(1, cols)
	parts := g.parts(t, 0)
	g.locals("v128", numbered("w", len(parts[0].operands()))...)
	for c := 1; c < cols; c++ {
		g.set(fmt.Sprint("x", c), bin("i32.add", get("x%d", c-1), get("ldx")))
	}
	g.while("group", bin("i32.gt_s", get("blocks"), number(0)), func() {
		g.readGroup(t, 0)
		for _, p := range parts {
			g.directColumns(p, cols)
			g.accumulate(t, p, 0, 1, cols, scaleRead)
		}
		g.add("q0", 4*t.quants)
		g.add("d0", 4*t.scales)
		for c := range cols {
			g.add(fmt.Sprint("x", c), g.groupBytes())
		}
		g.add("blocks", -4)
	})
	g.results(1, cols)
	g.line(")")
}

// rowsApart multiplies streams rows of weights, gap rows apart, with one row of
// activations.
func (g *generator) rowsApart(t weightType) {
	g.line("(func $%s_apart%s", t.name, params("y", "q0", "d0", "blocks", "x0", "gap"))
	for r := 1; r < streams; r++ {
		g.locals("i32", fmt.Sprint("q", r), fmt.Sprint("d", r))
	}
	g.locals("i32", "qgap", "dgap")
	g.groupLocals(t, streams)
	g.sumLocals(streams, 1)
	g.set("qgap", bin("i32.mul", get("gap"), times(get("blocks"), t.quants)))
	g.set("dgap", bin("i32.mul", get("gap"), times(get("blocks"), t.scales)))
	g.rowPointers("q", "qgap", streams)
	g.rowPointers("d", "dgap", streams)
	g.while("group", bin("i32.gt_s", get("blocks"), number(0)), func() {
		for pair := 0; pair < streams; pair += 2 { // what a pair's rows need fits the registers
			g.readGroup(t, pair)
			g.readGroup(t, pair+1)
			second := g.parts(t, pair+1)
			for i, p := range g.parts(t, pair) {
				g.pairSums([2]part{p, second[i]}, pair)
				g.accumulate(t, p, pair, 2, 1, scaleRead)
			}
		}
		for r := range streams {
			g.add(fmt.Sprint("q", r), 4*t.quants)
			g.add(fmt.Sprint("d", r), 4*t.scales)
		}
		g.add("x0", g.groupBytes())
		g.add("blocks", -4)
	})
	for r := range streams {
		g.store("f32.store", bin("i32.add", get("y"), times(get("gap"), 4*r)), 0, across(get("a%d_0", r)))
	}
	g.line(")")
}

// pairSums reads each vector of activations once for two rows. Two chains of sums
// a row hide what an addition takes.
func (g *generator) pairSums(parts [2]part, pair int) {
	x := get("x0")
	for i, o := range parts[0].first {
		g.set("v0", load(x, 16*o.x))
		for r, p := range parts {
			sum := fmt.Sprintf("i%d_0", pair+r)
			before := get("%s", sum)
			if i%2 == 1 {
				sum = fmt.Sprint("u", r)
				before = get("%s", sum)
			}
			switch i {
			case 0:
				before = g.start(p, x)
			case 1:
				before = ints(0)
			}
			g.set(sum, g.dot(before, get("v0"), p.first[i].expr))
		}
		if len(parts[0].second) == 0 {
			continue
		}
		if other := parts[0].second[i].x; other != o.x {
			g.set("v0", load(x, 16*other))
		}
		for r, p := range parts {
			low := fmt.Sprint("u", r+2)
			before := get("%s", low)
			if i == 0 {
				before = ints(0)
			}
			g.set(low, g.dot(before, get("v0"), p.second[i].expr))
		}
	}
	for r, p := range parts {
		sum := fmt.Sprintf("i%d_0", pair+r)
		add := "i32x4.add"
		if g.Dot == Pairs {
			add = "i16x8.add"
		}
		g.set(sum, g.total(p, bin(add, get("%s", sum), get("u%d", r)), get("u%d", r+2), x))
	}
}

// directColumns makes a part's operands once for all columns.
func (g *generator) directColumns(p part, cols int) {
	for i, o := range p.operands() {
		g.set(fmt.Sprint("w", i), o.expr)
	}
	for c := range cols {
		x := get("x%d", c)
		sum, low := g.start(p, x), ints(0)
		for i, o := range p.first {
			sum = g.dot(sum, load(x, 16*o.x), get("w%d", i))
		}
		for i, o := range p.second {
			low = g.dot(low, load(x, 16*o.x), get("w%d", len(p.first)+i))
		}
		g.set(fmt.Sprintf("i0_%d", c), g.total(p, sum, low, x))
	}
}

// Pairs of rows in scratch memory: of each group the operands of both, one of
// the first row and one of the second, then both rows' scales, then their minimums
// or second scales.

func (g *generator) pairBytes(t weightType) int { return 32*g.operandCount(t) + 64 }

func (g *generator) operandCount(t weightType) (n int) {
	for _, p := range g.parts(t, 0) {
		n += len(p.operands())
	}
	return n
}

// unpack writes a pair: unpack(dst, q, d, blocks).
func (g *generator) unpack(t weightType) {
	g.line("(func $%s_unpack%s", t.name, params("dst", "q0", "d0", "blocks"))
	g.locals("i32", "q1", "d1", "b")
	g.groupLocals(t, 2)
	g.set("q1", bin("i32.add", get("q0"), times(get("blocks"), t.quants)))
	g.set("d1", bin("i32.add", get("d0"), times(get("blocks"), t.scales)))
	g.set("b", get("blocks"))
	g.while("group", bin("i32.gt_s", get("b"), number(0)), func() {
		for r := range 2 {
			g.readGroup(t, r)
			at := 16 * r
			for _, p := range g.parts(t, r) {
				for _, o := range p.operands() {
					g.store("v128.store", get("dst"), at, o.expr)
					at += 32
				}
			}
			for number := range t.scales / 2 {
				g.store("v128.store", get("dst"), at+32*number, scaleRead(r, number))
			}
			g.add(fmt.Sprint("q", r), 4*t.quants)
			g.add(fmt.Sprint("d", r), 4*t.scales)
		}
		g.add("dst", g.pairBytes(t))
		g.add("b", -4)
	})
	g.line(")")
}

// tile multiplies an unpacked pair with cols rows of activations.
func (g *generator) tile(t weightType, cols int) {
	g.line("(func $%s_tile%d%s", t.name, cols, params("y", "ldy", "w", "blocks", "x0", "ldx"))
	for c := 1; c < cols; c++ {
		g.locals("i32", fmt.Sprint("x", c))
	}
	g.locals("v128", "w0", "w1", "v")
	g.sumLocals(2, cols)
	for r := range 2 {
		g.locals("v128", numbered(fmt.Sprintf("j%d_", r), cols)...)
	}
	for c := 1; c < cols; c++ {
		g.set(fmt.Sprint("x", c), bin("i32.add", get("x%d", c-1), get("ldx")))
	}
	scale := func(r, number int) string { return load(get("w"), 32*(g.operandCount(t)+number)+16*r) }
	g.while("group", bin("i32.gt_s", get("blocks"), number(0)), func() {
		at := 0
		for _, p := range g.parts(t, 0) {
			g.tileSums(p, at, cols)
			g.accumulate(t, p, 0, 2, cols, scale)
			at += 32 * len(p.operands())
		}
		g.add("w", g.pairBytes(t))
		for c := range cols {
			g.add(fmt.Sprint("x", c), g.groupBytes())
		}
		g.add("blocks", -4)
	})
	g.results(2, cols)
	g.line(")")
}

// tileSums are the sums of a part whose operands lie at w + at.
func (g *generator) tileSums(p part, at, cols int) {
	for c := range cols {
		for r := range 2 {
			g.set(fmt.Sprintf("i%d_%d", r, c), g.start(p, get("x%d", c)))
		}
	}
	for i, o := range p.operands() {
		sums := "i%d_%d"
		if i >= len(p.first) {
			sums = "j%d_%d"
		}
		g.set("w0", load(get("w"), at+32*i))
		g.set("w1", load(get("w"), at+32*i+16))
		for c := range cols {
			g.set("v", load(get("x%d", c), 16*o.x))
			for r := range 2 {
				before := get(sums, r, c)
				if i == len(p.first) {
					before = ints(0)
				}
				g.set(fmt.Sprintf(sums, r, c), g.dot(before, get("v"), get("w%d", r)))
			}
		}
	}
	for c := range cols {
		for r := range 2 {
			g.set(fmt.Sprintf("i%d_%d", r, c), g.total(p, get("i%d_%d", r, c), get("j%d_%d", r, c), get("x%d", c)))
		}
	}
}

const (
	panel      = 4 // columns of a tile
	stripPairs = 4 // pairs that are unpacked at a time
	stripRows  = 2 * stripPairs
)

// products are a type's kernels, and what chooses between them: rows from..to-1 of
// y[c·ldy + row], strides in bytes. scratch holds stripPairs pairs.
func (g *generator) products(t weightType) {
	g.rowsApart(t)
	for cols := 1; cols <= panel; cols++ {
		g.columns(t, cols)
		g.tile(t, cols)
	}
	g.unpack(t)

	g.line("(func $%s_columns%s", t.name, params("y", "ldy", "q", "d", "blocks", "x", "ldx", "n"))
	g.panels("$"+t.name+"_1x", []string{get("y"), get("ldy"), get("q"), get("d"), get("blocks")})
	g.line(")")
	g.line("(func $%s_tiles%s", t.name, params("y", "ldy", "w", "blocks", "x", "ldx", "n"))
	g.panels("$"+t.name+"_tile", []string{get("y"), get("ldy"), get("w"), get("blocks")})
	g.line(")")

	g.line(`(func $%s (export "%s")%s`, t.name, t.name, params("y", "ldy", "q", "d", "from", "to", "blocks", "x", "ldx", "n", "scratch"))
	g.locals("i32", "qrow", "drow", "pair", "pairs", "p", "c", "cols")
	g.set("qrow", times(get("blocks"), t.quants))
	g.set("drow", times(get("blocks"), t.scales))
	g.set("pair", times(bin("i32.shr_u", plus(get("blocks"), 3), number(2)), g.pairBytes(t)))
	g.set("y", bin("i32.add", get("y"), times(get("from"), 4)))
	g.set("q", bin("i32.add", get("q"), bin("i32.mul", get("from"), get("qrow"))))
	g.set("d", bin("i32.add", get("d"), bin("i32.mul", get("from"), get("drow"))))
	g.set("to", bin("i32.sub", get("to"), get("from")))
	next := func(rows int) {
		g.add("y", 4*rows)
		g.set("q", bin("i32.add", get("q"), times(get("qrow"), rows)))
		g.set("d", bin("i32.add", get("d"), times(get("drow"), rows)))
		g.add("to", -rows)
	}
	g.line(" (if (i32.eq %s (i32.const 1)) (then", get("n"))
	g.set("p", bin("i32.div_u", get("to"), number(streams)))
	g.set("c", get("p"))
	g.while("apart", get("c"), func() {
		g.line(" (call $%s_apart %s %s %s %s %s %s)", t.name, get("y"), get("q"), get("d"), get("blocks"), get("x"), get("p"))
		next(1)
		g.add("c", -1)
	})
	g.set("c", times(get("p"), streams-1)) // these are done too
	g.set("y", bin("i32.add", get("y"), times(get("c"), 4)))
	g.set("q", bin("i32.add", get("q"), bin("i32.mul", get("qrow"), get("c"))))
	g.set("d", bin("i32.add", get("d"), bin("i32.mul", get("drow"), get("c"))))
	g.set("to", bin("i32.sub", get("to"), get("c")))
	g.line(" ))")
	g.line(" (if (i32.gt_u %s (i32.const %d)) (then", get("n"), panel)
	g.while("strip", bin("i32.ge_s", get("to"), number(2)), func() {
		g.set("pairs", bin("i32.shr_u", get("to"), number(1)))
		g.line(" (if (i32.gt_u %s (i32.const %d)) (then (local.set $pairs (i32.const %d))))", get("pairs"), stripPairs, stripPairs)
		g.set("p", number(0))
		g.while("unpack", bin("i32.lt_u", get("p"), get("pairs")), func() {
			g.line(" (call $%s_unpack %s %s %s %s)", t.name, bin("i32.add", get("scratch"), bin("i32.mul", get("p"), get("pair"))),
				bin("i32.add", get("q"), bin("i32.mul", times(get("p"), 2), get("qrow"))), bin("i32.add", get("d"), bin("i32.mul", times(get("p"), 2), get("drow"))), get("blocks"))
			g.add("p", 1)
		})
		// A panel of activations stays in the first cache for all pairs.
		g.set("c", number(0))
		g.while("panel", bin("i32.lt_u", get("c"), get("n")), func() {
			g.set("cols", bin("i32.sub", get("n"), get("c")))
			g.line(" (if (i32.gt_u %s (i32.const %d)) (then (local.set $cols (i32.const %d))))", get("cols"), panel, panel)
			g.set("p", number(0))
			g.while("pair", bin("i32.lt_u", get("p"), get("pairs")), func() {
				g.line(" (call $%s_tiles %s %s %s %s %s %s %s)", t.name,
					bin("i32.add", bin("i32.add", get("y"), times(get("p"), 8)), bin("i32.mul", get("c"), get("ldy"))), get("ldy"),
					bin("i32.add", get("scratch"), bin("i32.mul", get("p"), get("pair"))), get("blocks"),
					bin("i32.add", get("x"), bin("i32.mul", get("c"), get("ldx"))), get("ldx"), get("cols"))
				g.add("p", 1)
			})
			g.add("c", panel)
		})
		g.set("p", times(get("pairs"), 2))
		g.set("y", bin("i32.add", get("y"), times(get("p"), 4)))
		g.set("q", bin("i32.add", get("q"), bin("i32.mul", get("qrow"), get("p"))))
		g.set("d", bin("i32.add", get("d"), bin("i32.mul", get("drow"), get("p"))))
		g.set("to", bin("i32.sub", get("to"), get("p")))
	})
	g.line(" ))")
	g.while("row", bin("i32.gt_s", get("to"), number(0)), func() {
		g.line(" (call $%s_columns %s %s %s %s %s %s %s %s)", t.name, get("y"), get("ldy"), get("q"), get("d"), get("blocks"), get("x"), get("ldx"), get("n"))
		next(1)
	})
	g.line(")")
	g.line(`(func (export "%s_scratch") (param $blocks i32) (result i32) %s)`, t.name,
		times(bin("i32.shr_u", plus(get("blocks"), 3), number(2)), g.pairBytes(t)*stripPairs))
}

// panels calls a kernel for n columns, at most panel of them at a time.
func (g *generator) panels(kernel string, arguments []string) {
	call := func(cols int) {
		text := fmt.Sprintf(" (call %s%d", kernel, cols)
		for _, a := range append(arguments, get("x"), get("ldx")) {
			text += " " + a
		}
		g.line("%s)", text)
	}
	g.while("whole", bin("i32.ge_u", get("n"), number(panel)), func() {
		call(panel)
		g.set("y", bin("i32.add", get("y"), times(get("ldy"), panel)))
		g.set("x", bin("i32.add", get("x"), times(get("ldx"), panel)))
		g.add("n", -panel)
	})
	for cols := 1; cols < panel; cols++ {
		g.line(" (if (i32.eq %s (i32.const %d)) (then", get("n"), cols)
		call(cols)
		g.line(" ))")
	}
}
