package main

// Products of one row of activations with a strip, row after row as they lie in
// memory. Weights are multiplied where they are read: they are not transposed, not
// written to a strip and not read again, which for one row is most of the work.
//
// A row's blocks are summed exactly, in integers, to a table of the strip's
// blocks; then scales are applied block after block to all rows at once, in the
// same order as everywhere else. The table has a row's sums in the order of its
// blocks; of q6_0 a group's four first halves, then its second ones.

const (
	sumsParams  = "src *byte, stride int, x *byte, sums *int32, pitch int, rows int, groups int"
	applyParams = "y *float32, sums *int32, pitch int, d *float32, m *float32, xd *float32, x unsafe.Pointer, groups int"
)

// sums writes a vector of sums for each row and group, for q6_0 two.
//
//	R1 a row, R2 from row to row, R3 R4 the same of sums, R5 rows left
//	R6 groups left, R7 weights, R8 activations, R9 sums
//	V0..V7 sums of blocks or halves, V16.. weights, V20..V27 activations, V30 V31 constants
func (g *arm64) sums(kind, isa string) {
	g.function(kind+isa, sumsParams, "")
	for i, arg := range []string{"src", "stride", "sums", "pitch", "rows"} {
		g.load(arg, []string{"R1", "R2", "R3", "R4", "R5"}[i])
	}
	g.constant(30, 0x0f0f0f0f)
	g.constant(31, 0x33333333)
	g.label("row")
	g.load("groups", "R6")
	g.p("MOVD R1, R7")
	g.load("x", "R8")
	g.p("MOVD R3, R9")
	g.label("next")
	weights, sums := 64, 1 // bytes of a group, vectors of its sums
	switch kind {
	case "sums4":
		g.lineNibbles(isa)
	case "sums6":
		weights, sums = 96, 2
		g.lineSixes(isa)
	default:
		weights = 128
		g.lineBytes(isa)
	}
	for i := range sums {
		g.op("ADDP.4S", 4*i, 4*i, 4*i+1)
		g.op("ADDP.4S", 4*i+2, 4*i+2, 4*i+3)
		g.op("ADDP.4S", 4*i, 4*i, 4*i+2)
		g.p("FMOVQ F%d, %d(R9)", 4*i, 16*i)
	}
	g.p("ADD $%d, R7", weights)
	if kind != "sums8" { // which goes from block to block
		g.p("ADD $128, R8")
	}
	g.p("ADD $%d, R9", 16*sums)
	g.p("SUBS $1, R6")
	g.p("BNE next")
	g.p("ADD R2, R1")
	g.p("ADD R4, R3")
	g.p("SUBS $1, R5")
	g.p("BNE row")
	g.p("RET")
}

// lineHalves loads a group's activations: first halves from V20, second from V24 on.
func (g *arm64) lineHalves() {
	for i := 0; i < 8; i += 2 {
		g.p("FLDPQ %d(R8), (F%d, F%d)", 16*i, 20+i, 21+i)
	}
}

func (g *arm64) lineNibbles(isa string) {
	g.p("FLDPQ (R7), (F16, F17)")
	g.p("FLDPQ 32(R7), (F18, F19)")
	g.lineHalves()
	for b := range 4 {
		g.op("AND.16B", 28, 16+b, 30)
		g.op("USHR4.16B", 16+b, 16+b)
		g.sumOf(isa, b, 2, [2]int{28, 20 + b}, [2]int{16 + b, 24 + b})
	}
}

func (g *arm64) lineSixes(isa string) {
	g.lineHalves()
	for b := range 4 {
		g.p("FMOVQ %d(R7), F16", 24*b)
		g.p("FMOVD %d(R7), F17", 24*b+16)
		g.op("USHR2.16B", 18, 17)
		g.op("ZIP1.2D", 17, 17, 18)
		g.sixes(16, 17, 18, 31)
		g.sumOf(isa, b, 1, [2]int{16, 20 + b})
		g.sumOf(isa, 4+b, 1, [2]int{18, 24 + b})
	}
}

