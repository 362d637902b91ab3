package kernel

import (
	"unsafe"

	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/quant"
)

// A Job is one of several products of the same activations: Y[r·Pitch + i] is
// row r of them times row i of W, or with Add grows by it. What lies between is left
// as it is.
type Job struct {
	Y     []float32
	Pitch int
	W     quant.Matrix
	Add   bool
}

// A job is one of a barrier.
type job struct {
	Job
	first int // number of its first unit
}

// matmulTask is the products of one barrier, divided into units of some strips.
type matmulTask struct {
	e     *Engine
	jobs  []job
	x     view
	rows  int // weight rows of a unit
	share shares
}

// MatMul computes y [a.N × w.Rows] = a · wᵀ.
func (e *Engine) MatMul(y []float32, w quant.Matrix, a *Acts) {
	e.MatMulMany([]Job{{Y: y, Pitch: w.Rows, W: w}}, a)
}

// MatMulMany computes several products of the same activations in one go.
func (e *Engine) MatMulMany(list []Job, a *Acts) {
	e.jobs = e.jobs[:0]
	for _, p := range list {
		e.jobs = append(e.jobs, job{Job: p})
	}
	e.multiply(e.jobs, a)
}

func (e *Engine) multiply(jobs []job, a *Acts) {
	t := &e.matmul
	t.e, t.jobs, t.x = e, jobs, a.view()
	if e.k.Planar != nil && e.pool.threads == 1 && t.planar() {
		return
	}
	total, work := 0, 0
	for _, j := range jobs {
		if j.W.Cols != a.Cols {
			panic("kernel: a matrix's columns are not the activations'")
		}
		total += ceilDiv(j.W.Rows, e.k.Lanes)
		work += j.W.Rows * j.W.Cols * a.N
	}
	t.rows = e.unitRows(total, a.N)
	units := 0
	for i := range jobs {
		jobs[i].first = units
		units += ceilDiv(jobs[i].W.Rows, t.rows)
	}
	t.share.reset(units, e.pool.threads)
	if a.N > 0 && len(jobs) > 0 {
		e.fetch(&jobs[0].W, 0, &t.x)
	}
	if units == 1 || work < productWork {
		t.run(0)
		return
	}
	e.pool.do(t)
}

// planar hands all products to Planar at once, which may have threads of its own,
// and tells whether it could.
func (t *matmulTask) planar() bool {
	s := &t.e.local[0]
	s.planar = s.planar[:0]
	for i := range t.jobs {
		j := &t.jobs[i]
		if !quantised(j.W.Type) || !t.e.quantises(j.W.Cols) || j.W.Cols != t.x.cols || j.Add {
			return false
		}
		if j.W.Rows > 0 && t.x.n > 0 {
			s.planar = append(s.planar, productOf(&j.W, 0, j.W.Rows, j.Y, j.Pitch))
		}
	}
	if len(s.planar) > 0 {
		t.e.planar(s.planar, &t.x)
	}
	return true
}

// productWork is how many multiply-adds are worth handing to another thread:
// about three microseconds of reading weights.
const productWork = 1 << 17

// unitStrips is how many strips a unit has at most: their unpacked weights of
// usual width fit a core's second cache.
const unitStrips = 4

// unitLines is that for one row of activations, which unpacks nothing.
const unitLines = 64

// unitRows is how many weight rows to take at a time: few enough that all
// threads finish together, many enough that activations are read from the
// first cache.
func (e *Engine) unitRows(strips, n int) int {
	if e.k.Planar != nil && e.pool.threads == 1 {
		return max(strips, 1) * e.k.Lanes // it divides them itself
	}
	per, most := strips/(8*e.pool.threads), unitStrips
	if e.pool.threads == 1 {
		per = strips
	}
	if n == 1 && e.k.Lines4 != nil {
		most = unitLines
	}
	return min(max(per, 1), most) * e.k.Lanes
}

func (t *matmulTask) run(thread int) {
	for {
		u, ok := t.share.take(thread)
		if !ok {
			return
		}
		i := len(t.jobs) - 1
		for t.jobs[i].first > u {
			i--
		}
		j := &t.jobs[i]
		first := (u - j.first) * t.rows
		if next := i + 1; first+t.rows >= j.W.Rows && next < len(t.jobs) {
			t.e.fetch(&t.jobs[next].W, 0, &t.x)
		}
		s, rows := &t.e.local[thread], min(t.rows, j.W.Rows-first)
		if !j.Add {
			t.e.unit(s, &j.W, first, rows, &t.x, j.Y[first:], j.Pitch)
			continue
		}
		s.added = memory.Aligned(s.added, t.x.n*rows)
		t.e.unit(s, &j.W, first, rows, &t.x, s.added, rows)
		for r := range t.x.n {
			t.e.k.add(j.Y[r*j.Pitch+first:][:rows], s.added[r*rows:])
		}
	}
}

