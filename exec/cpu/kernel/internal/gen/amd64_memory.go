package main

import "fmt"

// Products of few rows, straight from memory.

// vecRows is how many rows of activations the products from memory take.
const vecRows = 4

// vectors writes products of a few rows of blocks with a strip as it lies in
// memory.
//
//	R8.. the strip, DX scales, BX minimums, DI activations with R14, R15 = 3·R14 from row to row
func (g *amd64) vectors(t target, rows int, vec func(kind, m string, n int)) {
	g.t = t
	for _, kind := range []string{"vec4", "vec8", "vecMin"} {
		m, params := "", "y *float32, ldy int, src *byte, stride int, d *float32, x *Block, ldx, groups int"
		if kind == "vecMin" {
			m, params = " m *float32,", "y *float32, ldy int, src *byte, stride int, d, m *float32, x *Block, ldx, groups int"
		}
		fmt.Fprintf(&g.tables, "\t%s%s = []func(%s){", kind, g.t.name, params)
		for n := 1; n <= rows; n++ {
			fmt.Fprintf(&g.tables, "%s%s_%d, ", kind, g.t.name, n)
		}
		g.tables.WriteString("}\n")
		for n := 1; n <= rows; n++ {
			vec(kind, m, n)
		}
	}
}

// vecBegin and vecEnd are around the loop over groups.
func (g *amd64) vecBegin(kind, m string, n int) {
	g.function(fmt.Sprintf("%s%s_%d", kind, g.t.name, n), "y *float32, ldy int, src *byte, stride int, d *float32,"+m+" x *Block, ldx int, groups int", "")
	g.load("d", "DX")
	if m != "" {
		g.load("m", "BX")
	}
	g.load("x", "DI")
	g.load("ldx", "R14")
	g.p("LEAQ (R14)(R14*2), R15")
	g.stripPointers()
}

func (g *amd64) vecEnd(m string, n, first int) {
	g.p("ADDQ $%d, DX", 4*g.t.bytes())
	if m != "" {
		g.p("ADDQ $%d, BX", 4*g.t.bytes())
	}
	g.p("ADDQ $%d, DI", 4*blockBytes)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.load("y", "AX")
	g.load("ldy", "BX")
	g.p("SHLQ $2, BX")
	for r := range n {
		g.p("VMOVUPS %s, (AX)", g.v(first+r))
		if r+1 < n {
			g.p("ADDQ BX, AX")
		}
	}
	g.ret()
}

// vecRegisters are what vecMadd uses beside the strip's rows.
type vecRegisters struct{ v, high, x, sum, sumHigh, result int }

func (g *amd64) vecRegisters() vecRegisters {
	if g.t.wide() {
		return vecRegisters{v: 16, high: 17, x: 20, sum: 21, sumHigh: 22, result: 30}
	}
	return vecRegisters{v: 8, high: 9, x: 10, sum: 11, sumHigh: 12, result: 14}
}

// vecMadd is a product of one or two rows with 16-bit multiply-adds.
func (g *amd64) vecMadd(kind, m string, n int) {
	reg, lanes, size := g.vecRegisters(), g.t.lanes, g.t.bytes()
	g.vecBegin(kind, m, n)
	for r := range n {
		g.zero(reg.result + r)
	}
	g.label("next")
	width := map[string]int{"vec4": 64, "vec8": 128, "vecMin": 64}[kind] // bytes of a row in a group
	for c := range width / size {
		for r := range lanes {
			g.p("%s %s, %s", g.vmov(), row(r, size*c), g.v(r))
		}
		g.columnsInLanes()
		if kind != "vec8" {
			for lane := range size / 16 {
				g.maddBlock4(kind, c*size/16+lane, lane, n)
			}
			continue
		}
		for i := range size / 32 {
			for r := range n {
				g.maddBlock8(c*size/32+i, i, r)
			}
		}
	}
	g.prefetchRows(width, aheadOf(kind))
	g.advance(lanes, width)
	g.vecEnd(m, n, reg.result)
}

// lane gathers word t of a 16-byte lane of all rows.
func (g *amd64) lane(lane, t, to int) {
	if !g.t.wide() {
		g.p("VPERM2I128 $0x%x, Y%d, Y%d, Y%d", []int{0x20, 0x31}[lane], 4+t, t, to)
		return
	}
	g.lanePair(lane/2, t, 18)
	g.ofPair(lane, 18, to)
}

