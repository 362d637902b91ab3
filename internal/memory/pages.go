//go:build (linux || darwin) && !race

package memory

import "golang.org/x/sys/unix"

// reserves tells whether the system has such memory.
const reserves = true

// Reserve returns zeroed memory outside of Go's heap, of which only what is touched
// takes room. It is nil where the system gives none: the heap has to do. The caller
// gives it to Release.
func Reserve(bytes int) []byte {
	data, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return data
}

// Release gives back what Reserve returned.
func Release(data []byte) {
	if data != nil {
		_ = unix.Munmap(data)
	}
}
