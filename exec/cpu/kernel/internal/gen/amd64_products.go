package main

import (
	"fmt"
	"strings"
)

// Products of strips that have been unpacked.

const (
	blockBytes = 56
	offD       = 32
	offN8      = 36
	offN80     = 40
	offS       = 44
	offN32     = 48
)

func (g *amd64) products() {
	kinds := []string{"Dot4", "Dot6", "Dot8", "DotMin"}
	for _, kind := range kinds {
		types := "float32, ldy int, w *byte, d *float32, x *Block, ldx, blocks int"
		if kind == "DotMin" || kind == "Dot6" {
			types = "float32, ldy int, w *byte, d, m *float32, x *Block, ldx, blocks int"
		}
		g.table(kind, "y *"+types)
		for n := 1; n <= g.t.panel; n++ {
			g.dot(kind, n)
		}
	}
	if g.t.name == "AVX512" {
		return
	}
	g.table("DotFloat", "y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int")
	g.table("DotHalf", "y *float32, ldy int, a *float32, lda int, b *uint16, ldb, k, add int")
	for n := 1; n <= g.t.panel; n++ {
		g.dotFloat("dotFloat", "float32", n)
		g.dotFloat("dotHalf", "uint16", n)
	}
	g.fours()
}

func (g *amd64) table(kind, params string) {
	fmt.Fprintf(&g.tables, "\t%s%s = []func(%s){", lower(kind), g.t.name, params)
	for n := 1; n <= g.t.panel; n++ {
		fmt.Fprintf(&g.tables, "%s%s_%d, ", lower(kind), g.t.name, n)
	}
	g.tables.WriteString("}\n")
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// dot writes a product of n rows of blocks with an unpacked strip.
//
//	DI weights, DX scales, BX minimums or second scales, CX blocks, R8.. activations
//	V0.. one accumulator a row
func (g *amd64) dot(kind string, n int) {
	m := ""
	if kind == "DotMin" || kind == "Dot6" {
		m = " m *float32,"
	}
	g.function(fmt.Sprintf("%s%s_%d", lower(kind), g.t.name, n), "y *float32, ldy int, w *byte, d *float32,"+m+" x *Block, ldx int, blocks int", "")
	g.load("w", "DI")
	g.load("d", "DX")
	if m != "" {
		g.load("m", "BX")
	}
	g.load("x", "R8")
	g.load("ldx", "R12")
	g.load("blocks", "CX")
	g.rowPointers(n)
	for r := range n {
		g.zero(r)
	}
	g.p("TESTQ CX, CX")
	g.p("JZ done")
	g.label("next")
	switch {
	case g.t.vnni && kind == "Dot6":
		g.halvesVNNI(n)
	case g.t.vnni:
		g.blockVNNI(kind, n)
	case kind == "Dot6":
		g.halvesMadd(n)
	default:
		g.blockMadd(kind, n)
	}
	g.p("ADDQ $%d, DI", 8*g.t.bytes())
	g.p("ADDQ $%d, DX", g.t.bytes())
	if m != "" {
		g.p("ADDQ $%d, BX", g.t.bytes())
	}
	g.advance(n, blockBytes)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.label("done")
	g.load("y", "AX")
	g.load("ldy", "BX")
	g.p("SHLQ $2, BX")
	for r := range n {
		g.p("VMOVUPS %s, (AX)", g.v(r))
		if r+1 < n {
			g.p("ADDQ BX, AX")
		}
	}
	g.ret()
}

// blockVNNI adds a block: eight vectors of weights stay in Z16..Z23 while the
// rows pass by, four at a time.
func (g *amd64) blockVNNI(kind string, n int) {
	for j := range 8 {
		g.p("VMOVDQU32 %d(DI), Z%d", 64*j, 16+j)
	}
	g.p("VMOVUPS (DX), Z28")
	if kind == "DotMin" {
		g.p("VMOVUPS (BX), Z29")
	}
	for from := 0; from < n; from += 4 {
		to := min(from+4, n)
		for r := from; r < to; r++ {
			switch kind {
			case "Dot4":
				g.p("VPBROADCASTD %s, Z%d", row(r, offN8), 24+r-from)
			case "Dot8":
				g.p("VPBROADCASTD %s, Z%d", row(r, offN80), 24+r-from)
			default:
				g.p("VPXORD Z%d, Z%d, Z%d", 24+r-from, 24+r-from, 24+r-from)
			}
		}
		for j := range 8 {
			for r := from; r < to; r++ {
				g.p("VPDPBUSD.BCST %s, Z%d, Z%d", row(r, 4*j), 16+j, 24+r-from)
			}
		}
		for r := from; r < to; r++ {
			t := 24 + r - from
			g.p("VCVTDQ2PS Z%d, Z%d", t, t)
			g.p("VMULPS.BCST %s, Z28, Z30", row(r, offD))
			g.p("VFMADD231PS Z30, Z%d, Z%d", t, r)
			if kind == "DotMin" {
				g.p("VFMADD231PS.BCST %s, Z29, Z%d", row(r, offS), r)
			}
		}
	}
}

// halvesVNNI is blockVNNI for q6_0: a sum and a scale for each half of the block.
func (g *amd64) halvesVNNI(n int) {
	for j := range 8 {
		g.p("VMOVDQU32 %d(DI), Z%d", 64*j, 16+j)
	}
	g.p("VMOVUPS (DX), Z28")
	g.p("VMOVUPS (BX), Z29")
	for from := 0; from < n; from += 4 {
		to := min(from+4, n)
		for half := range 2 {
			for r := from; r < to; r++ {
				g.p("VPBROADCASTD %s, Z%d", row(r, offN32+4*half), 24+r-from)
			}
			for j := 4 * half; j < 4*half+4; j++ {
				for r := from; r < to; r++ {
					g.p("VPDPBUSD.BCST %s, Z%d, Z%d", row(r, 4*j), 16+j, 24+r-from)
				}
			}
			for r := from; r < to; r++ {
				g.p("VCVTDQ2PS Z%d, Z%d", 24+r-from, 24+r-from)
				g.p("VMULPS.BCST %s, Z%d, Z30", row(r, offD), 28+half)
				g.p("VFMADD231PS Z30, Z%d, Z%d", 24+r-from, r)
			}
		}
	}
}

func (g *amd64) broadcast(from string, to int) { g.p("VPBROADCASTD %s, %s", from, g.v(to)) }

// bits is the name of a bitwise instruction, which has a size on 512 bits.
func (g *amd64) bits(op string) string {
	if g.t.wide() {
		return op + "D"
	}
	return op
}

func (g *amd64) zero(n int) { g.p("%s %s, %s, %s", g.bits("VPXOR"), g.v(n), g.v(n), g.v(n)) }

// vmov is an unaligned move of a whole vector.
func (g *amd64) vmov() string {
	if g.t.wide() {
		return "VMOVDQU32"
	}
	return "VMOVDQU"
}

// everywhere is a vector of one word.
func (g *amd64) everywhere(name string, word uint32) string {
	words := make([]uint32, 16)
	for i := range words {
		words[i] = word
	}
	return g.constant(name, words...)
}

// blockMadd adds a block with 16-bit products, four rows at a time. Nibbles
// times int8 are at most 15·128 and sixteen of them fit 16 bits, so a block is
// widened once; 8-bit weights are two nibbles.
func (g *amd64) blockMadd(kind string, n int) {
	lo, hi, w, w2, x, tmp := 4, 8, 12, 13, 14, 15 // lo, hi: one a row
	if g.t.wide() {
		lo, hi, w, w2, x, tmp = 16, 20, 24, 25, 26, 27
	}
	split := kind == "Dot8"
	for from := 0; from < n; from += 4 {
		rows := min(n-from, 4)
		for i := range rows {
			g.zero(lo + i)
			if split {
				g.zero(hi + i)
			}
		}
		for j := range 8 {
			g.p("%s %d(DI), %s", g.vmov(), j*g.t.bytes(), g.v(w))
			if split {
				g.p("VPSRLW $4, %s, %s", g.v(w), g.v(w2))
				g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("mask15", 0x0f0f0f0f), g.v(w), g.v(w))
				g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("mask15", 0x0f0f0f0f), g.v(w2), g.v(w2))
			}
			for i := range rows {
				g.p("VPBROADCASTD %s, %s", row(from+i, 4*j), g.v(x))
				g.p("VPMADDUBSW %s, %s, %s", g.v(x), g.v(w), g.v(tmp))
				g.p("VPADDW %s, %s, %s", g.v(tmp), g.v(lo+i), g.v(lo+i))
				if split {
					g.p("VPMADDUBSW %s, %s, %s", g.v(x), g.v(w2), g.v(x))
					g.p("VPADDW %s, %s, %s", g.v(x), g.v(hi+i), g.v(hi+i))
				}
			}
		}
		for i := range rows {
			r := from + i
			g.p("VPMADDWD %s, %s, %s", g.everywhere("ones16", 0x00010001), g.v(lo+i), g.v(lo+i))
			if split {
				g.p("VPMADDWD %s, %s, %s", g.everywhere("ones16", 0x00010001), g.v(hi+i), g.v(hi+i))
				g.p("VPSLLD $4, %s, %s", g.v(hi+i), g.v(hi+i))
				g.p("VPADDD %s, %s, %s", g.v(hi+i), g.v(lo+i), g.v(lo+i))
			}
			if kind != "DotMin" {
				g.p("VPBROADCASTD %s, %s", row(r, map[string]int{"Dot4": offN8, "Dot8": offN80}[kind]), g.v(x))
				g.p("VPADDD %s, %s, %s", g.v(x), g.v(lo+i), g.v(lo+i))
			}
			g.p("VCVTDQ2PS %s, %s", g.v(lo+i), g.v(lo+i))
			g.p("VBROADCASTSS %s, %s", row(r, offD), g.v(x))
			g.p("VMULPS (DX), %s, %s", g.v(x), g.v(x))
			g.p("VFMADD231PS %s, %s, %s", g.v(x), g.v(lo+i), g.v(r))
			if kind == "DotMin" {
				g.p("VBROADCASTSS %s, %s", row(r, offS), g.v(x))
				g.p("VFMADD231PS (BX), %s, %s", g.v(x), g.v(r))
			}
		}
	}
}

