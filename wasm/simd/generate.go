//go:build ignore

// Writes kernels.wat and kernels_relaxed.wat. Run `make simd`, which also
// assembles them.
package main

import (
	"fmt"
	"os"
	"strings"
)

// A weight type as the kernels see it: bytes of a block in each plane.
type weightType struct {
	name           string
	quants, scales int
}

var types = []weightType{{"q4_0", 16, 2}, {"q4_1", 16, 4}, {"q8_0", 32, 2}}

func main() {
	for file, relaxed := range map[string]bool{"kernels.wat": false, "kernels_relaxed.wat": true} {
		if err := os.WriteFile(file, []byte(module(relaxed)), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func module(relaxed bool) string {
	g := &generator{relaxed: relaxed}
	g.line(";; Written by generate.go; do not edit.")
	g.line(";; Products of weight rows with activations, over Go's own memory.")
	g.line(";; Bound by reading each weight row once: 16 or 32 bytes of quants and 2 or 4 of scales a block.")
	g.line("(module")
	g.line(`(import "go" "mem" (memory 1))`)
	for _, t := range types {
		g.product(t, 4, 1)
		g.product(t, 1, 1)
		g.product(t, 2, 4)
		g.product(t, 1, 4)
	}
	g.floats()
	g.line(")")
	return g.text.String()
}

type generator struct {
	text    strings.Builder
	relaxed bool
}

func (g *generator) line(format string, args ...any) {
	fmt.Fprintf(&g.text, format+"\n", args...)
}

// halves gives four f16 at address as f32x4. 2^112 moves the exponent's bias
// from f16's to f32's and makes subnormals normal; scales are finite.
func halves(load string) string {
	return fmt.Sprintf(`(v128.or
   (f32x4.mul (i32x4.shl (v128.and (local.tee $h %s) (v128.const i32x4 0x7fff 0x7fff 0x7fff 0x7fff)) (i32.const 13)) (v128.const f32x4 0x1p112 0x1p112 0x1p112 0x1p112))
   (i32x4.shl (v128.and (local.get $h) (v128.const i32x4 0x8000 0x8000 0x8000 0x8000)) (i32.const 16)))`, load)
}

// lane is a shuffle that copies 32-bit lane j of a vector to all lanes.
func lane(j int) string {
	b := 4 * j
	one := fmt.Sprintf("%d %d %d %d", b, b+1, b+2, b+3)
	return fmt.Sprintf("i8x16.shuffle %s %s %s %s", one, one, one, one)
}

// product writes one tile: rows × columns of y at once.
//
//	q, d     the rows' quants and scales
//	blocks   of a row
//	xq       activations, 32 int8 a block, blocks of a column after another's
//	xd, xs   their scales, and scale times sum, one f32 a block
//	y, ldy   where row 0 of column 0 goes; bytes between columns
func (g *generator) product(t weightType, rows, cols int) {
	g.line("(func (export \"%s_%dx%d\") (param $q i32) (param $d i32) (param $blocks i32) (param $xq i32) (param $xd i32) (param $xs i32) (param $y i32) (param $ldy i32)", t.name, rows, cols)
	g.line(" (local $h v128) (local $b i32) (local $i i32) (local $qrow i32) (local $drow i32) (local $xqcol i32) (local $xdcol i32)")
	for r := range rows {
		g.line(" (local $q%d i32) (local $d%d i32) (local $lo%d v128) (local $hi%d v128) (local $s%d v128) (local $m%d v128)", r, r, r, r, r, r)
		for c := range cols {
			g.line(" (local $a%d_%d v128)", r, c)
		}
	}
	for c := range cols {
		g.line(" (local $x%d i32) (local $e%d i32) (local $t%d i32) (local $xl%d v128) (local $xh%d v128) (local $f%d v128)", c, c, c, c, c, c)
	}
	g.line(" (local.set $qrow (i32.mul (local.get $blocks) (i32.const %d)))", t.quants)
	g.line(" (local.set $drow (i32.mul (local.get $blocks) (i32.const %d)))", t.scales)
	g.line(" (local.set $xqcol (i32.shl (local.get $blocks) (i32.const 5)))")
	g.line(" (local.set $xdcol (i32.shl (local.get $blocks) (i32.const 2)))")
	for r := range rows {
		g.line(" (local.set $q%d (i32.add (local.get $q) (i32.mul (i32.const %d) (local.get $qrow))))", r, r)
		g.line(" (local.set $d%d (i32.add (local.get $d) (i32.mul (i32.const %d) (local.get $drow))))", r, r)
	}
	for c := range cols {
		g.line(" (local.set $x%d (i32.add (local.get $xq) (i32.mul (i32.const %d) (local.get $xqcol))))", c, c)
		g.line(" (local.set $e%d (i32.add (local.get $xd) (i32.mul (i32.const %d) (local.get $xdcol))))", c, c)
		g.line(" (local.set $t%d (i32.add (local.get $xs) (i32.mul (i32.const %d) (local.get $xdcol))))", c, c)
	}
	g.loop(t, rows, cols, 4)
	g.loop(t, rows, cols, 1)
	for c := range cols {
		for r := range rows {
			a := fmt.Sprintf("(local.get $a%d_%d)", r, c)
			g.line(" (f32.store offset=%d (i32.add (local.get $y) (i32.mul (i32.const %d) (local.get $ldy)))", 4*r, c)
			g.line("  (f32.add (f32.add (f32x4.extract_lane 0 %s) (f32x4.extract_lane 1 %s)) (f32.add (f32x4.extract_lane 2 %s) (f32x4.extract_lane 3 %s))))", a, a, a, a)
		}
	}
	g.line(")")
}

// loop takes group blocks at a time while there are as many.
func (g *generator) loop(t weightType, rows, cols, group int) {
	if group == 4 {
		g.line(" (local.set $b (i32.shr_u (local.get $blocks) (i32.const 2)))")
	} else {
		g.line(" (local.set $b (i32.and (local.get $blocks) (i32.const 3)))")
	}
	g.line(" (block $done%d (loop $next%d (br_if $done%d (i32.eqz (local.get $b)))", group, group, group)
	for r := range rows {
		g.scales(t, r, group)
	}
	for r := range rows {
		for c := range cols {
			g.offset(t, r, c, group)
		}
	}
	for j := range group {
		g.block(t, rows, cols, group, j)
	}
	for r := range rows {
		g.line("  (local.set $q%d (i32.add (local.get $q%d) (i32.const %d)))", r, r, t.quants*group)
		g.line("  (local.set $d%d (i32.add (local.get $d%d) (i32.const %d)))", r, r, t.scales*group)
	}
	for c := range cols {
		g.line("  (local.set $x%d (i32.add (local.get $x%d) (i32.const %d)))", c, c, 32*group)
		g.line("  (local.set $e%d (i32.add (local.get $e%d) (i32.const %d)))", c, c, 4*group)
		g.line("  (local.set $t%d (i32.add (local.get $t%d) (i32.const %d)))", c, c, 4*group)
	}
	g.line("  (local.set $b (i32.sub (local.get $b) (i32.const 1))) (br $next%d)))", group)
}

// scales reads row r's scales of a group into $s (and, in q4_1, minima into $m).
func (g *generator) scales(t weightType, r, group int) {
	at := fmt.Sprintf("(local.get $d%d)", r)
	switch {
	case t.scales == 2 && group == 4:
		g.line("  (local.set $s%d %s)", r, halves("(v128.load16x4_u "+at+")"))
	case t.scales == 2:
		g.line("  (local.set $s%d %s)", r, halves("(i32x4.splat (i32.load16_u "+at+"))"))
	case group == 4: // d, m, d, m …: low and high halves of 32-bit lanes
		g.line("  (local.set $s%d %s)", r, halves("(v128.and (v128.load "+at+") (v128.const i32x4 0xffff 0xffff 0xffff 0xffff))"))
		g.line("  (local.set $m%d %s)", r, halves("(i32x4.shr_u (v128.load "+at+") (i32.const 16))"))
	default:
		g.line("  (local.set $s%d %s)", r, halves("(i32x4.splat (i32.load16_u "+at+"))"))
		g.line("  (local.set $m%d %s)", r, halves("(i32x4.splat (i32.load16_u offset=2 "+at+"))"))
	}
}

// offset adds what does not depend on single quants: -8·d·Σx in q4_0, m·Σx in
// q4_1. One block's term goes into lane 0 alone.
func (g *generator) offset(t weightType, r, c, group int) {
	if t.name == "q8_0" {
		return
	}
	sums := fmt.Sprintf("(v128.load (local.get $t%d))", c)
	if group == 1 {
		sums = fmt.Sprintf("(v128.load32_zero (local.get $t%d))", c)
	}
	term := fmt.Sprintf("(f32x4.mul (local.get $m%d) %s)", r, sums)
	if t.name == "q4_0" {
		term = fmt.Sprintf("(f32x4.mul (f32x4.mul (local.get $s%d) (v128.const f32x4 -8 -8 -8 -8)) %s)", r, sums)
	}
	g.line("  (local.set $a%d_%d (f32x4.add (local.get $a%d_%d) %s))", r, c, r, c, term)
}

// block adds the products of block j of the group.
func (g *generator) block(t weightType, rows, cols, group, j int) {
	for r := range rows {
		at := fmt.Sprintf("(local.get $q%d)", r)
		if t.quants == 16 {
			g.line("  (local.set $h (v128.load offset=%d align=1 %s))", 16*j, at)
			g.line("  (local.set $lo%d (v128.and (local.get $h) (v128.const i8x16 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15)))", r)
			g.line("  (local.set $hi%d (i8x16.shr_u (local.get $h) (i32.const 4)))", r)
		} else {
			g.line("  (local.set $lo%d (v128.load offset=%d align=1 %s))", r, 32*j, at)
			g.line("  (local.set $hi%d (v128.load offset=%d align=1 %s))", r, 32*j+16, at)
		}
	}
	for c := range cols {
		g.line("  (local.set $xl%d (v128.load offset=%d align=1 (local.get $x%d)))", c, 32*j, c)
		g.line("  (local.set $xh%d (v128.load offset=%d align=1 (local.get $x%d)))", c, 32*j+16, c)
		g.line("  (local.set $f%d (v128.load32_splat offset=%d (local.get $e%d)))", c, 4*j, c)
	}
	for r := range rows {
		for c := range cols {
			scale := fmt.Sprintf("(f32x4.mul (local.get $f%d) (%s (local.get $s%d) (local.get $s%d)))", c, lane(j), r, r)
			if group == 1 {
				scale = fmt.Sprintf("(f32x4.mul (local.get $f%d) (local.get $s%d))", c, r)
			}
			g.line("  (local.set $a%d_%d (f32x4.add (local.get $a%d_%d) (f32x4.mul %s (f32x4.convert_i32x4_s %s))))", r, c, r, c, scale, g.dot(t, r, c))
		}
	}
}

// dot is the integer product of a block: four partial sums.
func (g *generator) dot(t weightType, r, c int) string {
	lo, hi := fmt.Sprintf("(local.get $lo%d)", r), fmt.Sprintf("(local.get $hi%d)", r)
	xl, xh := fmt.Sprintf("(local.get $xl%d)", c), fmt.Sprintf("(local.get $xh%d)", c)
	both := func(a, x string) string {
		return fmt.Sprintf("(i16x8.add (i16x8.extmul_low_i8x16_s %s %s) (i16x8.extmul_high_i8x16_s %s %s))", a, x, a, x)
	}
	switch {
	case t.quants == 32: // two products of 127·127 fit 16 bits, four do not
		return fmt.Sprintf("(i32x4.add (i32x4.extadd_pairwise_i16x8_s %s) (i32x4.extadd_pairwise_i16x8_s %s))", both(lo, xl), both(hi, xh))
	case g.relaxed: // nibbles are the 7-bit side
		return fmt.Sprintf("(i32x4.relaxed_dot_i8x16_i7x16_add_s %s %s (i32x4.relaxed_dot_i8x16_i7x16_add_s %s %s (v128.const i32x4 0 0 0 0)))", xh, hi, xl, lo)
	default: // four products of 15·127 fit 16 bits
		return fmt.Sprintf("(i32x4.extadd_pairwise_i16x8_s (i16x8.add %s %s))", both(lo, xl), both(hi, xh))
	}
}

// floats writes the product of one f32 row with one column, for routers: n
// numbers, any n.
func (g *generator) floats() {
	g.line(`(func (export "f32") (param $w i32) (param $x i32) (param $n i32) (result f32)
 (local $a v128) (local $b v128) (local $s f32) (local $k i32)
 (local.set $k (i32.shr_u (local.get $n) (i32.const 3)))
 (block $done (loop $next (br_if $done (i32.eqz (local.get $k)))
  (local.set $a (f32x4.add (local.get $a) (f32x4.mul (v128.load align=4 (local.get $w)) (v128.load align=4 (local.get $x)))))
  (local.set $b (f32x4.add (local.get $b) (f32x4.mul (v128.load offset=16 align=4 (local.get $w)) (v128.load offset=16 align=4 (local.get $x)))))
  (local.set $w (i32.add (local.get $w) (i32.const 32))) (local.set $x (i32.add (local.get $x) (i32.const 32)))
  (local.set $k (i32.sub (local.get $k) (i32.const 1))) (br $next)))
 (local.set $a (f32x4.add (local.get $a) (local.get $b)))
 (local.set $s (f32.add (f32.add (f32x4.extract_lane 0 (local.get $a)) (f32x4.extract_lane 1 (local.get $a))) (f32.add (f32x4.extract_lane 2 (local.get $a)) (f32x4.extract_lane 3 (local.get $a)))))
 (local.set $k (i32.and (local.get $n) (i32.const 7)))
 (block $end (loop $one (br_if $end (i32.eqz (local.get $k)))
  (local.set $s (f32.add (local.get $s) (f32.mul (f32.load (local.get $w)) (f32.load (local.get $x)))))
  (local.set $w (i32.add (local.get $w) (i32.const 4))) (local.set $x (i32.add (local.get $x) (i32.const 4)))
  (local.set $k (i32.sub (local.get $k) (i32.const 1))) (br $one)))
 (local.get $s))`)
}
