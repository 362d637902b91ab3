// Package memory takes memory from the system, and gives back to it.
//
// What is large, holds no pointers and lives long, activations and KV caches, lies
// outside of Go's heap where the system allows. There it does not make the collector
// run while it grows, nor allow garbage in proportion to it; what was never touched
// takes no room, and what is freed is gone at once. Its owner frees it: nothing of a
// buffer may be used after that, or after the buffer grew.
package memory

import "unsafe"

// A Buffer is room for elements without pointers. The zero value is empty; Free
// empties it.
type Buffer[T any] struct {
	room   []T
	mapped []byte // what room is the beginning of; nil: it lies in the heap
}

// mapBytes is from how much on memory is worth pages of its own.
const mapBytes = 64 << 10

// Room returns n elements that begin on a cache line, if their size divides one. What
// they are is undefined.
func (b *Buffer[T]) Room(n int) []T {
	if n > cap(b.room) {
		b.grow(n)
	}
	return b.room[:n]
}

func (b *Buffer[T]) grow(n int) {
	b.Free()
	var zero T
	n += n / 4
	if bytes := n * int(unsafe.Sizeof(zero)); bytes >= mapBytes {
		if b.mapped = Reserve(bytes); b.mapped != nil {
			b.room = unsafe.Slice((*T)(unsafe.Pointer(&b.mapped[0])), n)
			return
		}
	}
	b.room = Make[T](n)
}

// Free gives the memory back.
func (b *Buffer[T]) Free() {
	Release(b.mapped)
	*b = Buffer[T]{}
}

// Aligned is Room in the heap: s where it is large enough.
func Aligned[T any](s []T, n int) []T {
	if cap(s) < n {
		s = Make[T](n + n/4)
	}
	return s[:n]
}

// Make returns n zeros of the heap that begin on a cache line, if their size divides one.
func Make[T any](n int) []T {
	const line = 64
	var zero T
	size := int(unsafe.Sizeof(zero))
	room := make([]T, n+line/size)
	skip := 0
	if rest := int(uintptr(unsafe.Pointer(&room[0])) % line); rest != 0 {
		skip = (line - rest) / size
	}
	return room[skip : skip+n]
}
