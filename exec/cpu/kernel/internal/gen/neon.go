package main

import (
	"fmt"
	"log"
)

// writeARM64 writes kernels_arm64.s and its declarations. Go's assembler has few
// of NEON's instructions; the others are written as the words that the Arm
// Architecture Reference Manual (DDI 0487) gives, with their name beside them.
func writeARM64() {
	g := &arm64{}
	g.unpackBlocks("unpack4NEON", 16)
	g.unpackSixes()
	g.unpackBlocks("unpack8NEON", 32)
	g.scales()
	g.pairs()
	for _, t := range []string{"F32", "F16", "BF16"} {
		g.unpackFloats(t)
	}
	for _, kind := range arm64Dots {
		for _, isa := range []string{"NEON", "NEONDot"} {
			for n := 1; n <= arm64Panel; n++ {
				g.dot(kind, isa, n)
			}
		}
	}
	for n := 1; n <= arm64Panel; n++ {
		g.dotFloat("dotFloat", "float32", n)
		g.dotFloat("dotHalf", "uint16", n)
	}
	for _, kind := range []string{"4", "6", "8"} {
		g.sums("sums"+kind, "NEON")
		g.sums("sums"+kind, "NEONDot")
	}
	for _, kind := range []string{"4", "6", "8", "Min"} {
		g.apply("apply" + kind)
	}
	g.decodeF16()
	g.rows()
	g.peak()
	g.finish()
}

// arm64Dots are the products of blocks.
var arm64Dots = []string{"dot4", "dot6", "dot8", "dotMin"}

// arm64Paired tells whether a product takes two numbers of a block of weights: a scale
// and a minimum, or two scales.
func arm64Paired(kind string) bool { return kind == "dotMin" || kind == "dot6" }

// arm64Panel is how many rows a product takes.
const arm64Panel = 8

// An arm64 writes the kernels for arm64 processors.
type arm64 struct{ writer }

func (g *arm64) load(arg, reg string) { g.p("MOVD %s+%d(FP), %s", arg, g.args[arg], reg) }

func (g *arm64) table(name, params string) {
	fmt.Fprintf(&g.tables, "\t%s = []func(%s){", name, params)
	for n := 1; n <= arm64Panel; n++ {
		fmt.Fprintf(&g.tables, "%s_%d, ", name, n)
	}
	g.tables.WriteString("}\n")
}

// finish writes the files, with a table of each product by rows.
func (g *arm64) finish() {
	for _, kind := range arm64Dots {
		m := ""
		if arm64Paired(kind) {
			m = ", m"
		}
		for _, isa := range []string{"NEON", "NEONDot"} {
			g.table(kind+isa, "y *float32, ldy int, w *byte, d"+m+" *float32, x *Block, ldx, blocks int")
		}
	}
	g.table("dotFloatNEON", "y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int")
	g.table("dotHalfNEON", "y *float32, ldy int, a *float32, lda int, b *uint16, ldb, k, add int")
	g.write("arm64")
}

// Three registers: op d, n, m; m = 0 where there are two.
var opcodes = map[string]uint32{
	"AND.16B": 0x4e201c00, "EOR.16B": 0x6e201c00, "ORR.16B": 0x4ea01c00,
	"ZIP1.8H": 0x4e403800, "ZIP1.4S": 0x4e803800, "ZIP2.4S": 0x4e807800, "ZIP1.2D": 0x4ec03800, "ZIP2.2D": 0x4ec07800,
	"UZP1.8H": 0x4e401800, "UZP2.8H": 0x4e405800,
	"UZP1.4S": 0x4e801800, "UZP2.4S": 0x4e805800,
	"FADD.4S": 0x4e20d400, "FSUB.4S": 0x4ea0d400, "FMUL.4S": 0x6e20dc00, "FDIV.4S": 0x6e20fc00, "FMLA.4S": 0x4e20cc00, "FMLS.4S": 0x4ea0cc00,
	"FMAX.4S": 0x4e20f400, "FMIN.4S": 0x4ea0f400, "FCMGE.4S": 0x6e20e400, "FMAXP.4S": 0x6e20f400, "FADDP.4S": 0x6e20d400,
	"ADD.4S": 0x4ea08400, "ADDP.4S": 0x4ea0bc00, "SDOT.4S": 0x4e809400, "SUB.16B": 0x6e208400,
	"SMULL.8H": 0x0e20c000, "SMULL2.8H": 0x4e20c000, "SMLAL.8H": 0x0e208000, "SMLAL2.8H": 0x4e208000,
	// Two registers.
	"FCVTL.4S": 0x0e217800, "FCVTL2.4S": 0x4e217800, "SHLL.4S": 0x2e613800, "SCVTF.4S": 0x4e21d800, "FCVTNS.4S": 0x4e21a800,
	"FABS.4S": 0x4ea0f800, "FNEG.4S": 0x6ea0f800, "FRINTN.4S": 0x4e218800,
	"SADDLP.4S": 0x4e602800, "SADALP.4S": 0x4e606800,
	"SQXTN.4H": 0x0e614800, "SQXTN2.8H": 0x4e614800, "SQXTN.8B": 0x0e214800, "SQXTN2.16B": 0x4e214800,
	"USHR2.16B": 0x6f0e0400, "USHR4.16B": 0x6f0c0400, "SLI4.16B": 0x6f0c5400, "SRI4.16B": 0x6f0c4400, "SHL23.4S": 0x4f375400,
}

// op writes an instruction that the assembler may not know.
func (g *arm64) op(name string, d, n int, m ...int) {
	word, known := opcodes[name]
	if !known {
		log.Fatalf("no opcode for %s", name)
	}
	word |= uint32(n)<<5 | uint32(d)
	text := fmt.Sprintf("%s V%d, V%d", name, d, n)
	if len(m) > 0 {
		word |= uint32(m[0]) << 16
		text += fmt.Sprintf(", V%d", m[0])
	}
	g.p("WORD $0x%08x // %s", word, text)
}

// byElement writes op d, n, m[i] of 32-bit elements.
func (g *arm64) byElement(name string, d, n, m, i int) {
	base := map[string]uint32{"SDOT": 0x4f80e000, "FMLA": 0x4f801000, "FMUL": 0x4f809000}[name]
	g.p("WORD $0x%08x // %s V%d, V%d, V%d[%d]", base|uint32(i&1)<<21|uint32(i>>1)<<11|uint32(m)<<16|uint32(n)<<5|uint32(d), name, d, n, m, i)
}

// dup copies element i of n to all of d.
func (g *arm64) dup(d, n, i int) {
	g.p("WORD $0x%08x // DUP V%d.4S, V%d.S[%d]", 0x4e000400|uint32(i*8+4)<<16|uint32(n)<<5|uint32(d), d, n, i)
}

// zero clears d. An exclusive or of d with itself would do so too, but most
// processors would wait for what d was.
func (g *arm64) zero(d int) { g.p("WORD $0x%08x // MOVI V%d.2D, $0", 0x6f00e400|uint32(d), d) }

// constant fills d with a 32-bit word.
func (g *arm64) constant(d int, word uint32) {
	g.p("MOVD $0x%08x, R27", word)
	g.p("WORD $0x%08x // DUP V%d.4S, W27", 0x4e040c00|27<<5|uint32(d), d)
}
