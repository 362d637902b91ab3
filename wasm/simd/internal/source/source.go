// Package source writes the tab's kernels in WebAssembly's text format.
//
// They compute what the kernels of exec/cpu/kernel compute, over Go's own
// memory: all addresses are Go's. There are eight modules: with plain SIMD (which
// every browser of today has) or relaxed SIMD and a form of its dot product, over
// a memory of one thread or a shared one, for a page that is cross-origin isolated.
//
// # Activations
//
// Four blocks of 32 activations are a group. What a lane of a vector holds
// belongs to one block, so that a product sums a block's terms in its lane and
// no sum crosses lanes before the end of a row:
//
//	relaxed  8 vectors: vector j holds numbers 4j..4j+3 of each block, as int8
//	plain   16 vectors: 2j holds numbers 4j and 4j+2 of each block, 2j+1 numbers
//	         4j+1 and 4j+3, as int16
//	then     D (float32), D·ΣQ (float32), -8·ΣQ, -128·ΣQ, and -32·ΣQ of both halves
//	         (int32) of each block
//
// Blocks that fill the last group are zeros; what weights lie there counts
// nothing, so rows of weights may be read a little beyond their end.
//
// # Products
//
//	acc[lane] += d_w[lane]·d_x[lane] · Σ q_w·q_x      group after group, then the lanes' sum
//
// of q6_0, whose blocks have two scales, half after half.
//
// One row of activations is multiplied with four rows of weights at a time as
// they lie in memory; up to four with one; more with pairs of rows that are
// unpacked to a thread's scratch memory first. The float operations of a result
// are the same in all three, so that its bits do not depend on what rides along.
package source

import (
	"fmt"
	"strings"
)

// A Dot is how bytes are multiplied.
type Dot int

// Words takes plain SIMD. Relaxed SIMD's dot product has two forms: Pairs adds
// products by two in 16 bits, one instruction on every x86, Fours by four in 32 bits,
// one instruction where the processor has a dot product of bytes, five elsewhere.
// Its second factor is sure of 7 bits only; Unsigned is Fours where it has 8, which
// is the dot product of x86: weights of 8 bits then need one product, not two.
const (
	Words Dot = iota
	Pairs
	Fours
	Unsigned
)

// Options choose one of the modules.
type Options struct {
	Dot    Dot
	Shared bool
}

// All are the modules by the names of their files.
func All() map[string]Options {
	all := map[string]Options{}
	for dot, name := range map[Dot]string{Words: "words", Pairs: "pairs", Fours: "fours", Unsigned: "unsigned"} {
		all["kernels_"+name+".wasm"] = Options{Dot: dot}
		all["kernels_"+name+"_shared.wasm"] = Options{Dot: dot, Shared: true}
	}
	return all
}

type generator struct {
	Options
	text strings.Builder
}

func (g *generator) relaxed() bool { return g.Dot != Words }

func (g *generator) line(format string, args ...any) { fmt.Fprintf(&g.text, format+"\n", args...) }

// Module is the text of a module.
func Module(o Options) string {
	g := &generator{Options: o}
	g.line("(module")
	if o.Shared {
		g.line(`(import "go" "mem" (memory 1 65536 shared))`)
	} else {
		g.line(`(import "go" "mem" (memory 1))`)
	}
	g.arrange()
	if o.Dot != Words {
		// 65534 where sums of two saturate at 16 bits: x86 without a dot product of bytes;
		// 4·127·255 where the second factor is unsigned.
		g.line(`(func (export "probe") (result i32) (i32x4.extract_lane 0 (i32x4.relaxed_dot_i8x16_i7x16_add_s %s %s %s)))`, bytes(127), bytes(-1), ints(0))
	}
	for _, t := range types {
		g.products(t)
	}
	g.floats()
	g.rows()
	g.caches()
	g.attend()
	g.threads()
	g.line(")")
	return hoist(g.text.String())
}

// Pieces of expressions.

func get(name string, args ...any) string {
	return "(local.get $" + fmt.Sprintf(name, args...) + ")"
}

func (g *generator) set(name, expr string) { g.line(" (local.set $%s %s)", name, expr) }

func number(n int) string { return fmt.Sprintf("(i32.const %d)", n) }

func bin(op, a, b string) string { return "(" + op + " " + a + " " + b + ")" }

func plus(a string, n int) string { return bin("i32.add", a, number(n)) }

func times(a string, n int) string { return bin("i32.mul", a, number(n)) }

// load is a vector at an address.
func load(at string, offset int) string { return access("v128.load", at, offset) }

func access(op, at string, offset int) string {
	if offset == 0 {
		return "(" + op + " " + at + ")"
	}
	return fmt.Sprintf("(%s offset=%d %s)", op, offset, at)
}

