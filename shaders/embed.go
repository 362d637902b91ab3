// Package shaders holds the GPU kernels, one operation a file.
//
// A kernel that multiplies weights is put together from the operation and the
// element type of the weights: Source("matmul", quant's name of the type).
// What runs them is the work of packages gpu and exec/webgpu.
package shaders

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed *.wgsl *.inc
var files embed.FS

// Plain are the operations without weights, Weighted those with.
var (
	Plain    = []string{"add_f32", "attention", "copy_f32", "kvstore", "rmsnorm_f32", "rope_f32", "round_f16", "router_f32", "swiglu_f32"}
	Weighted = []string{"matmul", "experts_up", "experts_down"}
	Types    = []string{"f32", "f16", "bf16", "q8_0", "q6_0", "q4_1", "q4_0"}
)

// halves need f16's bits.
var halves = []string{"attention", "copy_f32", "kvstore", "round_f16"}

// lanesLine is how many lanes share a row, where a kernel says so.
const lanesLine = "const LANES: u32 = %du;"

// Lanes are the variants there are: one lane a row suits processors that only
// pretend to be GPUs.
var Lanes = []int{1, 16}

// Source is the WGSL of an operation; weights is the element type of its
// weights, "" where it has none, and lanes one of Lanes.
func Source(operation, weights string, lanes int) (string, error) {
	if !slices.Contains(Lanes, lanes) {
		return "", fmt.Errorf("there is no kernel with %d lanes a row", lanes)
	}
	parts := []string{operation + ".wgsl"}
	switch {
	case slices.Contains(Plain, operation) && weights == "":
		if slices.Contains(halves, operation) {
			parts = append(parts, "f16.inc")
		}
	case slices.Contains(Weighted, operation) && slices.Contains(Types, weights):
		if weights == "q4_0" || weights == "q4_1" {
			parts = append(parts, "weight_q4.inc")
		}
		parts = append(parts, "weight_"+weights+".inc")
	default:
		return "", fmt.Errorf("there is no kernel %s for weights %q", operation, weights)
	}
	text := ""
	for _, name := range parts {
		data, err := files.ReadFile(name)
		if err != nil {
			return "", err
		}
		text += string(data) + "\n"
	}
	return strings.Replace(text, fmt.Sprintf(lanesLine, 16), fmt.Sprintf(lanesLine, lanes), 1), nil
}
