package kernel

import (
	"fmt"
	"unsafe"

	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/quant"
)

// pagePositions is how many positions a cache grows by, and how many one step
// of the online softmax takes.
const pagePositions = 64

// A Cache holds the keys and values of one slot and layer, kvHeads × headDim of
// each a position. Keys lie with positions side by side, so that the scores of
// maxLanes positions are one vector; values lie as they come.
type Cache struct {
	t                quant.Type
	kvHeads, headDim int
	positions        int
	reserve          []byte // for all pages, where the system has it
	pages            []page
	starts           []*uint16 // where each page of f16 begins
}

// A page holds pagePositions positions:
//
//	keys    [kvHead][pagePositions/maxLanes][headDim][maxLanes]
//	values  [kvHead][pagePositions][headDim]
//
// and in q8_0 their scales:
//
//	keys'    [kvHead][pagePositions/maxLanes][headDim/32][maxLanes]
//	values'  [kvHead][pagePositions][headDim/32]
type page struct {
	f32              []float32 // keys, then values
	f16              []uint16
	q8               []int8
	kScales, vScales []float32
}

// NewCache returns an empty cache for positions of kvHeads × headDim keys and
// values as f32, f16 or q8_0 (f16 where headDim is not whole blocks). Memory is
// taken a page at a time.
func NewCache(t quant.Type, positions, kvHeads, headDim int) *Cache {
	switch {
	case t == quant.F32:
	case t == quant.Q8_0 && headDim%quant.BlockSize == 0:
	default:
		t = quant.F16
	}
	return &Cache{t: t, kvHeads: kvHeads, headDim: headDim, positions: positions}
}

// Free gives the memory back. c is then empty.
func (c *Cache) Free() {
	memory.Release(c.reserve)
	c.reserve, c.pages, c.starts = nil, nil, nil
}

// Bytes is the memory in use.
func (c *Cache) Bytes() int64 { return int64(c.pageBytes() * len(c.pages)) }

func (c *Cache) pageBytes() int {
	n := 2 * pagePositions * c.kvHeads * c.headDim
	switch c.t {
	case quant.F32:
		return n * 4
	case quant.F16:
		return n * 2
	}
	return n + n/quant.BlockSize*4
}

// grow adds a page.
func (c *Cache) grow() {
	size, n := c.pageBytes(), 2*pagePositions*c.kvHeads*c.headDim
	if len(c.pages) == 0 {
		c.reserve = memory.Reserve(ceilDiv(c.positions, pagePositions) * size)
	}
	var at *byte
	if c.reserve != nil {
		at = &c.reserve[len(c.pages)*size]
	} else {
		at = &memory.Make[byte](size)[0]
	}
	var p page
	switch c.t {
	case quant.F32:
		p.f32 = unsafe.Slice((*float32)(unsafe.Pointer(at)), n)
	case quant.F16:
		p.f16 = unsafe.Slice((*uint16)(unsafe.Pointer(at)), n)
		c.starts = append(c.starts, &p.f16[0])
	default:
		p.q8 = unsafe.Slice((*int8)(unsafe.Pointer(at)), n)
		scales := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(at), n)), n/quant.BlockSize)
		p.kScales, p.vScales = scales[:len(scales)/2], scales[len(scales)/2:]
	}
	c.pages = append(c.pages, p)
}

// at is the address of a plane of a page: a head's keys, or behind all keys a
// head's values. There is always one, of the last page if need be.
func (c *Cache) at(number, plane int) uintptr {
	p := &c.pages[min(number, len(c.pages)-1)]
	from := plane * pagePositions * c.headDim
	switch c.t {
	case quant.F32:
		return uintptr(unsafe.Pointer(&p.f32[from]))
	case quant.F16:
		return uintptr(unsafe.Pointer(&p.f16[from]))
	}
	return uintptr(unsafe.Pointer(&p.q8[from]))
}

// Expect asks for the memory in which Store will scatter the keys of position pos, and
// which Attend reads: they lie sixteen positions side by side, so a position touches
// as many lines as a key has numbers.
func (e *Engine) Expect(c *Cache, pos int) {
	if e.k.Fetch == nil || c.t != quant.F16 || pos/pagePositions >= len(c.pages) {
		return
	}
	p := &c.pages[pos/pagePositions]
	for h := range c.kvHeads {
		e.k.Fetch((*byte)(unsafe.Pointer(&p.f16[c.keys16(h, pos)])), 0, 1, 2*maxLanes*c.headDim)
	}
}

