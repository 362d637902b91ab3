//go:build js && wasm

package simd

// The kernels, as package source describes them. All strides of products are in
// bytes, those of float products in numbers.

//go:wasmimport kernels group_bytes
func groupBytes() int32

//go:wasmimport kernels arrange
func arrange(dst *byte, x *float32, blocks int32)

//go:wasmimport kernels q4_0
func productQ4_0(y *float32, ldy int32, q, d *byte, from, to, blocks int32, x *byte, ldx, n int32, scratch *byte)

//go:wasmimport kernels q4_1
func productQ4_1(y *float32, ldy int32, q, d *byte, from, to, blocks int32, x *byte, ldx, n int32, scratch *byte)

//go:wasmimport kernels q6_0
func productQ6_0(y *float32, ldy int32, q, d *byte, from, to, blocks int32, x *byte, ldx, n int32, scratch *byte)

//go:wasmimport kernels q8_0
func productQ8_0(y *float32, ldy int32, q, d *byte, from, to, blocks int32, x *byte, ldx, n int32, scratch *byte)

//go:wasmimport kernels q4_0_scratch
func scratchQ4_0(blocks int32) int32

//go:wasmimport kernels q4_1_scratch
func scratchQ4_1(blocks int32) int32

//go:wasmimport kernels q6_0_scratch
func scratchQ6_0(blocks int32) int32

//go:wasmimport kernels q8_0_scratch
func scratchQ8_0(blocks int32) int32

//go:wasmimport kernels sum_squares
func sumSquares(x *float32, n int32) float32

//go:wasmimport kernels scale_mul
func scaleMul(y, x, w *float32, scale float32, n int32)

//go:wasmimport kernels swiglu
func swiGLU(y, gu *float32, n int32)

//go:wasmimport kernels exp_sum
func expSum(x *float32, n int32, largest float32) float32

//go:wasmimport kernels max
func largest(x *float32, n int32) float32

//go:wasmimport kernels add
func add(y, x *float32, n int32)

//go:wasmimport kernels round_half
func roundHalf(x *float32, n int32) int32

//go:wasmimport kernels decode_f16
func decodeF16(dst *float32, src *uint16, n int32)

//go:wasmimport kernels encode_f16
func encodeF16(dst *uint16, src *float32, n int32)

//go:wasmimport kernels decode_keys8
func decodeKeys8(dst *float32, src *int8, scales *float32, blocks int32)

//go:wasmimport kernels decode_values8
func decodeValues8(dst *float32, src *int8, scales *float32, blocks int32)

//go:wasmimport kernels unpack_f32
func unpackF32(dst *float32, src *byte, stride, groups int32)

//go:wasmimport kernels unpack_f16
func unpackF16(dst *float32, src *byte, stride, groups int32)

//go:wasmimport kernels unpack_bf16
func unpackBF16(dst *float32, src *byte, stride, groups int32)

//go:wasmimport kernels dot_float_1
func dotFloatOf1(y *float32, ldy int32, a *float32, lda int32, b *float32, ldb, k, add int32)

//go:wasmimport kernels dot_float_2
func dotFloatOf2(y *float32, ldy int32, a *float32, lda int32, b *float32, ldb, k, add int32)

//go:wasmimport kernels dot_float_3
func dotFloatOf3(y *float32, ldy int32, a *float32, lda int32, b *float32, ldb, k, add int32)

//go:wasmimport kernels dot_float_4
func dotFloatOf4(y *float32, ldy int32, a *float32, lda int32, b *float32, ldb, k, add int32)

//go:wasmimport kernels dot_float4_1
func dotFloat4Of1(y *float32, ldy, ystep int32, a *float32, lda int32, b *float32, ldb, step, k, add int32)

//go:wasmimport kernels dot_float4_2
func dotFloat4Of2(y *float32, ldy, ystep int32, a *float32, lda int32, b *float32, ldb, step, k, add int32)

//go:wasmimport kernels vec_f32_1
func vecF32x1(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f32_2
func vecF32x2(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f32_3
func vecF32x3(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f32_4
func vecF32x4(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f16_1
func vecF16x1(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f16_2
func vecF16x2(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f16_3
func vecF16x3(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_f16_4
func vecF16x4(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_bf16_1
func vecBF16x1(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_bf16_2
func vecBF16x2(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_bf16_3
func vecBF16x3(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels vec_bf16_4
func vecBF16x4(y *float32, ldy int32, w *byte, stride int32, x *float32, ldx, groups int32)

//go:wasmimport kernels memory_pages
func memoryPages() int32

//go:wasmimport kernels share
func share(pool *int32)

//go:wasmimport kernels attend
func attend(pool *int32)
