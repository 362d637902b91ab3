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
	g.sums("sums4")
	g.sums("sums8")
	for _, kind := range []string{"apply4", "apply8", "applyMin"} {
		g.apply(kind)
	}
}

// sums writes for each row and four groups sixteen sums: dword 4l+i is block
// 4i+l of nibbles; of bytes, lanes l = 0 and 1 hold the even and the odd blocks
// of the first eight, lanes 2 and 3 of the others.
//
//	SI a row, R8 the next, R12 from row to row, DI activations, R10 sums, R9 sums of the next row, AX groups left, DX rows left
func (g *amd64) sums(kind string) {
	g.function(kind+g.t.name, "src *byte, stride int, x *byte, sums *int32, pitch int, rows int, groups int", "")
	g.load("src", "R8")
	g.load("stride", "R12")
	g.load("sums", "R9")
	g.load("rows", "DX")
	line, width := g.lineBytes, 128 // of weights in a group
	if kind == "sums4" {
		line, width = g.lineNibbles, 64
		g.broadcast(g.everywhere("mask15", 0x0f0f0f0f), 31)
	} else {
		g.broadcast(g.everywhere("sign8", 0x80808080), 31)
	}
	g.label("row")
	g.p("MOVQ R8, SI")
	g.p("MOVQ R9, R10")
	g.load("x", "DI")
	g.load("groups", "AX")
	g.p("SUBQ $4, AX")
	g.p("JLT rest")
	g.label("fours")
	for i := range 4 {
		line(i)
	}
	g.storeSums(kind)
	g.p("ADDQ $%d, SI", 4*width)
	g.p("ADDQ $%d, DI", map[string]int{"sums4": 512, "sums8": 16 * blockBytes}[kind])
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
	g.storeSums(kind)
	g.label("ended")
	g.p("ADDQ R12, R8")
	g.load("pitch", "AX")
	g.p("ADDQ AX, R9")
	g.p("DECQ DX")
	g.p("JNZ row")
	g.ret()
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

// storeSums adds up the dwords of each block and stores the sums.
func (g *amd64) storeSums(kind string) {
	g.addFours(20, 0)
	if kind == "sums8" {
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

// apply writes the sums of a strip's blocks, each with its scale, for all rows.
//
//	R8.. sums, DX scales, BX minimums, DI activations, CX groups left, Z28 the results
func (g *amd64) apply(kind string) {
	m := ""
	if kind == "applyMin" {
		m = " m *float32,"
	}
	g.function(kind+g.t.name, "y *float32, sums *int32, pitch int, d *float32,"+m+" x *Block, groups int", "")
	g.load("sums", "R8")
	g.load("pitch", "R12")
	g.load("d", "DX")
	if m != "" {
		g.load("m", "BX")
	}
	g.load("x", "DI")
	g.load("groups", "CX")
	g.rowPointers(g.t.lanes)
	g.zero(28)
	g.label("next")
	for r := range 16 {
		g.p("VMOVDQU32 %s, Z%d", row(r, 0), r)
	}
	g.columnsInLanes()
	for group := range 4 {
		for k := range 4 {
			g.applyBlock(kind, 4*group+k)
		}
		if group < 3 {
			g.p("DECQ CX")
			g.p("JZ done")
		}
	}
	g.advance(16, 64)
	g.p("ADDQ $%d, DX", 16*g.t.bytes())
	if m != "" {
		g.p("ADDQ $%d, BX", 16*g.t.bytes())
	}
	g.p("ADDQ $%d, DI", 16*blockBytes)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.label("done")
	g.load("y", "AX")
	g.p("VMOVUPS Z28, (AX)")
	g.ret()
}

// applyBlock adds one of sixteen blocks of all rows.
func (g *amd64) applyBlock(kind string, block int) {
	lane, t := block%4, block/4
	if kind == "apply8" {
		lane, t = block%2+block/8*2, block/2%4
	}
	g.lane(lane, t, 20)
	if kind != "applyMin" {
		g.p("VPADDD.BCST %d(DI), Z20, Z20", block*blockBytes+map[string]int{"apply4": offN8, "apply8": offN80}[kind])
	}
	g.p("VCVTDQ2PS Z20, Z20")
	g.p("VMOVUPS %d(DX), Z21", 64*block)
	g.p("VMULPS.BCST %d(DI), Z21, Z21", block*blockBytes+offD)
	g.p("VFMADD231PS Z21, Z20, Z28")
	if kind == "applyMin" {
		g.p("VMOVUPS %d(BX), Z21", 64*block)
		g.p("VFMADD231PS.BCST %d(DI), Z21, Z28", block*blockBytes+offS)
	}
}
