package kernel

import (
	"math"
	"unsafe"

	"github.com/potluck-llm/potluck/internal/memory"
	"github.com/potluck-llm/potluck/quant"
)

// attendTask divides attention into tiles: some consecutive rows of one slot ×
// the query heads of one KV head, at most Panel queries.
type attendTask struct {
	e      *Engine
	out, q []float32
	caches []*Cache
	pos    []int32
	heads  Heads
	scale  float32
	tiles  []tile
	share  shares
	whole  Attention // for Variant.Attend
}

// Heads are those of a call: Query heads, in equal groups that each share one of KV
// heads of the caches, from head First on. Results are the same to the bit for all heads
// at once and for as many as HeadBand tells.
type Heads struct{ Query, First, KV int }

// A tile is rows from..to-1, which read the same cache.
type tile struct{ from, to int }

// Attend computes causal attention: row r of q (n × heads.Query·headDim) reads
// positions 0..pos[r] of caches[r] and writes row r of out, which may be q. The
// softmax is online, a page of positions after another, in float32; page bounds do
// not depend on the pass, so neither does a row's result.
func (e *Engine) Attend(out, q []float32, caches []*Cache, pos []int32, heads Heads, scale float32) {
	if len(caches) == 0 {
		return
	}
	t := &e.attend
	t.e, t.out, t.q, t.caches, t.pos, t.heads, t.scale = e, out, q, caches, pos, heads, scale
	rows := max(e.k.Panel/(heads.Query/heads.KV), 1)
	t.tiles = t.tiles[:0]
	work := 0
	for from := 0; from < len(caches); {
		to := from + 1
		for to < len(caches) && to-from < rows && caches[to] == caches[from] {
			to++
		}
		t.tiles = append(t.tiles, tile{from, to})
		work += int(pos[to-1]+1) * (to - from) * heads.Query * caches[from].headDim
		from = to
	}
	if e.k.Attend != nil && t.together(work) {
		e.k.Attend(&t.whole)
		return
	}
	n := len(t.tiles) * heads.KV
	t.share.reset(n, t.e.pool.threads)
	if n == 1 || work < 4*rowsWork {
		t.run(0)
		return
	}
	e.pool.do(t)
}

// together readies what Variant.Attend takes and tells whether it can.
func (t *attendTask) together(work int) bool {
	d := t.caches[0].headDim
	if d%16 != 0 || t.heads.KV != t.caches[0].kvHeads {
		return false
	}
	t.whole = Attention{Out: &t.out[0], Q: &t.q[0], Positions: &t.pos[0], Tiles: t.whole.Tiles[:0],
		Heads: t.heads.Query, KVHeads: t.heads.KV, HeadDim: d, Scale: t.scale, Work: work}
	for _, tl := range t.tiles {
		c := t.caches[tl.from]
		if c.t != quant.F16 {
			return false
		}
		t.whole.Tiles = append(t.whole.Tiles, AttentionTile{From: int32(tl.from), To: int32(tl.to), Pages: &c.starts[0]})
	}
	return true
}

func (t *attendTask) run(thread int) {
	s := &t.e.local[thread]
	for {
		u, ok := t.share.take(thread)
		if !ok {
			return
		}
		// The last rows of a prompt read most: they go first.
		tile, kv := t.tiles[len(t.tiles)-1-u/t.heads.KV], u%t.heads.KV
		group := t.heads.Query / t.heads.KV
		for g := 0; g < group; g += t.e.k.Panel {
			t.attend(s, tile, t.heads.First+kv, kv*group+g, min(group-g, t.e.k.Panel))
		}
	}
}

// attend computes queries first..first+heads-1 of a tile's rows, which read KV head kv.
func (t *attendTask) attend(s *scratch, tl tile, kv, first, heads int) {
	cache := t.caches[tl.from]
	k, d, n := t.e.k, cache.headDim, (tl.to-tl.from)*heads
	s.queries = memory.Aligned(s.queries, 2*n*d)
	s.scores = memory.Aligned(s.scores, n*pagePositions)
	s.values = memory.Aligned(s.values, pagePositions*d)
	s.state = memory.Aligned(s.state, 2*n)
	queries, sums := s.queries[:n*d], s.queries[n*d:2*n*d]
	largest, total := s.state[:n], s.state[n:2*n]
	for i := range n {
		row, head := tl.from+i/heads, first+i%heads
		k.scale(queries[i*d:(i+1)*d], t.q[(row*t.heads.Query+head)*d:], t.scale)
		largest[i], total[i] = float32(math.Inf(-1)), 0
	}
	clear(sums)
	last := int(t.pos[tl.from])
	for _, p := range t.pos[tl.from:tl.to] {
		last = max(last, int(p))
	}
	for page := 0; page*pagePositions <= last; page++ {
		held := min(last+1-page*pagePositions, pagePositions)
		values, next := cache.at(page, cache.kvHeads+kv), cache.at(page+1, kv)
		if (page+1)*pagePositions > last {
			next = cache.at(0, (kv+1)%cache.kvHeads)
		}
		k.scores(s, cache, page, kv, queries, n, held, values)
		for i := range n {
			own := int(t.pos[tl.from+i/heads]) + 1 - page*pagePositions
			k.softmaxPage(s.scores[i*pagePositions:(i+1)*pagePositions], own, sums[i*d:(i+1)*d], &largest[i], &total[i])
		}
		k.weigh(s, cache, page, kv, sums, n, held, next)
	}
	for i := range n {
		row, head := tl.from+i/heads, first+i%heads
		k.scale(t.out[(row*t.heads.Query+head)*d:][:d], sums[i*d:], 1/total[i])
	}
}

