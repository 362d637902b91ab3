package source

import "fmt"

// rows are the kernels of single rows; their n is a multiple of 16.
func (g *generator) rows() {
	g.sumSquares()
	g.scaleMul()
	g.swiGLU()
	g.expSum()
	g.largest()
	g.addRows()
	g.roundHalf()
}

// sixteen walks n numbers, four vectors at a time.
func (g *generator) sixteen(pointers []string, body func(i int)) {
	g.while("sixteen", bin("i32.gt_s", get("n"), number(0)), func() {
		for i := range 4 {
			body(i)
		}
		for _, p := range pointers {
			g.add(p, 64)
		}
		g.add("n", -16)
	})
}

func (g *generator) sumSquares() {
	g.line(`(func (export "sum_squares")%s (result f32)`, params("x", "n"))
	g.locals("v128", append(numbered("s", 4), "v")...)
	g.sixteen([]string{"x"}, func(i int) {
		g.set("v", load(get("x"), 16*i))
		g.set(fmt.Sprint("s", i), g.madd(get("v"), get("v"), get("s%d", i)))
	})
	g.set("v", bin("f32x4.add", bin("f32x4.add", get("s0"), get("s1")), bin("f32x4.add", get("s2"), get("s3"))))
	g.line(" %s)", across(get("v")))
}

func (g *generator) scaleMul() {
	g.line(`(func (export "scale_mul")%s (param $scale f32) (param $n i32)`, params("y", "x", "w"))
	g.locals("v128", "s")
	g.set("s", "(f32x4.splat (local.get $scale))")
	g.sixteen([]string{"y", "x", "w"}, func(i int) {
		g.store("v128.store", get("y"), 16*i, bin("f32x4.mul", bin("f32x4.mul", load(get("x"), 16*i), get("s")), load(get("w"), 16*i)))
	})
	g.line(")")
}

func (g *generator) addRows() {
	g.line(`(func (export "add")%s`, params("y", "x", "n"))
	g.sixteen([]string{"y", "x"}, func(i int) {
		g.store("v128.store", get("y"), 16*i, bin("f32x4.add", load(get("y"), 16*i), load(get("x"), 16*i)))
	})
	g.line(")")
}

// exp turns local e, between -87.3 and 88, into its exponential; it uses p and k.
// x = k·ln 2 + r; the polynomial of r is that of Cephes' expf (S. Moshier).
func (g *generator) exp() {
	e, k, p := get("e"), get("k"), get("p")
	g.set("k", "(f32x4.nearest "+bin("f32x4.mul", e, floats("1.44269504088896341"))+")")
	g.set("e", g.madd(k, floats("-0.693359375"), e))
	g.set("e", g.madd(k, floats("2.12194440e-4"), e))
	g.set("p", floats("1.9875691500e-4"))
	for _, c := range []string{"1.3981999507e-3", "8.3334519073e-3", "4.1665795894e-2", "1.6666665459e-1", "5.0000001201e-1"} {
		g.set("p", g.madd(p, e, floats(c)))
	}
	g.set("p", bin("f32x4.add", g.madd(bin("f32x4.mul", e, e), p, e), floats(1)))
	power := bin("i32x4.shl", bin("i32x4.add", "(i32x4.trunc_sat_f32x4_s "+k+")", ints(127)), number(23))
	g.set("e", bin("f32x4.mul", p, power))
}

func (g *generator) swiGLU() {
	g.line(`(func (export "swiglu")%s`, params("y", "gu", "n"))
	g.locals("v128", "a", "b", "e", "p", "k", "gate")
	g.sixteen([]string{"y"}, func(i int) {
		g.set("a", load(get("gu"), 0))
		g.set("b", load(get("gu"), 16))
		g.set("gate", words(get("a"), get("b"), 0, 2, 4, 6))
		g.set("e", bin("f32x4.max", bin("f32x4.min", "(f32x4.neg "+get("gate")+")", floats(88)), floats(-87)))
		g.exp()
		silu := bin("f32x4.div", get("gate"), bin("f32x4.add", get("e"), floats(1)))
		g.store("v128.store", get("y"), 16*i, bin("f32x4.mul", silu, words(get("a"), get("b"), 1, 3, 5, 7)))
		g.add("gu", 32)
	})
	g.line(")")
}

