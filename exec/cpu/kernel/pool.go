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

// A task is work that threads share. Threads divide it among themselves; it is
// whole whichever of them take part, the caller's thread 0 always among them.
type task interface{ run(thread int) }

// pool keeps threads-1 goroutines; the caller of do is thread 0.
//
// A job is a round that is open while the caller works on it. A worker enters
// an open round; when the caller finds nothing left to do it closes the round
// and waits for those inside. A worker that sleeps, or whose core another
// process has taken, is thus missed but not waited for.
type pool struct {
	threads int
	current task
	state   atomic.Uint64 // round<<32, roundClosed, and how many workers have entered
	left    atomic.Uint32 // workers that have left the round
	workers []poolWorker
	closing atomic.Bool
	done    sync.WaitGroup
}

// roundClosed in pool.state means that nobody may enter any more.
const roundClosed = 1 << 31

type poolWorker struct {
	asleep atomic.Bool
	wake   chan struct{}
	_      [40]byte // a cache line each
}

func newPool(threads int) *pool {
	p := &pool{threads: threads, workers: make([]poolWorker, threads-1)}
	p.state.Store(roundClosed)
	for i := range p.workers {
		p.workers[i].wake = make(chan struct{}, 1)
		p.done.Add(1)
		go p.work(i)
	}
	return p
}

// do runs t on all threads that have time and returns when it is done.
func (p *pool) do(t task) {
	if p.threads == 1 {
		t.run(0)
		return
	}
	p.current = t
	p.left.Store(0)
	p.open(0)
	t.run(0)
	entered := uint32(p.state.Or(roundClosed)) &^ roundClosed
	for spins := 1; p.left.Load() != entered; spins++ {
		pause()
		if spins%spinsBetween == 0 { // perhaps a worker waits for our core
			runtime.Gosched()
		}
	}
}

// open begins the next round and wakes who sleeps.
func (p *pool) open(flags uint64) {
	p.state.Store((p.state.Load()>>32+1)<<32 | flags)
	for i := range p.workers {
		if w := &p.workers[i]; w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
}

// enter tells whether a worker may work on the round that state shows.
func (p *pool) enter(state uint64) bool {
	for ; state&roundClosed == 0; state = p.state.Load() {
		if p.state.CompareAndSwap(state, state+1) {
			return true
		}
	}
	return false
}

func (p *pool) work(i int) {
	defer p.done.Done()
	for round := uint32(0); ; {
		state := p.await(&p.workers[i], round)
		if p.closing.Load() {
			return
		}
		round = uint32(state >> 32)
		if p.enter(state) {
			p.current.run(i + 1)
			p.left.Add(1)
		}
	}
}

// await returns the state of a round after the one seen: polling first, then
// asleep.
func (p *pool) await(w *poolWorker, seen uint32) uint64 {
	var since time.Time
	for spins := 1; ; spins++ {
		if s := p.state.Load(); uint32(s>>32) != seen {
			return s
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
			if uint32(p.state.Load()>>32) == seen || !w.asleep.CompareAndSwap(true, false) {
				<-w.wake
			}
			since = time.Time{}
		}
	}
}

func (p *pool) close() {
	if p.closing.Swap(true) {
		return
	}
	p.open(roundClosed)
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