// keys16 is where in a page the keys of the sixteen positions begin that pos is one of.
func (c *Cache) keys16(head, pos int) int {
	return (head*pagePositions + pos%pagePositions/maxLanes*maxLanes) * c.headDim
}

// Store keeps k and v (some heads × headDim) as those of heads first.. at position pos
// of c, which is at most one beyond the highest that was stored.
func (e *Engine) Store(c *Cache, pos, first int, k, v []float32) {
	if uint(pos) >= uint(c.positions) {
		panic(fmt.Sprintf("kernel: position %d of a cache of %d", pos, c.positions))
	}
	for pos/pagePositions >= len(c.pages) {
		c.grow()
	}
	s, p, at := &e.local[0], &c.pages[pos/pagePositions], pos%pagePositions
	d, half := c.headDim, pagePositions*c.kvHeads*c.headDim
	for i := range len(k) / d {
		h, k, v := first+i, k[i*d:(i+1)*d], v[i*d:(i+1)*d]
		keys := c.keys16(h, pos) + at%maxLanes
		values := half + (h*pagePositions+at)*d
		switch c.t {
		case quant.F32:
			copy(p.f32[values:], v)
			for i, f := range k {
				p.f32[keys+i*maxLanes] = f
			}
		case quant.F16:
			e.k.encodeF16(p.f16[values:values+d], v)
			s.halves = memory.Aligned(s.halves, d)
			e.k.encodeF16(s.halves, k)
			for i, h := range s.halves {
				p.f16[keys+i*maxLanes] = h
			}
		default:
			per := d / quant.BlockSize
			store8(p.q8[keys:], maxLanes, p.kScales[(h*pagePositions+at/maxLanes*maxLanes)*per+at%maxLanes:], maxLanes, k)
			store8(p.q8[values:], 1, p.vScales[(h*pagePositions+at)*per:], 1, v)
		}
	}
}

func (v *Variant) encodeF16(dst []uint16, src []float32) {
	whole := len(src) &^ 15
	if v.EncodeF16 == nil {
		whole = 0
	}
	if whole > 0 {
		v.EncodeF16(&dst[0], &src[0], whole)
	}
	for i, f := range src[whole:] {
		dst[whole+i] = quant.F32ToF16(f)
	}
}

// store8 quantises x per block, its numbers step apart in q and its scales
// scaleStep.
func store8(q []int8, step int, scales []float32, scaleStep int, x []float32) {
	var b Block
	for i := 0; i < len(x); i += quant.BlockSize {
		quantiseReference(&b, &x[i], 1)
		scales[i/quant.BlockSize*scaleStep] = b.D
		for j, v := range b.Q {
			q[(i+j)*step] = v
		}
	}
}

// keys returns a page's keys of one KV head as float32, [sub][headDim][maxLanes],
// at least for the first n positions: where they lie or decoded into buf.
func (c *Cache) keys(v *Variant, number, head, n int, buf []float32) []float32 {
	p, d := &c.pages[number], c.headDim
	from, size := head*pagePositions*d, ceilDiv(n, maxLanes)*maxLanes*d
	switch c.t {
	case quant.F32:
		return p.f32[from : from+size]
	case quant.F16:
		v.DecodeF16(&buf[0], &p.f16[from], size)
		return buf[:size]
	}
	v.DecodeKeys8(&buf[0], &p.q8[from], &p.kScales[head*pagePositions*d/quant.BlockSize], size/(quant.BlockSize*maxLanes))
	return buf[:size]
}

// values returns the first n values of a page and KV head as float32.
func (c *Cache) values(v *Variant, number, head, n int, buf []float32) []float32 {
	p, d := &c.pages[number], c.headDim
	from, size := (c.kvHeads+head)*pagePositions*d, n*d
	switch c.t {
	case quant.F32:
		return p.f32[from : from+size]
	case quant.F16:
		v.DecodeF16(&buf[0], &p.f16[from], size)
		return buf[:size]
	}
	v.DecodeValues8(&buf[0], &p.q8[from], &p.vScales[head*pagePositions*d/quant.BlockSize], size/quant.BlockSize)
	return buf[:size]
}
