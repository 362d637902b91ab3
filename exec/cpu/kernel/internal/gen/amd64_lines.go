package main

// Products of one row of activations with a strip, row after row as they lie in
// memory. A processor foresees one stream of reads better than sixteen: this
// reads faster than the products from memory that take a column of a whole
// strip at a time, though it does no less work.
//
// A row's blocks are summed exactly, in integers, to a table of the strip's
// blocks; then scales are applied block after block to all rows at once, in the
// same order as everywhere else.

// lineAhead is how far ahead of a read its line is asked for, in bytes.
const lineAhead = 6144

func (g *amd64) lines(t target) {
	g.t = t
	for _, kind := range []string{"line4", "line8", "lineMin"} {
		m := ""
		if kind == "lineMin" {
			m = " m *float32,"
		}
		g.function(kind+t.name, "y *float32, src *byte, stride int, d *float32,"+m+" x *Block, halves *byte, sums *int32, groups int", "")
		g.lineSums(kind)
		g.lineScales(kind)
		g.ret()
	}
}

// lineSums writes for each row and four groups sixteen sums: dword 4l+i is block
// 4i+l of nibbles; of bytes, lanes l = 0 and 1 hold the even and the odd blocks
// of the first eight, lanes 2 and 3 of the others.
//
//	SI a row, R8 the next, R12 from row to row, DI activations, R10 sums, AX groups left, DX rows left
func (g *amd64) lineSums(kind string) {
	g.load("src", "R8")
	g.load("stride", "R12")
	g.load("sums", "R10")
	line, width := g.lineBytes, 128 // of weights in a group
	if kind != "line8" {
		line, width = g.lineNibbles, 64
		g.broadcast(g.everywhere("mask15", 0x0f0f0f0f), 31)
	} else {
		g.broadcast(g.everywhere("sign8", 0x80808080), 31)
	}
	g.p("MOVQ $%d, DX", g.t.lanes)
	g.label("row")
	g.p("MOVQ R8, SI")
	if kind == "line8" {
		g.load("x", "DI")
	} else {
		g.load("halves", "DI")
	}
	g.load("groups", "AX")
	g.p("SUBQ $4, AX")
	g.p("JLT rest")
	g.label("fours")
	for i := range 4 {
		line(i)
	}
	g.lineReduce(kind)
	g.p("ADDQ $%d, SI", 4*width)
	g.p("ADDQ $%d, DI", map[bool]int{true: 16 * blockBytes, false: 512}[kind == "line8"])
	g.p("SUBQ $4, AX")
	g.p("JGE fours")
	g.label("rest")
	g.p("ADDQ $4, AX")
	g.p("JZ ended")
	for r := range 4 * width / 64 {
		g.zero(20 + r)
	}
	for i := range 3 {
		line(i)
		g.p("DECQ AX")
		g.p("JZ reduce")
	}
	g.label("reduce")
	g.lineReduce(kind)
	g.label("ended")
	g.p("ADDQ R12, R8")
	g.p("DECQ DX")
	g.p("JNZ row")
}

// lineNibbles sums group i in Z20+i: a dword of each quarter of a block.
func (g *amd64) lineNibbles(i int) {
	g.p("VMOVDQU32 %d(SI), Z0", 64*i)
	g.p("PREFETCHT0 %d(SI)", lineAhead+64*i)
	g.p("VPANDD Z31, Z0, Z1")
	g.p("VPSRLW $4, Z0, Z0")
	g.p("VPANDD Z31, Z0, Z0")
	g.zero(20 + i)
	g.p("VPDPBUSD %d(DI), Z1, Z%d", 128*i, 20+i)
	g.p("VPDPBUSD %d(DI), Z0, Z%d", 128*i+64, 20+i)
}

// lineBytes sums group i, two lines, in Z20+2i and the next.
func (g *amd64) lineBytes(i int) {
	for l := 2 * i; l < 2*i+2; l++ {
		g.p("VPXORD %d(SI), Z31, Z0", 64*l)
		g.p("PREFETCHT0 %d(SI)", lineAhead+64*l)
		g.p("VMOVDQU %d(DI), Y1", 2*l*blockBytes)
		g.p("VINSERTI64X4 $1, %d(DI), Z1, Z1", (2*l+1)*blockBytes)
		g.zero(20 + l)
		g.p("VPDPBUSD Z1, Z0, Z%d", 20+l)
	}
}

