package kernel

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counting is a task that counts how often each of its shares ran.
type counting struct {
	share shares
	ran   []atomic.Int32
	by    []atomic.Int32 // of each thread
	slow  int            // a thread that dawdles; 0: none
}

func (c *counting) run(thread int) {
	if thread > 0 && thread == c.slow {
		time.Sleep(200 * time.Microsecond)
	}
	for {
		i, ok := c.share.take(thread)
		if !ok {
			return
		}
		c.ran[i].Add(1)
		c.by[thread].Add(1)
	}
}

// Every share of every job runs once, whoever sleeps, dawdles or comes late.
func TestPoolRunsEachShareOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		p := newPool(threads)
		c := &counting{ran: make([]atomic.Int32, 50), by: make([]atomic.Int32, threads)}
		const jobs = 400
		for job := range jobs {
			n := 1 + job%len(c.ran)
			for i := range c.ran {
				c.ran[i].Store(0)
			}
			c.slow = 0
			if job%16 == 0 {
				c.slow = threads - 1
			}
			if job%100 == 99 {
				time.Sleep(3 * spinFor) // workers fall asleep
			}
			c.share.reset(n, threads)
			p.do(c)
			for i := range c.ran {
				want := int32(0)
				if i < n {
					want = 1
				}
				require.Equal(t, want, c.ran[i].Load(), "threads %d, job %d, share %d of %d", threads, job, i, n)
			}
		}
		p.close()
		p.close() // again does nothing
	}
}

// waiting is a task whose caller ends only when another thread has come.
type waiting struct{ came atomic.Bool }

func (w *waiting) run(thread int) {
	for thread == 0 && !w.came.Load() {
		time.Sleep(10 * time.Microsecond)
	}
	if thread > 0 {
		w.came.Store(true)
	}
}

// A worker that has fallen asleep is woken by the next job.
func TestPoolWakesSleepers(t *testing.T) {
	p := newPool(2)
	defer p.close()
	for range 5 {
		time.Sleep(5 * spinFor)
		done := make(chan struct{})
		go func() { p.do(&waiting{}); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			require.Fail(t, "no worker came")
		}
	}
}
