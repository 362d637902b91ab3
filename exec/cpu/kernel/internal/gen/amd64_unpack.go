package main

// Unpacking strips of weights.

func (g *amd64) unpacks() {
	g.unpackBlocks("unpack4"+g.t.name, 16)
	g.unpackSixes()
	g.unpackBlocks("unpack8"+g.t.name, 32)
	g.scales()
	g.pairs()
	for _, t := range []string{"F32", "F16", "BF16"} {
		g.unpackFloats(t)
	}
}

// stripPointers readies pointers for a strip's rows, src in R8 and stride in
// R12, and SI for what lies behind the strip.
func (g *amd64) stripPointers() {
	g.stripPointersOf("src", "stride")
}

func (g *amd64) stripPointersOf(src, stride string) {
	g.load(src, "R8")
	g.load(stride, "R12")
	g.load("groups", "CX")
	g.rowPointers(g.t.lanes)
	g.p("MOVQ R12, SI")
	g.p("SHLQ $%d, SI", g.t.lanesShift())
	g.p("ADDQ R8, SI")
}

// transpose turns rows V0.. of lanes words into columns. out is called with
// the register that holds word t of each 16-byte lane of all rows, and may use
// the registers from temp on.
func (g *amd64) transpose(out func(reg, lane, t, temp int)) {
	g.columnsInLanes()
	for t := range 4 {
		if !g.t.wide() {
			for lane, which := range []int{0x20, 0x31} {
				g.p("VPERM2I128 $0x%x, Y%d, Y%d, Y%d", which, 4+t, t, 8+lane)
				out(8+lane, lane, t, 10)
			}
			continue
		}
		g.p("VSHUFI32X4 $0x44, Z%d, Z%d, Z16", 4+t, t)
		g.p("VSHUFI32X4 $0xee, Z%d, Z%d, Z17", 4+t, t)
		g.p("VSHUFI32X4 $0x44, Z%d, Z%d, Z18", 12+t, 8+t)
		g.p("VSHUFI32X4 $0xee, Z%d, Z%d, Z19", 12+t, 8+t)
		for lane := range 4 {
			g.p("VSHUFI32X4 $0x%x, Z%d, Z%d, Z%d", []int{0x88, 0xdd}[lane%2], 18+lane/2, 16+lane/2, 20+lane)
			out(20+lane, lane, t, 24)
		}
	}
}

// columnsInLanes transposes within each 16-byte lane of four rows: register
// 4q+t holds word t of every lane of rows 4q..4q+3.
func (g *amd64) columnsInLanes() {
	up := g.t.lanes // four temporaries
	for q := range g.t.lanes / 4 {
		for i, a := range []int{4 * q, 4*q + 2} {
			g.p("VPUNPCKLDQ %s, %s, %s", g.v(a+1), g.v(a), g.v(up+2*i))
			g.p("VPUNPCKHDQ %s, %s, %s", g.v(a+1), g.v(a), g.v(up+2*i+1))
		}
		for i := range 2 {
			g.p("VPUNPCKLQDQ %s, %s, %s", g.v(up+2+i), g.v(up+i), g.v(4*q+2*i))
			g.p("VPUNPCKHQDQ %s, %s, %s", g.v(up+2+i), g.v(up+i), g.v(4*q+2*i+1))
		}
	}
}

func (g *amd64) unpackBlocks(name string, blockWidth int) {
	g.function(name, "dst *byte, src *byte, stride int, groups int", "")
	g.load("dst", "DI")
	g.stripPointers()
	g.label("next")
	size, lanes := g.t.bytes(), g.t.lanes
	chunks := 4 * blockWidth / size
	for c := range chunks {
		for r := range lanes {
			g.p("%s %s, %s", g.vmov(), row(r, c*size), g.v(r))
		}
		g.transpose(func(reg, lane, t, temp int) {
			if blockWidth == 16 {
				block := c*lanes/4 + lane
				g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("mask15", 0x0f0f0f0f), g.v(reg), g.v(temp))
				g.p("VPSRLW $4, %s, %s", g.v(reg), g.v(temp+1))
				g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("mask15", 0x0f0f0f0f), g.v(temp+1), g.v(temp+1))
				g.p("%s %s, %d(DI)", g.vmov(), g.v(temp), (block*8+t)*size)
				g.p("%s %s, %d(DI)", g.vmov(), g.v(temp+1), (block*8+t+4)*size)
				return
			}
			half := c*lanes/4 + lane
			g.p("%s %s, %s, %s", g.bits("VPXOR"), g.everywhere("sign8", 0x80808080), g.v(reg), g.v(temp))
			g.p("%s %s, %d(DI)", g.vmov(), g.v(temp), (half/2*8+half%2*4+t)*size)
		})
	}
	g.prefetch(lanes * 4 * blockWidth)
	g.p("ADDQ $%d, DI", 32*size)
	g.advance(lanes, 4*blockWidth)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.ret()
}