// lanePair gathers lanes 2·half and 2·half+1 of a strip of sixteen rows in pair and
// pair+1, for ofPair.
func (g *amd64) lanePair(half, t, pair int) {
	which := []int{0x44, 0xee}[half]
	g.p("VSHUFI32X4 $0x%x, Z%d, Z%d, Z%d", which, 4+t, t, pair)
	g.p("VSHUFI32X4 $0x%x, Z%d, Z%d, Z%d", which, 12+t, 8+t, pair+1)
}

// ofPair takes one of the lanes in pair and pair+1.
func (g *amd64) ofPair(lane, pair, to int) {
	g.p("VSHUFI32X4 $0x%x, Z%d, Z%d, Z%d", []int{0x88, 0xdd}[lane%2], pair+1, pair, to)
}

// nibbles splits v into its low nibbles, in place, and its high ones.
func (g *amd64) nibbles(v, high int) {
	g.p("VPSRLW $4, %s, %s", g.v(v), g.v(high))
	g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("mask15", 0x0f0f0f0f), g.v(v), g.v(v))
	g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("mask15", 0x0f0f0f0f), g.v(high), g.v(high))
}

func (g *amd64) maddBlock4(kind string, block, lane, n int) {
	reg := g.vecRegisters()
	for t := range 4 {
		g.lane(lane, t, reg.v)
		g.nibbles(reg.v, reg.high)
		for half, w := range []int{reg.v, reg.high} {
			for r := range n {
				g.p("VPBROADCASTD %s, %s", actRow(r, block*blockBytes+16*half+4*t), g.v(reg.x))
				sum := reg.sum + r
				if t == 0 && half == 0 {
					g.p("VPMADDUBSW %s, %s, %s", g.v(reg.x), g.v(w), g.v(sum))
					continue
				}
				g.p("VPMADDUBSW %s, %s, %s", g.v(reg.x), g.v(w), g.v(reg.x))
				g.p("VPADDW %s, %s, %s", g.v(reg.x), g.v(sum), g.v(sum))
			}
		}
	}
	for r := range n {
		g.p("VPMADDWD %s, %s, %s", g.everywhere("ones16", 0x00010001), g.v(reg.sum+r), g.v(reg.sum+r))
		if kind == "vec4" {
			g.p("VPBROADCASTD %s, %s", actRow(r, block*blockBytes+offN8), g.v(reg.x))
			g.p("VPADDD %s, %s, %s", g.v(reg.x), g.v(reg.sum+r), g.v(reg.sum+r))
		}
		g.maddScale(kind, block, r, reg.sum+r)
	}
}

// maddBlock8 adds a block of bytes, lanes 2i and 2i+1, for row r.
func (g *amd64) maddBlock8(block, i, r int) {
	reg := g.vecRegisters()
	for half := range 2 {
		for t := range 4 {
			g.lane(2*i+half, t, reg.v)
			g.p("%s %s, %s, %s", g.bits("VPXOR"), g.everywhere("sign8", 0x80808080), g.v(reg.v), g.v(reg.v))
			g.nibbles(reg.v, reg.high)
			g.p("VPBROADCASTD %s, %s", actRow(r, block*blockBytes+16*half+4*t), g.v(reg.x))
			for _, w := range [][2]int{{reg.v, reg.sum}, {reg.high, reg.sumHigh}} {
				if half == 0 && t == 0 {
					g.p("VPMADDUBSW %s, %s, %s", g.v(reg.x), g.v(w[0]), g.v(w[1]))
					continue
				}
				g.p("VPMADDUBSW %s, %s, %s", g.v(reg.x), g.v(w[0]), g.v(w[0]))
				g.p("VPADDW %s, %s, %s", g.v(w[0]), g.v(w[1]), g.v(w[1]))
			}
		}
	}
	sum, high := g.v(reg.sum), g.v(reg.sumHigh)
	g.p("VPMADDWD %s, %s, %s", g.everywhere("ones16", 0x00010001), sum, sum)
	g.p("VPMADDWD %s, %s, %s", g.everywhere("ones16", 0x00010001), high, high)
	g.p("VPSLLD $4, %s, %s", high, high)
	g.p("VPADDD %s, %s, %s", high, sum, sum)
	g.p("VPBROADCASTD %s, %s", actRow(r, block*blockBytes+offN80), g.v(reg.x))
	g.p("VPADDD %s, %s, %s", g.v(reg.x), sum, sum)
	g.maddScale("vec8", block, r, reg.sum)
}

