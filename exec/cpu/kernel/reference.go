package kernel

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// referenceLanes is small: without vectors a strip only saves reading
// activations again.
const referenceLanes = 4

func init() { Register(Reference()) }

// Reference returns the kernels in plain Go: what a variant from outside this
// package begins with and overrides.
func Reference() Variant {
	v := Variant{Name: "reference", Lanes: referenceLanes, Panel: 4}
	v.Unpack4 = unpackReference(unpackNibbles, 16)
	v.Unpack6 = unpackReference(unpackSixes, 24)
	v.Unpack8 = unpackReference(unpackBytes, 32)
	v.Scales, v.Pairs = scalesReference, pairsReference
	v.UnpackF32 = floatsReference(4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	v.UnpackF16 = floatsReference(2, func(b []byte) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(b)) })
	v.UnpackBF16 = floatsReference(2, func(b []byte) float32 { return quant.BF16ToF32(binary.LittleEndian.Uint16(b)) })
	for n := 1; n <= v.Panel; n++ {
		v.Dot4 = append(v.Dot4, dotReference(n, 8))
		v.Dot8 = append(v.Dot8, dotReference(n, 128))
		v.DotMin = append(v.DotMin, dotMinReference(n))
		v.Dot6 = append(v.Dot6, dot6Reference(n))
		v.DotFloat = append(v.DotFloat, dotFloatReference(n))
	}
	v.fill()
	return v
}

// fill takes from the reference what does not depend on Lanes and is not given.
func (v *Variant) fill() {
	if v.Quantise == nil {
		v.Quantise = quantiseReference
	}
	if v.SumSquares == nil {
		v.SumSquares = sumSquaresReference
	}
	if v.ScaleMul == nil {
		v.ScaleMul = scaleMulReference
	}
	if v.SwiGLU == nil {
		v.SwiGLU = swiGLUReference
	}
	if v.ExpSum == nil {
		v.ExpSum = expSumReference
	}
	if v.DecodeF16 == nil {
		v.DecodeF16 = decodeF16Reference
	}
	if v.DecodeKeys8 == nil {
		v.DecodeKeys8 = decodeKeys8Reference
	}
	if v.DecodeValues8 == nil {
		v.DecodeValues8 = decodeValues8Reference
	}
	if v.Max == nil {
		v.Max = maxReference
	}
}

func rowAt(src *byte, at, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(src), at)), n)
}

// unpackReference is Unpack4 or Unpack8: one turns a lane's block into 32
// unsigned numbers.
func unpackReference(one func(dst *[32]byte, block []byte), blockBytes int) func(dst, src *byte, stride, groups int) {
	return func(dst, src *byte, stride, groups int) {
		var q [32]byte
		out := unsafe.Slice(dst, groups*unpackGroup*32*referenceLanes)
		for b := range groups * unpackGroup {
			for lane := range referenceLanes {
				one(&q, rowAt(src, lane*stride+b*blockBytes, blockBytes))
				for j := range 8 {
					copy(out[((b*8+j)*referenceLanes+lane)*4:], q[4*j:4*j+4])
				}
			}
		}
	}
}

func unpackNibbles(dst *[32]byte, block []byte) {
	for i, b := range block[:16] {
		dst[i], dst[i+16] = b&15, b>>4
	}
}

func unpackSixes(dst *[32]byte, block []byte) {
	for i, b := range block[:16] {
		high := block[16+i%8] >> (i / 8 * 2)
		dst[i], dst[i+16] = b&15|high&3<<4, b>>4|high&48
	}
}

func unpackBytes(dst *[32]byte, block []byte) {
	for i, b := range block[:32] {
		dst[i] = b ^ 0x80
	}
}

func half(b []byte) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(b)) }

func scalesReference(dst *float32, src *byte, stride, groups int) {
	blocks := groups * unpackGroup
	d := unsafe.Slice(dst, blocks*referenceLanes)
	for lane := range referenceLanes {
		row := rowAt(src, lane*stride, 2*blocks)
		for b := range blocks {
			d[b*referenceLanes+lane] = half(row[2*b:])
		}
	}
}

func pairsReference(dst, mins *float32, src *byte, stride, groups int) {
	blocks := groups * unpackGroup
	d, m := unsafe.Slice(dst, blocks*referenceLanes), unsafe.Slice(mins, blocks*referenceLanes)
	for lane := range referenceLanes {
		row := rowAt(src, lane*stride, 4*blocks)
		for b := range blocks {
			d[b*referenceLanes+lane], m[b*referenceLanes+lane] = half(row[4*b:]), half(row[4*b+2:])
		}
	}
}