// fetch asks for what a product of x with w's rows from first on reads to begin
// with, which is not where the products before it end. A product of many rows
// would not notice.
func (e *Engine) fetch(w *quant.Matrix, first int, x *view) {
	lanes := e.k.Lanes
	if e.k.Fetch == nil || first+lanes > w.Rows {
		return
	}
	q, d := rowBytes(w)
	if e.k.inOrder(w.Type, x) { // and asks for more itself
		e.k.Fetch(&w.Quants[first*q], 0, 1, min(lanes*q, fetchBytes))
	} else {
		e.k.Fetch(&w.Quants[first*q], q, lanes, q)
	}
	if d > 0 {
		e.k.Fetch(&w.Scales[first*d], lanes*d, 1, lanes*d)
	}
}

// fetchBytes is how much of a matrix is asked for before a product that reads on
// from there.
const fetchBytes = 8192

// unit multiplies rows first.. of w (at most unitStrips strips; one row of x or Planar: any) with x:
// y[r·ldy + row-first].
func (e *Engine) unit(s *scratch, w *quant.Matrix, first, rows int, x *view, y []float32, ldy int) {
	switch {
	case x.n == 0 || rows == 0:
	case quantised(w.Type) && e.quantises(x.cols) && e.k.Planar != nil:
		s.planar = append(s.planar[:0], productOf(w, first, rows, y, ldy))
		e.planar(s.planar, x)
	case quantised(w.Type) && e.quantises(x.cols):
		e.unitBlocks(s, w, first, rows, x, y, ldy)
	default:
		for most := unitStrips * e.k.Lanes; rows > most; rows -= most {
			e.unitFloats(s, w, first, most, x, y, ldy)
			first, y = first+most, y[most:]
		}
		e.unitFloats(s, w, first, rows, x, y, ldy)
	}
}

// productOf is rows first.. of w as Planar takes them.
func productOf(w *quant.Matrix, first, rows int, y []float32, ldy int) Product {
	q, d := rowBytes(w)
	return Product{Y: &y[0], LDY: ldy, Type: w.Type, Quants: &w.Quants[first*q], Scales: &w.Scales[first*d], Rows: rows}
}

func (e *Engine) planar(products []Product, x *view) {
	e.k.Planar(products, x.cols/quant.BlockSize, &x.arranged[0], e.k.arrangedBytes(x.cols), x.n)
}

// rowsOf returns where a plane's row first begins and the bytes from row to row,
// for a whole strip: rows that the matrix does not have are zeros in a copy.
func (s *scratch) rowsOf(plane []byte, rowBytes, first, rows, lanes int) *byte {
	return s.rowsWith(plane, rowBytes, first, rows, lanes, 0)
}

// rowsWith is rowsOf with some readable bytes beyond the strip's end.
func (s *scratch) rowsWith(plane []byte, rowBytes, first, rows, lanes, beyond int) *byte {
	if rows >= lanes && (first+lanes)*rowBytes+beyond <= len(plane) {
		return &plane[first*rowBytes]
	}
	s.padded = memory.Aligned(s.padded, lanes*rowBytes+beyond)
	n := copy(s.padded, plane[first*rowBytes:min(first+rows, first+lanes)*rowBytes])
	clear(s.padded[n:])
	return &s.padded[0]
}

// unpack calls a kernel for units of rows that lie rowBytes apart, each group
// of the kernel being groupBytes wide: whole groups where they are, the rest
// from a copy with zeros behind.
func (s *scratch) unpack(kernel func(dst, src *byte, stride, groups int), dst []byte, perGroup int,
	src *byte, rowBytes, groupBytes, lanes int) {
	groups, rest := rowBytes/groupBytes, rowBytes%groupBytes
	if groups > 0 {
		kernel(&dst[0], src, rowBytes, groups)
	}
	if rest == 0 {
		return
	}
	kernel(&dst[groups*perGroup], s.tailOf(src, rowBytes, groups*groupBytes, rest, lanes), tailStride, 1)
}

// tailStride is the bytes of a row in a tail: a group of the widest kernel.
const tailStride = 128

