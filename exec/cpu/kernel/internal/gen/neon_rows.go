package main

import "math"

func (g *arm64) decodeF16() {
	g.function("decodeF16NEON", "dst *float32, src *uint16, n int", "")
	g.load("dst", "R0")
	g.load("src", "R1")
	g.load("n", "R6")
	g.p("SUBS $8, R6")
	g.p("BLT rest")
	g.label("next")
	g.p("FMOVQ (R1), F0")
	g.op("FCVTL.4S", 1, 0)
	g.op("FCVTL2.4S", 2, 0)
	g.p("FMOVQ F1, (R0)")
	g.p("FMOVQ F2, 16(R0)")
	g.p("ADD $32, R0")
	g.p("ADD $16, R1")
	g.p("SUBS $8, R6")
	g.p("BGE next")
	g.label("rest")
	g.p("ADDS $8, R6")
	g.p("BEQ done")
	g.label("one")
	g.p("MOVHU (R1), R2")
	g.p("FMOVS R2, F0")
	g.op("FCVTL.4S", 0, 0)
	g.p("FMOVS F0, (R0)")
	g.p("ADD $4, R0")
	g.p("ADD $2, R1")
	g.p("SUBS $1, R6")
	g.p("BNE one")
	g.label("done")
	g.p("RET")
}

// ---- one row at a time ----

func (g *arm64) number(d int, f float32) { g.constant(d, math.Float32bits(f)) }

// arm64PeakSums is how many sums the peak kernel keeps in flight: more than an
// instruction's latency times how many start a cycle.
const arm64PeakSums = 16

// peak multiplies registers with registers: what no product can exceed.
func (g *arm64) peak() {
	g.function("peakNEONDot", "rounds int", "")
	g.load("rounds", "R0")
	for i := range arm64PeakSums + 2 {
		g.zero(i)
	}
	g.label("next")
	for i := range arm64PeakSums {
		g.byElement("SDOT", i, arm64PeakSums, arm64PeakSums+1, 0)
	}
	g.p("SUBS $1, R0, R0")
	g.p("BGT next")
	g.p("RET")
}

func (g *arm64) rows() {
	g.quantise()
	g.reduction("sumSquares")
	g.reduction("max")
	g.scaleMul()
	g.swiGLU()
	g.expSum()
}

// acrossLanes leaves op over the lanes of V0 in all of them.
func (g *arm64) acrossLanes(op string) {
	g.op(op, 0, 0, 0)
	g.op(op, 0, 0, 0)
}

// quantise writes blocks from 32 floats each.
func (g *arm64) quantise() {
	g.function("quantiseNEON", "dst *Block, x *float32, blocks int", "")
	g.load("dst", "R0")
	g.load("x", "R1")
	g.load("blocks", "R6")
	g.number(20, 0x1p-100)
	g.number(21, 127)
	g.label("next")
	for i := range 8 {
		g.p("FMOVQ %d(R1), F%d", 16*i, 8+i)
		to := 1
		if i == 0 {
			to = 0
		}
		g.op("FABS.4S", to, 8+i)
		if i > 0 {
			g.op("FMAX.4S", 0, 0, 1)
		}
	}
	g.acrossLanes("FMAXP.4S")
	g.p("FCMPS F20, F0")
	g.p("BLT zeros")
	g.p("FDIVS F21, F0, F22") // the scale
	g.p("FDIVS F0, F21, F23")
	for i := range 8 {
		g.p("WORD $0x%08x // FMUL V%d, V%d, V23[0]", 0x4f809000|23<<16|uint32(8+i)<<5|uint32(8+i), 8+i, 8+i)
		g.op("FCVTNS.4S", 8+i, 8+i)
	}
	for half := range 2 {
		g.op("ADD.4S", half, 8+4*half, 9+4*half)
		g.op("ADD.4S", half, half, 10+4*half)
		g.op("ADD.4S", half, half, 11+4*half)
	}
	g.op("ADDP.4S", 0, 0, 1)
	g.op("ADDP.4S", 0, 0, 0) // the sums of the halves
	for i := range 4 {
		g.op("SQXTN.4H", 1+i, 8+2*i)
		g.op("SQXTN2.8H", 1+i, 9+2*i)
	}
	for i := range 2 {
		g.op("SQXTN.8B", 8+i, 1+2*i)
		g.op("SQXTN2.16B", 8+i, 2+2*i)
		g.p("FMOVQ F%d, %d(R0)", 8+i, 16*i)
	}
	g.p("FMOVD F0, R2")
	g.p("ASR $32, R2, R3")
	g.p("ADDW R3, R2, R4")
	for i := range 2 {
		g.p("NEGW R%d, R%d", 2+i, 2+i)
		g.p("LSLW $5, R%d, R%d", 2+i, 2+i)
		g.p("MOVW R%d, %d(R0)", 2+i, offN32+4*i)
	}
	g.p("MOVW R4, R2")
	g.p("SCVTFWS R2, F1")
	g.p("FMULS F22, F1, F1")
	g.p("FMOVS F22, 32(R0)")
	g.p("NEGW R2, R2")
	g.p("LSLW $3, R2, R2")
	g.p("MOVW R2, 36(R0)")
	g.p("LSLW $4, R2, R2")
	g.p("MOVW R2, 40(R0)")
	g.p("FMOVS F1, 44(R0)")
	g.label("after")
	g.p("ADD $128, R1")
	g.p("ADD $%d, R0", blockBytes)
	g.p("SUBS $1, R6")
	g.p("BNE next")
	g.p("RET")
	g.label("zeros")
	g.zero(0)
	for i := range 3 {
		g.p("FMOVQ F0, %d(R0)", 16*i)
	}
	g.p("FMOVD F0, %d(R0)", offN32)
	g.p("JMP after")
}