func floatsReference(size int, decode func(b []byte) float32) func(dst *float32, src *byte, stride, groups int) {
	return func(dst *float32, src *byte, stride, groups int) {
		cols := groups * floatGroup
		out := unsafe.Slice(dst, cols*referenceLanes)
		for lane := range referenceLanes {
			row := rowAt(src, lane*stride, cols*size)
			for c := range cols {
				out[c*referenceLanes+lane] = decode(row[c*size:])
			}
		}
	}
}

// sumBlock is Σ q_w·q_x of each lane.
func sumBlock(w *[32 * referenceLanes]byte, x *[32]int8) (sums [referenceLanes]int32) {
	sums = sumHalf(w, x, 0)
	for lane, sum := range sumHalf(w, x, 4) {
		sums[lane] += sum
	}
	return sums
}

// sumHalf sums elements 4·from.. to 4·from+15 of a block.
func sumHalf(w *[32 * referenceLanes]byte, x *[32]int8, from int) (sums [referenceLanes]int32) {
	for j := from; j < from+4; j++ {
		x0, x1, x2, x3 := int32(x[4*j]), int32(x[4*j+1]), int32(x[4*j+2]), int32(x[4*j+3])
		for lane := range referenceLanes {
			w := w[(j*referenceLanes+lane)*4 : (j*referenceLanes+lane)*4+4 : (j*referenceLanes+lane)*4+4]
			sums[lane] += int32(w[0])*x0 + int32(w[1])*x1 + int32(w[2])*x2 + int32(w[3])*x3
		}
	}
	return sums
}

// dotReference is Dot4 or Dot8 for n rows, whose unsigned weights are offset too high.
func dotReference(n int, offset int32) func(y *float32, ldy int, w *byte, d *float32, x *Block, ldx, blocks int) {
	return func(y *float32, ldy int, w *byte, d *float32, x *Block, ldx, blocks int) {
		weights, scales := unsafe.Slice(w, blocks*32*referenceLanes), unsafe.Slice(d, blocks*referenceLanes)
		for r := range n {
			row := unsafe.Slice((*Block)(unsafe.Add(unsafe.Pointer(x), r*ldx)), blocks)
			var acc [referenceLanes]float32
			for b := range row {
				sums := sumBlock((*[32 * referenceLanes]byte)(weights[b*32*referenceLanes:]), &row[b].Q)
				correction := row[b].N8
				if offset == 128 {
					correction = row[b].N80
				}
				for lane := range acc {
					acc[lane] += float32(float32(sums[lane]+correction) * float32(scales[b*referenceLanes+lane]*row[b].D))
				}
			}
			copy(unsafe.Slice(y, (n-1)*ldy+referenceLanes)[r*ldy:], acc[:])
		}
	}
}

func dotMinReference(n int) func(y *float32, ldy int, w *byte, d, m *float32, x *Block, ldx, blocks int) {
	return func(y *float32, ldy int, w *byte, d, m *float32, x *Block, ldx, blocks int) {
		weights := unsafe.Slice(w, blocks*32*referenceLanes)
		scales, mins := unsafe.Slice(d, blocks*referenceLanes), unsafe.Slice(m, blocks*referenceLanes)
		for r := range n {
			row := unsafe.Slice((*Block)(unsafe.Add(unsafe.Pointer(x), r*ldx)), blocks)
			var acc [referenceLanes]float32
			for b := range row {
				sums := sumBlock((*[32 * referenceLanes]byte)(weights[b*32*referenceLanes:]), &row[b].Q)
				for lane := range acc {
					at := b*referenceLanes + lane
					acc[lane] += float32(float32(sums[lane]) * float32(scales[at]*row[b].D))
					acc[lane] += float32(mins[at] * row[b].S)
				}
			}
			copy(unsafe.Slice(y, (n-1)*ldy+referenceLanes)[r*ldy:], acc[:])
		}
	}
}

func dot6Reference(n int) func(y *float32, ldy int, w *byte, d, m *float32, x *Block, ldx, blocks int) {
	return func(y *float32, ldy int, w *byte, d, m *float32, x *Block, ldx, blocks int) {
		weights := unsafe.Slice(w, blocks*32*referenceLanes)
		scales := [2][]float32{unsafe.Slice(d, blocks*referenceLanes), unsafe.Slice(m, blocks*referenceLanes)}
		for r := range n {
			row := unsafe.Slice((*Block)(unsafe.Add(unsafe.Pointer(x), r*ldx)), blocks)
			var acc [referenceLanes]float32
			for b := range row {
				for half, scales := range scales {
					sums := sumHalf((*[32 * referenceLanes]byte)(weights[b*32*referenceLanes:]), &row[b].Q, 4*half)
					for lane := range acc {
						acc[lane] += float32(float32(sums[lane]+row[b].N32[half]) * float32(scales[b*referenceLanes+lane]*row[b].D))
					}
				}
			}
			copy(unsafe.Slice(y, (n-1)*ldy+referenceLanes)[r*ldy:], acc[:])
		}
	}
}

