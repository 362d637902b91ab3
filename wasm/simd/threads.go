//go:build js && wasm

package simd

import (
	"syscall/js"
	"time"
	"unsafe"
)

// pool is what threads share; package source describes it. It lies where the
// linker puts it and never moves.
var pool struct {
	words [64]int32
	job   job
	count int
}

// job is laid out as the kernels read it. An address has 8 bytes in Go, of which
// they read the lower four.
type job struct {
	kind         int32
	_            int32
	y            *float32
	ldy          int32
	_            int32
	q, d         *byte
	rows, blocks int32
	x            *byte
	ldx, n       int32
	scratch      *byte
	scratchBytes int32
	chunk        int32
}

// worthSharing is how many blocks of products are worth the helpers' attention:
// some microseconds of work.
const worthSharing = 4096

// chunkRows is how many rows a thread takes at a time: few enough that all finish
// together, and whole strips.
func chunkRows(rows, threads int) int {
	const strip = 8
	return max(rows/(8*threads*strip), 1) * strip
}

// Threads is how many compute, this one among them.
func Threads() int { return max(pool.count, 1) }

// startThreads asks the glue for as many as it deems right, and waits until they
// are ready to help: what is measured then is what they do.
func startThreads() int {
	start := js.Global().Get("potluckThreads")
	if pool.count > 0 || start.Type() != js.TypeFunction {
		return Threads()
	}
	ready := make(chan int, 1)
	done := js.FuncOf(func(_ js.Value, args []js.Value) any {
		ready <- args[0].Int()
		return nil
	})
	start.Invoke(float64(uintptr(unsafe.Pointer(&pool.words[0])))).Call("then", done)
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	select {
	case pool.count = <-ready:
		done.Release()
	case <-patience.C: // the callback stays: it may yet be called
		pool.count = 1
	}
	return Threads()
}
