// Package gpu is the little that an executor needs of a graphics device:
// buffers, kernels, and recorded lists of dispatches.
//
// A list is recorded once and run for every pass: rows go in, the dispatches
// run, rows come out. Package gpu/browser runs it through a tab's WebGPU. What
// is computed is the work of package exec/webgpu.
package gpu

import (
	"context"
	"errors"
)

// Handles of a device's objects.
type (
	Buffer   int32
	Pipeline int32
	List     int32
)

// Info says what a device is.
type Info struct {
	Name       string // "nvidia ada", "google swiftshader"
	Software   bool   // only pretends to be a GPU
	MaxBinding int64  // bytes of one buffer
}

// ErrLost is what every call returns once the device is gone.
var ErrLost = errors.New("the graphics device was lost")

// ErrMemory is what NewBuffer returns when the device has no room.
var ErrMemory = errors.New("the graphics device is out of memory")

// A Device is used by one goroutine at a time.
type Device interface {
	Info() Info
	// NewBuffer returns a zeroed buffer of size bytes.
	NewBuffer(ctx context.Context, size int64) (Buffer, error)
	// Write copies data, of a multiple of 4 bytes, into a buffer.
	Write(b Buffer, offset int64, data []byte) error
	Free(b Buffer)
	// NewPipeline compiles WGSL; the same source gives the same pipeline.
	NewPipeline(ctx context.Context, source string) (Pipeline, error)
	Record(ctx context.Context, r Recording) (List, error)
	FreeList(l List)
	// Run copies in to the list's inputs, runs its dispatches for that many
	// rows, and fills out from its outputs. in and out must have the sizes that
	// the recording says.
	Run(ctx context.Context, l List, rows int, in, out []byte) error
	Close()
}

// A Recording is what a list does.
type Recording struct {
	In         []Transfer
	Dispatches []Dispatch
	Out        []Transfer
}

// A Transfer is rows of a buffer on their way in or out, one buffer after
// another.
type Transfer struct {
	Buffer Buffer
	Bytes  int // of a row, a multiple of 4
}

// A Dispatch runs a kernel over X × (Y · rows) × Z workgroups. Args are the
// kernel's uniform at binding 0; Buffers are its bindings from 1 on.
type Dispatch struct {
	Pipeline Pipeline
	Args     [8]uint32
	Buffers  []Buffer
	X, Y, Z  int
}