// lineReduce adds up the dwords of each block and stores the sums.
func (g *amd64) lineReduce(kind string) {
	g.addFours(20, 0)
	if kind == "line8" {
		g.addFours(24, 4)
		g.p("VSHUFI32X4 $0x88, Z4, Z0, Z1")
		g.p("VSHUFI32X4 $0xdd, Z4, Z0, Z2")
		g.p("VPADDD Z2, Z1, Z0")
	}
	g.p("VMOVDQU32 Z0, (R10)")
	g.p("ADDQ $64, R10")
}

// addFours leaves in dword i of each lane of register to the sum of that lane in
// register from+i. It uses to..to+3.
func (g *amd64) addFours(from, to int) {
	for i := range 2 {
		a, b := from+2*i, from+2*i+1
		g.p("VPUNPCKLDQ Z%d, Z%d, Z%d", b, a, to+2*i)
		g.p("VPUNPCKHDQ Z%d, Z%d, Z%d", b, a, to+2*i+1)
		g.p("VPADDD Z%d, Z%d, Z%d", to+2*i+1, to+2*i, to+2*i)
	}
	g.p("VPUNPCKLQDQ Z%d, Z%d, Z%d", to+2, to, to+1)
	g.p("VPUNPCKHQDQ Z%d, Z%d, Z%d", to+2, to, to+3)
	g.p("VPADDD Z%d, Z%d, Z%d", to+3, to+1, to)
}

// lineScales turns the sums into results.
//
//	R8.. sums, DX scales, BX minimums, DI activations, CX groups left, Z28 the results
func (g *amd64) lineScales(kind string) {
	g.load("sums", "R8")
	g.load("d", "DX")
	if kind == "lineMin" {
		g.load("m", "BX")
	}
	g.load("x", "DI")
	g.load("groups", "CX")
	g.p("LEAQ 3(CX), R12")
	g.p("SHRQ $2, R12")
	g.p("SHLQ $6, R12")
	g.rowPointers(g.t.lanes)
	g.zero(28)
	g.label("next")
	for r := range 16 {
		g.p("VMOVDQU32 %s, Z%d", row(r, 0), r)
	}
	g.columnsInLanes()
	for group := range 4 {
		for k := range 4 {
			g.lineBlock(kind, 4*group+k)
		}
		if group < 3 {
			g.p("DECQ CX")
			g.p("JZ done")
		}
	}
	g.advance(16, 64)
	g.p("ADDQ $%d, DX", 16*g.t.bytes())
	if kind == "lineMin" {
		g.p("ADDQ $%d, BX", 16*g.t.bytes())
	}
	g.p("ADDQ $%d, DI", 16*blockBytes)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.label("done")
	g.load("y", "AX")
	g.p("VMOVUPS Z28, (AX)")
}

// lineBlock adds one of sixteen blocks of all rows.
func (g *amd64) lineBlock(kind string, block int) {
	lane, t := block%4, block/4
	if kind == "line8" {
		lane, t = block%2+block/8*2, block/2%4
	}
	g.lane(lane, t, 20)
	if kind != "lineMin" {
		g.p("VPADDD.BCST %d(DI), Z20, Z20", block*blockBytes+map[string]int{"line4": offN8, "line8": offN80}[kind])
	}
	g.p("VCVTDQ2PS Z20, Z20")
	g.p("VMOVUPS %d(DX), Z21", 64*block)
	g.p("VMULPS.BCST %d(DI), Z21, Z21", block*blockBytes+offD)
	g.p("VFMADD231PS Z21, Z20, Z28")
	if kind == "lineMin" {
		g.p("VMOVUPS %d(BX), Z21", 64*block)
		g.p("VFMADD231PS.BCST %d(DI), Z21, Z28", block*blockBytes+offS)
	}
}