func (g *arm64) reduction(kind string) {
	g.function(kind+"NEON", "x *float32, n int", "float32")
	g.load("x", "R1")
	g.load("n", "R6")
	for i := range 4 {
		if kind == "max" {
			g.p("FMOVQ %d(R1), F%d", 16*i, i)
		} else {
			g.zero(i)
		}
	}
	g.label("next")
	for i := range 4 {
		g.p("FMOVQ %d(R1), F%d", 16*i, 4+i)
		if kind == "max" {
			g.op("FMAX.4S", i, i, 4+i)
		} else {
			g.op("FMLA.4S", i, 4+i, 4+i)
		}
	}
	g.p("ADD $64, R1")
	g.p("SUBS $16, R6")
	g.p("BGT next")
	op, across := "FADD.4S", "FADDP.4S"
	if kind == "max" {
		op, across = "FMAX.4S", "FMAXP.4S"
	}
	g.op(op, 0, 0, 1)
	g.op(op, 2, 2, 3)
	g.op(op, 0, 0, 2)
	g.acrossLanes(across)
	g.p("FMOVS F0, ret+%d(FP)", g.args["ret"])
	g.p("RET")
}

func (g *arm64) scaleMul() {
	g.function("scaleMulNEON", "y *float32, x *float32, w *float32, scale float32, n int", "")
	g.load("y", "R0")
	g.load("x", "R1")
	g.load("w", "R2")
	g.p("FMOVS scale+%d(FP), F16", g.args["scale"])
	g.dup(16, 16, 0)
	g.load("n", "R6")
	g.label("next")
	for i := range 4 {
		g.p("FMOVQ %d(R1), F0", 16*i)
		g.p("FMOVQ %d(R2), F1", 16*i)
		g.op("FMUL.4S", 0, 0, 16)
		g.op("FMUL.4S", 0, 0, 1)
		g.p("FMOVQ F0, %d(R0)", 16*i)
	}
	for i := range 3 {
		g.p("ADD $64, R%d", i)
	}
	g.p("SUBS $16, R6")
	g.p("BGT next")
	g.p("RET")
}

// The exponential's constants, in V16..V28.
const (
	vLog2e = 16 + iota
	vLn2Hi
	vLn2Lo
	vExp5
	vExp4
	vExp3
	vExp2
	vExp1
	vExp0
	vOne
	vLeast
	vMost
)

func (g *arm64) expConstants() {
	for i, f := range []float32{1.44269504, 0.693359375, -2.12194440e-4,
		1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1, -87, 88} {
		g.number(vLog2e+i, f)
	}
}

// exp replaces x, in [-87, 88], by its exponential: x = n·ln 2 + r, and the
// polynomial of Cephes' expf for r. It uses V12..V15.
func (g *arm64) exp(x int) {
	const n, p, t = 12, 13, 14
	g.op("FMUL.4S", n, x, vLog2e)
	g.op("FRINTN.4S", n, n)
	g.op("FMLS.4S", x, n, vLn2Hi)
	g.op("FMLS.4S", x, n, vLn2Lo)
	g.op("ORR.16B", p, vExp5, vExp5)
	for c := vExp4; c <= vExp0; c++ {
		g.op("ORR.16B", t, c, c)
		g.op("FMLA.4S", t, p, x)
		g.op("ORR.16B", p, t, t)
	}
	g.op("FMUL.4S", t, x, x)
	g.op("FMLA.4S", x, p, t)
	g.op("FADD.4S", x, x, vOne)
	g.op("FCVTNS.4S", n, n)
	g.op("SHL23.4S", n, n)
	g.op("ADD.4S", x, x, n)
}

func (g *arm64) swiGLU() {
	g.function("swiGLUNEON", "y *float32, gu *float32, n int", "")
	g.load("y", "R0")
	g.load("gu", "R1")
	g.load("n", "R6")
	g.expConstants()
	g.label("next")
	g.p("FMOVQ (R1), F0")
	g.p("FMOVQ 16(R1), F1")
	g.op("UZP1.4S", 2, 0, 1)
	g.op("UZP2.4S", 3, 0, 1)
	g.op("FNEG.4S", 4, 2)
	g.op("FMAX.4S", 4, 4, vLeast)
	g.op("FMIN.4S", 4, 4, vMost)
	g.exp(4)
	g.op("FADD.4S", 4, 4, vOne)
	g.op("FDIV.4S", 2, 2, 4)
	g.op("FMUL.4S", 2, 2, 3)
	g.p("FMOVQ F2, (R0)")
	g.p("ADD $32, R1")
	g.p("ADD $16, R0")
	g.p("SUBS $4, R6")
	g.p("BGT next")
	g.p("RET")
}

func (g *arm64) expSum() {
	g.function("expSumNEON", "x *float32, n int, max float32", "float32")
	g.load("x", "R1")
	g.load("n", "R6")
	g.expConstants()
	g.p("FMOVS max+%d(FP), F5", g.args["max"])
	g.dup(5, 5, 0)
	g.zero(0)
	g.label("next")
	g.p("FMOVQ (R1), F2")
	g.op("FSUB.4S", 2, 2, 5)
	g.op("FCMGE.4S", 3, 2, vLeast)
	g.op("FMAX.4S", 2, 2, vLeast)
	g.exp(2)
	g.op("AND.16B", 2, 2, 3)
	g.op("FADD.4S", 0, 0, 2)
	g.p("FMOVQ F2, (R1)")
	g.p("ADD $16, R1")
	g.p("SUBS $4, R6")
	g.p("BGT next")
	g.acrossLanes("FADDP.4S")
	g.p("FMOVS F0, ret+%d(FP)", g.args["ret"])
	g.p("RET")
}
