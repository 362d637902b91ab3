package main

import (
	"fmt"
	"math"
)

// Kernels of one row at a time, and the peak that products are held against.

func f32(f float32) uint32 { return math.Float32bits(f) }

func (g *amd64) number(name string, f float32) string { return g.everywhere(name, f32(f)) }

func (g *amd64) elementwise() {
	g.quantise()
	g.reductions()
	g.scaleMul()
	g.decodeF16()
	g.encodeF16()
	g.roundHalf()
	g.decode8("decodeKeys8")
	g.decode8("decodeValues8")
	g.swiGLU()
	g.expSum()
	g.read()
}

// amd64PeakSums is how many sums a peak kernel keeps in flight: more than an
// instruction's latency times how many start a cycle.
const amd64PeakSums = 12

// peak multiplies registers with registers: what no product can exceed. A round
// is amd64PeakSums vectors of int8.
func (g *amd64) peak() {
	g.function("peak"+g.t.name, "rounds int", "")
	g.load("rounds", "CX")
	for i := range 16 {
		g.zero(i)
	}
	const w, x, tmp = 15, 14, 13
	g.label("next")
	for i := range amd64PeakSums {
		if g.t.vnni {
			g.p("VPDPBUSD %s, %s, %s", g.v(x), g.v(w), g.v(i))
			continue
		}
		g.p("VPMADDUBSW %s, %s, %s", g.v(x), g.v(w), g.v(tmp))
		g.p("VPMADDWD %s, %s, %s", g.v(x), g.v(tmp), g.v(tmp))
		g.p("VPADDD %s, %s, %s", g.v(tmp), g.v(i), g.v(i))
	}
	g.p("DECQ CX")
	g.p("JG next")
	g.ret()
}

// read does nothing but read, 256 bytes a round.
func (g *amd64) read() {
	g.function("read"+g.t.name, "src *byte, bytes int", "")
	g.load("src", "SI")
	g.load("bytes", "CX")
	g.label("next")
	for i := range 256 / g.t.bytes() {
		g.p("%s %d(SI), %s, %s", g.bits("VPXOR"), i*g.t.bytes(), g.v(i), g.v(i))
	}
	g.p("ADDQ $256, SI")
	g.p("SUBQ $256, CX")
	g.p("JG next")
	g.ret()
}

// acrossLanes leaves op over all lanes of V0 in X0; it uses V1.
func (g *amd64) acrossLanes(op string) {
	if g.t.wide() {
		g.p("VEXTRACTF64X4 $1, Z0, Y1")
		g.p("%s Y1, Y0, Y0", op)
	}
	g.p("VEXTRACTF128 $1, Y0, X1")
	g.p("%s X1, X0, X0", op)
	g.p("VPSHUFD $0x4e, X0, X1")
	g.p("%s X1, X0, X0", op)
	g.p("VPSHUFD $0xb1, X0, X1")
	g.p("%s X1, X0, X0", op)
}