// tailOf copies n bytes from each row, with zeros behind, to s.tail.
func (s *scratch) tailOf(src *byte, rowBytes, from, n, lanes int) *byte {
	s.tail = memory.Aligned(s.tail, maxLanes*tailStride)
	clear(s.tail)
	for r := range lanes {
		copy(s.tail[r*tailStride:r*tailStride+n], unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(src), r*rowBytes+from)), n))
	}
	return &s.tail[0]
}

// planeWidths are the bytes of a block in the two planes, by type.
var planeWidths = func() (widths [16]struct{ quants, scales int }) {
	for _, t := range quant.Types() {
		widths[t].quants, widths[t].scales = t.QuantsRowBytes(quant.BlockSize), t.ScalesRowBytes(quant.BlockSize)
	}
	return widths
}()

// rowBytes are the bytes of a row of w in the two planes.
func rowBytes(w *quant.Matrix) (quants, scales int) {
	width := &planeWidths[w.Type]
	return w.Cols * width.quants / quant.BlockSize, w.Cols / quant.BlockSize * width.scales
}

// quantised tells whether t has blocks.
func quantised(t quant.Type) bool { return planeWidths[t].scales > 0 }

// unpackStrip readies strip number i of a unit: rows first.. of w.
func (e *Engine) unpackStrip(s *scratch, i int, w *quant.Matrix, first, rows int) {
	k, lanes := e.k, e.k.Lanes
	padded := ceilDiv(w.Cols/quant.BlockSize, unpackGroup) * unpackGroup
	quants, row := unpackGroup*planeWidths[w.Type].quants, w.Cols/quant.BlockSize*planeWidths[w.Type].quants
	kernel := k.Unpack4
	switch w.Type {
	case quant.Q6_0:
		kernel = k.Unpack6
	case quant.Q8_0:
		kernel = k.Unpack8
	}
	s.unpack(kernel, s.strip[i*padded*32*lanes:], unpackGroup*32*lanes, s.rowsOf(w.Quants, row, first, rows, lanes), row, quants, lanes)
	e.unpackScales(s, i*padded*lanes, w, first, rows)
}

// paired tells whether a block of t has two halves in the scales plane: a scale
// and a minimum, or two scales.
func paired(t quant.Type) bool { return planeWidths[t].scales == 4 }

// unpackScales readies the scales of a strip from number at on, in s.m the second
// of each block's pair.
// Blocks up to the next multiple of unpackGroup get zeros.
func (e *Engine) unpackScales(s *scratch, at int, w *quant.Matrix, first, rows int) {
	k, lanes, d := e.k, e.k.Lanes, s.d[at:]
	blocks := w.Cols / quant.BlockSize
	groups := ceilDiv(blocks, unpackGroup)
	_, row := rowBytes(w)
	beyond := groups*unpackGroup*planeWidths[w.Type].scales - row
	src := s.rowsWith(w.Scales, row, first, rows, lanes, beyond)
	from, to := blocks*lanes, groups*unpackGroup*lanes // what the next row gave, if anything
	if !paired(w.Type) {
		k.Scales(&d[0], src, row, groups)
	} else {
		m := s.m[at:]
		k.Pairs(&d[0], &m[0], src, row, groups)
		clear(m[from:to])
	}
	clear(d[from:to])
}

// unitBlocks is unit for quantised weights and activations.
func (e *Engine) unitBlocks(s *scratch, w *quant.Matrix, first, rows int, x *view, y []float32, ldy int) {
	lanes := e.k.Lanes
	if e.vecUnit(s, w, &first, &rows, x, &y, ldy) {
		return
	}
	blocks := w.Cols / quant.BlockSize
	padded := ceilDiv(blocks, unpackGroup) * unpackGroup
	strips := ceilDiv(rows, lanes)
	s.strip, s.d = memory.Aligned(s.strip, strips*padded*32*lanes), memory.Aligned(s.d, strips*padded*lanes)
	if paired(w.Type) {
		s.m = memory.Aligned(s.m, strips*padded*lanes)
	}
	for i := range strips {
		e.unpackStrip(s, i, w, first+i*lanes, rows-i*lanes)
	}
	panels := ceilDiv(x.n, e.k.Panel)
	for p := range panels {
		from, to := p*x.n/panels, (p+1)*x.n/panels
		for i := range strips {
			at, ld, partial := &y[from*ldy+i*lanes:][0], ldy, rows-i*lanes < lanes
			if partial {
				s.tile = memory.Aligned(s.tile, maxPanel*maxLanes)
				at, ld = &s.tile[0], lanes
			}
			e.dot(s, i*padded*lanes, w.Type, at, ld, &x.blocks[from*x.pitch], x.pitch, to-from, blocks)
			if partial {
				s.copyTile(y[from*ldy+i*lanes:], ldy, lanes, rows-i*lanes, to-from)
			}
		}
	}
}