func (g *generator) store(op, at string, offset int, value string) {
	g.line(" (%s offset=%d %s %s)", op, offset, at, value)
}

func fill(shape string, value any, n int) string {
	return "(v128.const " + shape + strings.Repeat(fmt.Sprintf(" %v", value), n) + ")"
}

func ints(v any) string   { return fill("i32x4", v, 4) }
func shorts(v any) string { return fill("i16x8", v, 8) }
func bytes(v any) string  { return fill("i8x16", v, 16) }
func floats(v any) string { return fill("f32x4", v, 4) }

// madd is a·b + c, in one instruction where the processor has it.
func (g *generator) madd(a, b, c string) string {
	if g.relaxed() {
		return "(f32x4.relaxed_madd " + a + " " + b + " " + c + ")"
	}
	return bin("f32x4.add", c, bin("f32x4.mul", a, b))
}

// words is a shuffle of 32-bit lanes, 0..3 of the first and 4..7 of the second.
func words(a, b string, lanes ...int) string {
	var s strings.Builder
	s.WriteString("(i8x16.shuffle")
	for _, l := range lanes {
		fmt.Fprintf(&s, " %d %d %d %d", 4*l, 4*l+1, 4*l+2, 4*l+3)
	}
	return s.String() + " " + a + " " + b + ")"
}

// transpose turns the locals v0..v3, as 4 × 4 words. It uses u0..u3.
func (g *generator) transpose(v string) {
	l := func(i int) string { return get("%s%d", v, i) }
	g.set("u0", words(l(0), l(1), 0, 4, 1, 5))
	g.set("u1", words(l(2), l(3), 0, 4, 1, 5))
	g.set("u2", words(l(0), l(1), 2, 6, 3, 7))
	g.set("u3", words(l(2), l(3), 2, 6, 3, 7))
	g.set(v+"0", words(get("u0"), get("u1"), 0, 1, 4, 5))
	g.set(v+"1", words(get("u0"), get("u1"), 2, 3, 6, 7))
	g.set(v+"2", words(get("u2"), get("u3"), 0, 1, 4, 5))
	g.set(v+"3", words(get("u2"), get("u3"), 2, 3, 6, 7))
}

// across is the sum of a vector's lanes.
func across(v string) string {
	lane := func(i int) string { return fmt.Sprintf("(f32x4.extract_lane %d %s)", i, v) }
	return bin("f32.add", bin("f32.add", lane(0), lane(1)), bin("f32.add", lane(2), lane(3)))
}

// halves turns what load gives, halves in the low and copies of their sign in
// the high 16 bits of each lane, into float32. It uses local half.
func halves(load string) string { return halfBits(bin("i32x4.shl", load, number(13))) }

// halfBits is halves for bits that are shifted to where float32 has them.
//
// With float32's bias a normal half is its bits + 112 in the exponent, a
// subnormal one its bits + 113 there, less 2^-14; each is the smaller of the two.
// A multiplication by 2^112 would do, but subnormal operands cost many processors
// a hundred cycles. Infinities become 65536.
func halfBits(shifted string) string {
	size := func(bits string) string { return bin("v128.and", bits, ints("0x0fffe000")) }
	normal := bin("i32x4.add", size("(local.tee $half "+shifted+")"), ints("0x38000000"))
	subnormal := bin("f32x4.sub", bin("i32x4.add", size(get("half")), ints("0x38800000")), floats("0x1p-14"))
	return bin("v128.or", bin("f32x4.pmin", normal, subnormal), bin("v128.and", get("half"), ints("0x80000000")))
}

// normalHalfBits is halfBits for what is seldom subnormal, such as scales of four
// or six bits: weights of such a block are below 0.002.
func normalHalfBits(shifted string) string {
	return bin("f32x4.mul", bin("v128.and", shifted, ints("0x8fffe000")), floats("0x1p112"))
}

// locals declares locals of a type, each name once.
func (g *generator) locals(t string, names ...string) {
	for _, n := range names {
		g.line(" (local $%s %s)", n, t)
	}
}

// params of i32.
func params(names ...string) string {
	var s strings.Builder
	for _, n := range names {
		fmt.Fprintf(&s, " (param $%s i32)", n)
	}
	return s.String()
}

// while emits body as long as the condition holds.
func (g *generator) while(label, condition string, body func()) {
	g.line(" (block $end_%s (loop $%s (br_if $end_%s (i32.eqz %s))", label, label, label, condition)
	body()
	g.line(" (br $%s)))", label)
}

// add moves a local on.
func (g *generator) add(name string, by int) { g.set(name, plus(get("%s", name), by)) }

func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(prefix, i)
	}
	return names
}
