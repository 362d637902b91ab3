package main

import (
	"fmt"
	"strings"
)

// Products of few rows of activations with a strip, row after row as they lie in
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
	for _, kind := range []string{"4", "6", "8", "Min"} {
		most := 1
		if t.wide() && kind == "8" { // nibbles come as fast a column of a whole strip at a time
			most = maxActs
		}
		fmt.Fprintf(&g.tables, "\tlines%s%s = []linesKernel{", kind, t.name)
		for g.acts = 1; g.acts <= most; g.acts++ {
			g.line(kind)
			fmt.Fprintf(&g.tables, "lines%s%s_%d, ", kind, t.name, g.acts)
		}
		g.tables.WriteString("}\n")
	}
}

// maxActs is up to how many rows of activations are multiplied with what is read
// once: there are registers for so many.
const maxActs = 3

const linesParams = "y *float32, strips int, src *byte, stride int, scales *byte, scalesStride int, x *byte, xd *float32, other unsafe.Pointer, " +
	"sums *int32, pitch int, d *float32, m *float32, groups int, blocks int, early int, step int, " +
	"left int, ldy int, xPitch int, linePitch int, sumsPitch int"

// line writes the products of g.acts rows of activations with strips, one after
// another in one call. Some of a strip's rows may be summed before its scales are
// unpacked. What moves on from strip to strip lies where the parameters came.
//
//	BX what to ask for beside the rows, R14 sums of the next row, R15 rows to sum after the scales are unpacked
func (g *amd64) line(kind string) {
	g.function(fmt.Sprintf("lines%s%s_%d", kind, g.t.name, g.acts), linesParams, "")
	g.label("strip")
	g.load("sums", "R14")
	if g.t.wide() { // others lose by it
		g.load("scalesStride", "BX")
		g.p("SHLQ $%d, BX", g.t.lanesShift())
		g.p("ADDQ scales+%d(FP), BX", g.args["scales"])
	}
	g.load("early", "DX")
	g.p("MOVQ $%d, R15", g.t.lanes)
	g.p("SUBQ DX, R15")
	g.p("TESTQ DX, DX")
	g.p("JZ scales")
	g.label("sum")
	g.sums(kind)
	g.p("TESTQ R15, R15")
	g.p("JZ apply")
	g.label("scales")
	g.lineScales(kind)
	g.p("MOVQ R15, DX")
	g.p("XORQ R15, R15")
	g.p("JMP sum")
	g.label("apply")
	g.apply(kind)
	if g.acts > 1 {
		g.nextActs()
	}
	g.p("ADDQ $%d, y+%d(FP)", g.t.bytes(), g.args["y"])
	g.load("scalesStride", "AX")
	g.p("SHLQ $%d, AX", g.t.lanesShift())
	g.p("ADDQ AX, scales+%d(FP)", g.args["scales"])
	g.p("DECQ strips+%d(FP)", g.args["strips"])
	g.p("JNZ strip")
	g.ret()
}

// nextActs goes on to the next row of activations, and after the last back to the first.
func (g *amd64) nextActs() {
	move := func(op string) {
		for _, by := range []struct {
			pitch string
			args  []string
		}{{"linePitch", []string{"xd", "other"}}, {"sumsPitch", []string{"sums"}}, {"ldy", []string{"y"}}} {
			g.load(by.pitch, "AX")
			if by.pitch == "ldy" {
				g.p("SHLQ $2, AX")
			}
			if op == "SUBQ" {
				g.p("IMUL3Q $%d, AX, AX", g.acts)
			}
			for _, arg := range by.args {
				g.p("%s AX, %s+%d(FP)", op, arg, g.args[arg])
			}
		}
	}
	move("ADDQ")
	g.p("DECQ left+%d(FP)", g.args["left"])
	g.p("JNZ apply")
	g.p("MOVQ $%d, left+%d(FP)", g.acts, g.args["left"])
	move("SUBQ")
}