// dot multiplies n rows of x with the unpacked strip whose scales begin at at.
func (e *Engine) dot(s *scratch, at int, t quant.Type, y *float32, ldy int, x *Block, pitch, n, blocks int) {
	w, d := &s.strip[at*32], &s.d[at]
	switch t {
	case quant.Q4_0:
		e.k.Dot4[n-1](y, ldy, w, d, x, pitch*blockBytes, blocks)
	case quant.Q8_0:
		e.k.Dot8[n-1](y, ldy, w, d, x, pitch*blockBytes, blocks)
	case quant.Q6_0:
		e.k.Dot6[n-1](y, ldy, w, d, &s.m[at], x, pitch*blockBytes, blocks)
	default:
		e.k.DotMin[n-1](y, ldy, w, d, &s.m[at], x, pitch*blockBytes, blocks)
	}
}

// copyTile moves what a partial strip has of its tile to its place.
func (s *scratch) copyTile(y []float32, ldy, lanes, rows, n int) {
	for r := range n {
		copy(y[r*ldy:r*ldy+rows], s.tile[r*lanes:])
	}
}

// vecUnit multiplies few rows with the whole strips of a unit straight from
// memory, where the variant can: a strip that comes from memory once serves some
// more rows from the caches. It moves first, rows and y on to what is left and
// tells whether nothing is.
func (e *Engine) vecUnit(s *scratch, w *quant.Matrix, first, rows *int, x *view, y *[]float32, ldy int) bool {
	k, lanes := e.k, e.k.Lanes
	vec, lines := x.n <= 2*len(k.Vec4) && w.Type != quant.Q6_0, k.inOrder(w.Type, x)
	if !vec && !lines {
		return false
	}
	if lines {
		done := e.lineStrips(s, w, *first, *rows, x, *y, ldy)
		*first, *rows = *first+done, *rows-done
		if *rows > 0 {
			*y = (*y)[done:]
		}
	}
	if !vec || *rows < lanes {
		return *rows == 0
	}
	blocks := w.Cols / quant.BlockSize
	groups, q := ceilDiv(blocks, unpackGroup), planeWidths[w.Type].quants
	// The last group of a row may reach into the next row, whose numbers count
	// nothing there: their scales and their activations are zeros.
	beyond := (groups*unpackGroup - blocks) * q
	q *= blocks
	s.d, s.m = memory.Aligned(s.d, groups*unpackGroup*lanes), memory.Aligned(s.m, groups*unpackGroup*lanes)
	for ; *rows >= lanes; *rows -= lanes {
		e.unpackScales(s, 0, w, *first, lanes)
		src := s.rowsWith(w.Quants, q, *first, lanes, lanes, beyond)
		for from := 0; from < x.n; from += len(k.Vec4) {
			e.vec(s, w.Type, src, q, groups, x, from, min(x.n-from, len(k.Vec4)), &(*y)[from*ldy], ldy)
		}
		*first += lanes
		if *rows > lanes {
			*y = (*y)[lanes:]
		}
	}
	return *rows == 0
}

// vec multiplies n rows of x, groups of blocks wide, with one strip whose scales are unpacked.
func (e *Engine) vec(s *scratch, t quant.Type, quants *byte, stride, groups int, x *view, from, n int, y *float32, ldy int) {
	row, ldx := &x.blocks[from*x.pitch], x.pitch*blockBytes
	switch t {
	case quant.Q4_0:
		e.k.Vec4[n-1](y, ldy, quants, stride, &s.d[0], row, ldx, groups)
	case quant.Q8_0:
		e.k.Vec8[n-1](y, ldy, quants, stride, &s.d[0], row, ldx, groups)
	default:
		e.k.VecMin[n-1](y, ldy, quants, stride, &s.d[0], &s.m[0], row, ldx, groups)
	}
}

// floatChunk is how many columns of a strip are unpacked to float32 at a time.
const floatChunk = 512

