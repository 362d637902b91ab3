package kernel

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"unsafe"

	"github.com/potluck-llm/potluck/quant"
)

// maxPanel bounds Variant.Panel, maxLanes Variant.Lanes.
const (
	maxPanel = 16
	maxLanes = 16
)

// unpackGroup is how many blocks an Unpack kernel takes at a time, floatGroup
// how many columns: 64 bytes of a 4-bit row, 64 bytes of a float32 row.
const (
	unpackGroup = 4
	floatGroup  = 16
)

// A Variant is a set of kernels over raw memory. The engine calls them with
// pointers to enough readable and writable memory, unaligned where the comment
// does not say otherwise; strides are in bytes for weights and blocks of
// activations, in elements for floats.
//
// Unpack kernels read groups from Lanes rows of weights that lie stride bytes
// apart. Products take rows 1..Panel of activations: element n-1 of a list is
// the kernel for n rows.
type Variant struct {
	Name    string
	Rank    int           // of what a machine can run, the highest is chosen
	Missing func() string // what this machine lacks; "" or nil: nothing
	Lanes   int           // weight rows of a strip, at most 16
	Panel   int           // activation rows a product kernel takes, at most 16

	// Unpack4 writes, for each of 4·groups blocks of nibbles, eight vectors of
	// Lanes × 4 bytes: vector j holds elements 4j..4j+3 (0..15) of each lane.
	Unpack4 func(dst, src *byte, stride, groups int)
	// Unpack6 does so for blocks of q6_0, as unsigned numbers where Dot6 wants them so.
	Unpack6 func(dst, src *byte, stride, groups int)
	// Unpack8 does so for blocks of int8, which it makes unsigned by adding 128
	// where Dot8 wants them so.
	Unpack8 func(dst, src *byte, stride, groups int)
	// Scales writes 4·groups vectors of Lanes float32 from rows of f16.
	Scales func(dst *float32, src *byte, stride, groups int)
	// Pairs does so for rows of f16 pairs: scale and minimum, or two scales.
	Pairs func(d, m *float32, src *byte, stride, groups int)
	// UnpackF32, F16 and BF16 write 16·groups vectors of Lanes float32, one a column.
	UnpackF32, UnpackF16, UnpackBF16 func(dst *float32, src *byte, stride, groups int)

	// Dot multiplies n rows of activation blocks, ldx bytes apart, with an
	// unpacked strip: y[r·ldy+lane], r < n. Dot4 is for q4_0, Dot8 for q8_0,
	// DotMin for q4_1 (m: its minimums), Dot6 for q6_0 (m: the scales of second
	// halves).
	Dot4, Dot8   []func(y *float32, ldy int, w *byte, d *float32, x *Block, ldx, blocks int)
	DotMin, Dot6 []func(y *float32, ldy int, w *byte, d, m *float32, x *Block, ldx, blocks int)
	// DotFloat computes y[r·ldy+lane] = Σ_k a[r·lda+k] · b[k·ldb+lane], and with
	// add != 0 begins with what y holds.
	DotFloat []func(y *float32, ldy int, a *float32, lda int, b *float32, ldb, k, add int)
	// DotHalf, optional, is DotFloat for b of halves.
	DotHalf []func(y *float32, ldy int, a *float32, lda int, b *uint16, ldb, k, add int)
	// DotFloat4 and DotHalf4, optional, compute the same for four groups of Lanes
	// columns, which lie step apart in b and ystep apart in y. They may prefetch as
	// much as they read from the address ahead on, which need not be one.
	DotFloat4 []func(y *float32, ldy, ystep int, a *float32, lda int, b *float32, ldb, step, k, add int, ahead uintptr)
	DotHalf4  []func(y *float32, ldy, ystep int, a *float32, lda int, b *uint16, ldb, step, k, add int, ahead uintptr)

	// Vec4, Vec8 and VecMin, optional and equally long, multiply a few rows of
	// activations with a strip as it lies in memory, rows stride
	// bytes apart, equal to the bit with Unpack and Dot. They take groups of
	// unpackGroup blocks and unpacked scales, and may prefetch what follows the strip.
	Vec4, Vec8 []func(y *float32, ldy int, src *byte, stride int, d *float32, x *Block, ldx, groups int)
	VecMin     []func(y *float32, ldy int, src *byte, stride int, d, m *float32, x *Block, ldx, groups int)

	// Lines, optional but together, multiply few rows of activations with strips in
	// the order of memory, equal to the bit with Unpack and Dot: element n-1 is the
	// kernel for n rows.
	Lines4, Lines6, Lines8, LinesMin []linesKernel
	// LineRows, optional, is up to how many rows those are the fastest with weights of
	// a type; nil: one. With more than there are kernels for, a strip is multiplied
	// several times.
	LineRows func(t quant.Type) int

	// Fetch, optional, prefetches the first bytes of rows that lie stride bytes
	// apart, before the Vec kernels come to a strip that they have not passed by.
	Fetch func(src *byte, stride, rows, bytes int)

	// VecF32, F16 and BF16 do so with floats, sixteen columns a group, equal to the
	// bit with Unpack and DotFloat.
	VecF32, VecF16, VecBF16 []func(y *float32, ldy int, src *byte, stride int, x *float32, ldx, groups int)

	// Planar, optional, computes products of quantised weights as they lie, rows of
	// blocks, and n rows of activations as Arrange wrote them, ldx bytes apart. It
	// stands in for Unpack4, 6 and 8, Scales, Pairs, Dot and Vec, divides what is
	// large among threads of its own if it has any, and must not let n change a
	// row's result.
	Planar func(products []Product, blocks int, x *byte, ldx, n int)
	// Arrange quantises blocks·32 floats for Planar, in a form that is the variant's
	// own and takes ArrangedBytes; those are a multiple of 16.
	Arrange       func(dst *byte, x *float32, blocks int)
	ArrangedBytes func(blocks int) int

	// Quantise turns blocks·32 floats into blocks.
	Quantise func(dst *Block, x *float32, blocks int)
	// SumSquares of n floats, n a multiple of 16.
	SumSquares func(x *float32, n int) float32
	// ScaleMul computes y = x·scale·w for n floats, n a multiple of 16.
	ScaleMul func(y, x, w *float32, scale float32, n int)
	// SwiGLU computes y[i] = silu(gu[2i])·gu[2i+1], n a multiple of 16.
	SwiGLU func(y, gu *float32, n int)
	// ExpSum replaces x[i] by exp(x[i]-max) and returns their sum; n is a
	// multiple of 16. x-max ≤ 0; below -87 the result is 0.
	ExpSum func(x *float32, n int, max float32) float32
	// Attend, optional, is Engine.Attend for caches of f16 and heads of a multiple of
	// 16 numbers. It divides what is much among threads of its own if it has any.
	Attend func(a *Attention)
	// DecodeF16 turns n halves into float32.
	DecodeF16 func(dst *float32, src *uint16, n int)
	// DecodeKeys8 turns blocks of 32 numbers × maxLanes positions of int8 into
	// float32, each position with its scale; DecodeValues8 blocks of 32 with one.
	DecodeKeys8, DecodeValues8 func(dst *float32, src *int8, scales *float32, blocks int)
	// Max of n floats, n a multiple of 16, n > 0; of NaN it takes no notice, or it is NaN.
	Max func(x *float32, n int) float32

	// Add, optional, computes y += x for n floats, n a multiple of 16.
	Add func(y, x *float32, n int)
	// EncodeF16, optional, rounds n floats, a multiple of 16, to halves.
	EncodeF16 func(dst *uint16, src *float32, n int)
	// RoundHalf, optional, rounds n floats, a multiple of 16, to the nearest halves
	// and tells so; if any is not below 32768 in size, it leaves all as they are.
	RoundHalf func(x *float32, n int) bool

	// Read, optional, does nothing but read bytes, a multiple of 256. It measures
	// what no product of one row can exceed.
	Read func(src *byte, bytes int)
	// Peak, optional, does nothing but 8-bit multiply-adds, from registers to
	// registers: PeakOps of them a round, rounds > 0. It measures what no product
	// can exceed.
	Peak    func(rounds int)
	PeakOps int
}