// lineScales unpacks a strip's scales, and clears those behind a row's last block:
// what was there belongs to the next row.
func (g *amd64) lineScales(kind string) {
	planes := []string{"d"}
	if paired(kind) {
		planes = append(planes, "m")
	}
	for i, plane := range planes {
		g.load(plane, []string{"DI", "DX"}[i])
	}
	g.stripPointersOf("scales", "scalesStride")
	if paired(kind) {
		g.pairsLoop()
	} else {
		g.scalesLoop()
	}
	g.load("groups", "CX")
	g.p("SHLQ $2, CX")
	g.load("blocks", "AX")
	g.p("SUBQ AX, CX")
	g.p("JZ cleared")
	g.p("SHLQ $%d, AX", g.t.lanesShift()+2)
	g.zero(0)
	for i, plane := range planes {
		g.load(plane, []string{"DI", "DX"}[i])
	}
	g.label("clear")
	for i := range planes {
		g.p("VMOVUPS %s, (%s)(AX*1)", g.v(0), []string{"DI", "DX"}[i])
	}
	g.p("ADDQ $%d, AX", g.t.bytes())
	g.p("DECQ CX")
	g.p("JNZ clear")
	g.label("cleared")
}

// paired tells whether blocks of a kind have two numbers in the scales plane.
func paired(kind string) bool { return kind == "6" || kind == "Min" }

// lineGroups is how many groups of blocks make a vector of sums.
func (t target) lineGroups() int { return t.lanes / 4 }

// sums writes a vector of sums for each of some rows and lineGroups groups, in the
// order that place tells.
//
//	SI a row, R8 the next, R12 from row to row, DI activations, R9 from row to row of them,
//	R10 sums, R11 from row to row of activations of them, R14 sums of the next row, AX groups left, DX rows left,
//	BX what to ask for beside the rows, CX the step of that
func (g *amd64) sums(kind string) {
	g.load("src", "R8")
	g.load("stride", "R12")
	var requests []string
	if g.t.wide() {
		requests = []string{"PREFETCHT0 (BX)"}
		g.load("step", "CX")
	}
	n, weights, acts := g.t.lineGroups(), 4*quantBytes(kind), 4*32 // bytes of a group
	if !g.t.vnni || kind != "8" {
		g.broadcast(g.everywhere("ones16", 0x00010001), 14)
	}
	line := g.lineBytes
	switch kind {
	case "4", "Min":
		line = g.lineNibbles
		g.broadcast(g.everywhere("mask15", 0x0f0f0f0f), 15)
	case "6":
		line = g.lineSixes
		g.broadcast(g.everywhere("mask15", 0x0f0f0f0f), 15)
		g.sixesConstants()
	default:
		acts = 4 * blockBytes
		if g.t.vnni {
			g.broadcast(g.everywhere("sign8", 0x80808080), 15)
		}
	}
	if g.quads(kind) {
		g.p("LEAQ (R12)(R12*2), R13")
	}
	if g.acts > 1 {
		g.load("xPitch", "R9")
		g.load("sumsPitch", "R11")
	}
	g.lineOfCode("row")
	g.p("MOVQ R8, SI")
	g.p("MOVQ R14, R10")
	g.load("x", "DI")
	g.load("groups", "AX")
	g.p("SUBQ $%d, AX", n)
	g.p("JLT rest")
	g.lineOfCode("whole")
	g.paced(append(requests, ahead(kind, "SI", 0, n*weights)...), func() {
		for i := range n {
			line(i)
		}
		g.storeSums(kind)
	})
	g.p("ADDQ $%d, SI", n*weights)
	g.p("ADDQ $%d, DI", n*acts)
	if g.t.wide() {
		g.p("ADDQ CX, BX")
	}
	g.p("SUBQ $%d, AX", n)
	g.p("JGE whole")
	if g.quads(kind) {
		g.fourRests(kind)
	} else {
		g.rest(kind, line)
	}
	g.p("MOVQ R8, src+%d(FP)", g.args["src"])
}

// rest sums what a row has beyond whole vectors of sums, and goes on to the next row.
func (g *amd64) rest(kind string, line func(i int)) {
	n, weights := g.t.lineGroups(), 4*quantBytes(kind)
	g.lineOfCode("rest")
	g.p("ADDQ $%d, AX", n)
	g.p("JZ ended")
	for act := range g.acts {
		for r := range 8 {
			g.zero(firstSum(act) + r)
		}
	}
	for i := range n - 1 {
		g.paced(ahead(kind, "SI", i*weights, (i+1)*weights), func() { line(i) })
		g.p("DECQ AX")
		g.p("JZ reduce")
	}
	g.lineOfCode("reduce")
	g.storeSums(kind)
	g.label("ended")
	g.nextRow()
	g.p("JNZ row")
}

