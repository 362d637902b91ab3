package main

// Prefetches into the second cache are dropped while many are under way, and what
// was dropped costs a whole trip to memory. So products that do nothing but
// read ask for everything several times: a request costs next to nothing where
// an earlier one was heard.
var (
	quantsAhead = []int{16384, 6144}        // bytes behind the next strip's place
	bytesAhead  = []int{32768, 16384, 6144} // the same of q8_0, which takes less time a byte
	scalesAhead = []int{0, 2048}
)

func aheadOf(kind string) []int {
	if kind == "vec8" {
		return bytesAhead
	}
	return quantsAhead
}

// prefetchRows asks for the next bytes of each row of the next strip, in the
// order in which they will be read, and for as many bytes at some distances
// ahead of it. It uses AX.
func (g *amd64) prefetchRows(width int, ahead []int) {
	g.prefetchAt(g.t.lanes*width, ahead...)
	g.p("MOVQ R12, AX")
	g.p("SHLQ $%d, AX", g.t.lanesShift())
	g.p("ADDQ R8, AX")
	for r := range g.t.lanes {
		if r > 0 && r%4 == 0 {
			g.p("LEAQ (AX)(R12*4), AX")
		}
		for at := 0; at < width; at += 64 {
			g.p("PREFETCHT1 %d(AX)%s", at, rowIndex[r%4])
		}
	}
}

// fetch writes the prefetch of whole rows, column after column.
func (g *amd64) fetch() {
	g.function("fetchAMD64", "src *byte, stride int, rows int, bytes int", "")
	g.load("src", "R8")
	g.load("stride", "R12")
	g.load("bytes", "CX")
	g.label("column")
	g.p("MOVQ R8, SI")
	g.load("rows", "DX")
	g.label("row")
	g.p("PREFETCHT1 (SI)")
	g.p("ADDQ R12, SI")
	g.p("DECQ DX")
	g.p("JNZ row")
	g.p("ADDQ $64, R8")
	g.p("SUBQ $64, CX")
	g.p("JG column")
	g.p("RET")
}

// prefetch asks for the next bytes of what lies behind the strip, where SI
// points: the rows of the next strip, one after another.
func (g *amd64) prefetch(bytes int) { g.prefetchAt(bytes, 0) }

// prefetchAt is prefetch at some distances.
func (g *amd64) prefetchAt(bytes int, ahead ...int) {
	for _, distance := range ahead {
		for at := 0; at < bytes; at += 64 {
			g.p("PREFETCHT1 %d(SI)", distance+at)
		}
	}
	g.p("ADDQ $%d, SI", bytes)
}
