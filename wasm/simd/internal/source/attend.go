package source

import "fmt"

// Attention is divided into units, a tile of rows × a KV head each, which threads
// take one after another. A unit is computed as exec/cpu/kernel does it: a page of
// positions after another, decoded, with an online softmax.
const (
	pagePositions = 64
	queries       = 16 // at most, of a unit's step: kernel.Variant.Panel
	tileBytes     = 16 // of a tile: its rows from and to-1, and where its pages' addresses lie
)

// attention are the words of package simd's struct of that name.
var attention = []word{{"out", 0}, {"q", 8}, {"positions", 16}, {"tiles", 24}, {"tile_count", 32}, {"units", 36},
	{"heads", 40}, {"kv_heads", 44}, {"dim", 48}, {"scratch", 56}, {"scratch_bytes", 64}}

const attentionScale = 52

func (g *generator) attend() {
	g.decodePage()
	g.scaleRow()
	g.scores()
	g.weigh()
	g.softmaxPage()
	g.attendHeads()

	// units takes units as long as there are any.
	g.line("(func $units%s", params("p", "thread"))
	g.locals("i32", "u", "tile", "kv", "group", "first", "some")
	g.read(attention, poolAttention)
	g.set("scratch", bin("i32.add", get("scratch"), bin("i32.mul", get("thread"), get("scratch_bytes"))))
	g.set("group", bin("i32.div_u", get("heads"), get("kv_heads")))
	g.line(" (block $taken (loop $take")
	if g.Shared {
		g.set("u", addTo(poolTaken, 1))
	} else {
		g.set("u", access("i32.load", get("p"), poolTaken))
		g.store("i32.store", get("p"), poolTaken, plus(get("u"), 1))
	}
	g.line(" (br_if $taken %s)", bin("i32.ge_u", get("u"), get("units")))
	// The last rows of a prompt read most: they go first.
	g.set("tile", bin("i32.sub", plus(get("tile_count"), -1), bin("i32.div_u", get("u"), get("kv_heads"))))
	g.set("tile", bin("i32.add", get("tiles"), times(get("tile"), tileBytes)))
	g.set("kv", bin("i32.rem_u", get("u"), get("kv_heads")))
	g.set("first", number(0))
	g.while("heads", bin("i32.lt_u", get("first"), get("group")), func() {
		g.set("some", least(bin("i32.sub", get("group"), get("first")), number(queries)))
		g.line(" (call $attend_heads %s %s %s %s %s %s)", get("p"), get("tile"), get("kv"),
			bin("i32.add", bin("i32.mul", get("kv"), get("group")), get("first")), get("some"), get("scratch"))
		g.add("first", queries)
	})
	g.line(" (br $take))))")

	g.line(`(func (export "attend")%s`, params("p"))
	g.store("i32.store", get("p"), poolTaken, number(0))
	g.line(" (call $units %s (i32.const 0)))", get("p"))
}

