package kernel

import (
	"cmp"
	"fmt"
	"runtime"
)

// maxThreads bounds Options.Threads: beyond it is a typing mistake.
const maxThreads = 1024

// Options say how an Engine computes.
type Options struct {
	Threads int    // 0: all cores
	Variant string // "": what the environment's POTLUCK_KERNELS names, else the best this machine has
	Exact   bool   // multiply activations as they are instead of quantised to 8 bit per block
	Band    int    // floats that a thread computes before they are used; 0: as many as suit a core's second cache
}

// An Engine runs kernels on a pool of threads. It is used by one goroutine at a
// time; its results do not depend on how many threads it has.
type Engine struct {
	k     *Variant
	exact bool
	fixed bool // Options.Exact: Exact changes nothing
	pool  *pool
	local []scratch // of each thread

	bandFloats int // see Band

	matmul matmulTask
	rows   rowsTask
	expert expertsTask
	attend attendTask
	jobs   []job
}

// New starts an engine. The caller closes it.
func New(o Options) (*Engine, error) {
	v, err := choose(o.Variant)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Threads == 0:
		o.Threads = runtime.GOMAXPROCS(0)
	case o.Threads < 0 || o.Threads > maxThreads:
		return nil, fmt.Errorf("kernel: %d threads, want 1 to %d or 0 for all cores", o.Threads, maxThreads)
	case o.Band < 0:
		return nil, fmt.Errorf("kernel: %d floats ahead, want 0 or more", o.Band)
	}
	return &Engine{k: v, exact: o.Exact, fixed: o.Exact, pool: newPool(o.Threads), local: make([]scratch, o.Threads), bandFloats: cmp.Or(o.Band, bandFloats) * o.Threads}, nil
}

// Close ends the pool's threads and frees what experts need.
func (e *Engine) Close() {
	e.pool.close()
	e.expert.free()
}

// Variant names the kernels in use.
func (e *Engine) Variant() string { return e.k.Name }

// Threads is how many threads compute, the caller's among them.
func (e *Engine) Threads() int { return e.pool.threads }

// Exact switches what Options.Exact describes on or off for what follows; an
// engine that was made exact stays so.
func (e *Engine) Exact(on bool) { e.exact = on || e.fixed }

// Peak does some 8-bit multiply-adds on the caller's thread alone, as fast as
// the machine can, and returns how many; 0 where the variant cannot. It touches
// nothing of the engine: several goroutines may call it at once.
func (e *Engine) Peak(rounds int) int {
	if e.k.Peak == nil || rounds < 1 {
		return 0
	}
	e.k.Peak(rounds)
	return rounds * e.k.PeakOps
}

// Read reads data on the caller's thread alone, as fast as the machine can, and
// tells whether the variant has a kernel that does. It touches nothing of the
// engine: several goroutines may call it at once.
func (e *Engine) Read(data []byte) bool {
	if e.k.Read == nil || len(data) < readRound {
		return false
	}
	e.k.Read(&data[0], len(data)/readRound*readRound)
	return true
}

// readRound is what Variant.Read reads at a time.
const readRound = 256

// scratch is one thread's memory, grown as needed and kept.
type scratch struct {
	strip   []byte    // unpacked 8-bit strips
	d, m    []float32 // their scales and minimums
	sums    []int32   // of a strip's blocks
	floats  []float32 // unpacked float strips
	padded  []byte    // rows of a strip that the matrix does not fill
	tail    []byte    // what rows have beyond whole groups
	decoded []float32 // rows that Exact decodes
	tile    []float32 // results of a partial strip
	planar  []Product // what Planar is asked for
	queries []float32
	scores  []float32
	halves  []uint16  // of a row on its way to a cache
	values  []float32 // a page's keys or values in float32
	state   []float32 // running maximum and sum of each query
	added   []float32 // what a unit adds
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
