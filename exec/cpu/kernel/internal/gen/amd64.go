package main

import (
	"fmt"
	"math/bits"
)

// writeAMD64 writes kernels_amd64.s and its declarations. The loops over rows and
// vectors are unrolled here, so that every accumulator is a register.
func writeAMD64() {
	g := &amd64{}
	for _, t := range []target{avx512vnni, avx512, avx2} {
		g.t = t
		g.products()
		g.peak()
		if t.name == "AVX512" { // the same code as AVX512VNNI's
			continue
		}
		g.unpacks()
		g.elementwise()
	}
	g.fetch()
	g.vectors(avx512vnni, vecRows, g.vec)
	for _, t := range []target{avx512vnni, avx512, avx2} {
		g.lines(t)
	}
	g.vecFloats(avx512vnni, 4)
	g.vecFloats(avx2, 2)
	g.vectors(avx512, 2, g.vecMadd)
	g.vectors(avx2, 2, g.vecMadd)
	g.write("amd64")
}

// A target is an instruction set as the generator sees it.
type target struct {
	name  string
	v     string // prefix of its vector registers
	lanes int
	panel int
	vnni  bool
}

var (
	avx512vnni = target{"AVX512VNNI", "Z", 16, 16, true}
	avx512     = target{"AVX512", "Z", 16, 8, false}
	avx2       = target{"AVX2", "Y", 8, 4, false}
)

func (t target) wide() bool { return t.lanes == 16 }

// lanesShift is the binary logarithm of lanes.
func (t target) lanesShift() int { return bits.TrailingZeros(uint(t.lanes)) }

// bytes of a vector.
func (t target) bytes() int { return 4 * t.lanes }

// An amd64 writes the kernels for amd64 processors.
type amd64 struct {
	writer
	t    target
	acts int // rows of activations, in lines
}

// v is vector register n.
func (g *amd64) v(n int) string { return fmt.Sprintf("%s%d", g.t.v, n) }

func (g *amd64) load(arg, reg string) { g.p("MOVQ %s+%d(FP), %s", arg, g.args[arg], reg) }

func (g *amd64) ret() {
	g.p("VZEROUPPER")
	g.p("RET")
}

// Rows lie stride bytes apart; sixteen of them are reached from four pointers,
// R8..R11, with R12 = stride and R13 = 3·stride.
var rowIndex = []string{"", "(R12*1)", "(R12*2)", "(R13*1)"}

func row(r, disp int) string { return fmt.Sprintf("%d(R%d)%s", disp, 8+r/4, rowIndex[r%4]) }

// rowPointers readies the pointers for n rows from R8 and R12.
func (g *amd64) rowPointers(n int) {
	if n > 3 {
		g.p("LEAQ (R12)(R12*2), R13")
	}
	for i := 1; i < (n+3)/4; i++ {
		g.p("LEAQ (R%d)(R12*4), R%d", 7+i, 8+i)
	}
}

func (g *amd64) advance(n, bytes int) {
	for i := range (n + 3) / 4 {
		g.p("ADDQ $%d, R%d", bytes, 8+i)
	}
}
