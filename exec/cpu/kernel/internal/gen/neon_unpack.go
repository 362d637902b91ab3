package main

// stripPointers readies R1..R4 for the rows of a strip.
func (g *arm64) stripPointers() {
	g.load("src", "R1")
	g.load("stride", "R5")
	g.load("groups", "R6")
	for r := 2; r <= 4; r++ {
		g.p("ADD R5, R%d, R%d", r-1, r)
	}
}

// end closes the loop over groups.
func (g *arm64) end(bytes int) {
	for r := 1; r <= 4; r++ {
		g.p("ADD $%d, R%d", bytes, r)
	}
	g.p("SUB $1, R6")
	g.p("CBNZ R6, next")
	g.p("RET")
}

// transpose turns four vectors of four words, v and those behind it, into columns in
// place; it uses V4..V7.
func (g *arm64) transpose(v int) {
	g.op("ZIP1.4S", 4, v, v+1)
	g.op("ZIP2.4S", 5, v, v+1)
	g.op("ZIP1.4S", 6, v+2, v+3)
	g.op("ZIP2.4S", 7, v+2, v+3)
	g.op("ZIP1.2D", v, 4, 6)
	g.op("ZIP2.2D", v+1, 4, 6)
	g.op("ZIP1.2D", v+2, 5, 7)
	g.op("ZIP2.2D", v+3, 5, 7)
}

// unpackBlocks leaves 8-bit weights signed, as these products want them.
func (g *arm64) unpackBlocks(name string, blockWidth int) {
	g.function(name, "dst *byte, src *byte, stride int, groups int", "")
	g.load("dst", "R0")
	g.stripPointers()
	g.constant(16, 0x0f0f0f0f)
	g.label("next")
	for c := range 4 * blockWidth / 16 {
		for r := range 4 {
			g.p("FMOVQ %d(R%d), F%d", 16*c, r+1, r)
		}
		g.transpose(0)
		for t := range 4 {
			if blockWidth == 16 {
				g.op("AND.16B", 4, t, 16)
				g.op("USHR4.16B", 5, t)
				g.p("FMOVQ F4, %d(R0)", (c*8+t)*16)
				g.p("FMOVQ F5, %d(R0)", (c*8+t+4)*16)
				continue
			}
			g.p("FMOVQ F%d, %d(R0)", t, (c*4+t)*16)
		}
	}
	g.p("ADD $512, R0")
	g.end(4 * blockWidth)
}

// unpackSixes leaves weights signed too. The words of high bits become columns
// like those of nibbles, one for elements i and i+16.
func (g *arm64) unpackSixes() {
	g.function("unpack6NEON", "dst *byte, src *byte, stride int, groups int", "")
	g.load("dst", "R0")
	g.stripPointers()
	g.constant(16, 0x33333333)
	g.constant(17, 0x20202020)
	g.label("next")
	for b := range 4 {
		for r := range 4 {
			g.p("FMOVQ %d(R%d), F%d", 24*b, r+1, r)
		}
		g.transpose(0)
		for r := range 4 {
			g.p("FMOVD %d(R%d), F%d", 24*b+16, r+1, 4+r)
		}
		g.op("ZIP1.4S", 8, 4, 5)
		g.op("ZIP1.4S", 9, 6, 7)
		g.op("ZIP1.2D", 4, 8, 9)
		g.op("ZIP2.2D", 5, 8, 9)
		g.op("USHR2.16B", 6, 4)
		g.op("USHR2.16B", 7, 5)
		for t := range 4 {
			g.sixes(t, 4+t, 8, 16)
			for i, v := range []int{t, 8} {
				g.op("SUB.16B", v, v, 17)
				g.p("FMOVQ F%d, %d(R0)", v, (b*8+t+4*i)*16)
			}
		}
	}
	g.p("ADD $512, R0")
	g.end(4 * 24)
}

// sixes makes weights of six bits, unsigned: in q those of its low nibbles, in
// upper those of its high ones. The former's high bits are h's bits 0 and 1, the
// latter's 4 and 5, which is what mask has.
func (g *arm64) sixes(q, h, upper, mask int) {
	g.op("AND.16B", upper, h, mask)
	g.op("AND.16B", h, h, mask)
	g.op("SRI4.16B", upper, q)
	g.op("SLI4.16B", q, h)
}

func (g *arm64) scales() {
	g.function("scalesNEON", "dst *float32, src *byte, stride int, groups int", "")
	g.load("dst", "R0")
	g.stripPointers()
	g.label("next")
	for r := range 4 {
		g.p("FMOVD (R%d), F%d", r+1, r)
	}
	g.op("ZIP1.8H", 4, 0, 1)
	g.op("ZIP1.8H", 5, 2, 3)
	g.op("ZIP1.4S", 6, 4, 5)
	g.op("ZIP2.4S", 7, 4, 5)
	for i := range 2 {
		g.op("FCVTL.4S", 0, 6+i)
		g.op("FCVTL2.4S", 1, 6+i)
		g.p("FMOVQ F0, %d(R0)", 32*i)
		g.p("FMOVQ F1, %d(R0)", 32*i+16)
	}
	g.p("ADD $64, R0")
	g.end(8)
}

func (g *arm64) pairs() {
	g.function("pairsNEON", "d *float32, m *float32, src *byte, stride int, groups int", "")
	g.load("d", "R0")
	g.load("m", "R7")
	g.stripPointers()
	g.label("next")
	for r := range 4 {
		g.p("FMOVQ (R%d), F%d", r+1, r)
	}
	g.transpose(0)
	for i := range 2 {
		g.op("UZP1.8H", 4, 2*i, 2*i+1)
		g.op("UZP2.8H", 5, 2*i, 2*i+1)
		for v, to := range []string{"R0", "R7"} {
			g.op("FCVTL.4S", 6, 4+v)
			g.op("FCVTL2.4S", 7, 4+v)
			g.p("FMOVQ F6, %d(%s)", 32*i, to)
			g.p("FMOVQ F7, %d(%s)", 32*i+16, to)
		}
	}
	g.p("ADD $64, R0")
	g.p("ADD $64, R7")
	g.end(16)
}

func (g *arm64) unpackFloats(t string) {
	g.function("unpack"+t+"NEON", "dst *float32, src *byte, stride int, groups int", "")
	g.load("dst", "R0")
	g.stripPointers()
	g.label("next")
	size := 2
	if t == "F32" {
		size = 4
	}
	for c := range 4 {
		for r := range 4 {
			switch t {
			case "F32":
				g.p("FMOVQ %d(R%d), F%d", 16*c, r+1, r)
			case "F16":
				g.p("FMOVD %d(R%d), F%d", 8*c, r+1, r)
				g.op("FCVTL.4S", r, r)
			default:
				g.p("FMOVD %d(R%d), F%d", 8*c, r+1, r)
				g.op("SHLL.4S", r, r)
			}
		}
		g.transpose(0)
		for i := range 4 {
			g.p("FMOVQ F%d, %d(R0)", i, (4*c+i)*16)
		}
	}
	g.p("ADD $256, R0")
	g.end(16 * size)
}
