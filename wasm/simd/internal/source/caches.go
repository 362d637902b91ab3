package source

import "fmt"

// caches are the kernels that read keys and values.
func (g *generator) caches() {
	g.decodeHalves()
	g.encodeHalves()
	g.decodeKeys()
	g.decodeValues()
}

// decodeHalves is Variant.DecodeF16: any n, infinities and NaN as they are.
func (g *generator) decodeHalves() {
	g.line(`(func $decode_f16 (export "decode_f16")%s`, params("dst", "src", "n"))
	g.locals("v128", "h", "half")
	decoded := bin("v128.or", halves(get("h")), bin("v128.and", ints("0x7f800000"),
		bin("i32x4.eq", bin("v128.and", get("h"), ints("0x7c00")), ints("0x7c00"))))
	for _, vectors := range []int{4, 1} {
		g.while(fmt.Sprint("vectors", vectors), bin("i32.ge_s", get("n"), number(4*vectors)), func() {
			for i := range vectors {
				g.set("h", access("v128.load16x4_s", get("src"), 8*i))
				g.store("v128.store", get("dst"), 16*i, decoded)
			}
			g.add("dst", 16*vectors)
			g.add("src", 8*vectors)
			g.add("n", -4*vectors)
		})
	}
	g.while("one", bin("i32.gt_s", get("n"), number(0)), func() {
		g.set("h", "(i32x4.extend_low_i16x8_s (i16x8.splat (i32.load16_u "+get("src")+")))")
		g.store("f32.store", get("dst"), 0, "(f32x4.extract_lane 0 "+decoded+")")
		g.add("dst", 4)
		g.add("src", 2)
		g.add("n", -1)
	})
	g.line(")")
}

// encodeHalves is Variant.EncodeF16.
func (g *generator) encodeHalves() {
	g.line(`(func (export "encode_f16")%s`, params("dst", "src", "n"))
	g.locals("v128", "x", "m", "h0", "h1")
	m := get("m")
	encode := func(h, x string) {
		choose := func(other, condition string) {
			g.set(h, "(v128.bitselect "+other+" "+get("%s", h)+" "+condition+")")
		}
		g.set("x", x)
		g.set("m", bin("v128.and", get("x"), ints("0x7fffffff")))
		// Rounded to even, 112 off the exponent, 13 bits off the fraction.
		g.set(h, bin("i32x4.shr_u", bin("i32x4.add", bin("i32x4.add", m, ints("0xc8000fff")), bin("v128.and", bin("i32x4.shr_u", m, number(13)), ints(1))), number(13)))
		// 0.5 has an ulp of 2^-24, the unit of subnormal halves.
		choose(bin("i32x4.sub", bin("f32x4.add", m, floats(0.5)), ints("0x3f000000")), bin("i32x4.lt_s", m, ints("0x38800000")))
		choose(ints("0x7c00"), bin("i32x4.gt_s", m, ints("0x477fffff")))
		choose(bin("v128.or", bin("v128.and", bin("i32x4.shr_u", m, number(13)), ints("0x1ff")), ints("0x7e00")), bin("i32x4.gt_s", m, ints("0x7f800000")))
		g.set(h, bin("v128.or", get("%s", h), bin("v128.and", bin("i32x4.shr_u", get("x"), number(16)), ints("0x8000"))))
	}
	g.while("eight", get("n"), func() {
		encode("h0", load(get("src"), 0))
		encode("h1", load(get("src"), 16))
		g.store("v128.store", get("dst"), 0, bin("i16x8.narrow_i32x4_u", get("h0"), get("h1")))
		g.add("src", 32)
		g.add("dst", 16)
		g.add("n", -8)
	})
	g.line(")")
}

// eight are the two vectors of float32 of eight int8.
func eight(at string, offset int) (low, high string) {
	v := access("v128.load8x8_s", at, offset)
	return "(f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s " + v + "))", "(f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s " + v + "))"
}

// decodeKeys is Variant.DecodeKeys8: blocks of 32 numbers of 16 positions, each
// position with its scale.
func (g *generator) decodeKeys() {
	g.line(`(func (export "decode_keys8")%s`, params("dst", "src", "scales", "blocks"))
	g.locals("i32", "i")
	g.locals("v128", numbered("s", 4)...)
	g.while("block", get("blocks"), func() {
		for i := range 4 {
			g.set(fmt.Sprint("s", i), load(get("scales"), 16*i))
		}
		g.set("i", number(32))
		g.while("number", get("i"), func() {
			for half := range 2 {
				low, high := eight(get("src"), 8*half)
				g.store("v128.store", get("dst"), 32*half, bin("f32x4.mul", low, get("s%d", 2*half)))
				g.store("v128.store", get("dst"), 32*half+16, bin("f32x4.mul", high, get("s%d", 2*half+1)))
			}
			g.add("dst", 64)
			g.add("src", 16)
			g.add("i", -1)
		})
		g.add("scales", 64)
		g.add("blocks", -1)
	})
	g.line(")")
}

// decodeValues is Variant.DecodeValues8: blocks of 32 numbers with a scale.
func (g *generator) decodeValues() {
	g.line(`(func (export "decode_values8")%s`, params("dst", "src", "scales", "blocks"))
	g.locals("v128", "s")
	g.while("block", get("blocks"), func() {
		g.set("s", splat(get("scales")))
		for i := range 4 {
			low, high := eight(get("src"), 8*i)
			g.store("v128.store", get("dst"), 32*i, bin("f32x4.mul", low, get("s")))
			g.store("v128.store", get("dst"), 32*i+16, bin("f32x4.mul", high, get("s")))
		}
		g.add("dst", 128)
		g.add("src", 32)
		g.add("scales", 4)
		g.add("blocks", -1)
	})
	g.line(")")
}
