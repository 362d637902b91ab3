// Package kernel computes the products, norms and attentions of a layer on a
// processor's cores.
//
// It takes rows of float32 activations and planar weights (package quant) and
// gives rows of float32. Which product follows which, and whose cache a row
// reads, is left to package exec/cpu.
//
// # One way for every type and every number of rows
//
// A strip is Lanes rows of a weight matrix, as many as a vector register has
// float32 lanes. A strip is unpacked once, into a thread's own cache: four
// consecutive columns of all lanes in one vector for 8-bit dot products, one
// column of all lanes for floats. A lane then is one weight row, an activation
// is broadcast to all lanes, and no sum ever crosses lanes:
//
//	acc[row][lane] += d_w[lane] · d_x[row] · Σ₃₂ q_w[lane] · q_x[row]    block after block
//
// The sum over a block is exact in int32, and blocks are added in order in one
// float32 accumulator. So a row's result depends neither on how many rows ride
// along nor on which thread computes it: a replayed answer is bit-equal.
// Different variants round differently and agree within the bounds that the
// tests state.
//
// A few rows are bound by reading weights: they are multiplied with a strip as it
// is transposed in registers, while the strip behind it is prefetched (Vec kernels).
// One row, as when a single user's answer is decoded or an expert has one row, and up
// to three or four with 8-bit weights, go through a strip row after row: a processor
// foresees one stream of reads better than sixteen. Blocks are summed in integers
// first, then scaled and added in the same order (Lines kernels).
//
// Activations are quantised per block of 32 to int8 with a float32 scale,
// d = max|x|/127; Options.Exact multiplies them as they are.
//
// # Variants
//
// A Variant is a set of kernels for one kind of processor. "reference" is plain
// Go; Register adds others, also from outside this package. The assembly is
// written by internal/gen (go generate): plain `go build` needs neither
// cgo nor flags. The kernels for arm64 are tested on any Linux machine that has
// qemu-user:
//
//	GOARCH=arm64 go test -c -o kernel.test . && qemu-aarch64 ./kernel.test
package kernel

//go:generate go run ./internal/gen