func (g *amd64) nextRow() {
	g.p("ADDQ R12, R8")
	g.p("ADDQ pitch+%d(FP), R14", g.args["pitch"])
	g.p("DECQ DX")
}

// quads tells whether the groups that rows have beyond whole vectors of sums are
// summed for four rows at once, a vector for each group: lane k is its block k, dword
// i is row i. The vector of the first group lies where the first row would have its
// last one, that of the second where the second row would, and so on. A model of 576
// columns decodes 4 % faster with it.
func (g *amd64) quads(kind string) bool { return g.t.wide() && (kind == "4" || kind == "Min") }

// fourRests goes on to the next row, and after every fourth sums what the last four
// have left. R13 is 3·R12.
func (g *amd64) fourRests(kind string) {
	g.label("rest")
	g.nextRow()
	g.p("TESTQ $3, DX")
	g.p("JNZ row")
	g.load("groups", "AX")
	g.p("ANDQ $%d, AX", g.t.lineGroups()-1)
	g.p("JZ summed")
	g.p("SUBQ R13, SI")
	g.load("pitch", "R11")
	g.p("LEAQ (R11)(R11*2), R9")
	g.p("SUBQ R9, R10")
	g.lineOfCode("group")
	g.p("VMOVDQU32 (DI), Z16")
	g.p("VMOVDQU32 64(DI), Z17")
	for r, index := range rowIndex {
		g.p("PREFETCHNTA %d(SI)%s", lineAhead, index)
		g.nibblesOf("(SI)"+index, "Z16", "Z17", 4+r)
	}
	g.packFours(4, 0, kind)
	g.p("VMOVDQU32 Z0, (R10)")
	g.p("ADDQ $64, SI")
	g.p("ADDQ $128, DI")
	g.p("ADDQ R11, R10")
	g.p("DECQ AX")
	g.p("JNZ group")
	g.label("summed")
	g.p("TESTQ DX, DX")
	g.p("JNZ row")
}

// lineOfCode is a label that begins a line of code. Where loops of these kernels
// begin is worth 1 to 3 % of a token.
func (g *amd64) lineOfCode(l string) {
	g.p("PCALIGN $64")
	g.label(l)
}

// quantBytes are those of a block's quants, for the kernels of a kind.
func quantBytes(kind string) int {
	switch kind {
	case "8":
		return 32
	case "6":
		return 24
	}
	return 16
}

// ahead are the requests for the lines of memory that lie lineAhead bytes behind
// bytes from..to-1 of what the register points to, quants. What is read once need
// not stay in the caches, which measurably helps weights of 4 bits, of which a
// byte takes most work.
func ahead(kind, register string, from, to int) (requests []string) {
	request := "PREFETCHT0"
	if quantBytes(kind) == 16 {
		request = "PREFETCHNTA"
	}
	for at := (from + 63) / 64 * 64; at < to; at += 64 {
		requests = append(requests, fmt.Sprintf("%s %d(%s)", request, lineAhead+at, register))
	}
	return requests
}

// paced writes what body does with requests spread evenly among it: eight at once
// are more than a core can have under way, and decode a tenth slower.
func (g *amd64) paced(requests []string, body func()) {
	before := g.text.String()
	g.text.Reset()
	body()
	lines := strings.Split(strings.TrimSpace(g.text.String()), "\n")
	g.text.Reset()
	g.text.WriteString(before)
	done := 0
	for i, line := range lines {
		for done < len(requests) && done*len(lines) <= i*len(requests) {
			g.p("%s", requests[done])
			done++
		}
		g.p("%s", strings.TrimSpace(line))
	}
}

// lineNibbles sums group i: each dword a quarter of a block. Vectors from 4 on
// hold the sums of blocks 0..3 of the first group, on 256 bits two by two, then
// of the next.
func (g *amd64) lineNibbles(i int) {
	for at := 0; at < 64; at += g.t.bytes() {
		g.nibblesOf(fmt.Sprintf("%d(SI)", 64*i+at), fmt.Sprintf("%d(DI)", 128*i+at), fmt.Sprintf("%d(DI)", 128*i+64+at), 4+(64*i+at)/g.t.bytes())
	}
}

