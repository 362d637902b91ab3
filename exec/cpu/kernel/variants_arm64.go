package kernel

import "golang.org/x/sys/cpu"

// peakSums is internal/gen's.
const peakSums = 16

func init() {
	v := Variant{
		Name: "neon", Rank: 10, Missing: lacking("Advanced SIMD", cpu.ARM64.HasASIMD), Lanes: 4, Panel: 8,
		Unpack4: unpack4NEON, Unpack6: unpack6NEON, Unpack8: unpack8NEON, Scales: scalesNEON, Pairs: pairsNEON,
		UnpackF32: unpackF32NEON, UnpackF16: unpackF16NEON, UnpackBF16: unpackBF16NEON,
		Dot4: dot4NEON, Dot6: dot6NEON, Dot8: dot8NEON, DotMin: dotMinNEON, DotFloat: dotFloatNEON, DotHalf: dotHalfNEON,
		Lines4: linesNEON(sums4NEON, scalesOnlyNEON, apply4NEON), Lines6: linesNEON(sums6NEON, pairsNEON, apply6NEON),
		Lines8: linesNEON(sums8NEON, scalesOnlyNEON, apply8NEON), LinesMin: linesNEON(sums4NEON, pairsNEON, applyMinNEON),
		DecodeF16: decodeF16NEON, Quantise: quantiseNEON, SumSquares: sumSquaresNEON, ScaleMul: scaleMulNEON,
		SwiGLU: swiGLUNEON, ExpSum: expSumNEON, Max: maxNEON,
	}
	Register(v)
	v.Name, v.Rank, v.Missing = "neondot", 20, lacking("SDOT (FEAT_DotProd)", cpu.ARM64.HasASIMDDP)
	v.Dot4, v.Dot6, v.Dot8, v.DotMin = dot4NEONDot, dot6NEONDot, dot8NEONDot, dotMinNEONDot
	v.Lines4, v.Lines6 = linesNEON(sums4NEONDot, scalesOnlyNEON, apply4NEON), linesNEON(sums6NEONDot, pairsNEON, apply6NEON)
	v.Lines8, v.LinesMin = linesNEON(sums8NEONDot, scalesOnlyNEON, apply8NEON), linesNEON(sums4NEONDot, pairsNEON, applyMinNEON)
	v.Peak, v.PeakOps = peakNEONDot, peakSums*16
	Register(v)
}

func lacking(feature string, have bool) func() string {
	return func() string {
		if have {
			return ""
		}
		return feature
	}
}