// quantise writes blocks of 48 bytes from 32 floats each.
func (g *amd64) quantise() {
	g.function("quantise"+g.t.name, "dst *Block, x *float32, blocks int", "")
	g.load("dst", "DI")
	g.load("x", "SI")
	g.load("blocks", "CX")
	n := 32 / g.t.lanes
	x := func(i int) string { return g.v(4 + i) }
	g.p("VMOVSS %s, X11", g.number("tiny", 0x1p-100))
	g.p("VMOVSS %s, X12", g.number("f127", 127))
	g.p("VMOVDQU %s, Y13", g.everywhere("ones8", 0x01010101))
	g.label("next")
	for i := range n {
		g.p("VMOVUPS %d(SI), %s", i*g.t.bytes(), x(i))
		to := 0
		if i > 0 {
			to = 1
		}
		g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("magnitude", 0x7fffffff), x(i), g.v(to))
		if i > 0 {
			g.p("VMAXPS %s, %s, %s", g.v(1), g.v(0), g.v(0))
		}
	}
	g.acrossLanes("VMAXPS")
	g.p("VUCOMISS X11, X0")
	g.p("JCS zeros") // below
	g.p("VDIVSS X12, X0, X8")
	g.p("VDIVSS X0, X12, X9")
	g.p("VBROADCASTSS X9, %s", g.v(9))
	for i := range n {
		g.p("VMULPS %s, %s, %s", g.v(9), x(i), x(i))
		g.p("VCVTPS2DQ %s, %s", x(i), x(i))
	}
	if g.t.wide() {
		g.p("VPMOVSDB Z4, X4")
		g.p("VPMOVSDB Z5, X5")
		g.p("VINSERTI128 $1, X5, Y4, Y4")
	} else {
		g.p("VPACKSSDW Y5, Y4, Y4")
		g.p("VPACKSSDW Y7, Y6, Y6")
		g.p("VPACKSSWB Y6, Y4, Y4") // fours of the registers: 4 5 6 7 low, then high
		g.p("VMOVDQU %s, Y5", g.constant("packed", 0, 4, 1, 5, 2, 6, 3, 7))
		g.p("VPERMD Y4, Y5, Y4")
	}
	g.p("VMOVDQU Y4, 0(DI)")
	g.p("VPMADDUBSW Y4, Y13, Y0")
	g.p("VPMADDWD %s, Y0, Y0", g.everywhere("ones16", 0x00010001))
	g.p("VPHADDD Y0, Y0, Y0")
	g.p("VPHADDD Y0, Y0, Y0")
	g.p("VEXTRACTI128 $1, Y0, X1") // X0, X1: the sums of the halves
	g.p("VPUNPCKLDQ X1, X0, X2")
	g.p("VPADDD X1, X0, X0")
	g.p("VPXOR X3, X3, X3")
	g.p("VPSUBD X2, X3, X2")
	g.p("VPSLLD $5, X2, X2")
	g.p("VMOVQ X2, %d(DI)", offN32)
	g.p("VMOVSS X8, %d(DI)", offD)
	g.p("VCVTDQ2PS X0, X1")
	g.p("VMULSS X8, X1, X1")
	g.p("VMOVSS X1, %d(DI)", offS)
	g.p("VMOVD X0, AX")
	g.p("NEGL AX")
	g.p("SHLL $3, AX")
	g.p("MOVL AX, %d(DI)", offN8)
	g.p("SHLL $4, AX")
	g.p("MOVL AX, %d(DI)", offN80)
	g.label("after")
	g.p("ADDQ $128, SI")
	g.p("ADDQ $%d, DI", blockBytes)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.ret()
	g.label("zeros")
	g.p("VPXOR X0, X0, X0")
	for i := range 3 {
		g.p("VMOVDQU X0, %d(DI)", 16*i)
	}
	g.p("VMOVQ X0, %d(DI)", offN32)
	g.p("JMP after")
}

// reductions write the sum of squares and the largest number.
func (g *amd64) reductions() {
	for _, kind := range []string{"sumSquares", "max"} {
		g.function(kind+g.t.name, "x *float32, n int", "float32")
		g.load("x", "SI")
		g.load("n", "CX")
		if kind == "max" {
			g.broadcast(g.everywhere("lowest", 0xff800000), 0) // -Inf
			g.p("VMOVUPS %s, %s", g.v(0), g.v(2))
		} else {
			g.zero(0)
			g.zero(2)
		}
		g.label("next")
		for at := 0; at < 64; at += g.t.bytes() {
			to := at / 32 * 2 // two accumulators where a step is two vectors
			g.p("VMOVUPS %d(SI), %s", at, g.v(4))
			if kind == "max" {
				g.p("VMAXPS %s, %s, %s", g.v(to), g.v(4), g.v(to)) // the last largest, where the number is NaN
			} else {
				g.p("VFMADD231PS %s, %s, %s", g.v(4), g.v(4), g.v(to))
			}
		}
		g.p("ADDQ $64, SI")
		g.p("SUBQ $16, CX")
		g.p("JG next")
		op := "VADDPS"
		if kind == "max" {
			op = "VMAXPS"
		}
		g.p("%s %s, %s, %s", op, g.v(2), g.v(0), g.v(0))
		g.acrossLanes(op)
		g.p("VMOVSS X0, ret+%d(FP)", g.args["ret"])
		g.ret()
	}
}