// nibblesOf sums the products of a vector of nibbles with the activations of first
// and second halves, in register sum.
func (g *amd64) nibblesOf(weights, firsts, seconds string, sum int) {
	g.p("%s %s, %s", g.vmov(), weights, g.v(0))
	g.p("%s %s, %s, %s", g.bits("VPAND"), g.v(15), g.v(0), g.v(1))
	g.p("VPSRLW $4, %s, %s", g.v(0), g.v(0))
	g.p("%s %s, %s, %s", g.bits("VPAND"), g.v(15), g.v(0), g.v(0))
	if g.t.vnni {
		g.zero(sum)
		g.p("VPDPBUSD %s, %s, %s", firsts, g.v(1), g.v(sum))
		g.p("VPDPBUSD %s, %s, %s", seconds, g.v(0), g.v(sum))
		return
	}
	g.p("VPMADDUBSW %s, %s, %s", firsts, g.v(1), g.v(1))
	g.p("VPMADDUBSW %s, %s, %s", seconds, g.v(0), g.v(0))
	g.p("VPADDW %s, %s, %s", g.v(0), g.v(1), g.v(1))
	g.p("VPMADDWD %s, %s, %s", g.v(14), g.v(1), g.v(sum))
}

// actIndex and sumsIndex lead from the first row of activations, and its sums, to each.
var (
	actIndex  = []string{"", "(R9*1)", "(R9*2)"}
	sumsIndex = []string{"", "(R11*1)", "(R11*2)"}
)

// firstSum is the first of the registers that hold a row of activations' sums.
func firstSum(act int) int { return []int{4, 16, 24}[act] }

// lineBytes sums group i, a vector from 4 on for one block, on 512 bits for two. With VNNI weights
// get an offset of 128, else their signs go to the activations: |w|·x twice fits
// 16 bits.
func (g *amd64) lineBytes(i int) {
	for at := 0; at < 128; at += g.t.bytes() {
		j, block := (128*i+at)/g.t.bytes(), 4*i+at/32
		if g.t.vnni {
			g.p("VPXORD %d(SI), Z15, Z0", 128*i+at)
		} else {
			g.p("%s %d(SI), %s", g.vmov(), 128*i+at, g.v(0))
			g.p("VPABSB %s, %s", g.v(0), g.v(3))
			if g.t.wide() {
				g.p("VPMOVB2M Z0, K1")
			}
		}
		for act, index := range actIndex[:g.acts] {
			sum := firstSum(act) + j
			g.p("VMOVDQU %d(DI)%s, Y1", block*blockBytes, index)
			if g.t.wide() {
				g.p("VINSERTI64X4 $1, %d(DI)%s, Z1, Z1", (block+1)*blockBytes, index)
			}
			switch {
			case g.t.vnni:
				g.zero(sum)
				g.p("VPDPBUSD Z1, Z0, Z%d", sum)
				continue
			case g.t.wide():
				g.p("VPXORD Z2, Z2, Z2")
				g.p("VPSUBB Z1, Z2, K1, Z1")
			default:
				g.p("VPSIGNB Y0, Y1, Y1")
			}
			g.p("VPMADDUBSW %s, %s, %s", g.v(1), g.v(3), g.v(1))
			g.p("VPMADDWD %s, %s, %s", g.v(14), g.v(1), g.v(sum))
		}
	}
}

// sixesConstants loads what lineSixes needs: on 512 bits into Z16.., on 256 into Y13.
func (g *amd64) sixesConstants() {
	if !g.t.wide() {
		g.broadcast(g.everywhere("mask48", 0x30303030), 13)
		return
	}
	g.broadcast(g.everywhere("mask48", 0x30303030), 16)
	g.p("VMOVDQU32 %s, Z17", g.constant("nibblesOf6", 0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15, 18, 19, 20, 21))
	g.p("VMOVDQU32 %s, Z18", g.constant("highsOf6", 4, 5, 4, 5, 10, 11, 10, 11, 16, 17, 16, 17, 22, 23, 22, 23))
	g.p("VMOVDQU32 %s, Z19", g.shifts("shiftsLow6", 4, 2))
	g.p("VMOVDQU32 %s, Z20", g.shifts("shiftsHigh6", 0, 2))
}

