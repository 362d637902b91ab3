package quant

import "encoding/binary"

// allFiniteF32 tells whether no little-endian float in data is NaN or infinite.
func allFiniteF32(data []byte) bool {
	var carried uint64
	for ; len(data) >= 8; data = data[8:] {
		// Adding 1 to an exponent of all ones carries into the cleared sign bit.
		carried |= binary.LittleEndian.Uint64(data)&0x7fffffff_7fffffff + 0x00800000_00800000
	}
	if len(data) >= 4 {
		carried |= uint64(binary.LittleEndian.Uint32(data)&0x7fffffff + 0x00800000)
	}
	return carried&0x80000000_80000000 == 0
}

// allFinite16 tells whether no little-endian 16-bit float in data is NaN or
// infinite. exponent is the mask of the format's exponent bits.
func allFinite16(data []byte, exponent uint16) bool {
	const ones = 0x0001_0001_0001_0001
	lowest := uint64(exponent&-exponent) * ones
	var carried uint64
	for ; len(data) >= 8; data = data[8:] {
		carried |= binary.LittleEndian.Uint64(data)&(0x7fff*ones) + lowest
	}
	for ; len(data) >= 2; data = data[2:] {
		carried |= uint64(binary.LittleEndian.Uint16(data)&0x7fff) + lowest&0xffff
	}
	return carried&(0x8000*ones) == 0
}