// attendHeads computes some heads, of one KV head, of a tile's rows.
func (g *generator) attendHeads() {
	g.line("(func $attend_heads%s", params("p", "tile", "kv", "first", "some", "scratch_at"))
	g.locals("i32", "from", "to", "n", "i", "at", "row", "last", "base", "held", "page", "keys", "bytes", "queries", "sums", "scores", "values", "state", "own")
	g.read(attention, poolAttention)
	g.set("from", access("i32.load", get("tile"), 0))
	g.set("to", access("i32.load", get("tile"), 4))
	g.set("page", access("i32.load", get("tile"), 8))
	g.set("n", bin("i32.mul", bin("i32.sub", get("to"), get("from")), get("some")))
	g.set("bytes", times(get("dim"), 4))
	at := get("scratch_at")
	for _, part := range []struct{ name, size string }{{"queries", times(get("bytes"), queries)}, {"sums", times(get("bytes"), queries)},
		{"values", times(get("bytes"), pagePositions)}, {"scores", number(4 * queries * pagePositions)}, {"state", ""}} {
		g.set(part.name, at)
		at = bin("i32.add", get("%s", part.name), part.size)
	}
	own := func(of string) string { // positions that a row sees
		return plus(access("i32.load", bin("i32.add", get("positions"), times(of, 4)), 0), 1)
	}
	each := func(label string, body func()) { // query, its row and where it lies in q and out
		g.set("i", number(0))
		g.while(label, bin("i32.lt_u", get("i"), get("n")), func() {
			g.set("row", bin("i32.add", get("from"), bin("i32.div_u", get("i"), get("some"))))
			g.set("at", bin("i32.add", bin("i32.mul", get("row"), get("heads")), bin("i32.add", get("first"), bin("i32.rem_u", get("i"), get("some")))))
			g.set("at", bin("i32.mul", get("at"), get("bytes")))
			body()
			g.add("i", 1)
		})
	}
	of := func(base string) string {
		return bin("i32.add", get("%s", base), bin("i32.mul", get("i"), get("bytes")))
	}
	state := bin("i32.add", get("state"), times(get("i"), 8))
	each("query", func() {
		g.line(" (call $scale_row %s %s %s %s)", of("queries"), bin("i32.add", get("q"), get("at")), get("dim"), access("f32.load", get("p"), poolAttention+attentionScale))
		g.store("i32.store", state, 0, number(-8388608)) // the largest so far: -∞
		g.store("i32.store", state, 4, number(0))        // and the sum
		g.set("own", own(get("row")))
		g.line(" (if %s (then (local.set $last %s)))", bin("i32.gt_s", get("own"), get("last")), get("own"))
	})
	g.while("page", bin("i32.lt_s", get("base"), get("last")), func() {
		g.set("held", least(bin("i32.sub", get("last"), get("base")), number(pagePositions)))
		half := times(get("dim"), 2*pagePositions) // a KV head's keys or values
		g.set("keys", bin("i32.add", access("i32.load", get("page"), 0), bin("i32.mul", get("kv"), half)))
		blocks := bin("i32.shr_u", plus(get("held"), 15), number(4))
		g.line(" (call $decode_page %s %s %s)", get("values"), get("keys"), bin("i32.mul", times(blocks, 16), get("dim")))
		g.line(" (call $scores %s %s %s %s %s %s)", get("scores"), get("queries"), get("n"), get("dim"), get("values"), blocks)
		g.set("i", number(0))
		g.while("softmax", bin("i32.lt_u", get("i"), get("n")), func() {
			g.line(" (call $softmax_page %s %s %s %s %s %s)", bin("i32.add", get("scores"), times(get("i"), 4*pagePositions)), times(blocks, 16),
				bin("i32.sub", own(bin("i32.add", get("from"), bin("i32.div_u", get("i"), get("some")))), get("base")), of("sums"), get("dim"), state)
			g.add("i", 1)
		})
		g.line(" (call $decode_page %s %s %s)", get("values"), bin("i32.add", get("keys"), bin("i32.mul", get("kv_heads"), half)), bin("i32.mul", get("held"), get("dim")))
		g.line(" (call $weigh %s %s %s %s %s %s %s)", get("sums"), get("scores"), get("n"), get("dim"), get("values"), get("held"), get("base"))
		g.add("page", 8)
		g.add("base", pagePositions)
	})
	each("result", func() {
		g.line(" (call $scale_row %s %s %s (f32.div (f32.const 1) %s))", bin("i32.add", get("out"), get("at")), of("sums"), get("dim"), access("f32.load", state, 4))
	})
	g.line(")")
}

// decodePage decodes n halves, a multiple of 16. A cache seldom holds subnormal
// ones, and what overflowed a half counts as 65536.
func (g *generator) decodePage() {
	g.line("(func $decode_page%s", params("dst", "src", "n"))
	g.while("sixteen", get("n"), func() {
		for i := range 4 {
			g.store("v128.store", get("dst"), 16*i, normalHalfBits(bin("i32x4.shl", access("v128.load16x4_s", get("src"), 8*i), number(13))))
		}
		g.add("dst", 64)
		g.add("src", 32)
		g.add("n", -16)
	})
	g.line(")")
}

// scaleRow computes y = x·s for n numbers, a multiple of 16; y may be x.
func (g *generator) scaleRow() {
	g.line("(func $scale_row%s (param $s f32)", params("y", "x", "n"))
	g.locals("v128", "v")
	g.set("v", "(f32x4.splat (local.get $s))")
	g.sixteen([]string{"y", "x"}, func(i int) {
		g.store("v128.store", get("y"), 16*i, bin("f32x4.mul", load(get("x"), 16*i), get("v")))
	})
	g.line(")")
}

