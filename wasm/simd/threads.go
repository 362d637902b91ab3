//go:build js && wasm

package simd

import (
	"syscall/js"
	"time"
	"unsafe"

	"github.com/potluck-llm/potluck/exec/cpu/kernel"
)

// pool is what threads share; package source describes it. It lies where the
// linker puts it and never moves.
var pool struct {
	words [3 * 16]int32
	taken [poolThreads * 16]int32
	job   job
	attention
	count int
}

// poolThreads have ranges of their own.
const poolThreads = 16

// job is laid out as the kernels read it. An address has 8 bytes in Go, of which
// they read the lower four.
type job struct {
	count, threads        int32
	n, blocks, ldx, chunk int32
	x, scratch            *byte
	scratchBytes          int32
	_                     int32
	products              [poolProducts]product
}

type product struct {
	kind, rows int32
	y          *float32
	ldy        int32
	_          int32
	q, d       *byte
}

// attention is laid out as the kernels read it, too.
type attention struct {
	out, q              *float32
	positions           *int32
	tiles               *kernel.AttentionTile
	tileCount, units    int32
	heads, kvHeads, dim int32
	scale               float32
	scratch             *byte
	scratchBytes        int32
	_                   int32
}

// poolProducts share a job at most.
const poolProducts = 8

// worthSharing is how many blocks of products are worth the helpers' attention:
// some microseconds of work.
const worthSharing = 4096

// chunkSteps is how many steps a thread takes at a time of its share of so many
// rows: few enough that all finish together.
func chunkSteps(rows, n, threads int) int {
	if n == 1 {
		return max(rows/(streams*16*threads), 1)
	}
	return max(rows/(strip*8*threads), 1)
}

// Rows of a step, by how many rows of activations there are.
const streams, strip = 4, 8

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
