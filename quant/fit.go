package quant

import (
	"encoding/binary"
	"math"
)

// Blocks of other types become q8_0 with less loss than their numbers alone
// would tell: these are few levels, evenly spaced in parts, and a scale of which
// the spacing is a multiple hits many of them. For Q5_0, IQ4_NL and MXFP4 it
// hits all; Q6_K loses 5 to 20 % less than with the usual scale (largest
// magnitude to 127), and that is most of what separates the logits of a Q4_K_M
// file from those of its exact numbers.

// steps are the spacings in the 32 numbers of a block, then their minima; zero
// where there is none.
type steps [4]float32

// fitters give the steps of all blocks of 32 in one block of a type; out has as
// many elements as the block has 32s.
var fitters = map[Foreign]func(out []steps, b []byte){
	ForeignQ5_0:   func(out []steps, b []byte) { out[0] = steps{half(b)} },
	ForeignQ5_1:   func(out []steps, b []byte) { out[0] = steps{half(b), 0, half(b[2:])} },
	ForeignIQ4_NL: func(out []steps, b []byte) { out[0] = steps{half(b)} },
	ForeignMXFP4:  func(out []steps, b []byte) { out[0] = steps{float32(math.Ldexp(1, int(b[0])-128))} },
	ForeignQ2_K:   stepsQ2_K,
	ForeignQ3_K:   stepsQ3_K,
	ForeignQ4_K:   func(out []steps, b []byte) { stepsMin4(out, b) },
	ForeignQ5_K:   func(out []steps, b []byte) { stepsMin4(out, b) },
	ForeignQ6_K:   stepsQ6_K,
	ForeignIQ4_XS: stepsIQ4_XS,
}

func stepsQ2_K(out []steps, b []byte) {
	d, dmin := half(b[80:]), half(b[82:])
	for i := range out {
		s, t := b[2*i], b[2*i+1]
		out[i] = steps{d * float32(s&15), d * float32(t&15), dmin * float32(s>>4), dmin * float32(t>>4)}
	}
}

// stepsQ3_K: all scales are whole multiples of d, mostly few enough of them for
// d itself to be the step.
func stepsQ3_K(out []steps, b []byte) {
	for i := range out {
		out[i] = steps{half(b[108:])}
	}
}

func stepsMin4(out []steps, b []byte) {
	d, dmin := half(b), half(b[2:])
	for i := range out {
		s, m := scaleMin4((*[12]byte)(b[4:]), i)
		out[i] = steps{d * float32(s), 0, dmin * float32(m)}
	}
}

func stepsQ6_K(out []steps, b []byte) {
	d := half(b[208:])
	for i := range out {
		out[i] = steps{d * float32(int8(b[192+2*i])), d * float32(int8(b[193+2*i]))}
	}
}

func stepsIQ4_XS(out []steps, b []byte) {
	d, high := half(b), binary.LittleEndian.Uint16(b[2:])
	for i := range out {
		s := int32(b[4+i/2]>>(i%2*4)&15) | int32(high>>(2*i)&3)<<4
		out[i] = steps{d * float32(s-32)}
	}
}

// fitRow turns one row of blocks of type f into q8_0. It returns the column of
// a block that holds what is not finite, else -1.
func fitRow(f Foreign, q, s, src []byte, numbers []float32) int {
	decoders[f](numbers, src)
	blockNumbers, blockBytes := f.Block()
	var found [256 / BlockSize]steps
	each := blockNumbers / BlockSize
	for b := range len(numbers) / BlockSize {
		if b%each == 0 {
			fitters[f](found[:each], src[b/each*blockBytes:][:blockBytes])
		}
		x := (*[BlockSize]float32)(numbers[b*BlockSize:])
		if !fitQ8_0((*[32]byte)(q[32*b:]), s[2*b:2*b+2], x, found[b%each]) {
			return b*BlockSize + worst(x[:])
		}
	}
	return -1
}

const (
	// fitRoom is how much larger than the smallest possible scale is tried: the
	// rounding of what is not hit grows with it.
	fitRoom = 1.5
	// fitTries is how many scales are tried for one step.
	fitTries = 5
)

// fitQ8_0 encodes a block with the scale of least squared error: encodeQ8_0's,
// a step itself, or a step divided by a whole number.
func fitQ8_0(q *[32]byte, scale []byte, x *[BlockSize]float32, steps steps) bool {
	if !encodeQ8_0(q, scale, x) {
		return false
	}
	smallest := half(scale)
	if smallest == 0 {
		return true
	}
	least := lossQ8_0(q, smallest, x)
	var tried [32]byte
	try := func(d float32) {
		h := F32ToF16(d)
		d = F16ToF32(h)
		if d == 0 || least == 0 {
			return
		}
		if loss := roundQ8_0(&tried, d, x, least); loss < least {
			least, *q = loss, tried
			binary.LittleEndian.PutUint16(scale, h)
		}
	}
	for _, step := range steps {
		step = float32(math.Abs(float64(step)))
		if !(step > 0) {
			continue
		}
		try(step)
		// A little below the smallest is allowed: its rounding to f16.
		k := int(min(1<<20, step/smallest*1.001))
		for n := 0; n < fitTries && k >= 1 && step/float32(k) <= fitRoom*smallest; n++ {
			try(step / float32(k))
			k--
		}
	}
	return true
}

// roundQ8_0 rounds a block to multiples of d and returns the squared error. It
// stops as soon as that is no less than limit, or a number is beyond 127.
func roundQ8_0(q *[32]byte, d float32, x *[BlockSize]float32, limit float32) (loss float32) {
	const toWhole = 3 << 22 // adding it leaves no fraction: numbers around it are whole
	inverse := inverseOf(d)
	for i := 0; i < BlockSize; i += 8 {
		part, to := (*[8]float32)(x[i:]), (*[8]byte)(q[i:])
		for j, v := range part {
			scaled := float32(v * inverse)
			if !(scaled < 127.5 && scaled > -127.5) {
				return limit
			}
			whole := float32(float32(scaled+toWhole) - toWhole)
			to[j] = byte(int32(whole))
			e := float32(d*whole) - v
			loss += float32(e * e)
		}
		if loss >= limit {
			return limit
		}
	}
	return loss
}

// lossQ8_0 is the squared error of a block.
func lossQ8_0(q *[32]byte, d float32, x *[BlockSize]float32) (sum float32) {
	for i, v := range x {
		e := float32(d*float32(int8(q[i]))) - v
		sum += float32(e * e)
	}
	return sum
}