func dotFloatReference(n int) func(y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int) {
	return func(y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int) {
		out := unsafe.Slice(y, (n-1)*ldy+referenceLanes)
		for r := range n {
			row := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(a), 4*r*lda)), k)
			acc := (*[referenceLanes]float32)(out[r*ldy:])
			if add == 0 {
				*acc = [referenceLanes]float32{}
			}
			s := *acc
			for i, f := range row {
				b := (*[referenceLanes]float32)(unsafe.Add(unsafe.Pointer(b), 4*i*ldb))
				s[0] += float32(f * b[0])
				s[1] += float32(f * b[1])
				s[2] += float32(f * b[2])
				s[3] += float32(f * b[3])
			}
			*acc = s
		}
	}
}

// tiny is below what a block's largest number may be: such a block is zeros.
const tiny = 0x1p-100

func quantiseReference(dst *Block, x *float32, blocks int) {
	out, in := unsafe.Slice(dst, blocks), unsafe.Slice(x, blocks*quant.BlockSize)
	for b := range out {
		row, o := in[b*quant.BlockSize:(b+1)*quant.BlockSize], &out[b]
		largest := float32(0)
		for _, f := range row {
			largest = max(largest, f, -f)
		}
		if largest < tiny {
			*o = Block{}
			continue
		}
		o.D = largest / 127
		inverse, sums := 127/largest, [2]int32{}
		for i, f := range row {
			q := int32(max(-128, min(127, math.RoundToEven(float64(float32(f*inverse))))))
			o.Q[i] = int8(q)
			sums[i/16] += q
		}
		sum := sums[0] + sums[1]
		o.N32 = [2]int32{-32 * sums[0], -32 * sums[1]}
		o.N8, o.N80, o.S = -8*sum, -128*sum, o.D*float32(sum)
	}
}

func sumSquaresReference(x *float32, n int) float32 {
	sum := 0.0
	for _, f := range unsafe.Slice(x, n) {
		sum += float64(f) * float64(f)
	}
	return float32(sum)
}

func scaleMulReference(y, x, w *float32, scale float32, n int) {
	out, in, by := unsafe.Slice(y, n), unsafe.Slice(x, n), unsafe.Slice(w, n)
	for i, f := range in {
		out[i] = f * scale * by[i]
	}
}

func silu(x float32) float32 { return float32(float64(x) / (1 + math.Exp(-float64(x)))) }

func swiGLUReference(y, gu *float32, n int) {
	out, in := unsafe.Slice(y, n), unsafe.Slice(gu, 2*n)
	for i := range out {
		out[i] = silu(in[2*i]) * in[2*i+1]
	}
}

func expSumReference(x *float32, n int, largest float32) float32 {
	sum := 0.0
	s := unsafe.Slice(x, n)
	for i, f := range s {
		s[i] = 0
		if f-largest >= -87 {
			s[i] = float32(math.Exp(float64(f - largest)))
			sum += float64(s[i])
		}
	}
	return float32(sum)
}

func maxReference(x *float32, n int) float32 {
	s := unsafe.Slice(x, n)
	largest := s[0]
	for _, f := range s {
		largest = max(largest, f)
	}
	return largest
}

func decodeF16Reference(dst *float32, src *uint16, n int) {
	out, in := unsafe.Slice(dst, n), unsafe.Slice(src, n)
	for i, h := range in {
		out[i] = quant.F16ToF32(h)
	}
}

func decodeKeys8Reference(dst *float32, src *int8, scales *float32, blocks int) {
	const numbers = quant.BlockSize * maxLanes
	out, in, d := unsafe.Slice(dst, blocks*numbers), unsafe.Slice(src, blocks*numbers), unsafe.Slice(scales, blocks*maxLanes)
	for i, q := range in {
		out[i] = float32(q) * d[i/numbers*maxLanes+i%maxLanes]
	}
}

func decodeValues8Reference(dst *float32, src *int8, scales *float32, blocks int) {
	const numbers = quant.BlockSize
	out, in, d := unsafe.Slice(dst, blocks*numbers), unsafe.Slice(src, blocks*numbers), unsafe.Slice(scales, blocks)
	for i, q := range in {
		out[i] = float32(q) * d[i/numbers]
	}
}
