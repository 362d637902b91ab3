//go:build js && wasm

// Package browser is a graphics device through a tab's WebGPU.
//
// The glue (gpu.js) holds the objects and replays recorded lists: one call a
// pass, past syscall/js, and one call back when its rows are in Go's memory.
package browser

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall/js"
	"unsafe"

	"github.com/potluck-llm/potluck/gpu"
)

//go:wasmimport gpu run
func run(list, rows int32, in unsafe.Pointer, inBytes int32, out unsafe.Pointer, outBytes int32)

//go:wasmimport gpu write
func write(buffer int32, offset float64, data unsafe.Pointer, bytes int32)

// finished is where the glue says that a pass is done. One pass runs at a time.
var finished = make(chan int32, 1)

//go:wasmexport potluckGPUDone
func done(status int32) {
	select {
	case finished <- status:
	default:
	}
}

// Device is the tab's device. Use Open.
type Device struct {
	glue      js.Value
	info      gpu.Info
	pipelines map[string]gpu.Pipeline
}

// Open asks the browser for a device. The error says what is missing.
func Open(ctx context.Context) (*Device, error) {
	glue := js.Global().Get("potluckGPU")
	if glue.IsUndefined() {
		return nil, errors.New("this browser gives no graphics access")
	}
	info, err := await(ctx, glue.Call("open"))
	if err != nil {
		return nil, err
	}
	return &Device{glue: glue, pipelines: map[string]gpu.Pipeline{}, info: gpu.Info{
		Name: info.Get("name").String(), Software: info.Get("software").Bool(), MaxBinding: int64(info.Get("maxBinding").Float())}}, nil
}

func (d *Device) Info() gpu.Info { return d.info }

func (d *Device) NewBuffer(ctx context.Context, size int64) (gpu.Buffer, error) {
	size = max(16, (size+3)/4*4)
	if size > d.info.MaxBinding {
		return 0, fmt.Errorf("%w: a buffer of %d bytes, at most %d", gpu.ErrMemory, size, d.info.MaxBinding)
	}
	v, err := await(ctx, d.glue.Call("buffer", float64(size)))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", gpu.ErrMemory, err)
	}
	return gpu.Buffer(v.Int()), nil
}

func (d *Device) Write(b gpu.Buffer, offset int64, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if len(data)%4 != 0 {
		return fmt.Errorf("write of %d bytes: want a multiple of 4", len(data))
	}
	write(int32(b), float64(offset), unsafe.Pointer(&data[0]), int32(len(data)))
	runtime.KeepAlive(data)
	return d.lost()
}

func (d *Device) Free(b gpu.Buffer) { d.glue.Call("free", int(b)) }

func (d *Device) NewPipeline(ctx context.Context, source string) (gpu.Pipeline, error) {
	if p, ok := d.pipelines[source]; ok {
		return p, nil
	}
	v, err := await(ctx, d.glue.Call("pipeline", source))
	if err != nil {
		return 0, err
	}
	p := gpu.Pipeline(v.Int())
	d.pipelines[source] = p
	return p, nil
}

func (d *Device) Record(ctx context.Context, r gpu.Recording) (gpu.List, error) {
	var flat []any
	transfers := func(list []gpu.Transfer) {
		flat = append(flat, len(list))
		for _, t := range list {
			flat = append(flat, int(t.Buffer), t.Bytes)
		}
	}
	transfers(r.In)
	flat = append(flat, len(r.Dispatches))
	for _, c := range r.Dispatches {
		flat = append(flat, int(c.Pipeline), c.X, c.Y, c.Z)
		for _, a := range c.Args {
			flat = append(flat, float64(a))
		}
		flat = append(flat, len(c.Buffers))
		for _, b := range c.Buffers {
			flat = append(flat, int(b))
		}
	}
	transfers(r.Out)
	v, err := await(ctx, d.glue.Call("record", js.ValueOf(flat)))
	if err != nil {
		return 0, err
	}
	return gpu.List(v.Int()), nil
}

func (d *Device) FreeList(l gpu.List) { d.glue.Call("freeList", int(l)) }

func (d *Device) Run(ctx context.Context, l gpu.List, rows int, in, out []byte) error {
	if err := d.lost(); err != nil {
		return err
	}
	var to unsafe.Pointer
	if len(out) > 0 {
		to = unsafe.Pointer(&out[0])
	}
	run(int32(l), int32(rows), unsafe.Pointer(&in[0]), int32(len(in)), to, int32(len(out)))
	runtime.KeepAlive(in)
	status := <-finished
	runtime.KeepAlive(out)
	if status != 0 {
		if err := d.lost(); err != nil {
			return err
		}
		return fmt.Errorf("the graphics device failed: %s", d.glue.Get("error").String())
	}
	return ctx.Err()
}

func (d *Device) lost() error {
	if d.glue.Get("lost").Bool() {
		return gpu.ErrLost
	}
	return nil
}

func (d *Device) Close() { d.glue.Call("close") }

// await waits for a promise.
func await(ctx context.Context, promise js.Value) (js.Value, error) {
	type outcome struct {
		v   js.Value
		err error
	}
	settled := make(chan outcome, 1)
	resolved := js.FuncOf(func(_ js.Value, args []js.Value) any {
		settled <- outcome{v: args[0]}
		return nil
	})
	rejected := js.FuncOf(func(_ js.Value, args []js.Value) any {
		settled <- outcome{err: errors.New(strings.TrimPrefix(args[0].Call("toString").String(), "Error: "))}
		return nil
	})
	promise.Call("then", resolved, rejected)
	o := <-settled
	resolved.Release()
	rejected.Release()
	if o.err != nil {
		return js.Value{}, o.err
	}
	return o.v, ctx.Err()
}