// byTwo calls dot_float4 for all queries, two at a time.
func (g *generator) byTwo(arguments func(query string) []any) {
	g.set("i", number(0))
	g.while("two", bin("i32.lt_u", plus(get("i"), 1), get("n")), func() {
		g.line(" (call $dot_float4_2 %s %s %s %s %s %s %s %s %s %s)", arguments(get("i"))...)
		g.add("i", 2)
	})
	g.line(" (if %s (then", bin("i32.lt_u", get("i"), get("n")))
	g.line(" (call $dot_float4_1 %s %s %s %s %s %s %s %s %s %s)", arguments(get("i"))...)
	g.line(" ))")
}

// scores multiplies n queries with keys, sixteen positions at a time.
func (g *generator) scores() {
	g.line("(func $scores%s", params("y", "q", "n", "dim", "keys", "blocks"))
	g.locals("i32", "i")
	g.while("block", get("blocks"), func() {
		g.byTwo(func(query string) []any {
			return []any{bin("i32.add", get("y"), times(query, 4*pagePositions)), number(pagePositions), number(4),
				bin("i32.add", get("q"), times(bin("i32.mul", query, get("dim")), 4)), get("dim"), get("keys"), number(16), number(4), get("dim"), number(0)}
		})
		g.add("y", 64)
		g.set("keys", bin("i32.add", get("keys"), times(get("dim"), 64)))
		g.add("blocks", -1)
	})
	g.line(")")
}

// weigh adds held values with their weights to n sums, or begins them where
// nothing is before.
func (g *generator) weigh() {
	g.line("(func $weigh%s", params("y", "weights", "n", "dim", "values", "held", "before"))
	g.locals("i32", "i", "left")
	g.set("left", get("dim"))
	g.while("sixteen", get("left"), func() {
		g.byTwo(func(query string) []any {
			return []any{bin("i32.add", get("y"), times(bin("i32.mul", query, get("dim")), 4)), get("dim"), number(4),
				bin("i32.add", get("weights"), times(query, 4*pagePositions)), number(pagePositions), get("values"), get("dim"), number(4), get("held"), get("before")}
		})
		g.add("y", 64)
		g.add("values", 64)
		g.add("left", -16)
	})
	g.line(")")
}

// softmaxPage turns n scores, of which the first own count, into weights. state
// holds the largest score so far and the weights' sum; sum is rescaled with them.
func (g *generator) softmaxPage() {
	g.line("(func $softmax_page%s", params("x", "n", "own", "sum", "dim", "state"))
	g.locals("i32", "i")
	g.locals("f32", "largest", "top", "scale")
	g.locals("v128", "e", "p", "k")
	fill := func(label string, value int) {
		g.while(label, bin("i32.lt_s", get("i"), get("n")), func() {
			g.store("i32.store", bin("i32.add", get("x"), times(get("i"), 4)), 0, number(value))
			g.add("i", 1)
		})
	}
	g.line(" (if (i32.le_s %s (i32.const 0)) (then", get("own"))
	fill("nothing", 0)
	g.line(" (return)))")
	g.set("i", get("own"))
	fill("unseen", -8388608)
	g.set("largest", access("f32.load", get("state"), 0))
	g.set("top", bin("f32.max", get("largest"), fmt.Sprintf("(call $max %s %s)", get("x"), get("n"))))
	g.line(" (if %s (then", bin("f32.gt", access("f32.load", get("state"), 4), "(f32.const 0)"))
	g.line(" (if %s (then", bin("f32.gt", get("top"), get("largest")))
	g.set("e", bin("f32x4.max", "(f32x4.splat "+bin("f32.sub", get("largest"), get("top"))+")", floats(-87)))
	g.exp()
	g.set("scale", "(f32x4.extract_lane 0 "+get("e")+")")
	g.line(" (call $scale_row %s %s %s %s)", get("sum"), get("sum"), get("dim"), get("scale"))
	g.store("f32.store", get("state"), 4, bin("f32.mul", access("f32.load", get("state"), 4), get("scale")))
	g.line(" ))))")
	g.store("f32.store", get("state"), 0, get("top"))
	g.store("f32.store", get("state"), 4, bin("f32.add", access("f32.load", get("state"), 4), fmt.Sprintf("(call $exp_sum %s %s %s)", get("x"), get("n"), get("top"))))
	g.line(")")
}