// halvesMadd is blockMadd for q6_0. Six bits times int8 are at most 63·128 and four
// of them fit 16 bits.
func (g *amd64) halvesMadd(n int) {
	lo, hi, w, x, tmp := 4, 8, 12, 14, 15 // lo, hi: one a row
	if g.t.wide() {
		lo, hi, w, x, tmp = 16, 20, 24, 26, 27
	}
	for from := 0; from < n; from += 4 {
		rows := min(n-from, 4)
		for half := range 2 {
			for j := range 4 {
				g.p("%s %d(DI), %s", g.vmov(), (4*half+j)*g.t.bytes(), g.v(w))
				for i := range rows {
					sum := []int{lo, hi}[j/2] + i
					g.p("VPBROADCASTD %s, %s", row(from+i, 16*half+4*j), g.v(x))
					if j%2 == 0 {
						g.p("VPMADDUBSW %s, %s, %s", g.v(x), g.v(w), g.v(sum))
						continue
					}
					g.p("VPMADDUBSW %s, %s, %s", g.v(x), g.v(w), g.v(tmp))
					g.p("VPADDW %s, %s, %s", g.v(tmp), g.v(sum), g.v(sum))
				}
			}
			for i := range rows {
				for _, sum := range []int{lo + i, hi + i} {
					g.p("VPMADDWD %s, %s, %s", g.everywhere("ones16", 0x00010001), g.v(sum), g.v(sum))
				}
				g.p("VPADDD %s, %s, %s", g.v(hi+i), g.v(lo+i), g.v(lo+i))
				g.p("VPBROADCASTD %s, %s", row(from+i, offN32+4*half), g.v(x))
				g.p("VPADDD %s, %s, %s", g.v(x), g.v(lo+i), g.v(lo+i))
				g.p("VCVTDQ2PS %s, %s", g.v(lo+i), g.v(lo+i))
				g.p("VBROADCASTSS %s, %s", row(from+i, offD), g.v(x))
				g.p("VMULPS (%s), %s, %s", []string{"DX", "BX"}[half], g.v(x), g.v(x))
				g.p("VFMADD231PS %s, %s, %s", g.v(x), g.v(lo+i), g.v(from+i))
			}
		}
	}
}

