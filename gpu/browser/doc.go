//go:build !(js && wasm)

// Package browser is a graphics device through a tab's WebGPU. It exists only
// in the js/wasm build.
package browser
