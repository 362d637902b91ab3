package bench

import (
	"syscall"
	"unsafe"
)

const adviseHugePages = 14 // MADV_HUGEPAGE

// largePages returns memory in the largest pages that the system gives, as
// weights lie in: in pages of 4 KiB the wall would seem a fifth lower.
func largePages(bytes int) []uint64 {
	const page = 2 << 20
	words := make([]uint64, (bytes+page)/8)
	skip := (page - uintptr(unsafe.Pointer(&words[0]))%page) % page / 8
	words = words[skip : int(skip)+bytes/8]
	_ = syscall.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), bytes), adviseHugePages)
	return words
}