func (g *amd64) scaleMul() {
	g.function("scaleMul"+g.t.name, "y *float32, x *float32, w *float32, scale float32, n int", "")
	g.load("y", "DI")
	g.load("x", "SI")
	g.load("w", "DX")
	g.p("VBROADCASTSS scale+%d(FP), %s", g.args["scale"], g.v(2))
	g.load("n", "CX")
	g.label("next")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VMULPS %d(SI), %s, %s", at, g.v(2), g.v(0))
		g.p("VMULPS %d(DX), %s, %s", at, g.v(0), g.v(0))
		g.p("VMOVUPS %s, %d(DI)", g.v(0), at)
	}
	for _, r := range []string{"DI", "SI", "DX"} {
		g.p("ADDQ $64, %s", r)
	}
	g.p("SUBQ $16, CX")
	g.p("JG next")
	g.ret()
}

func (g *amd64) decodeF16() {
	g.function("decodeF16"+g.t.name, "dst *float32, src *uint16, n int", "")
	g.load("dst", "DI")
	g.load("src", "SI")
	g.load("n", "CX")
	g.p("SUBQ $16, CX")
	g.p("JLT rest")
	g.label("next")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VCVTPH2PS %d(SI), %s", at/2, g.v(0))
		g.p("VMOVUPS %s, %d(DI)", g.v(0), at)
	}
	g.p("ADDQ $64, DI")
	g.p("ADDQ $32, SI")
	g.p("SUBQ $16, CX")
	g.p("JGE next")
	g.label("rest")
	g.p("ADDQ $16, CX")
	g.p("JZ done")
	g.label("one")
	g.p("MOVWLZX (SI), AX")
	g.p("VMOVD AX, X0")
	g.p("VCVTPH2PS X0, X0")
	g.p("VMOVSS X0, (DI)")
	g.p("ADDQ $4, DI")
	g.p("ADDQ $2, SI")
	g.p("DECQ CX")
	g.p("JNZ one")
	g.label("done")
	g.ret()
}

// encodeF16 rounds sixteen numbers a step to halves.
func (g *amd64) encodeF16() {
	g.function("encodeF16"+g.t.name, "dst *uint16, src *float32, n int", "")
	g.load("dst", "DI")
	g.load("src", "SI")
	g.load("n", "CX")
	g.label("next")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VMOVUPS %d(SI), %s", at, g.v(0))
		g.p("VCVTPS2PH $0, %s, %d(DI)", g.v(0), at/2)
	}
	g.p("ADDQ $64, SI")
	g.p("ADDQ $32, DI")
	g.p("SUBQ $16, CX")
	g.p("JG next")
	g.ret()
}

// roundHalf rounds to halves and back, and returns the largest magnitude; from
// 32768 on, NaN counted as larger, it rounds nothing.
func (g *amd64) roundHalf() {
	g.function("roundHalf"+g.t.name, "x *float32, n int", "float32")
	g.load("x", "SI")
	g.load("n", "CX")
	g.zero(0)
	g.label("next")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VMOVUPS %d(SI), %s", at, g.v(2))
		g.p("%s %s, %s, %s", g.bits("VPAND"), g.everywhere("magnitude", 0x7fffffff), g.v(2), g.v(2))
		g.p("VPMAXUD %s, %s, %s", g.v(2), g.v(0), g.v(0))
	}
	g.p("ADDQ $64, SI")
	g.p("SUBQ $16, CX")
	g.p("JG next")
	g.acrossLanes("VPMAXUD")
	g.p("VMOVSS X0, ret+%d(FP)", g.args["ret"])
	g.p("VMOVD X0, AX")
	g.p("CMPL AX, $0x%x", f32(32768))
	g.p("JCC done") // not below
	g.load("x", "SI")
	g.load("n", "CX")
	half := map[bool]string{true: "Y2", false: "X2"}[g.t.wide()]
	g.label("round")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VMOVUPS %d(SI), %s", at, g.v(2))
		g.p("VCVTPS2PH $0, %s, %s", g.v(2), half)
		g.p("VCVTPH2PS %s, %s", half, g.v(2))
		g.p("VMOVUPS %s, %d(SI)", g.v(2), at)
	}
	g.p("ADDQ $64, SI")
	g.p("SUBQ $16, CX")
	g.p("JG round")
	g.label("done")
	g.ret()
}