// shifts is a vector of two counts of 64 bits, again and again.
func (g *amd64) shifts(name string, a, b uint32) string {
	words := make([]uint32, 0, 16)
	for range 4 {
		words = append(words, a, 0, b, 0)
	}
	return g.constant(name, words...)
}

// lineSixes sums group i by halves of blocks: for each vector of nibbles one with
// the sums of first and one with those of second halves, each dword a quarter.
func (g *amd64) lineSixes(i int) {
	const group = 4 * 24
	for at := 0; at < 64; at += g.t.bytes() {
		sum := 4 + 2*((64*i+at)/g.t.bytes())
		if g.t.wide() {
			g.p("VMOVDQU32 %d(SI), Z0", group*i)
			g.p("VMOVDQU %d(SI), Y2", group*i+64)
			g.p("VMOVDQA32 Z0, Z1")
			g.p("VPERMT2D Z2, Z18, Z1")
			g.p("VPERMT2D Z2, Z17, Z0")
			g.p("VPSRLVQ Z20, Z1, Z2")
			g.p("VPSLLVQ Z19, Z1, Z1")
			g.p("VPANDD Z16, Z1, Z1")
			g.p("VPANDD Z16, Z2, Z2")
			g.p("VPSRLW $4, Z0, Z3")
			g.p("VPTERNLOGD $0xf8, Z15, Z0, Z1") // high bits | nibbles & 15
			g.p("VPTERNLOGD $0xf8, Z15, Z3, Z2")
		} else {
			from := group*i + 24*at/16
			g.p("VMOVDQU %d(SI), X0", from)
			g.p("VINSERTI128 $1, %d(SI), Y0, Y0", from+24)
			g.p("VMOVDDUP %d(SI), X1", from+16)
			g.p("VMOVDDUP %d(SI), X2", from+40)
			g.p("VINSERTI128 $1, X2, Y1, Y1")
			g.p("VPSRLVQ %s, Y1, Y2", g.shifts("shiftsHigh6", 0, 2))
			g.p("VPSLLVQ %s, Y1, Y1", g.shifts("shiftsLow6", 4, 2))
			g.p("VPAND Y13, Y1, Y1")
			g.p("VPAND Y13, Y2, Y2")
			g.p("VPSRLW $4, Y0, Y3")
			g.p("VPAND Y15, Y0, Y0")
			g.p("VPAND Y15, Y3, Y3")
			g.p("VPOR Y0, Y1, Y1")
			g.p("VPOR Y3, Y2, Y2")
		}
		for half := range 2 {
			acts := fmt.Sprintf("%d(DI)", 128*i+64*half+at)
			if g.t.vnni {
				g.zero(sum + half)
				g.p("VPDPBUSD %s, %s, %s", acts, g.v(1+half), g.v(sum+half))
				continue
			}
			g.p("VPMADDUBSW %s, %s, %s", acts, g.v(1+half), g.v(1+half))
			g.p("VPMADDWD %s, %s, %s", g.v(14), g.v(1+half), g.v(sum+half))
		}
	}
}

// storeSums adds up the dwords of each block, of q6_0 of each half, and stores the
// sums of each row of activations.
func (g *amd64) storeSums(kind string) {
	for act, index := range sumsIndex[:g.acts] {
		from := firstSum(act)
		switch kind {
		case "4", "Min":
			g.packFours(from, 0, kind)
		case "6":
			g.packFours(from, 0, kind)
			g.p("%s %s, (R10)", g.vmov(), g.v(0))
			g.p("ADDQ $%d, R10", g.t.bytes())
			g.packFours(from+4, 0, kind)
		case "8":
			g.addFours(from, 0)
			g.addFours(from+4, 4)
			if g.t.wide() {
				g.p("VSHUFI32X4 $0x88, Z4, Z0, Z1")
				g.p("VSHUFI32X4 $0xdd, Z4, Z0, Z2")
			} else {
				g.p("VPERM2I128 $0x20, Y4, Y0, Y1")
				g.p("VPERM2I128 $0x31, Y4, Y0, Y2")
			}
			g.p("VPADDD %s, %s, %s", g.v(2), g.v(1), g.v(0))
		}
		g.p("%s %s, (R10)%s", g.vmov(), g.v(0), index)
	}
	g.p("ADDQ $%d, R10", g.t.bytes())
}

