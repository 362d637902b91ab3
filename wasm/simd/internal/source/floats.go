package source

import "fmt"

// floatRows is how many rows of activations a product of floats takes.
const floatRows = 4

// wideRows is how many it takes with four vectors of columns at a time: their
// sums fill the registers.
const wideRows = 2

// floatTypes are float weights, and how four of them become a vector.
var floatTypes = []struct {
	name string
	size int
	read func(at string, offset int) string
}{
	{"f32", 4, load},
	{"f16", 2, func(at string, offset int) string { return halves(access("v128.load16x4_s", at, offset)) }},
	{"bf16", 2, func(at string, offset int) string {
		return bin("i32x4.shl", access("v128.load16x4_u", at, offset), number(16))
	}},
}

func (g *generator) floats() {
	for n := 1; n <= floatRows; n++ {
		g.dotFloat(n)
		for i := range floatTypes {
			g.vecFloat(i, n)
		}
	}
	for n := 1; n <= wideRows; n++ {
		g.dotFloat4(n)
	}
	for i := range floatTypes {
		g.unpackFloat(i)
	}
}

// rowPointers begins pointers to rows 1.. that lie a local's bytes apart.
func (g *generator) rowPointers(prefix, stride string, n int) {
	for i := 1; i < n; i++ {
		g.set(fmt.Sprint(prefix, i), bin("i32.add", get("%s%d", prefix, i-1), get("%s", stride)))
	}
}

// strides turns locals from numbers into bytes of float32.
func (g *generator) strides(names ...string) {
	for _, s := range names {
		g.set(s, times(get("%s", s), 4))
	}
}

func splat(at string) string { return "(v128.load32_splat " + at + ")" }

// dotFloat is Variant.DotFloat for n rows, strides in numbers.
func (g *generator) dotFloat(n int) {
	g.line(`(func (export "dot_float_%d")%s`, n, params("y0", "ldy", "a0", "lda", "b", "ldb", "k", "add"))
	g.locals("i32", append(numbered("y", n)[1:], numbered("a", n)[1:]...)...)
	g.locals("v128", append(numbered("s", n), "v")...)
	g.strides("ldy", "lda", "ldb")
	g.rowPointers("y", "ldy", n)
	g.rowPointers("a", "lda", n)
	g.line(" (if %s (then", get("add"))
	for r := range n {
		g.set(fmt.Sprint("s", r), load(get("y%d", r), 0))
	}
	g.line(" ))")
	g.while("column", get("k"), func() {
		g.set("v", load(get("b"), 0))
		for r := range n {
			g.set(fmt.Sprint("s", r), g.madd(splat(get("a%d", r)), get("v"), get("s%d", r)))
			g.add(fmt.Sprint("a", r), 4)
		}
		g.set("b", bin("i32.add", get("b"), get("ldb")))
		g.add("k", -1)
	})
	for r := range n {
		g.store("v128.store", get("y%d", r), 0, get("s%d", r))
	}
	g.line(")")
}