// unpackSixes transposes a group to dwords, six a block: four of nibbles and two
// of high bits, and stores them where the block's vectors will lie. Then it joins
// the two block by block.
func (g *amd64) unpackSixes() {
	const width, dwords = 4 * 24, 6
	g.function("unpack6"+g.t.name, "dst *byte, src *byte, stride int, groups int", "")
	g.load("dst", "DI")
	g.stripPointers()
	g.label("next")
	size, lanes := g.t.bytes(), g.t.lanes
	for at := 0; at < width; at += size {
		for r := range lanes {
			if at+size > width { // no more than half a vector is left
				g.p("VMOVDQU %s, Y%d", row(r, at), r)
			} else {
				g.p("%s %s, %s", g.vmov(), row(r, at), g.v(r))
			}
		}
		g.transpose(func(reg, lane, t, temp int) {
			if d := at/4 + 4*lane + t; d < width/4 {
				g.p("%s %s, %d(DI)", g.vmov(), g.v(reg), (d/dwords*8+d%dwords)*size)
			}
		})
	}
	for block := range 4 {
		g.joinSixes(8 * block * size)
	}
	g.prefetch(lanes * width)
	g.p("ADDQ $%d, DI", 32*size)
	g.advance(lanes, width)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.ret()
}

// joinSixes makes eight vectors of a block, at DI, of its six.
func (g *amd64) joinSixes(at int) {
	size := g.t.bytes()
	and := func(name string, word uint32, from, to int) {
		g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere(name, word), g.v(from), g.v(to))
	}
	for i := range 6 {
		g.p("%s %d(DI), %s", g.vmov(), at+i*size, g.v(i))
	}
	for t := range 4 {
		for half := range 2 {
			high, nibbles := 4+t%2, t
			switch shift := 4*half + t/2*2; { // where in a byte the high bits are: they go to 4
			case shift < 4:
				g.p("VPSLLW $%d, %s, %s", 4-shift, g.v(high), g.v(6))
				high = 6
			case shift > 4:
				g.p("VPSRLW $%d, %s, %s", shift-4, g.v(high), g.v(6))
				high = 6
			}
			and("mask48", 0x30303030, high, 6)
			if half == 1 {
				g.p("VPSRLW $4, %s, %s", g.v(t), g.v(7))
				nibbles = 7
			}
			and("mask15", 0x0f0f0f0f, nibbles, 7)
			g.p("%s %s, %s, %s", g.bits("VPOR"), g.v(6), g.v(7), g.v(7))
			g.p("%s %s, %d(DI)", g.vmov(), g.v(7), at+(4*half+t)*size)
		}
	}
}

func (g *amd64) scales() {
	g.function("scales"+g.t.name, "dst *float32, src *byte, stride int, groups int", "")
	g.load("dst", "DI")
	g.stripPointers()
	g.scalesLoop()
	g.ret()
}

// scalesLoop transposes eight f16 of a strip's rows at a time: rows 0..7 in the low
// half of a register, on 512 bits rows 8..15 in the high half; and at the end
// four of them.
func (g *amd64) scalesLoop() {
	half := "X"
	if g.t.wide() {
		half = "Y"
	}
	g.p("SUBQ $2, CX")
	g.p("JLT lastScales")
	g.lineOfCode("nextScales")
	for r := range 8 {
		g.p("VMOVDQU %s, X%d", row(r, 0), r)
		if g.t.wide() {
			g.p("VINSERTI128 $1, %s, Y%d, Y%d", row(8+r, 0), r, r)
		}
	}
	g.words(half, []string{"L", "H"})
	g.prefetchAt(g.t.lanes*16, scalesAhead...)
	g.p("ADDQ $%d, DI", 8*g.t.bytes())
	g.advance(g.t.lanes, 16)
	g.p("SUBQ $2, CX")
	g.p("JGE nextScales")
	g.label("lastScales")
	g.p("ADDQ $2, CX")
	g.p("JZ unpacked")
	for r := range 8 {
		g.p("VMOVQ %s, X%d", row(r, 0), r)
		if g.t.wide() {
			g.p("VMOVQ %s, X8", row(8+r, 0))
			g.p("VINSERTI128 $1, X8, Y%d, Y%d", r, r)
		}
	}
	g.words(half, []string{"L"})
	g.label("unpacked")
}