// packFours is addFours for sums that fit 16 bits: eight products of a nibble and an
// int8 are at most 15360, two such sums 30720; four products of six bits are at most
// 32256. It uses to..to+2.
func (g *amd64) packFours(from, to int, kind string) {
	three := func(op string, a, b, to int) { g.p("%s %s, %s, %s", op, g.v(b), g.v(a), g.v(to)) }
	three("VPACKSSDW", from, from+1, to)
	three("VPACKSSDW", from+2, from+3, to+1)
	three("VPMADDWD", to, 14, to)
	three("VPMADDWD", to+1, 14, to+1)
	if kind != "6" {
		three("VPACKSSDW", to, to+1, to)
		three("VPMADDWD", to, 14, to)
		return
	}
	g.p("VSHUFPS $0x88, %s, %s, %s", g.v(to+1), g.v(to), g.v(to+2))
	g.p("VSHUFPS $0xdd, %s, %s, %s", g.v(to+1), g.v(to), g.v(to))
	three("VPADDD", to, to+2, to)
}

// addFours leaves in dword i of each lane of register to the sum of that lane in
// register from+i. It uses to..to+3.
func (g *amd64) addFours(from, to int) {
	three := func(op string, a, b, to int) { g.p("%s %s, %s, %s", op, g.v(b), g.v(a), g.v(to)) }
	for i := range 2 {
		a := from + 2*i
		three("VPUNPCKLDQ", a, a+1, to+2*i)
		three("VPUNPCKHDQ", a, a+1, to+2*i+1)
		three("VPADDD", to+2*i, to+2*i+1, to+2*i)
	}
	three("VPUNPCKLQDQ", to, to+2, to+1)
	three("VPUNPCKHQDQ", to, to+2, to+3)
	three("VPADDD", to+1, to+3, to)
}

// place is the lane and its dword in which a vector of sums has a block, of q6_0
// the given half of one.
func (g *amd64) place(kind string, block, half int) (lane, t int) {
	switch {
	case kind == "6" && g.t.wide():
		return block % 4, block/4*2 + half
	case kind == "6":
		return block % 2, block/2*2 + half
	case kind != "8" && g.t.wide():
		return block % 4, block / 4
	case kind != "8":
		return block % 2, block / 2
	case g.t.wide():
		return block%2 + block/8*2, block / 2 % 4
	default:
		return block / 4, block % 4
	}
}

// apply writes the sums of a strip's blocks, each with its scale, for all rows.
// It reads what is in the caches and takes about a tenth of a strip's time:
// so that memory does not idle, it asks for a part of the next strip.
//
//	R8.. sums, DX scales, BX minimums or second scales, DI scales of activations,
//	SI their offsets or scaled sums, CX groups left, AX the next strip
func (g *amd64) apply(kind string) {
	n := g.t.lineGroups()
	if kind == "6" {
		n /= 2
	}
	asked := g.applyAsks(kind, 4*n)
	if asked > 0 {
		g.load("src", "AX")
	}
	g.load("sums", "R8")
	g.load("pitch", "R12")
	g.load("d", "DX")
	if paired(kind) {
		g.load("m", "BX")
	}
	g.load("xd", "DI")
	g.load("other", "SI")
	g.load("groups", "CX")
	g.rowPointers(g.t.lanes)
	result := 15
	if g.t.wide() {
		result = 28
	}
	g.zero(result)
	if g.quads(kind) {
		g.p("SUBQ $%d, CX", n)
		g.p("JLT fours")
	}
	g.lineOfCode("scale")
	g.paced(ahead(kind, "AX", 0, asked), func() {
		for r := range g.t.lanes {
			g.p("%s %s, %s", g.vmov(), row(r, 0), g.v(r))
		}
		g.columnsInLanes()
	})
	for group := range n {
		for k := range 4 {
			g.applyBlock(kind, 4*group+k, result, func(half int) (lane, t int) { return g.place(kind, 4*group+k, half) })
		}
		if group < n-1 && !g.quads(kind) {
			g.p("DECQ CX")
			g.p("JZ scaled")
		}
	}
	if asked > 0 {
		g.p("ADDQ $%d, AX", asked)
	}
	g.advance(g.t.lanes, g.t.bytes())
	g.applied(kind, 4*n)
	if g.quads(kind) {
		g.p("SUBQ $%d, CX", n)
		g.p("JGE scale")
		g.applyFours(kind, result)
	} else {
		g.p("DECQ CX")
		g.p("JNZ scale")
	}
	g.label("scaled")
	g.load("y", "AX")
	g.p("VMOVUPS %s, (AX)", g.v(result))
}

