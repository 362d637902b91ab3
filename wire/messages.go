package wire

import (
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// Control messages: one JSON object a text frame, "type" first. Each struct
// here is one type; Encode and Decode in control.go know all of them.

// Hello is the first message of a worker.
type Hello struct {
	Version  int      `json:"version"` // of the protocol
	Token    string   `json:"token"`   // the join token
	Name     string   `json:"name"`    // shown to people, at most MaxName characters
	Kind     string   `json:"kind"`    // "native" or "browser"
	Build    string   `json:"build"`
	Backend  string   `json:"backend"`          // "cpu avx512vnni", "webgpu nvidia/ada"
	Device   string   `json:"device,omitempty"` // what people call it: "Laptop, Chrome on Windows"
	Resume   string   `json:"resume,omitempty"` // the key of an earlier Welcome: the same worker comes back
	Capacity Capacity `json:"capacity"`
}

// Capacity is what a worker offers, measured before it joins.
type Capacity struct {
	Bytes      int64   `json:"bytes"` // for weights and KV cache together
	MaxBinding int64   `json:"max_binding,omitempty"`
	ReadGBs    float64 `json:"read_gbs"`    // weight bytes a second through a matvec, 10^9
	DispatchMs float64 `json:"dispatch_ms"` // fixed cost of one operation
	ReadbackMs float64 `json:"readback_ms"` // fixed cost of a pass leaving the device
	Credit     int     `json:"credit"`      // passes that it may hold at once
	Threads    int     `json:"threads,omitempty"`
}

// Welcome answers Hello.
type Welcome struct {
	Version     int    `json:"version"`
	Worker      string `json:"worker"` // its id
	Resume      string `json:"resume"` // to come back as the same worker
	Build       string `json:"build"`
	Manifest    string `json:"manifest"`     // hash of the manifest; "" before a model is chosen
	HeartbeatMs int    `json:"heartbeat_ms"` // a peer silent for three of these is gone
}

// Assign asks a worker to load a span beside those it has. Span numbers are
// the coordinator's, never used twice.
type Assign struct {
	Span     uint32     `json:"span"`
	Manifest string     `json:"manifest"` // hash of the manifest: GET /shards/<hash>/manifest.json, pieces below /shards/<hash>/pieces/
	Range    model.Span `json:"range"`
	Slots    SlotPlan   `json:"slots"`
}

// Release asks a worker to drop a span.
type Release struct {
	Span uint32 `json:"span"`
}

// Progress tells how far an assigned span is loaded.
type Progress struct {
	Span   uint32 `json:"span"`
	Loaded int64  `json:"loaded"`
	Total  int64  `json:"total"`
	Cached int64  `json:"cached"`
}

// Ready says that a span is loaded and serves.
type Ready struct {
	Span        uint32  `json:"span"`
	WeightBytes int64   `json:"weight_bytes"`
	StepMs      float64 `json:"step_ms"` // a one-row pass, measured
}

// Refuse says that an assigned span cannot be loaded or was lost.
type Refuse struct {
	Span   uint32 `json:"span"`
	Code   string `json:"code"` // "no_room", "load_failed", "device_lost"
	Reason string `json:"reason"`
	Needed int64  `json:"needed,omitempty"`
	Have   int64  `json:"have,omitempty"`
}

// Trim forgets a slot's positions from Length on; 0 frees the slot.
type Trim struct {
	Span   uint32 `json:"span"`
	Slot   int32  `json:"slot"`
	Length int32  `json:"length"`
}

// Cancel asks that a pass which has not begun be skipped; its answer is a
// Failed with code "cancelled".
type Cancel struct {
	Pass uint64 `json:"pass"`
}

// Failed answers a pass that gave no rows.
type Failed struct {
	Pass   uint64 `json:"pass"`
	Span   uint32 `json:"span"`
	Code   string `json:"code"` // "stale_slot", "unknown_span", "bad_pass", "device_lost", "cancelled", "internal"
	Reason string `json:"reason"`
}

// Stats tells what a worker does, at most once a second.
type Stats struct {
	Passes    int64 `json:"passes"`
	Rows      int64 `json:"rows"`
	KVBytes   int64 `json:"kv_bytes"`
	Hidden    bool  `json:"hidden,omitempty"`    // its tab is hidden
	Throttled bool  `json:"throttled,omitempty"` // its timers come late
}

// Ping and Pong carry a number back and forth: liveness and round-trip time.
type Ping struct {
	Nonce uint64 `json:"nonce"`
}

// Pong answers a Ping with its number.
type Pong struct {
	Nonce uint64 `json:"nonce"`
}

// Leave says that a peer goes, in good order.
type Leave struct {
	Reason string `json:"reason"`
}

// Error is the one message before a peer closes a connection.
type Error struct {
	Code    string `json:"code"` // "version", "token", "limit", "protocol", "busy", "removed"
	Message string `json:"message"`
	RetryMs int    `json:"retry_ms,omitempty"` // 0: do not come back
}

// A PassFrame is a binary frame: a pass on its way to a worker, or its result.
type PassFrame struct {
	Result bool
	Pass   uint64
	Span   uint32
	// Timing of a result, in microseconds: waiting in the worker's queue,
	// computing, and reading back.
	QueueUs, ComputeUs, ReadbackUs uint32
	// F16 tells of a decoded frame how its hidden rows travelled.
	F16 bool
	State
}

// A SlotPlan says how much KV cache an executor keeps.
type SlotPlan struct {
	Slots     int        `json:"slots"`     // sequences at once
	Positions int        `json:"positions"` // of one sequence
	KV        quant.Type `json:"kv"`        // f32, f16 or q8_0
	// Round is whether the residual is rounded to f16 after every layer
	// (false: --activations f32). See quant.RoundRow.
	Round bool `json:"round"`
	// Exact is whether quantised weights are multiplied by activations as they
	// are (--activations f32) also where a backend's faster way is to quantise
	// those to 8 bits. Only then do backends of every kind agree to f32's last
	// bits.
	Exact bool `json:"exact,omitempty"`
}

// A Row says where a row of a pass belongs: position Pos of the sequence that
// owns slot Slot. An epoch names one use of a slot: a row with a new epoch and
// position 0 begins a new sequence there; any other row must have the slot's
// epoch and its next position. Rows of one slot stand in ascending order.
type Row struct {
	Slot  int32
	Epoch uint32
	Pos   int32
}

// State is what travels between two spans. Between layers: Rows and Hidden,
// the residual. At a cut inside a layer Hidden is the running sum (residual,
// shared experts and the experts so far), and the rest is there too.
type State struct {
	Rows    []Row
	Hidden  []float32 // rows × hidden
	Normed  []float32 // rows × hidden: the FFN's normed input
	Chosen  []int32   // rows × MoE.PerToken: ids of the chosen experts, ascending
	Weights []float32 // rows × MoE.PerToken: their weights
}