// words transposes the 16-bit words of registers 0..7, four for each of sides,
// and stores them as float32.
func (g *amd64) words(v string, sides []string) {
	// Pairs of rows: low words in 8.., high ones in 12...
	for i := range 4 {
		for s, side := range sides {
			g.p("VPUNPCK%sWD %s%d, %s%d, %s%d", side, v, 2*i+1, v, 2*i, v, 8+4*s+i)
		}
	}
	for s := range sides {
		for i := range 2 {
			a := 8 + 4*s + 2*i
			g.p("VPUNPCKLDQ %s%d, %s%d, %s%d", v, a+1, v, a, v, 2*i)
			g.p("VPUNPCKHDQ %s%d, %s%d, %s%d", v, a+1, v, a, v, 2*i+1)
		}
		for k := range 4 {
			g.p("VPUNPCK%sQDQ %s%d, %s%d, %s%d", []string{"L", "H"}[k%2], v, 2+k/2, v, k/2, v, 4+k)
			g.p("VCVTPH2PS %s%d, %s", v, 4+k, g.v(4+k))
			g.p("VMOVUPS %s, %d(DI)", g.v(4+k), (4*s+k)*g.t.bytes())
		}
	}
}

func (g *amd64) pairs() {
	g.function("pairs"+g.t.name, "d *float32, m *float32, src *byte, stride int, groups int", "")
	g.load("d", "DI")
	g.load("m", "DX")
	g.stripPointers()
	g.pairsLoop()
	g.ret()
}

// pairsLoop transposes four pairs of f16 of a strip's rows at a time.
func (g *amd64) pairsLoop() {
	if g.t.wide() { // low words first, then high ones
		var words []uint32
		for w := range uint32(16) {
			first := w % 8 * 4
			words = append(words, first+w/8|(first+2+w/8)<<16)
		}
		g.p("VMOVDQU32 %s, Z30", g.constant("lowsHighs", words...))
	}
	g.label("nextPairs")
	// Lane l of register r: row 4l+r.
	for r := range 4 {
		g.p("VMOVDQU %s, X%d", row(r, 0), r)
		g.p("VINSERTI128 $1, %s, Y%d, Y%d", row(4+r, 0), r, r)
		for l := 2; l < g.t.lanes/4; l++ {
			g.p("VINSERTI32X4 $%d, %s, Z%d, Z%d", l, row(4*l+r, 0), r, r)
		}
	}
	for i := range 2 {
		g.p("VPUNPCKLDQ %s, %s, %s", g.v(2*i+1), g.v(2*i), g.v(4+2*i))
		g.p("VPUNPCKHDQ %s, %s, %s", g.v(2*i+1), g.v(2*i), g.v(5+2*i))
	}
	for k := range 4 {
		g.p("VPUNPCK%sQDQ %s, %s, %s", []string{"L", "H"}[k%2], g.v(6+k/2), g.v(4+k/2), g.v(k))
		g.pair(k)
	}
	g.p("ADDQ $%d, DI", 4*g.t.bytes())
	g.p("ADDQ $%d, DX", 4*g.t.bytes())
	g.prefetchAt(g.t.lanes*16, scalesAhead...)
	g.advance(g.t.lanes, 16)
	g.p("DECQ CX")
	g.p("JNZ nextPairs")
}

// pair stores the halves of register k's words as float32.
func (g *amd64) pair(k int) {
	if g.t.wide() {
		g.p("VPERMW Z%d, Z30, Z9", k)
		g.p("VEXTRACTI64X4 $1, Z9, Y8")
		g.p("VCVTPH2PS Y9, Z9")
		g.p("VCVTPH2PS Y8, Z8")
		g.p("VMOVUPS Z9, %d(DI)", k*g.t.bytes())
		g.p("VMOVUPS Z8, %d(DX)", k*g.t.bytes())
		return
	}
	g.p("VPSRLD $16, Y%d, Y8", k)
	g.p("VPSLLD $16, Y%d, Y9", k)
	g.p("VPSRLD $16, Y9, Y9")
	g.p("VPACKUSDW Y8, Y9, Y8")
	g.p("VPERMQ $0xd8, Y8, Y8")
	g.p("VEXTRACTI128 $1, Y8, X9")
	g.p("VCVTPH2PS X8, Y8")
	g.p("VCVTPH2PS X9, Y9")
	g.p("VMOVUPS Y8, %d(DI)", k*g.t.bytes())
	g.p("VMOVUPS Y9, %d(DX)", k*g.t.bytes())
}

func (g *amd64) unpackFloats(t string) {
	g.function("unpack"+t+g.t.name, "dst *float32, src *byte, stride int, groups int", "")
	g.load("dst", "DI")
	g.stripPointers()
	g.label("next")
	size, lanes := 2, g.t.lanes
	if t == "F32" {
		size = 4
	}
	for c := range 16 / lanes {
		g.loadFloats(t, c)
		g.transpose(func(reg, lane, t, temp int) {
			g.p("%s %s, %d(DI)", g.vmov(), g.v(reg), (c*lanes+4*lane+t)*g.t.bytes())
		})
	}
	g.prefetch(lanes * 16 * size)
	g.p("ADDQ $%d, DI", 16*g.t.bytes())
	g.advance(lanes, 16*size)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.ret()
}