// applied moves on from blocks whose sums are scaled.
func (g *amd64) applied(kind string, blocks int) {
	g.p("ADDQ $%d, DX", blocks*g.t.bytes())
	if paired(kind) {
		g.p("ADDQ $%d, BX", blocks*g.t.bytes())
	}
	g.p("ADDQ $%d, DI", 4*blocks)
	g.p("ADDQ $%d, SI", blocks*offsetBytes(kind))
}

// applyFours scales what fourRests has summed.
func (g *amd64) applyFours(kind string, result int) {
	g.label("fours")
	g.p("ADDQ $%d, CX", g.t.lineGroups())
	g.p("JZ scaled")
	g.lineOfCode("four")
	for quad := range 4 {
		g.p("VMOVDQU32 (R%d), Z%d", 8+quad, 4*quad)
		g.p("ADDQ R12, R%d", 8+quad)
	}
	for k := range 4 {
		g.applyBlock(kind, k, result, func(int) (lane, t int) { return k, 0 })
	}
	g.applied(kind, 4)
	g.p("DECQ CX")
	g.p("JNZ four")
}

// applyAsks is how many bytes apply asks for in so many blocks: a line for each
// 32 that those hold, which measured better than half and twice as many. On 256
// bits asking did not pay.
func (g *amd64) applyAsks(kind string, blocks int) int {
	if !g.t.wide() {
		return 0
	}
	return g.t.lanes * blocks * quantBytes(kind) / 32 / 64 * 64
}

// offsetBytes is what SI has for a block.
func offsetBytes(kind string) int {
	if kind == "6" {
		return 8
	}
	return 4
}

// applyBlock adds one block of all rows, whose sums lie where place tells.
func (g *amd64) applyBlock(kind string, block, result int, place func(half int) (lane, t int)) {
	scales := []string{"DX"}
	if kind == "6" {
		scales = append(scales, "BX")
	}
	sum, t := 12, g.v(13)
	if g.t.wide() {
		sum, t = 20, g.v(21)
	}
	other := fmt.Sprintf("%d(SI)", offsetBytes(kind)*block)
	for half, scale := range scales {
		lane, word := place(half)
		g.column(lane, word, sum, 18+4*half)
		if kind == "4" || kind == "6" || kind == "8" && g.t.vnni {
			g.withAct("VPADDD", "VPBROADCASTD", fmt.Sprintf("%d(SI)", offsetBytes(kind)*block+4*half), sum, sum)
		}
		g.p("VCVTDQ2PS %s, %s", g.v(sum), g.v(sum))
		g.p("VMOVUPS %d(%s), %s", g.t.bytes()*block, scale, t)
		g.withAct("VMULPS", "VBROADCASTSS", fmt.Sprintf("%d(DI)", 4*block), sum+1, sum+1)
		g.p("VFMADD231PS %s, %s, %s", t, g.v(sum), g.v(result))
	}
	if kind == "Min" {
		g.p("VMOVUPS %d(BX), %s", g.t.bytes()*block, t)
		g.withAct("VFMADD231PS", "VBROADCASTSS", other, sum+1, result)
	}
}

// column is lane for blocks in order, of which two share what a strip of sixteen
// rows gathers, in registers pair and pair+1.
func (g *amd64) column(lane, t, to, pair int) {
	if !g.t.wide() {
		g.lane(lane, t, to)
		return
	}
	if lane%2 == 0 {
		g.lanePair(lane/2, t, pair)
	}
	g.ofPair(lane, pair, to)
}

// withAct computes to = a op one number of the activations in all lanes. On 256 bits it
// uses V14.
func (g *amd64) withAct(op, broadcast, act string, a, to int) {
	if g.t.wide() {
		g.p("%s.BCST %s, %s, %s", op, act, g.v(a), g.v(to))
		return
	}
	g.p("%s %s, Y14", broadcast, act)
	g.p("%s Y14, %s, %s", op, g.v(a), g.v(to))
}
