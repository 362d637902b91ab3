package source

import "fmt"

// caches are the kernels that read keys and values.
func (g *generator) caches() {
	g.decodeHalves()
	g.decodeKeys()
	g.decodeValues()
}

// decodeHalves is Variant.DecodeF16: any n, infinities and NaN as they are.
func (g *generator) decodeHalves() {
	g.line(`(func (export "decode_f16")%s`, params("dst", "src", "n"))
	g.locals("v128", "h", "half")
	decoded := bin("v128.or", halves(get("h")), bin("v128.and", ints("0x7f800000"),
		bin("i32x4.eq", bin("v128.and", get("h"), ints("0x7c00")), ints("0x7c00"))))
	g.while("four", bin("i32.ge_s", get("n"), number(4)), func() {
		g.set("h", "(v128.load16x4_s "+get("src")+")")
		g.store("v128.store", get("dst"), 0, decoded)
		g.add("dst", 16)
		g.add("src", 8)
		g.add("n", -4)
	})
	g.while("one", bin("i32.gt_s", get("n"), number(0)), func() {
		g.set("h", "(i32x4.extend_low_i16x8_s (i16x8.splat (i32.load16_u "+get("src")+")))")
		g.store("f32.store", get("dst"), 0, "(f32x4.extract_lane 0 "+decoded+")")
		g.add("dst", 4)
		g.add("src", 2)
		g.add("n", -1)
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
