//go:build !linux

package bench

// largePages returns memory in what pages the system gives.
func largePages(bytes int) []uint64 { return make([]uint64, bytes/8) }