// maddScale adds the sums in register sum to row r's results.
func (g *amd64) maddScale(kind string, block, r, sum int) {
	reg := g.vecRegisters()
	x, result := g.v(reg.x), g.v(reg.result+r)
	g.p("VCVTDQ2PS %s, %s", g.v(sum), g.v(sum))
	g.p("VBROADCASTSS %s, %s", actRow(r, block*blockBytes+offD), x)
	g.p("VMULPS %d(DX), %s, %s", g.t.bytes()*block, x, x)
	g.p("VFMADD231PS %s, %s, %s", x, g.v(sum), result)
	if kind == "vecMin" {
		g.p("VBROADCASTSS %s, %s", actRow(r, block*blockBytes+offS), x)
		g.p("VFMADD231PS %d(BX), %s, %s", g.t.bytes()*block, x, result)
	}
}

// vec is one with 512 bits and VNNI: Z0..Z15 the strip's rows, then their
// columns; Z16..Z19 temporaries; Z20..Z27 a block's sums, one for each block at
// work and row; Z28.. the results.
func (g *amd64) vec(kind, m string, n int) {
	g.vecBegin(kind, m, n)
	for r := range n {
		g.zero(28 + r)
	}
	if n < vecRows {
		g.broadcast(g.vecMask(kind), 31)
	}
	g.label("next")
	for part := range map[string]int{"vec4": 1, "vec8": 2, "vecMin": 1}[kind] {
		for r := range 16 {
			g.p("VMOVDQU32 %s, Z%d", row(r, 0), r)
		}
		g.prefetchRows(64, aheadOf(kind))
		g.columnsInLanes()
		if n == 1 {
			g.vecBlocks(kind, n, part, []int{0, 1})
		} else { // half of the blocks at a time, for want of registers
			g.vecBlocks(kind, n, part, []int{0})
			g.vecBlocks(kind, n, part, []int{1})
		}
		g.advance(16, 64)
	}
	g.vecEnd(m, n, 28)
}

// vecFloats writes the same for floats: the strip's rows are transposed sixteen
// columns at a time and multiplied column after column.
//
//	V0.. the strip's rows, then their columns; four temporaries behind; V28.., on
//	256 bits V14.., the results
func (g *amd64) vecFloats(t target, rows int) {
	g.t = t
	for _, typ := range []string{"F32", "F16", "BF16"} {
		fmt.Fprintf(&g.tables, "\tvec%s%s = []func(y *float32, ldy int, src *byte, stride int, x *float32, ldx, groups int){", typ, g.t.name)
		for n := 1; n <= rows; n++ {
			fmt.Fprintf(&g.tables, "vec%s%s_%d, ", typ, g.t.name, n)
		}
		g.tables.WriteString("}\n")
		for n := 1; n <= rows; n++ {
			g.vecFloat(typ, n)
		}
	}
}

func (g *amd64) vecFloat(typ string, n int) {
	g.function(fmt.Sprintf("vec%s%s_%d", typ, g.t.name, n), "y *float32, ldy int, src *byte, stride int, x *float32, ldx int, groups int", "")
	g.load("x", "DI")
	g.load("ldx", "R14")
	g.p("SHLQ $2, R14")
	g.p("LEAQ (R14)(R14*2), R15")
	g.stripPointers()
	result, lanes, size := 14, g.t.lanes, map[string]int{"F32": 4, "F16": 2, "BF16": 2}[typ]
	if g.t.wide() {
		result = 28
	}
	for r := range n {
		g.zero(result + r)
	}
	g.label("next")
	for c := range 16 / lanes {
		g.loadFloats(typ, c)
		g.columnsInLanes()
		for lane := range lanes / 4 {
			for t := range 4 {
				g.lane(lane, t, lanes)
				for r := range n {
					at := actRow(r, 4*(c*lanes+4*lane+t))
					if g.t.wide() {
						g.p("VFMADD231PS.BCST %s, Z16, Z%d", at, result+r)
						continue
					}
					g.p("VBROADCASTSS %s, Y9", at)
					g.p("VFMADD231PS Y9, Y8, Y%d", result+r)
				}
			}
		}
	}
	g.prefetchRows(16*size, quantsAhead)
	g.advance(lanes, 16*size)
	g.p("ADDQ $64, DI")
	g.p("DECQ CX")
	g.p("JNZ next")
	g.load("y", "AX")
	g.load("ldy", "BX")
	g.p("SHLQ $2, BX")
	for r := range n {
		g.p("VMOVUPS %s, (AX)", g.v(result+r))
		if r+1 < n {
			g.p("ADDQ BX, AX")
		}
	}
	g.ret()
}

