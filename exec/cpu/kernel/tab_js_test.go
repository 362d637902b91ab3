//go:build js && wasm

package kernel_test

import "github.com/potluck-llm/potluck/wasm/simd"

// In a tab every test runs with its kernels too; package simd's tests start one.
func init() { simd.Register() }