// decode8 turns blocks of int8 into float32: of keys, 32 numbers of 16 positions
// each with a scale of its own, or of values, 32 numbers with one scale.
func (g *amd64) decode8(name string) {
	g.function(name+g.t.name, "dst *float32, src *int8, scales *float32, blocks int", "")
	g.load("dst", "DI")
	g.load("src", "SI")
	g.load("scales", "DX")
	g.load("blocks", "CX")
	g.label("next")
	numbers, perRow := 32, 1
	if name == "decodeKeys8" {
		numbers, perRow = 512, 16
		for i := range 16 / g.t.lanes {
			g.p("VMOVUPS %d(DX), %s", i*g.t.bytes(), g.v(8+i))
		}
	} else {
		g.p("VBROADCASTSS (DX), %s", g.v(8))
	}
	for i := range numbers / g.t.lanes {
		scale := 8
		if perRow == 16 {
			scale += i % (16 / g.t.lanes)
		}
		g.p("VPMOVSXBD %d(SI), %s", i*g.t.lanes, g.v(i%4))
		g.p("VCVTDQ2PS %s, %s", g.v(i%4), g.v(i%4))
		g.p("VMULPS %s, %s, %s", g.v(scale), g.v(i%4), g.v(i%4))
		g.p("VMOVUPS %s, %d(DI)", g.v(i%4), i*g.t.bytes())
	}
	g.p("ADDQ $%d, SI", numbers)
	g.p("ADDQ $%d, DI", 4*numbers)
	g.p("ADDQ $%d, DX", 4*perRow)
	g.p("DECQ CX")
	g.p("JNZ next")
	g.ret()
}

// exp replaces register x by its exponential: x = n·ln 2 + r, and the
// polynomial of Cephes' expf for r. x must lie in [-87, 88]. It uses V8..V10.
func (g *amd64) exp(x int) {
	n, p, t := g.v(8), g.v(9), g.v(10)
	r := g.v(x)
	g.p("VMULPS %s, %s, %s", g.number("log2e", 1.44269504), r, n)
	if g.t.wide() {
		g.p("VRNDSCALEPS $8, %s, %s", n, n)
	} else {
		g.p("VROUNDPS $8, %s, %s", n, n)
	}
	g.p("VFNMADD231PS %s, %s, %s", g.number("ln2hi", 0.693359375), n, r)
	g.p("VFNMADD231PS %s, %s, %s", g.number("ln2lo", -2.12194440e-4), n, r)
	g.p("VMOVUPS %s, %s", g.number("exp5", 1.9875691500e-4), p)
	for i, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		g.p("VFMADD213PS %s, %s, %s", g.number(fmt.Sprintf("exp%d", 4-i), c), r, p)
	}
	g.p("VMULPS %s, %s, %s", r, r, t)
	g.p("VFMADD213PS %s, %s, %s", r, t, p)
	g.p("VADDPS %s, %s, %s", g.number("one", 1), p, p)
	if g.t.wide() {
		g.p("VSCALEFPS %s, %s, %s", n, p, r)
		return
	}
	g.p("VCVTPS2DQ %s, %s", n, n)
	g.p("VPSLLD $23, %s, %s", n, n)
	g.p("VPADDD %s, %s, %s", n, p, r)
}