// loadFloats reads columns c·lanes.. of a strip's rows as float32.
func (g *amd64) loadFloats(typ string, c int) {
	for r := range g.t.lanes {
		switch typ {
		case "F32":
			g.p("%s %s, %s", g.vmov(), row(r, 4*c*g.t.lanes), g.v(r))
		case "F16":
			g.p("VCVTPH2PS %s, %s", row(r, 2*c*g.t.lanes), g.v(r))
		default:
			g.p("VPMOVZXWD %s, %s", row(r, 2*c*g.t.lanes), g.v(r))
			g.p("VPSLLD $16, %s, %s", g.v(r), g.v(r))
		}
	}
}

// vecMask is the word that makes a vector of weights unsigned numbers.
func (g *amd64) vecMask(kind string) string {
	if kind == "vec8" {
		return g.everywhere("sign8", 0x80808080)
	}
	return g.everywhere("mask15", 0x0f0f0f0f)
}

// masked computes to = op from with that word.
func (g *amd64) masked(op, kind string, n, from, to int) {
	if n < vecRows {
		g.p("%s Z31, Z%d, Z%d", op, from, to)
		return
	}
	g.p("%s.BCST %s, Z%d, Z%d", op, g.vecMask(kind), from, to)
}

func actRow(r, disp int) string {
	return fmt.Sprintf("%d(DI)%s", disp, []string{"", "(R14*1)", "(R14*2)", "(R15*1)"}[r])
}

// vecBlocks adds the blocks in the given halves of the 64 bytes a row: lanes
// 2·half and 2·half+1. A lane is a block of nibbles, or half a block of bytes.
func (g *amd64) vecBlocks(kind string, n, part int, halves []int) {
	var blocks []int // of the group
	for _, h := range halves {
		if kind == "vec8" {
			blocks = append(blocks, 2*part+h)
		} else {
			blocks = append(blocks, 2*h, 2*h+1)
		}
	}
	sum := func(block, r int) int { return 20 + (block-blocks[0])*n + r }
	for _, b := range blocks {
		for r := range n {
			if kind == "vecMin" {
				g.zero(sum(b, r))
			} else {
				g.broadcast(actRow(r, b*blockBytes+map[string]int{"vec4": offN8, "vec8": offN80}[kind]), sum(b, r))
			}
		}
	}
	for t := range 4 {
		for _, h := range halves {
			which := []int{0x44, 0xee}[h]
			g.p("VSHUFI32X4 $0x%x, Z%d, Z%d, Z16", which, 4+t, t)
			g.p("VSHUFI32X4 $0x%x, Z%d, Z%d, Z17", which, 12+t, 8+t)
			for lane := range 2 {
				g.p("VSHUFI32X4 $0x%x, Z17, Z16, Z18", []int{0x88, 0xdd}[lane])
				if kind == "vec8" {
					b := 2*part + h
					g.masked("VPXORD", kind, n, 18, 18)
					for r := range n {
						g.p("VPDPBUSD.BCST %s, Z18, Z%d", actRow(r, b*blockBytes+16*lane+4*t), sum(b, r))
					}
					continue
				}
				b := 2*h + lane
				g.masked("VPANDD", kind, n, 18, 19)
				g.p("VPSRLW $4, Z18, Z18")
				g.masked("VPANDD", kind, n, 18, 18)
				for r := range n {
					g.p("VPDPBUSD.BCST %s, Z19, Z%d", actRow(r, b*blockBytes+4*t), sum(b, r))
				}
				for r := range n {
					g.p("VPDPBUSD.BCST %s, Z18, Z%d", actRow(r, b*blockBytes+16+4*t), sum(b, r))
				}
			}
		}
	}
	for _, b := range blocks {
		g.p("VMOVUPS %d(DX), Z16", b*64)
		if kind == "vecMin" {
			g.p("VMOVUPS %d(BX), Z17", b*64)
		}
		for r := range n {
			g.p("VCVTDQ2PS Z%d, Z%d", sum(b, r), sum(b, r))
			g.p("VMULPS.BCST %s, Z16, Z18", actRow(r, b*blockBytes+offD))
			g.p("VFMADD231PS Z18, Z%d, Z%d", sum(b, r), 28+r)
			if kind == "vecMin" {
				g.p("VFMADD231PS.BCST %s, Z17, Z%d", actRow(r, b*blockBytes+offS), 28+r)
			}
		}
	}
}
