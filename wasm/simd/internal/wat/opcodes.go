package wat

// An immediate is what follows an opcode in the text besides operands.
type immediate uint8

const (
	none   immediate = iota
	memory           // offset= and align=
	lane             // the number of a lane
	lanes            // sixteen of them
	atomic           // offset=, naturally aligned
	zero             // the byte 0, which names the memory
)

// An op is one instruction: its bytes, and for accesses to memory the logarithm
// of their natural alignment.
type op struct {
	prefix byte // 0: none
	code   uint32
	imm    immediate
	align  byte
}

const (
	simdPrefix   = 0xfd
	atomicPrefix = 0xfe
)

// ops are the instructions that the kernels use, those with an immediate of
// their own kind (constants, locals, branches) aside.
var ops = map[string]op{
	"unreachable": {code: 0x00}, "return": {code: 0x0f}, "drop": {code: 0x1a}, "select": {code: 0x1b},
	"memory.size": {code: 0x3f, imm: zero},

	"i32.load": {code: 0x28, imm: memory, align: 2}, "f32.load": {code: 0x2a, imm: memory, align: 2},
	"i32.load8_u": {code: 0x2d, imm: memory}, "i32.load16_u": {code: 0x2f, imm: memory, align: 1},
	"i32.store": {code: 0x36, imm: memory, align: 2}, "f32.store": {code: 0x38, imm: memory, align: 2},

	"i32.eqz": {code: 0x45}, "i32.eq": {code: 0x46}, "i32.ne": {code: 0x47}, "i32.lt_s": {code: 0x48}, "i32.lt_u": {code: 0x49},
	"i32.gt_s": {code: 0x4a}, "i32.gt_u": {code: 0x4b}, "i32.le_s": {code: 0x4c}, "i32.le_u": {code: 0x4d}, "i32.ge_s": {code: 0x4e}, "i32.ge_u": {code: 0x4f},
	"f32.lt": {code: 0x5d}, "f32.gt": {code: 0x5e},
	"i32.add": {code: 0x6a}, "i32.sub": {code: 0x6b}, "i32.mul": {code: 0x6c}, "i32.div_u": {code: 0x6e}, "i32.rem_u": {code: 0x70},
	"i32.and": {code: 0x71}, "i32.or": {code: 0x72}, "i32.xor": {code: 0x73}, "i32.shl": {code: 0x74}, "i32.shr_s": {code: 0x75}, "i32.shr_u": {code: 0x76},
	"f32.add": {code: 0x92}, "f32.sub": {code: 0x93}, "f32.mul": {code: 0x94}, "f32.div": {code: 0x95}, "f32.min": {code: 0x96}, "f32.max": {code: 0x97},
	"f32.convert_i32_s": {code: 0xb2}, "i32.reinterpret_f32": {code: 0xbc}, "f32.reinterpret_i32": {code: 0xbe},

	"v128.load": simdMemory(0, 4), "v128.load8x8_s": simdMemory(1, 3), "v128.load16x4_s": simdMemory(3, 3), "v128.load16x4_u": simdMemory(4, 3),
	"v128.load32_splat": simdMemory(9, 2), "v128.store": simdMemory(11, 4), "v128.load32_zero": simdMemory(92, 2), "v128.load64_zero": simdMemory(93, 3),
	"i8x16.shuffle": {prefix: simdPrefix, code: 13, imm: lanes},
	"i8x16.splat":   simd(15), "i16x8.splat": simd(16), "i32x4.splat": simd(17), "f32x4.splat": simd(19),
	"i32x4.extract_lane": simdLane(27), "f32x4.extract_lane": simdLane(31), "f32x4.replace_lane": simdLane(32),

	"i32x4.eq": simd(55), "i32x4.lt_s": simd(57), "i32x4.gt_s": simd(59), "i32x4.ge_s": simd(63),
	"f32x4.eq": simd(65), "f32x4.lt": simd(67), "f32x4.gt": simd(68), "f32x4.le": simd(69), "f32x4.ge": simd(70),
	"v128.not": simd(77), "v128.and": simd(78), "v128.andnot": simd(79), "v128.or": simd(80), "v128.xor": simd(81), "v128.bitselect": simd(82), "v128.any_true": simd(83),

	"i8x16.narrow_i16x8_s": simd(101), "i8x16.shl": simd(107), "i8x16.shr_s": simd(108), "i8x16.shr_u": simd(109), "i8x16.add": simd(110), "i8x16.sub": simd(113),
	"i32x4.extadd_pairwise_i16x8_s": simd(126), "i16x8.narrow_i32x4_s": simd(133), "i16x8.narrow_i32x4_u": simd(134),
	"i16x8.extend_low_i8x16_s": simd(135), "i16x8.extend_high_i8x16_s": simd(136),
	"i16x8.shl": simd(139), "i16x8.shr_s": simd(140), "i16x8.shr_u": simd(141), "i16x8.add": simd(142), "i16x8.mul": simd(149),
	"i32x4.extend_low_i16x8_s": simd(167), "i32x4.extend_high_i16x8_s": simd(168), "i32x4.extend_low_i16x8_u": simd(169), "i32x4.extend_high_i16x8_u": simd(170),
	"i32x4.shl": simd(171), "i32x4.shr_s": simd(172), "i32x4.shr_u": simd(173), "i32x4.add": simd(174), "i32x4.sub": simd(177), "i32x4.mul": simd(181),
	"i32x4.dot_i16x8_s": simd(186),
	"f32x4.nearest":     simd(106), "f32x4.abs": simd(224), "f32x4.neg": simd(225), "f32x4.add": simd(228), "f32x4.sub": simd(229), "f32x4.mul": simd(230), "f32x4.div": simd(231),
	"f32x4.min": simd(232), "f32x4.max": simd(233), "f32x4.pmin": simd(234), "f32x4.pmax": simd(235),
	"i32x4.trunc_sat_f32x4_s": simd(248), "f32x4.convert_i32x4_s": simd(250),
	"f32x4.relaxed_madd": simd(0x105), "i16x8.relaxed_dot_i8x16_i7x16_s": simd(0x112), "i32x4.relaxed_dot_i8x16_i7x16_add_s": simd(0x113),

	"memory.atomic.notify": {atomicPrefix, 0x00, atomic, 2}, "memory.atomic.wait32": {atomicPrefix, 0x01, atomic, 2},
	"i32.atomic.load": {atomicPrefix, 0x10, atomic, 2}, "i32.atomic.store": {atomicPrefix, 0x17, atomic, 2},
	"i32.atomic.rmw.add": {atomicPrefix, 0x1e, atomic, 2}, "i32.atomic.rmw.or": {atomicPrefix, 0x33, atomic, 2}, "i32.atomic.rmw.cmpxchg": {atomicPrefix, 0x48, atomic, 2},
}

func simd(code uint32) op     { return op{prefix: simdPrefix, code: code} }
func simdLane(code uint32) op { return op{prefix: simdPrefix, code: code, imm: lane} }
func simdMemory(code uint32, align byte) op {
	return op{prefix: simdPrefix, code: code, imm: memory, align: align}
}