func (g *generator) expSum() {
	g.line(`(func $exp_sum (export "exp_sum")%s (param $max f32) (result f32)`, params("x", "n"))
	g.locals("v128", "m", "d", "e", "p", "k", "four", "s")
	g.set("m", "(f32x4.splat (local.get $max))")
	g.sixteen([]string{"x"}, func(i int) {
		g.set("d", bin("f32x4.sub", load(get("x"), 16*i), get("m")))
		g.set("e", bin("f32x4.max", get("d"), floats(-87)))
		g.exp()
		g.set("e", bin("v128.and", get("e"), bin("f32x4.ge", get("d"), floats(-87))))
		g.store("v128.store", get("x"), 16*i, get("e"))
		if i == 0 {
			g.set("four", get("e"))
		} else {
			g.set("four", bin("f32x4.add", get("four"), get("e")))
		}
		if i == 3 {
			g.set("s", bin("f32x4.add", get("s"), get("four")))
		}
	})
	g.line(" %s)", across(get("s")))
}

func (g *generator) largest() {
	g.line(`(func $max (export "max")%s (result f32)`, params("x", "n"))
	g.locals("v128", "m")
	g.set("m", load(get("x"), 0))
	g.sixteen([]string{"x"}, func(i int) {
		g.set("m", bin("f32x4.max", get("m"), load(get("x"), 16*i)))
	})
	g.line(" %s)", acrossMax("m"))
}

func acrossMax(local string) string {
	lane := func(i int) string { return fmt.Sprintf("(f32x4.extract_lane %d %s)", i, get("%s", local)) }
	return bin("f32.max", bin("f32.max", lane(0), lane(1)), bin("f32.max", lane(2), lane(3)))
}

// roundHalf rounds numbers to the nearest halves and gives 1; where one is not
// below 32768 in size (or no number) it leaves all and gives 0.
func (g *generator) roundHalf() {
	g.line(`(func (export "round_half")%s (result i32)`, params("x", "n"))
	g.locals("i32", "at", "left")
	g.locals("v128", "v", "u", "m")
	g.set("at", get("x"))
	g.set("left", get("n"))
	g.while("check", bin("i32.gt_s", get("left"), number(0)), func() {
		for i := range 4 {
			// Sizes compare as integers, infinities and NaN above all numbers.
			g.set("m", bin("v128.or", get("m"), bin("i32x4.gt_s", bin("v128.and", load(get("at"), 16*i), ints("0x7fffffff")), ints("0x46ffffff"))))
		}
		g.add("at", 64)
		g.add("left", -16)
	})
	g.line(" (if (v128.any_true %s) (then (return (i32.const 0))))", get("m"))
	g.sixteen([]string{"x"}, func(i int) {
		g.set("v", load(get("x"), 16*i))
		g.store("v128.store", get("x"), 16*i, g.half())
	})
	g.line(" (i32.const 1))")
}

// half is local v rounded to halves, to even; it uses u. Sizes below 2^-14 are
// rounded to multiples of 2^-24 by an addition, the others in their bits.
func (g *generator) half() string {
	v := get("v")
	g.set("u", bin("v128.and", bin("i32x4.add", bin("i32x4.add", v, ints("0xfff")), bin("v128.and", bin("i32x4.shr_u", v, number(13)), ints(1))), ints("0xffffe000")))
	sign := bin("v128.and", v, ints("0x80000000"))
	small := bin("v128.or", bin("f32x4.sub", bin("f32x4.add", "(f32x4.abs "+v+")", floats("0.75")), floats("0.75")), sign)
	return "(v128.bitselect " + small + " " + get("u") + " " + bin("f32x4.lt", "(f32x4.abs "+v+")", floats("0x1p-14")) + ")"
}
