package kernel

import "unsafe"

// linesNEON makes a linesKernel of a kernel that sums rows, one that unpacks scales
// and one that applies them. The first writes for rows that lie stride bytes apart
// the integer sum of each block; the last scales those of a strip and adds them up.
func linesNEON(
	sum func(src *byte, stride int, x *byte, sums *int32, pitch, rows, groups int),
	unpack func(d, m *float32, src *byte, stride, groups int),
	apply func(y *float32, sums *int32, pitch int, d, m, xd *float32, x unsafe.Pointer, groups int),
) []linesKernel {
	const lanes = 4
	return []linesKernel{func(y *float32, strips int, src *byte, stride int, scales *byte, scalesStride int, x *byte, xd *float32, other unsafe.Pointer,
		sums *int32, pitch int, d, m *float32, groups, blocks, _, _, _, _, _, _, _ int) {
		for i := range strips {
			sum(at(src, i*lanes*stride), stride, x, sums, pitch, lanes, groups)
			unpack(d, m, at(scales, i*lanes*scalesStride), scalesStride, groups)
			if n := (groups*unpackGroup - blocks) * lanes; n > 0 { // what the next row gave
				clear(unsafe.Slice(at(d, 4*blocks*lanes), n))
				clear(unsafe.Slice(at(m, 4*blocks*lanes), n))
			}
			apply(at(y, 4*i*lanes), sums, pitch, d, m, xd, other, groups)
		}
	}}
}

func at[T any](p *T, bytes int) *T { return (*T)(unsafe.Add(unsafe.Pointer(p), bytes)) }

func scalesOnlyNEON(d, _ *float32, src *byte, stride, groups int) { scalesNEON(d, src, stride, groups) }
