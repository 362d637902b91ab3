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
		Sums4: sums4NEON, Sums6: sums6NEON, Sums8: sums8NEON,
		Apply4: apply4NEON, Apply6: apply6NEON, Apply8: apply8NEON, ApplyMin: applyMinNEON,
		DecodeF16: decodeF16NEON, Quantise: quantiseNEON, SumSquares: sumSquaresNEON, ScaleMul: scaleMulNEON,
		SwiGLU: swiGLUNEON, ExpSum: expSumNEON, Max: maxNEON,
	}
	Register(v)
	v.Name, v.Rank, v.Missing = "neondot", 20, lacking("SDOT (FEAT_DotProd)", cpu.ARM64.HasASIMDDP)
	v.Dot4, v.Dot6, v.Dot8, v.DotMin = dot4NEONDot, dot6NEONDot, dot8NEONDot, dotMinNEONDot
	v.Sums4, v.Sums6, v.Sums8 = sums4NEONDot, sums6NEONDot, sums8NEONDot
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