// Attention is what Engine.Attend computes, tile after tile.
type Attention struct {
	Out, Q                  *float32 // rows of Heads·HeadDim
	Positions               *int32   // of each row
	Tiles                   []AttentionTile
	Heads, KVHeads, HeadDim int
	Scale                   float32
	Work                    int // multiply-adds, about
}

// An AttentionTile is rows From..To-1, at most Panel with the heads that share a
// KV head. They read the cache whose pages lie there.
type AttentionTile struct {
	From, To int32
	Pages    **uint16
}

// A linesKernel computes y[r·ldy+strip·Lanes+lane] for left rows of activations.
// Weights and scales of a strip's rows lie stride and scalesStride bytes apart, and
// all strips one behind the other. x is a line's halves, for q8_0 the blocks; xd its
// scales; other its scaled sums where blocks have minimums, else what takes the
// offset of weights back.
//
// For each strip it writes to sums, pitch bytes from row to row, the integer sum of
// each block, of q6_0 of each half, and the unpacked scales to d, where blocks have
// pairs to m too; then it scales the sums and adds them up. Groups may reach beyond
// a row's blocks, into readable memory. So many early rows it sums before it unpacks
// scales. It may ask for what follows; step is how many bytes of the next strip's
// scales go with Lanes blocks. From row to row of activations are xPitch bytes of x,
// linePitch of xd and other and sumsPitch of sums.
type linesKernel func(y *float32, strips int, src *byte, stride int, scales *byte, scalesStride int, x *byte, xd *float32, other unsafe.Pointer,
	sums *int32, pitch int, d, m *float32, groups, blocks, early, step, left, ldy, xPitch, linePitch, sumsPitch int)