// dotFloat writes a product of n rows of floats with k columns of lanes, which
// are floats or halves.
func (g *amd64) dotFloat(name, typ string, n int) {
	g.function(fmt.Sprintf("%s%s_%d", name, g.t.name, n), "y *float32, ldy int, a *float32, lda int, b *"+typ+", ldb int, k int, add int", "")
	g.load("y", "AX")
	g.load("ldy", "BX")
	g.p("SHLQ $2, BX")
	g.load("a", "R8")
	g.load("lda", "R12")
	g.p("SHLQ $2, R12")
	g.load("b", "DI")
	g.load("ldb", "DX")
	load := "VMOVUPS"
	if typ == "uint16" {
		load = "VCVTPH2PS"
		g.p("SHLQ $1, DX")
	} else {
		g.p("SHLQ $2, DX")
	}
	g.load("k", "CX")
	g.load("add", "SI")
	g.rowPointers(n)
	for r := range n {
		g.zero(r)
	}
	g.p("TESTQ SI, SI")
	g.p("JZ begin")
	g.p("MOVQ AX, SI")
	for r := range n {
		g.p("VMOVUPS (SI), %s", g.v(r))
		if r+1 < n {
			g.p("ADDQ BX, SI")
		}
	}
	g.label("begin")
	g.p("SUBQ $4, CX")
	g.p("JLT rest")
	g.label("four")
	for i := range 4 {
		g.floatColumn(load, n, i)
	}
	g.advance(n, 16)
	g.p("SUBQ $4, CX")
	g.p("JGE four")
	g.label("rest")
	g.p("ADDQ $4, CX")
	g.p("JZ done")
	g.label("one")
	g.floatColumn(load, n, 0)
	g.advance(n, 4)
	g.p("DECQ CX")
	g.p("JNZ one")
	g.label("done")
	for r := range n {
		g.p("VMOVUPS %s, (AX)", g.v(r))
		if r+1 < n {
			g.p("ADDQ BX, AX")
		}
	}
	g.ret()
}