// dotFloat4 is Variant.DotFloat4 for n rows.
func (g *generator) dotFloat4(n int) {
	g.line(`(func $dot_float4_%d (export "dot_float4_%d")%s`, n, n, params("y0", "ldy", "ystep", "a0", "lda", "b", "ldb", "step", "k", "add"))
	g.locals("i32", append(append(numbered("y", n)[1:], numbered("a", n)[1:]...), "b1", "b2", "b3")...)
	for r := range n {
		g.locals("v128", numbered(fmt.Sprintf("s%d_", r), 4)...)
	}
	g.locals("v128", append(numbered("v", 4), "x")...)
	g.strides("ldy", "ystep", "lda", "ldb", "step")
	g.rowPointers("y", "ldy", n)
	g.rowPointers("a", "lda", n)
	at := func(r, i int) string { return bin("i32.add", get("y%d", r), times(get("ystep"), i)) }
	g.line(" (if %s (then", get("add"))
	for r := range n {
		for i := range 4 {
			g.set(fmt.Sprintf("s%d_%d", r, i), load(at(r, i), 0))
		}
	}
	g.line(" ))")
	g.set("b1", bin("i32.add", get("b"), get("step")))
	g.set("b2", bin("i32.add", get("b1"), get("step")))
	g.set("b3", bin("i32.add", get("b2"), get("step")))
	columns := []string{"b", "b1", "b2", "b3"}
	g.while("column", get("k"), func() {
		for i, b := range columns {
			g.set(fmt.Sprint("v", i), load(get("%s", b), 0))
			g.set(b, bin("i32.add", get("%s", b), get("ldb")))
		}
		for r := range n {
			g.set("x", splat(get("a%d", r)))
			for i := range 4 {
				g.set(fmt.Sprintf("s%d_%d", r, i), g.madd(get("x"), get("v%d", i), get("s%d_%d", r, i)))
			}
			g.add(fmt.Sprint("a", r), 4)
		}
		g.add("k", -1)
	})
	for r := range n {
		for i := range 4 {
			g.store("v128.store", at(r, i), 0, get("s%d_%d", r, i))
		}
	}
	g.line(")")
}

// readFloats reads four columns of four rows, v0..v3 becoming columns.
func (g *generator) readFloats(kind, column int) {
	t := floatTypes[kind]
	for r := range 4 {
		g.set(fmt.Sprint("v", r), t.read(get("w%d", r), column*t.size))
	}
	g.transpose("v")
}

// vecFloat is Variant.VecF32, VecF16 or VecBF16 for n rows of activations.
func (g *generator) vecFloat(kind, n int) {
	t := floatTypes[kind]
	g.line(`(func (export "vec_%s_%d")%s`, t.name, n, params("y", "ldy", "w0", "stride", "x0", "ldx", "groups"))
	g.locals("i32", append(numbered("w", 4)[1:], numbered("x", n)[1:]...)...)
	g.locals("v128", append(append(append(numbered("s", n), numbered("v", 4)...), numbered("u", 4)...), "half")...)
	g.strides("ldy", "ldx")
	g.rowPointers("w", "stride", 4)
	g.rowPointers("x", "ldx", n)
	g.set("groups", times(get("groups"), 4)) // of four columns here
	g.while("group", get("groups"), func() {
		g.readFloats(kind, 0)
		for i := range 4 {
			for r := range n {
				g.set(fmt.Sprint("s", r), g.madd(access("v128.load32_splat", get("x%d", r), 4*i), get("v%d", i), get("s%d", r)))
			}
		}
		for r := range 4 {
			g.add(fmt.Sprint("w", r), 4*t.size)
		}
		for r := range n {
			g.add(fmt.Sprint("x", r), 16)
		}
		g.add("groups", -1)
	})
	for r := range n {
		g.store("v128.store", bin("i32.add", get("y"), times(get("ldy"), r)), 0, get("s%d", r))
	}
	g.line(")")
}

// unpackFloat is Variant.UnpackF32, UnpackF16 or UnpackBF16.
func (g *generator) unpackFloat(kind int) {
	t := floatTypes[kind]
	g.line(`(func (export "unpack_%s")%s`, t.name, params("dst", "w0", "stride", "groups"))
	g.locals("i32", numbered("w", 4)[1:]...)
	g.locals("v128", append(append(numbered("v", 4), numbered("u", 4)...), "half")...)
	g.rowPointers("w", "stride", 4)
	g.set("groups", times(get("groups"), 4))
	g.while("group", get("groups"), func() {
		g.readFloats(kind, 0)
		for i := range 4 {
			g.store("v128.store", get("dst"), 16*i, get("v%d", i))
		}
		g.add("dst", 64)
		for r := range 4 {
			g.add(fmt.Sprint("w", r), 4*t.size)
		}
		g.add("groups", -1)
	})
	g.line(")")
}
