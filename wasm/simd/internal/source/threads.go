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
// A job is attention, or some products of the same activations. Of these each thread has a range of
// every one's rows, and walks it in order, some steps at a time: memory is read
// fast in long streams only. When all steps of its own are taken it helps the
// others. A step is a row of each stream where there is one row of activations, a
// strip of rows otherwise.
//
// The pool lies in memory that Go gives. Its words are a cache line apart:
const (
	poolState     = 0  // round·512 + 256 where it is closed + helpers that have entered
	poolLeft      = 64 // helpers that have left the round
	poolSleepers  = 128
	poolTaken     = 192                        // for each thread, how many steps of its ranges are taken
	poolJob       = poolTaken + 64*poolThreads // the job's words: see job
	poolProducts  = poolJob + 48               // its products, productBytes each: see product
	productBytes  = 40
	poolAttention = poolProducts + 8*productBytes // the words of attention, where there are no products
)

// poolThreads have ranges of their own; more would share them.
const poolThreads = 16

const (
	stateClosed = 256
	stateRound  = 512
)

// A word is one of Go's structs job and product in package simd. Addresses have 8
// bytes in Go.
type word struct {
	name string
	at   int
}

// job is what its products share; each thread has its own scratch.
var job = []word{{"products", 0}, {"threads", 4}, {"n", 8}, {"blocks", 12}, {"ldx", 16}, {"chunk", 20}, {"x", 24}, {"scratch", 32}, {"scratch_bytes", 40}}

// product is one of them; the kind counts in types.
var product = []word{{"kind", 0}, {"rows", 4}, {"y", 8}, {"ldy", 16}, {"q", 24}, {"d", 32}}

// spins is how often a helper polls for the next round before it sleeps: longer
// than what lies between two products of a layer.
const spins = 60000

func (g *generator) threads() {
	if !g.Shared {
		return
	}
	g.steps()
	g.rest()
	g.work()
	g.share()
	g.help()
}

// read sets locals to what the words at p+base hold, which it declares.
func (g *generator) read(words []word, base int) {
	for _, w := range words {
		g.locals("i32", w.name)
	}
	for _, w := range words {
		g.set(w.name, access("i32.load", get("p"), base+w.at))
	}
}

// call is a type's product of rows from..to-1.
func (g *generator) call(t weightType, from, to string) {
	g.line(" (call $%s %s %s %s %s %s %s %s %s %s %s %s)", t.name,
		get("y"), get("ldy"), get("q"), get("d"), from, to, get("blocks"), get("x"), get("ldx"), get("n"), get("scratch"))
}

// least is the smaller of two.
func least(a, b string) string { return fmt.Sprintf("(select %s %s %s)", a, b, bin("i32.lt_s", a, b)) }

// steps computes steps from..to-1 of a range of the product at p, which begins
// with step first and has gap of them.
func (g *generator) steps() {
	g.line("(func $steps%s", params("p", "first", "gap", "from", "to", "n", "blocks", "x", "ldx", "scratch"))
	g.locals("i32", "qrow", "drow")
	g.read(product, 0)
	for i, t := range types {
		g.line(" (if %s (then", bin("i32.eq", get("kind"), number(i)))
		g.line(" (if (i32.ne %s (i32.const 1)) (then", get("n"))
		g.call(t, times(bin("i32.add", get("first"), get("from")), stripRows), least(times(bin("i32.add", get("first"), get("to")), stripRows), get("rows")))
		g.line(" (return)))")
		g.set("qrow", times(get("blocks"), t.quants))
		g.set("drow", times(get("blocks"), t.scales))
		g.set("first", bin("i32.add", times(get("first"), streams), get("from"))) // a row now
		g.set("y", bin("i32.add", get("y"), times(get("first"), 4)))
		g.set("q", bin("i32.add", get("q"), bin("i32.mul", get("first"), get("qrow"))))
		g.set("d", bin("i32.add", get("d"), bin("i32.mul", get("first"), get("drow"))))
		g.while(fmt.Sprint("step", i), bin("i32.lt_u", get("from"), get("to")), func() {
			g.line(" (call $%s_apart %s %s %s %s %s %s)", t.name, get("y"), get("q"), get("d"), get("blocks"), get("x"), get("gap"))
			g.add("y", 4)
			g.set("q", bin("i32.add", get("q"), get("qrow")))
			g.set("d", bin("i32.add", get("d"), get("drow")))
			g.add("from", 1)
		})
		g.line(" ))")
	}
	g.line(")")
}

// rest computes the rows of the product at p that fill no streams.
func (g *generator) rest() {
	g.line("(func $rest%s", params("p", "n", "blocks", "x", "ldx", "scratch"))
	g.read(product, 0)
	g.line(" (if (i32.or (i32.ne %s (i32.const 1)) (i32.eqz %s)) (then (return)))", get("n"), bin("i32.rem_u", get("rows"), number(streams)))
	for i, t := range types {
		g.line(" (if %s (then", bin("i32.eq", get("kind"), number(i)))
		g.call(t, bin("i32.and", get("rows"), number(-streams)), get("rows"))
		g.line(" ))")
	}
	g.line(")")
}