func (g *amd64) floatColumn(load string, n, i int) {
	b := 14
	if g.t.wide() {
		b = 28 + i
	}
	g.p("%s (DI), %s", load, g.v(b))
	g.p("ADDQ DX, DI")
	for r := range n {
		if g.t.wide() {
			g.p("VFMADD231PS.BCST %s, Z%d, Z%d", row(r, 4*i), b, r)
			continue
		}
		g.p("VBROADCASTSS %s, Y15", row(r, 4*i))
		g.p("VFMADD231PS Y15, Y%d, Y%d", b, r)
	}
}

// fours writes products of a few rows with four times lanes columns, which have
// more sums at work than a row has alone.
func (g *amd64) fours() {
	rows := 2
	if g.t.wide() {
		rows = 4
	}
	for _, kind := range []struct{ name, typ string }{{"dotFloat4", "float32"}, {"dotHalf4", "uint16"}} {
		fmt.Fprintf(&g.tables, "\t%s%s = []func(y *float32, ldy, ystep int, a *float32, lda int, b *%s, ldb, step, k, add int, ahead uintptr){", kind.name, g.t.name, kind.typ)
		for n := 1; n <= rows; n++ {
			fmt.Fprintf(&g.tables, "%s%s_%d, ", kind.name, g.t.name, n)
		}
		g.tables.WriteString("}\n")
		for n := 1; n <= rows; n++ {
			g.four(kind.name, kind.typ, n)
		}
	}
}

// four: V0..V4n-1 the sums, four a row; R14, R15 = 3·R14 between column groups
// of b and then of y; SI what is asked for meanwhile, as much as is read.
func (g *amd64) four(name, typ string, n int) {
	g.function(fmt.Sprintf("%s%s_%d", name, g.t.name, n), "y *float32, ldy int, ystep int, a *float32, lda int, b *"+typ+", ldb int, step int, k int, add int, ahead uintptr", "")
	load, shift := "VMOVUPS", 2
	if typ == "uint16" {
		load, shift = "VCVTPH2PS", 1
	}
	g.load("y", "AX")
	g.load("ldy", "BX")
	g.p("SHLQ $2, BX")
	g.load("ystep", "R14")
	g.p("SHLQ $2, R14")
	g.p("LEAQ (R14)(R14*2), R15")
	g.load("add", "SI")
	for i := range 4 * n {
		g.zero(i)
	}
	g.p("TESTQ SI, SI")
	g.p("JZ begin")
	g.fourResults(n, false)
	g.label("begin")
	g.load("a", "R8")
	g.load("lda", "R12")
	g.p("SHLQ $2, R12")
	g.rowPointers(n)
	g.load("b", "DI")
	g.load("ldb", "DX")
	g.p("SHLQ $%d, DX", shift)
	g.load("step", "R14")
	g.p("SHLQ $%d, R14", shift)
	g.p("LEAQ (R14)(R14*2), R15")
	g.load("k", "CX")
	g.load("ahead", "SI")
	g.p("TESTQ CX, CX")
	g.p("JZ done")
	g.label("next")
	g.prefetch(4 * g.t.lanes << shift)
	for r := range n {
		if !g.t.wide() {
			g.p("VBROADCASTSS %s, Y%d", row(r, 0), 14+r)
		}
	}
	for c, index := range []string{"", "(R14*1)", "(R14*2)", "(R15*1)"} {
		b := 12
		if g.t.wide() {
			b = 28 + c
		}
		g.p("%s (DI)%s, %s", load, index, g.v(b))
		for r := range n {
			if g.t.wide() {
				g.p("VFMADD231PS.BCST %s, Z%d, Z%d", row(r, 0), b, 4*r+c)
			} else {
				g.p("VFMADD231PS Y%d, Y%d, Y%d", 14+r, b, 4*r+c)
			}
		}
	}
	g.p("ADDQ DX, DI")
	g.advance(n, 4)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.label("done")
	g.load("ystep", "R14")
	g.p("SHLQ $2, R14")
	g.p("LEAQ (R14)(R14*2), R15")
	g.fourResults(n, true)
	g.ret()
}

// fourResults moves the sums from or to y.
func (g *amd64) fourResults(n int, store bool) {
	g.p("MOVQ AX, SI")
	for r := range n {
		for c, index := range []string{"", "(R14*1)", "(R14*2)", "(R15*1)"} {
			from, to := "(SI)"+index, g.v(4*r+c)
			if store {
				from, to = to, from
			}
			g.p("VMOVUPS %s, %s", from, to)
		}
		if r+1 < n {
			g.p("ADDQ BX, SI")
		}
	}
}
