package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// spinFor is how long a thread polls for the next job before it sleeps: longer
// than the gap between two operations of a layer, so that waking up (some
// microseconds, 200 times a token) happens once a token at most.
const spinFor = 100 * time.Microsecond

// spinsBetween is how often a thread polls, some microseconds in all, before it
// lets other goroutines run: several engines may share the cores.
const spinsBetween = 64

// A task is work that threads share. Threads divide it among themselves.
type task interface{ run(thread int) }

// pool keeps threads-1 goroutines; the caller of do is thread 0.
type pool struct {
	threads int
	current task
	round   atomic.Uint32 // counts jobs; a change starts one
	pending atomic.Int32  // threads that have not finished it
	workers []poolWorker
	closing bool
	done    sync.WaitGroup
}

type poolWorker struct {
	asleep atomic.Bool
	wake   chan struct{}
	_      [40]byte // a cache line each
}

func newPool(threads int) *pool {
	p := &pool{threads: threads, workers: make([]poolWorker, threads-1)}
	for i := range p.workers {
		p.workers[i].wake = make(chan struct{}, 1)
		p.done.Add(1)
		go p.work(i)
	}
	return p
}

// do runs t on all threads and returns when all are done.
func (p *pool) do(t task) {
	if p.threads == 1 {
		t.run(0)
		return
	}
	p.current = t
	p.start()
	t.run(0)
	for spins := 1; p.pending.Load() != 0; spins++ {
		pause()
		if spins%spinsBetween == 0 { // perhaps a worker waits for our core
			runtime.Gosched()
		}
	}
}

// start releases the workers into the next round.
func (p *pool) start() {
	p.pending.Store(int32(len(p.workers)))
	p.round.Add(1)
	for i := range p.workers {
		if w := &p.workers[i]; w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
}

func (p *pool) work(i int) {
	defer p.done.Done()
	for seen := uint32(0); ; {
		seen = p.await(&p.workers[i], seen)
		if p.closing {
			return
		}
		p.current.run(i + 1)
		p.pending.Add(-1)
	}
}

// await returns the number of the round after seen: polling first, then asleep.
func (p *pool) await(w *poolWorker, seen uint32) uint32 {
	var since time.Time
	for spins := 1; ; spins++ {
		if r := p.round.Load(); r != seen {
			return r
		}
		pause()
		if spins%spinsBetween != 0 {
			continue
		}
		runtime.Gosched()
		if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > spinFor {
			w.asleep.Store(true)
			if p.round.Load() == seen || !w.asleep.CompareAndSwap(true, false) {
				<-w.wake
			}
			since = time.Time{}
		}
	}
}

func (p *pool) close() {
	if p.closing {
		return
	}
	p.closing = true
	p.start()
	p.done.Wait()
}

// shares hands out numbers 0..n-1. Each thread first takes its own range in
// order, so that it goes on where its prefetches went, and then helps others.
type shares struct {
	ranges []shareRange
}

type shareRange struct {
	next atomic.Int64
	end  int64
	_    [48]byte // a cache line each
}

func (s *shares) reset(n, threads int) {
	if len(s.ranges) != threads {
		s.ranges = make([]shareRange, threads)
	}
	for i := range s.ranges {
		s.ranges[i].next.Store(int64(i * n / threads))
		s.ranges[i].end = int64((i + 1) * n / threads)
	}
}

// take returns a number for thread, false when none is left.
func (s *shares) take(thread int) (int, bool) {
	for i := range s.ranges {
		r := &s.ranges[(thread+i)%len(s.ranges)]
		if r.next.Load() >= r.end {
			continue
		}
		if n := r.next.Add(1) - 1; n < r.end {
			return int(n), true
		}
	}
	return 0, false
}