// scores computes n queries times the keys of a page's first held positions, and
// asks for what is read after them.
func (v *Variant) scores(s *scratch, c *Cache, page, kv int, queries []float32, n, held int, ahead uintptr) {
	d := c.headDim
	if c.t == quant.F16 && v.DotHalf != nil {
		scoresOf(v.Lanes, v.DotHalf, v.DotHalf4, s.scores, c.pages[page].f16[kv*pagePositions*d:], queries, n, d, held, ahead)
	} else {
		scoresOf(v.Lanes, v.DotFloat, v.DotFloat4, s.scores, c.keys(v, page, kv, held, s.values), queries, n, d, held, ahead)
	}
}

// weigh adds to n sums of headDim numbers the values of a page's first held
// positions, weighted with the scores, and asks for what is read after them.
func (v *Variant) weigh(s *scratch, c *Cache, page, kv int, sums []float32, n, held int, ahead uintptr) {
	d := c.headDim
	if c.t == quant.F16 && v.DotHalf != nil && d%v.Lanes == 0 {
		weighOf(v.Lanes, v.DotHalf, v.DotHalf4, sums, c.pages[page].f16[(c.kvHeads+kv)*pagePositions*d:], s.scores, n, d, held, ahead)
		return
	}
	values := c.values(v, page, kv, held, s.values)
	weighOf(v.Lanes, v.DotFloat, v.DotFloat4, sums, values, s.scores, n, d, held, ahead)
	for i := 0; i < n && d%v.Lanes != 0; i++ {
		for p := range held {
			w := s.scores[i*pagePositions+p]
			for j := d / v.Lanes * v.Lanes; j < d; j++ {
				sums[i*d+j] += float32(w * values[p*d+j])
			}
		}
	}
}

type (
	product[T any]  = func(y *float32, ldy int, a *float32, lda int, b *T, ldb, k, add int)
	product4[T any] = func(y *float32, ldy, ystep int, a *float32, lda int, b *T, ldb, step, k, add int, ahead uintptr)
)

func scoresOf[T any](lanes int, dot []product[T], dot4 []product4[T], scores []float32, keys []T, queries []float32, n, d, held int, ahead uintptr) {
	const together = 4 * maxLanes
	if n <= len(dot4) && held > together/2 && len(keys) >= together*d {
		for lane := 0; lane < maxLanes; lane += lanes {
			dot4[n-1](&scores[lane], pagePositions, maxLanes, &queries[0], d, &keys[lane], maxLanes, maxLanes*d, d, 0, ahead)
			ahead += uintptr(4*lanes*d) * unsafe.Sizeof(keys[0])
		}
		return
	}
	for at := 0; at < held; at += lanes {
		dot[n-1](&scores[at], pagePositions, &queries[0], d, &keys[at/maxLanes*maxLanes*d+at%maxLanes], maxLanes, d, 0)
	}
}

func weighOf[T any](lanes int, dot []product[T], dot4 []product4[T], sums []float32, values []T, weights []float32, n, d, held int, ahead uintptr) {
	i := 0
	for ; n <= len(dot4) && i+4*lanes <= d; i += 4 * lanes {
		dot4[n-1](&sums[i], d, lanes, &weights[0], pagePositions, &values[i], d, lanes, held, 1, ahead)
		ahead += uintptr(4*lanes*held) * unsafe.Sizeof(values[0])
	}
	for ; i+lanes <= d; i += lanes {
		dot[n-1](&sums[i], d, &weights[0], pagePositions, &values[i], d, held, 1)
	}
}

// softmaxPage turns a query's scores of a page, of which the first own count,
// into weights and rescales what it has summed so far.
func (v *Variant) softmaxPage(scores []float32, own int, sum []float32, largest, total *float32) {
	if own <= 0 {
		clear(scores)
		return
	}
	for i := own; i < len(scores); i++ {
		scores[i] = float32(math.Inf(-1))
	}
	top := max(*largest, v.Max(&scores[0], len(scores)))
	if top > *largest {
		if scale := float32(math.Exp(float64(*largest - top))); *total > 0 {
			v.scale(sum, sum, scale)
			*total *= scale
		}
		*largest = top
	}
	*total += v.ExpSum(&scores[0], len(scores), top)
}
