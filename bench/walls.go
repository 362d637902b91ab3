package bench

import (
	"sync"
	"time"
	"unsafe"

	"github.com/potluck-llm/potluck/exec/cpu/kernel"
)

// Walls are what the machine can at most do with some threads: no decoding
// reads weights faster than ReadGBs, and no prefill multiplies faster than
// GMACs.
type Walls struct {
	ReadGBs float64 `json:"read_gb_s"` // 10^9 bytes a second from memory
	GMACs   float64 `json:"gmac_s"`    // 10^9 8-bit multiply-adds a second, 0: not known of these kernels
}

const (
	readBytes = 256 << 20 // of each thread, much more than its share of the last cache
	peakTime  = 40 * time.Millisecond
	wallRuns  = 5
)

// MeasureWalls measures both in about a second, the best of some runs each. All
// threads read memory of their own at the same time.
func MeasureWalls(threads int) (Walls, error) {
	e, err := kernel.New(kernel.Options{Threads: threads})
	if err != nil {
		return Walls{}, err
	}
	defer e.Close()
	threads = e.Threads()
	memory := make([][]uint64, threads)
	together(threads, func(i int) int {
		memory[i] = largePages(readBytes)
		for j := range memory[i] { // untouched pages would all be one page of zeros
			memory[i][j] = uint64(j)
		}
		return 0
	})
	var w Walls
	rounds := 1 << 10
	for rounds < 1<<29 { // seconds, on any machine
		start := time.Now()
		if e.Peak(rounds) == 0 || time.Since(start) > peakTime {
			break
		}
		rounds *= 2
	}
	sums := make([]uint64, threads)
	for range wallRuns {
		w.ReadGBs = max(w.ReadGBs, together(threads, func(i int) int {
			if bytes := unsafe.Slice((*byte)(unsafe.Pointer(&memory[i][0])), readBytes); !e.Read(bytes) {
				sums[i] += sum(memory[i])
			}
			return readBytes
		}))
		w.GMACs = max(w.GMACs, together(threads, func(int) int { return e.Peak(rounds) }))
	}
	return w, nil
}

// together runs f on several threads at once and returns what they did, as f
// counts it, in 10^9 a second from the first's start to the last's end.
func together(threads int, f func(i int) int) float64 {
	var begin, end sync.WaitGroup
	counts := make([]int64, threads)
	begin.Add(1)
	for i := range threads {
		end.Add(1)
		go func() {
			defer end.Done()
			begin.Wait()
			counts[i] = int64(f(i))
		}()
	}
	start := time.Now()
	begin.Done()
	end.Wait()
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	return float64(total) / float64(time.Since(start).Nanoseconds())
}

// sum reads x. Eight words in four sums are more loads a second than memory
// gives.
func sum(x []uint64) uint64 {
	var a, b, c, d uint64
	for ; len(x) >= 32; x = x[32:] {
		for i := 0; i < 32; i += 8 {
			v := (*[8]uint64)(x[i:])
			a, b, c, d = a+v[0]+v[4], b+v[1]+v[5], c+v[2]+v[6], d+v[3]+v[7]
		}
	}
	return a + b + c + d
}
