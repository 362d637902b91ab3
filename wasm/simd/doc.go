// Package simd gives a tab's processor kernels of WebAssembly's vectors.
//
// The glue (wasm/assets/static/go.js) instantiates them over Go's own memory
// before Go starts, relaxed SIMD where the browser has it, and Register adds
// them to exec/cpu/kernel. Their source is package source; `go generate`
// assembles it.
package simd

//go:generate go run ./internal/write ../assets/static
