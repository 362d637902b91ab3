package kernel

import (
	"strings"

	"golang.org/x/sys/cpu"

	"github.com/potluck-llm/potluck/quant"
)

// lacking names the features that are not there.
func lacking(features ...string) func() string {
	have := map[string]bool{
		"AVX2": cpu.X86.HasAVX2, "FMA": cpu.X86.HasFMA, "AVX512F": cpu.X86.HasAVX512F,
		"AVX512BW": cpu.X86.HasAVX512BW, "AVX512VL": cpu.X86.HasAVX512VL, "AVX512DQ": cpu.X86.HasAVX512DQ,
		"AVX512VNNI": cpu.X86.HasAVX512VNNI,
	}
	var missing []string
	for _, f := range features {
		if !have[f] {
			missing = append(missing, f)
		}
	}
	return func() string { return strings.Join(missing, ", ") }
}

// peakSums is internal/gen's.
const peakSums = 12

// rounds makes a Variant's RoundHalf of a kernel that returns the largest magnitude.
func rounds(kernel func(x *float32, n int) float32) func(x *float32, n int) bool {
	return func(x *float32, n int) bool { return kernel(x, n) < 32768 }
}

// linesUpTo makes a Variant's LineRows: up to how many rows q6_0 and q8_0 measured
// faster in the order of memory. With 4 bits, columns of whole strips are as fast.
func linesUpTo(sixes, bytes int) func(t quant.Type) int {
	return func(t quant.Type) int {
		switch t {
		case quant.Q6_0:
			return sixes
		case quant.Q8_0:
			return bytes
		}
		return 1
	}
}

func init() {
	// Every processor with AVX2 has F16C.
	Register(Variant{
		Name: "avx2", Rank: 10, Missing: lacking("AVX2", "FMA"), Lanes: 8, Panel: 4,
		Unpack4: unpack4AVX2, Unpack6: unpack6AVX2, Unpack8: unpack8AVX2, Scales: scalesAVX2, Pairs: pairsAVX2,
		UnpackF32: unpackF32AVX2, UnpackF16: unpackF16AVX2, UnpackBF16: unpackBF16AVX2,
		Dot4: dot4AVX2, Dot8: dot8AVX2, DotMin: dotMinAVX2, Dot6: dot6AVX2, DotFloat: dotFloatAVX2, DotHalf: dotHalfAVX2,
		DotFloat4: dotFloat4AVX2, DotHalf4: dotHalf4AVX2,
		Vec4: vec4AVX2, Vec8: vec8AVX2, VecMin: vecMinAVX2,
		Lines4: lines4AVX2, Lines6: lines6AVX2, Lines8: lines8AVX2, LinesMin: linesMinAVX2,
		LineRows: linesUpTo(1, 4), Fetch: fetchAMD64,
		VecF32: vecF32AVX2, VecF16: vecF16AVX2, VecBF16: vecBF16AVX2,
		Quantise: quantiseAVX2, SumSquares: sumSquaresAVX2, ScaleMul: scaleMulAVX2, SwiGLU: swiGLUAVX2,
		ExpSum: expSumAVX2, Max: maxAVX2, DecodeF16: decodeF16AVX2,
		DecodeKeys8: decodeKeys8AVX2, DecodeValues8: decodeValues8AVX2,
		EncodeF16: encodeF16AVX2, RoundHalf: rounds(roundHalfAVX2), Read: readAVX2,
		Peak: peakAVX2, PeakOps: peakSums * 32,
	})
	wide := Variant{
		Name: "avx512", Rank: 20, Missing: lacking("AVX512F", "AVX512BW", "AVX512VL", "AVX512DQ"), Lanes: 16, Panel: 8,
		Unpack4: unpack4AVX512VNNI, Unpack6: unpack6AVX512VNNI, Unpack8: unpack8AVX512VNNI, Scales: scalesAVX512VNNI, Pairs: pairsAVX512VNNI,
		UnpackF32: unpackF32AVX512VNNI, UnpackF16: unpackF16AVX512VNNI, UnpackBF16: unpackBF16AVX512VNNI,
		Vec4: vec4AVX512, Vec8: vec8AVX512, VecMin: vecMinAVX512,
		Dot4: dot4AVX512, Dot8: dot8AVX512, DotMin: dotMinAVX512, Dot6: dot6AVX512, DotFloat: dotFloatAVX512VNNI, DotHalf: dotHalfAVX512VNNI,
		DotFloat4: dotFloat4AVX512VNNI, DotHalf4: dotHalf4AVX512VNNI,
		Lines4: lines4AVX512, Lines6: lines6AVX512, Lines8: lines8AVX512, LinesMin: linesMinAVX512,
		LineRows: linesUpTo(2, len(lines8AVX512)), Fetch: fetchAMD64,
		VecF32: vecF32AVX512VNNI, VecF16: vecF16AVX512VNNI, VecBF16: vecBF16AVX512VNNI,
		Quantise: quantiseAVX512VNNI, SumSquares: sumSquaresAVX512VNNI, ScaleMul: scaleMulAVX512VNNI, SwiGLU: swiGLUAVX512VNNI,
		ExpSum: expSumAVX512VNNI, Max: maxAVX512VNNI, DecodeF16: decodeF16AVX512VNNI,
		DecodeKeys8: decodeKeys8AVX512VNNI, DecodeValues8: decodeValues8AVX512VNNI,
		EncodeF16: encodeF16AVX512VNNI, RoundHalf: rounds(roundHalfAVX512VNNI), Read: readAVX512VNNI,
		Peak: peakAVX512, PeakOps: peakSums * 64,
	}
	Register(wide)
	wide.Name, wide.Rank, wide.Panel = "avx512vnni", 30, 16
	wide.Missing = lacking("AVX512F", "AVX512BW", "AVX512VL", "AVX512DQ", "AVX512VNNI")
	wide.Dot4, wide.Dot6, wide.Dot8, wide.DotMin = dot4AVX512VNNI, dot6AVX512VNNI, dot8AVX512VNNI, dotMinAVX512VNNI
	wide.Peak = peakAVX512VNNI
	wide.Vec4, wide.Vec8, wide.VecMin = vec4AVX512VNNI, vec8AVX512VNNI, vecMinAVX512VNNI
	wide.Lines4, wide.Lines6, wide.Lines8, wide.LinesMin = lines4AVX512VNNI, lines6AVX512VNNI, lines8AVX512VNNI, linesMinAVX512VNNI
	Register(wide)
}