// A Product is a matrix that Planar multiplies: Y[r·LDY+row].
type Product struct {
	Y              *float32
	LDY            int
	Type           quant.Type
	Quants, Scales *byte // where its rows begin in both planes
	Rows           int
}

var registry struct {
	sync.Mutex
	variants []*Variant
}

// Register adds a variant, which then may be chosen by New. Kernels that it
// leaves out are the reference's where they do not depend on Lanes. It panics
// when the variant is not complete: that is a mistake in the program.
func Register(v Variant) {
	if v.Lanes < 1 || v.Lanes > maxLanes || v.Panel < 1 || v.Panel > maxPanel {
		panic(fmt.Sprintf("kernel variant %q: %d lanes, %d rows a panel", v.Name, v.Lanes, v.Panel))
	}
	v.fill()
	for _, n := range []int{len(v.Dot4), len(v.Dot6), len(v.Dot8), len(v.DotMin), len(v.DotFloat)} {
		if n < v.Panel && (v.Planar == nil || len(v.DotFloat) < v.Panel) {
			panic(fmt.Sprintf("kernel variant %q: %d products for %d rows a panel", v.Name, n, v.Panel))
		}
	}
	if (v.Planar == nil) != (v.Arrange == nil) || (v.Planar == nil) != (v.ArrangedBytes == nil) {
		panic(fmt.Sprintf("kernel variant %q: Planar, Arrange and ArrangedBytes go together", v.Name))
	}
	if len(v.Vec8) != len(v.Vec4) || len(v.VecMin) != len(v.Vec4) {
		panic(fmt.Sprintf("kernel variant %q: products from memory for %d, %d and %d rows", v.Name, len(v.Vec4), len(v.Vec8), len(v.VecMin)))
	}
	if v.Lines4 != nil && (v.Lines6 == nil || v.Lines8 == nil || v.LinesMin == nil) {
		panic(fmt.Sprintf("kernel variant %q: Lines go together", v.Name))
	}
	registry.Lock()
	defer registry.Unlock()
	for _, have := range registry.variants {
		if have.Name == v.Name {
			panic(fmt.Sprintf("kernel variant %q is registered twice", v.Name))
		}
	}
	registry.variants = append(registry.variants, &v)
	sort.SliceStable(registry.variants, func(i, j int) bool {
		return registry.variants[i].Rank > registry.variants[j].Rank
	})
}

// missing tells what the machine lacks to run v.
func (v *Variant) missing() string {
	if v.Missing == nil {
		return ""
	}
	return v.Missing()
}

// Variants lists the names of what this machine can run, best first.
func Variants() []string {
	registry.Lock()
	defer registry.Unlock()
	var names []string
	for _, v := range registry.variants {
		if v.missing() == "" {
			names = append(names, v.Name)
		}
	}
	return names
}

// EnvVariant names the variant where Options does not.
const EnvVariant = "POTLUCK_KERNELS"

// choose finds the variant of that name, or the best one.
func choose(name string) (*Variant, error) {
	if name == "" {
		name = os.Getenv(EnvVariant)
	}
	registry.Lock()
	defer registry.Unlock()
	var names []string
	for _, v := range registry.variants {
		lacks := v.missing()
		switch {
		case v.Name == name && lacks != "":
			return nil, fmt.Errorf("kernel variant %q: this machine has no %s", name, lacks)
		case v.Name == name || name == "" && lacks == "":
			return v, nil
		}
		names = append(names, v.Name)
	}
	return nil, fmt.Errorf("kernel variant %q is unknown here: %s", name, strings.Join(names, ", "))
}