// unitFloats is unit for float weights, and for quantised ones whose
// activations are not. Columns come in order in one accumulator per result.
func (e *Engine) unitFloats(s *scratch, w *quant.Matrix, first, rows int, x *view, y []float32, ldy int) {
	if e.vecFloats(w, &first, &rows, x, &y, ldy) {
		return
	}
	lanes := e.k.Lanes
	strips := ceilDiv(rows, lanes)
	s.floats = memory.Aligned(s.floats, strips*floatChunk*lanes)
	panels := ceilDiv(x.n, e.k.Panel)
	for c := 0; c < w.Cols; c += floatChunk {
		cols := min(floatChunk, w.Cols-c)
		for i := range strips {
			e.unpackFloats(s, i, w, first+i*lanes, rows-i*lanes, c, cols)
		}
		for p := range panels {
			from, to := p*x.n/panels, (p+1)*x.n/panels
			for i := range strips {
				e.dotFloats(s, i, x.x[from*x.cols+c:], x.cols, cols, y[from*ldy+i*lanes:], ldy, min(rows-i*lanes, lanes), to-from, c > 0)
			}
		}
	}
}

// vecFloats is vecUnit for float weights.
func (e *Engine) vecFloats(w *quant.Matrix, first, rows *int, x *view, y *[]float32, ldy int) bool {
	vec, lanes := e.k.VecF32, e.k.Lanes
	switch w.Type {
	case quant.F32:
	case quant.F16:
		vec = e.k.VecF16
	case quant.BF16:
		vec = e.k.VecBF16
	default:
		return false
	}
	if x.n > len(vec) || w.Cols%floatGroup != 0 {
		return false
	}
	stride, _ := rowBytes(w)
	for ; *rows >= lanes; *rows -= lanes {
		vec[x.n-1](&(*y)[0], ldy, &w.Quants[*first*stride], stride, &x.x[0], x.cols, w.Cols/floatGroup)
		*first += lanes
		if *rows > lanes {
			*y = (*y)[lanes:]
		}
	}
	return *rows == 0
}

// dotFloats adds cols columns of n rows of x times strip i.
func (e *Engine) dotFloats(s *scratch, i int, x []float32, ldx, cols int, y []float32, ldy, rows, n int, add bool) {
	lanes := e.k.Lanes
	at, ld := &y[0], ldy
	if rows < lanes {
		s.tile = memory.Aligned(s.tile, maxPanel*maxLanes)
		at, ld = &s.tile[0], lanes
		for r := 0; add && r < n; r++ {
			copy(s.tile[r*lanes:r*lanes+rows], y[r*ldy:])
		}
	}
	b := s.floats[i*floatChunk*lanes:]
	flag := 0
	if add {
		flag = 1
	}
	e.k.DotFloat[n-1](at, ld, &x[0], ldx, &b[0], lanes, cols, flag)
	if rows < lanes {
		s.copyTile(y, ldy, lanes, rows, n)
	}
}

// unpackFloats readies columns c..c+cols-1 of rows first.. as strip i; columns
// up to the next multiple of floatGroup are zero.
func (e *Engine) unpackFloats(s *scratch, i int, w *quant.Matrix, first, rows, c, cols int) {
	k, lanes := e.k, e.k.Lanes
	dst := s.floats[i*floatChunk*lanes:]
	kernel, size, plane := k.UnpackF32, 4, w.Quants
	stride, _ := rowBytes(w)
	switch w.Type {
	case quant.F16:
		kernel, size = k.UnpackF16, 2
	case quant.BF16:
		kernel, size = k.UnpackBF16, 2
	case quant.F32:
	default:
		e.decode(s, w, first, min(rows, lanes), c, cols)
		plane = unsafe.Slice((*byte)(unsafe.Pointer(&s.decoded[0])), 4*len(s.decoded))
		first, c, stride = 0, 0, 4*floatChunk
	}
	src := s.rowsOf(plane, stride, first, rows, lanes)
	if c > 0 {
		src = (*byte)(unsafe.Add(unsafe.Pointer(src), c*size))
	}
	groups, rest := cols/floatGroup, cols%floatGroup
	if groups > 0 {
		kernel(&dst[0], src, stride, groups)
	}
	if rest > 0 {
		kernel(&dst[groups*floatGroup*lanes], s.tailOf(src, stride, groups*floatGroup*size, rest*size, lanes), tailStride, 1)
	}
}

// decode writes columns of quantised rows to s.decoded, floatChunk apart.
func (e *Engine) decode(s *scratch, w *quant.Matrix, first, rows, c, cols int) {
	s.decoded = memory.Aligned(s.decoded, maxLanes*floatChunk)
	q, sc := rowBytes(w)
	for r := range rows {
		part := quant.Matrix{Type: w.Type, Rows: 1, Cols: cols,
			Quants: w.Quants[(first+r)*q+w.Type.QuantsRowBytes(c):], Scales: w.Scales[(first+r)*sc+w.Type.ScalesRowBytes(c):]}
		part.Row(s.decoded[r*floatChunk:r*floatChunk+cols], 0)
	}
}
