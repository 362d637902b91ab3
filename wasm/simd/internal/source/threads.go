package source

import "fmt"

// Threads are instances of a module over one shared memory, each in a Web Worker
// of its own. One, the caller of "share", runs Go; the others stay in "help".
//
// A job is a round that is open while the caller works on it. A helper enters an
// open round; when the caller finds nothing left to do it closes the round and
// waits for those inside. A helper that sleeps, or whose core another process has
// taken, is thus missed but not waited for. (exec/cpu/kernel's pool does the same.)
//
// The pool lies in memory that Go gives. Its words are a cache line apart:
const (
	poolState    = 0   // round·512 + 256 where it is closed + helpers that have entered
	poolNext     = 64  // number of the next chunk of rows
	poolLeft     = 128 // helpers that have left the round
	poolSleepers = 192
	poolJob      = 256 // the job's words, in order: see job
)

const (
	stateClosed = 256
	stateRound  = 512
)

// job are a product's arguments, and how its rows are divided: the kind counts
// in types, and each thread has its own scratch. Addresses have 8 bytes in Go.
var job = []struct {
	name string
	at   int
}{{"kind", 0}, {"y", 8}, {"ldy", 16}, {"q", 24}, {"d", 32}, {"rows", 40}, {"blocks", 44}, {"x", 48}, {"ldx", 56}, {"n", 60}, {"scratch", 64}, {"scratch_bytes", 72}, {"chunk", 76}}

// spins is how often a helper polls for the next round before it sleeps: longer
// than what lies between two products of a layer.
const spins = 60000

func (g *generator) threads() {
	if !g.Shared {
		return
	}
	load := func(offset int) string { return access("i32.atomic.load", get("p"), offset) }
	add := func(offset, by int) string {
		return fmt.Sprintf("(i32.atomic.rmw.add offset=%d %s %s)", offset, get("p"), number(by))
	}

	g.line("(func $work%s", params("p", "thread"))
	g.locals("i32", "from", "to")
	for _, word := range job {
		g.locals("i32", word.name)
	}
	for _, word := range job {
		g.set(word.name, access("i32.load", get("p"), poolJob+word.at))
	}
	g.set("scratch", bin("i32.add", get("scratch"), bin("i32.mul", get("thread"), get("scratch_bytes"))))
	g.line(" (block $done (loop $chunk")
	g.set("from", bin("i32.mul", add(poolNext, 1), get("chunk")))
	g.line(" (br_if $done %s)", bin("i32.ge_u", get("from"), get("rows")))
	g.set("to", bin("i32.add", get("from"), get("chunk")))
	g.line(" (if %s (then (local.set $to %s)))", bin("i32.gt_u", get("to"), get("rows")), get("rows"))
	for i, t := range types {
		g.line(" (if %s (then (call $%s %s %s %s %s %s %s %s %s %s %s %s)))", bin("i32.eq", get("kind"), number(i)), t.name,
			get("y"), get("ldy"), get("q"), get("d"), get("from"), get("to"), get("blocks"), get("x"), get("ldx"), get("n"), get("scratch"))
	}
	g.line(" (br $chunk)))")
	g.line(")")

	g.line(`(func (export "share")%s`, params("p"))
	g.locals("i32", "entered")
	g.line(" (i32.atomic.store offset=%d %s (i32.const 0))", poolNext, get("p"))
	g.line(" (i32.atomic.store offset=%d %s (i32.const 0))", poolLeft, get("p"))
	g.line(" (i32.atomic.store %s %s)", get("p"), times(plus(bin("i32.shr_u", load(poolState), number(9)), 1), stateRound))
	g.line(" (if %s (then (drop (memory.atomic.notify %s (i32.const -1)))))", load(poolSleepers), get("p"))
	g.line(" (call $work %s (i32.const 0))", get("p"))
	g.set("entered", bin("i32.and", fmt.Sprintf("(i32.atomic.rmw.or %s %s)", get("p"), number(stateClosed)), number(stateClosed-1)))
	g.while("inside", bin("i32.ne", load(poolLeft), get("entered")), func() {})
	g.line(")")

	g.line(`(func (export "help")%s`, params("p", "thread"))
	g.locals("i32", "state", "seen", "spins")
	g.set("seen", bin("i32.shr_u", load(poolState), number(9)))
	g.line(" (loop $next")
	g.set("state", load(poolState))
	g.line(" (if %s (then", bin("i32.eq", bin("i32.shr_u", get("state"), number(9)), get("seen")))
	g.add("spins", 1)
	g.line(" (if %s (then", bin("i32.gt_u", get("spins"), number(spins)))
	g.line(" (drop %s)", add(poolSleepers, 1))
	g.line(" (drop (memory.atomic.wait32 %s %s (i64.const -1)))", get("p"), get("state"))
	g.line(" (drop %s)", add(poolSleepers, -1))
	g.set("spins", number(0))
	g.line(" ))")
	g.line(" (br $next)))")
	g.set("spins", number(0))
	g.line(" (if %s (then", bin("i32.and", get("state"), number(stateClosed))) // too late
	g.set("seen", bin("i32.shr_u", get("state"), number(9)))
	g.line(" (br $next)))")
	g.line(" (br_if $next (i32.ne (i32.atomic.rmw.cmpxchg %s %s %s) %s))", get("p"), get("state"), plus(get("state"), 1), get("state"))
	g.set("seen", bin("i32.shr_u", get("state"), number(9)))
	g.line(" (call $work %s %s)", get("p"), get("thread"))
	g.line(" (drop %s)", add(poolLeft, 1))
	g.line(" (br $next))")
	g.line(")")
}