// work takes steps as long as there are any; the caller's thread also does the
// rest of each product.
func (g *generator) work() {
	g.line("(func $work%s", params("p", "thread"))
	g.locals("i32", "owner", "others", "from", "to", "at", "left", "units", "first", "gap", "a", "b")
	g.read(job, poolJob)
	g.line(" (if (i32.eqz %s) (then (call $units %s %s) (return)))", get("products"), get("p"), get("thread"))
	g.set("scratch", bin("i32.add", get("scratch"), bin("i32.mul", get("thread"), get("scratch_bytes"))))
	g.set("owner", bin("i32.rem_u", get("thread"), get("threads")))
	g.set("others", get("threads"))
	g.while("ranges", get("others"), func() {
		g.line(" (block $taken (loop $take")
		g.set("from", fmt.Sprintf("(i32.atomic.rmw.add offset=%d %s %s)", poolTaken, bin("i32.add", get("p"), times(get("owner"), 64)), get("chunk")))
		g.set("to", bin("i32.add", get("from"), get("chunk")))
		g.eachProduct(func() {
			g.set("units", access("i32.load", get("at"), 4))
			g.set("units", fmt.Sprintf("(select %s %s (i32.eq %s (i32.const 1)))", bin("i32.div_u", get("units"), number(streams)),
				bin("i32.div_u", plus(get("units"), stripRows-1), number(stripRows)), get("n")))
			g.set("first", bin("i32.div_u", bin("i32.mul", get("units"), get("owner")), get("threads")))
			g.set("gap", bin("i32.sub", bin("i32.div_u", bin("i32.mul", get("units"), plus(get("owner"), 1)), get("threads")), get("first")))
			g.set("a", fmt.Sprintf("(select %s (i32.const 0) %s)", get("from"), bin("i32.gt_s", get("from"), number(0))))
			g.set("b", least(get("to"), get("gap")))
			g.line(" (if %s (then (call $steps %s %s %s %s %s %s %s %s %s %s)))", bin("i32.lt_s", get("a"), get("b")),
				get("at"), get("first"), get("gap"), get("a"), get("b"), get("n"), get("blocks"), get("x"), get("ldx"), get("scratch"))
			// Steps are numbered through all products.
			g.set("from", bin("i32.sub", get("from"), get("gap")))
			g.set("to", bin("i32.sub", get("to"), get("gap")))
		})
		g.line(" (br_if $take %s)", bin("i32.lt_s", get("to"), number(0)))
		g.line(" ))")
		g.set("owner", bin("i32.rem_u", plus(get("owner"), 1), get("threads")))
		g.add("others", -1)
	})
	g.line(" (if (i32.eqz %s) (then", get("thread"))
	g.eachProduct(func() {
		g.line(" (call $rest %s %s %s %s %s %s)", get("at"), get("n"), get("blocks"), get("x"), get("ldx"), get("scratch"))
	})
	g.line(" )))")
}

// eachProduct emits body for each product of the job; it lies at local at.
func (g *generator) eachProduct(body func()) {
	g.set("at", plus(get("p"), poolProducts))
	g.set("left", get("products"))
	g.while("products", get("left"), func() {
		body()
		g.add("at", productBytes)
		g.add("left", -1)
	})
}

func word32(offset int) string { return access("i32.atomic.load", get("p"), offset) }

func addTo(offset, by int) string {
	return fmt.Sprintf("(i32.atomic.rmw.add offset=%d %s %s)", offset, get("p"), number(by))
}

// share does a job together with the helpers.
func (g *generator) share() {
	g.line(`(func (export "share")%s`, params("p"))
	g.locals("i32", "entered")
	for i := range poolThreads {
		g.line(" (i32.store offset=%d %s (i32.const 0))", poolTaken+64*i, get("p"))
	}
	g.line(" (i32.atomic.store offset=%d %s (i32.const 0))", poolLeft, get("p"))
	g.line(" (i32.atomic.store %s %s)", get("p"), times(plus(bin("i32.shr_u", word32(poolState), number(9)), 1), stateRound))
	g.line(" (if %s (then (drop (memory.atomic.notify %s (i32.const -1)))))", word32(poolSleepers), get("p"))
	g.line(" (call $work %s (i32.const 0))", get("p"))
	g.set("entered", bin("i32.and", fmt.Sprintf("(i32.atomic.rmw.or %s %s)", get("p"), number(stateClosed)), number(stateClosed-1)))
	g.while("inside", bin("i32.ne", word32(poolLeft), get("entered")), func() {})
	g.line(")")
}

// help is a helper's life.
func (g *generator) help() {
	g.line(`(func (export "help")%s`, params("p", "thread"))
	g.locals("i32", "state", "seen", "spins")
	g.set("seen", bin("i32.shr_u", word32(poolState), number(9)))
	g.line(" (loop $next")
	g.set("state", word32(poolState))
	g.line(" (if %s (then", bin("i32.eq", bin("i32.shr_u", get("state"), number(9)), get("seen")))
	g.add("spins", 1)
	g.line(" (if %s (then", bin("i32.gt_u", get("spins"), number(spins)))
	g.line(" (drop %s)", addTo(poolSleepers, 1))
	g.line(" (drop (memory.atomic.wait32 %s %s (i64.const -1)))", get("p"), get("state"))
	g.line(" (drop %s)", addTo(poolSleepers, -1))
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
	g.line(" (drop %s)", addTo(poolLeft, 1))
	g.line(" (br $next))")
	g.line(")")
}