func (g *arm64) lineBytes(isa string) {
	for b := range 4 {
		g.p("FLDPQ %d(R7), (F16, F17)", 32*b)
		g.p("FLDPQ (R8), (F20, F21)")
		g.p("ADD $%d, R8", blockBytes)
		g.sumOf(isa, b, 1, [2]int{16, 20}, [2]int{17, 21})
	}
}

// sumOf leaves in the four words of to the sum of the products of pairs of vectors.
// Without dot product instructions those of so many pairs together fit 16 bits.
func (g *arm64) sumOf(isa string, to, together int, pairs ...[2]int) {
	if isa == "NEONDot" {
		g.zero(to)
		for _, p := range pairs {
			g.op("SDOT.4S", to, p[0], p[1])
		}
		return
	}
	widen := "SADDLP.4S"
	for i, p := range pairs {
		op := "SMLAL.8H"
		if i%together == 0 {
			op = "SMULL.8H"
		}
		g.op(op, 29, p[0], p[1])
		g.op("SMLAL2.8H", 29, p[0], p[1])
		if (i+1)%together == 0 {
			g.op(widen, to, 29)
			widen = "SADALP.4S"
		}
	}
}

// apply writes the sums of a strip's blocks, each with its scale, for all rows.
//
//	R0 scales, R1 scales of activations, R2 what the sums lack or are added, R3
//	minimums or scales of second halves, R6 groups left, R8.. a row's sums each
//	V0..V3 columns of sums, V8..V11 of those of second halves, V18 scales of
//	activations, V19 V20 what R2 has, V26 scales, V27 what R3 has, V28 the result
func (g *arm64) apply(kind string) {
	paired, sums := kind == "apply6" || kind == "applyMin", 1 // vectors of a group's sums
	if kind == "apply6" {
		sums = 2
	}
	g.function(kind+"NEON", applyParams, "")
	g.load("d", "R0")
	g.load("xd", "R1")
	g.load("x", "R2")
	if paired {
		g.load("m", "R3")
	}
	g.load("groups", "R6")
	g.load("sums", "R8")
	g.load("pitch", "R5")
	for r := range 3 {
		g.p("ADD R5, R%d, R%d", 8+r, 9+r)
	}
	g.zero(28)
	g.label("next")
	g.p("FMOVQ (R1), F18")
	g.p("FMOVQ (R2), F19")
	if kind == "apply6" { // halves apart
		g.p("FMOVQ 16(R2), F21")
		g.op("UZP2.4S", 20, 19, 21)
		g.op("UZP1.4S", 19, 19, 21)
	}
	for i := range sums {
		for r := range 4 {
			g.p("FMOVQ %d(R%d), F%d", 16*i, 8+r, 8*i+r)
			if kind == "apply4" || kind == "apply6" { // their sums are of unsigned weights
				g.op("ADD.4S", 8*i+r, 8*i+r, 19+i)
			}
		}
		g.transpose(8 * i)
	}
	for b := range 4 {
		g.p("FMOVQ %d(R0), F26", 16*b)
		g.scaleSum(28, b, 26, b)
		if paired {
			g.p("FMOVQ %d(R3), F27", 16*b)
		}
		switch kind {
		case "apply6":
			g.scaleSum(28, 8+b, 27, b)
		case "applyMin":
			g.byElement("FMLA", 28, 27, 19, b)
		}
	}
	g.p("ADD $64, R0")
	g.p("ADD $16, R1")
	g.p("ADD $%d, R2", 16*sums)
	if paired {
		g.p("ADD $64, R3")
	}
	for r := range 4 {
		g.p("ADD $%d, R%d", 16*sums, 8+r)
	}
	g.p("SUBS $1, R6")
	g.p("BNE next")
	g.load("y", "R0")
	g.p("FMOVQ F28, (R0)")
	g.p("RET")
}
