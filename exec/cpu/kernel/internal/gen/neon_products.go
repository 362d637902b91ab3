package main

import "fmt"

// dot writes a product of n rows of blocks with an unpacked strip.
//
//	R0 y, R1 weights, R2 scales, R3 minimums, R6 blocks, R8.. a row of activations each
//	V0.. one accumulator a row, V8..V15 the block's weights, V16 V17 a row's
//	quants, V18 its scale and sums, V19.. temporaries, V26 scales, V27 minimums or
//	the scales of second halves
func (g *arm64) dot(kind, isa string, n int) {
	m := ""
	if arm64Paired(kind) {
		m = " m *float32,"
	}
	g.function(fmt.Sprintf("%s%s_%d", kind, isa, n), "y *float32, ldy int, w *byte, d *float32,"+m+" x *Block, ldx int, blocks int", "")
	g.load("w", "R1")
	g.load("d", "R2")
	if m != "" {
		g.load("m", "R3")
	}
	g.load("x", "R8")
	g.load("ldx", "R5")
	g.load("blocks", "R6")
	for r := 1; r < n; r++ {
		g.p("ADD R5, R%d, R%d", 7+r, 8+r)
	}
	for r := range n {
		g.zero(r)
	}
	g.p("CBZ R6, done")
	g.label("next")
	for j := range 8 {
		g.p("FMOVQ %d(R1), F%d", 16*j, 8+j)
	}
	g.p("FMOVQ (R2), F26")
	if m != "" {
		g.p("FMOVQ (R3), F27")
	}
	for r := range n {
		g.p("FMOVQ (R%d), F16", 8+r)
		g.p("FMOVQ 16(R%d), F17", 8+r)
		g.p("FMOVQ 32(R%d), F18", 8+r)
		g.p("ADD $%d, R%d", blockBytes, 8+r)
		if isa == "NEON" {
			g.sumWide(kind)
		} else {
			g.zero(19)
			g.zero(20)
			for j := range 8 {
				sum := 19 + j%2 // two are ready sooner than one
				if kind == "dot6" {
					sum = 19 + j/4
				}
				g.byElement("SDOT", sum, 8+j, 16+j/4, j%4)
			}
			if kind != "dot6" {
				g.op("ADD.4S", 19, 19, 20)
			}
		}
		if kind == "dot4" {
			g.dup(20, 18, 1)
			g.op("ADD.4S", 19, 19, 20)
		}
		g.scaleSum(r, 19, 26, 0)
		switch kind {
		case "dot6":
			g.scaleSum(r, 20, 27, 0)
		case "dotMin":
			g.byElement("FMLA", r, 27, 18, 3)
		}
	}
	g.p("ADD $128, R1")
	g.p("ADD $16, R2")
	if m != "" {
		g.p("ADD $16, R3")
	}
	g.p("SUB $1, R6")
	g.p("CBNZ R6, next")
	g.label("done")
	g.store(n)
}

// scaleSum adds a sum times the weights' scale and the row's, number i of V18, to an
// accumulator. It uses V21.
func (g *arm64) scaleSum(to, sum, scale, i int) {
	g.op("SCVTF.4S", sum, sum)
	g.byElement("FMUL", 21, scale, 18, i)
	g.op("FMLA.4S", to, sum, 21)
}

// store writes the accumulators V0..Vn-1 to y.
func (g *arm64) store(n int) {
	g.load("y", "R0")
	g.load("ldy", "R5")
	g.p("LSL $2, R5")
	for r := range n {
		g.p("FMOVQ F%d, (R0)", r)
		if r+1 < n {
			g.p("ADD R5, R0")
		}
	}
	g.p("RET")
}

// sumWide leaves a block's sums in V19, of dot6 those of the halves in V19 and V20,
// without dot product instructions. In 16 bits eight products of a nibble have room,
// the four of a half of six bits, or two of 8-bit weights.
func (g *arm64) sumWide(kind string) {
	together := map[string]int{"dot4": 8, "dotMin": 8, "dot6": 4, "dot8": 2}[kind]
	sum, widen := 19, "SADDLP.4S"
	for j := range 8 {
		g.dup(22, 16+j/4, j%4)
		op := "SMLAL"
		if j%together == 0 {
			op = "SMULL"
		}
		g.op(op+".8H", 23, 8+j, 22)
		g.op(op+"2.8H", 24, 8+j, 22)
		if (j+1)%together != 0 {
			continue
		}
		g.op(widen, sum, 23)
		g.op(widen, sum+1, 24)
		widen = "SADALP.4S"
		if kind == "dot6" || j == 7 {
			g.op("ADDP.4S", sum, sum, sum+1)
			sum, widen = sum+1, "SADDLP.4S"
		}
	}
}

// dotFloat writes a product of n rows of floats with k columns of four lanes.
func (g *arm64) dotFloat(name, typ string, n int) {
	g.function(fmt.Sprintf("%sNEON_%d", name, n), "y *float32, ldy int, a *float32, lda int, b *"+typ+", ldb int, k int, add int", "")
	g.load("a", "R8")
	g.load("lda", "R5")
	g.p("LSL $2, R5")
	for r := 1; r < n; r++ {
		g.p("ADD R5, R%d, R%d", 7+r, 8+r)
	}
	g.load("b", "R1")
	g.load("ldb", "R2")
	shift := 2
	if typ == "uint16" {
		shift = 1
	}
	g.p("LSL $%d, R2", shift)
	g.load("k", "R6")
	g.load("add", "R7")
	for r := range n {
		g.zero(r)
	}
	g.p("CBZ R7, begin")
	g.load("y", "R0")
	g.load("ldy", "R5")
	g.p("LSL $2, R5")
	for r := range n {
		g.p("FMOVQ (R0), F%d", r)
		if r+1 < n {
			g.p("ADD R5, R0")
		}
	}
	g.label("begin")
	column := func(to int) {
		if typ == "uint16" {
			g.p("FMOVD (R1), F%d", to)
			g.op("FCVTL.4S", to, to)
		} else {
			g.p("FMOVQ (R1), F%d", to)
		}
		g.p("ADD R2, R1")
	}
	g.p("SUBS $4, R6")
	g.p("BLT rest")
	g.label("four")
	for i := range 4 {
		column(16 + i)
	}
	for r := range n {
		g.p("FMOVQ (R%d), F%d", 8+r, 20+r%4)
		g.p("ADD $16, R%d", 8+r)
		for i := range 4 {
			g.byElement("FMLA", r, 16+i, 20+r%4, i)
		}
	}
	g.p("SUBS $4, R6")
	g.p("BGE four")
	g.label("rest")
	g.p("ADDS $4, R6")
	g.p("BEQ done")
	g.label("one")
	column(16)
	for r := range n {
		g.p("FMOVS (R%d), F20", 8+r)
		g.p("ADD $4, R%d", 8+r)
		g.byElement("FMLA", r, 16, 20, 0)
	}
	g.p("SUBS $1, R6")
	g.p("BNE one")
	g.label("done")
	g.store(n)
}