// swiGLU takes sixteen pairs a step.
func (g *amd64) swiGLU() {
	g.function("swiGLU"+g.t.name, "y *float32, gu *float32, n int", "")
	g.load("y", "DI")
	g.load("gu", "SI")
	g.load("n", "CX")
	if g.t.wide() {
		even, odd := make([]uint32, 16), make([]uint32, 16)
		for i := range even {
			even[i], odd[i] = uint32(2*i), uint32(2*i+1)
		}
		g.p("VMOVUPS %s, Z6", g.constant("even", even...))
		g.p("VMOVUPS %s, Z7", g.constant("odd", odd...))
	}
	g.label("next")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VMOVUPS %d(SI), %s", 2*at, g.v(0))
		g.p("VMOVUPS %d(SI), %s", 2*at+g.t.bytes(), g.v(1))
		if g.t.wide() {
			g.p("VMOVUPS Z0, Z2")
			g.p("VMOVUPS Z0, Z3")
			g.p("VPERMT2PS Z1, Z6, Z2")
			g.p("VPERMT2PS Z1, Z7, Z3")
		} else {
			g.p("VSHUFPS $0x88, Y1, Y0, Y2")
			g.p("VSHUFPS $0xdd, Y1, Y0, Y3")
			g.p("VPERMPD $0xd8, Y2, Y2")
			g.p("VPERMPD $0xd8, Y3, Y3")
		}
		gate, up, e := g.v(2), g.v(3), g.v(4)
		g.zero(4)
		g.p("VSUBPS %s, %s, %s", gate, e, e)
		g.p("VMAXPS %s, %s, %s", g.number("least", -87), e, e)
		g.p("VMINPS %s, %s, %s", g.number("most", 88), e, e)
		g.exp(4)
		g.p("VADDPS %s, %s, %s", g.number("one", 1), e, e)
		g.p("VDIVPS %s, %s, %s", e, gate, gate)
		g.p("VMULPS %s, %s, %s", up, gate, gate)
		g.p("VMOVUPS %s, %d(DI)", gate, at)
	}
	g.p("ADDQ $128, SI")
	g.p("ADDQ $64, DI")
	g.p("SUBQ $16, CX")
	g.p("JG next")
	g.ret()
}

func (g *amd64) expSum() {
	g.function("expSum"+g.t.name, "x *float32, n int, max float32", "float32")
	g.load("x", "SI")
	g.load("n", "CX")
	g.p("VBROADCASTSS max+%d(FP), %s", g.args["max"], g.v(7))
	g.zero(0)
	g.label("next")
	for at := 0; at < 64; at += g.t.bytes() {
		g.p("VMOVUPS %d(SI), %s", at, g.v(2))
		g.p("VSUBPS %s, %s, %s", g.v(7), g.v(2), g.v(2))
		if g.t.wide() {
			g.p("VCMPPS $0x0d, %s, Z2, K1", g.number("least", -87)) // not below
		} else {
			g.p("VCMPPS $0x0d, %s, Y2, Y5", g.number("least", -87))
		}
		g.p("VMAXPS %s, %s, %s", g.number("least", -87), g.v(2), g.v(2))
		g.exp(2)
		if g.t.wide() {
			g.p("VMOVAPS.Z Z2, K1, Z2")
		} else {
			g.p("VANDPS Y5, Y2, Y2")
		}
		g.p("VADDPS %s, %s, %s", g.v(2), g.v(0), g.v(0))
		g.p("VMOVUPS %s, %d(SI)", g.v(2), at)
	}
	g.p("ADDQ $64, SI")
	g.p("SUBQ $16, CX")
	g.p("JG next")
	g.acrossLanes("VADDPS")
	g.p("VMOVSS X0, ret+%d(FP)", g.args["ret"])
	g.ret()
}
