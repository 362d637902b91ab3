package wire_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/wire"
)

var update = flag.Bool("update", false, "write the golden bytes anew")

// messages are one of each control message, with everything set.
func messages() []any {
	slots := wire.SlotPlan{Slots: 4, Positions: 128, KV: quant.F16, Round: true}
	return []any{
		&wire.Hello{Version: 1, Token: "t", Name: "ana", Kind: "native", Build: "b", Backend: "cpu", Device: "laptop", Resume: "r",
			Capacity: wire.Capacity{Bytes: 1 << 30, MaxBinding: 5, ReadGBs: 20, DispatchMs: 0.5, ReadbackMs: 1, Credit: 4, Threads: 2}},
		&wire.Welcome{Version: 1, Worker: "w1", Resume: "r", Build: "b", Manifest: "m", HeartbeatMs: 5000},
		&wire.Assign{Span: 7, Manifest: "m", Range: model.Span{From: model.Cut{Layer: 1, Expert: 5}, To: model.Cut{Layer: 9}}, Slots: slots},
		&wire.Release{Span: 7}, &wire.Progress{Span: 7, Loaded: 1, Total: 2, Cached: 1}, &wire.Ready{Span: 7, WeightBytes: 9, StepMs: 1.5},
		&wire.Refuse{Span: 7, Code: "no_room", Reason: "full", Needed: 2, Have: 1}, &wire.Trim{Span: 7, Slot: 1, Length: 3}, &wire.Cancel{Pass: 9},
		&wire.Failed{Pass: 9, Span: 7, Code: "stale_slot", Reason: "hole"}, &wire.Stats{Passes: 1, Rows: 2, KVBytes: 3, Hidden: true, Throttled: true},
		&wire.Ping{Nonce: 5}, &wire.Pong{Nonce: 5}, &wire.Leave{Reason: "stopped"}, &wire.Error{Code: "token", Message: "wrong", RetryMs: 100},
	}
}

func TestControlRoundTrip(t *testing.T) {
	for _, m := range messages() {
		frame, err := wire.EncodeControl(m)
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(frame), `{"type":"`+wire.TypeOf(m)+`"`), string(frame))
		got, err := wire.DecodeControl(frame)
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	_, err := wire.EncodeControl("hello")
	require.Error(t, err)
}

func TestControlRefusals(t *testing.T) {
	for frame, want := range map[string]string{
		``: "JSON", `[]`: "control message", `{"type":"dance"}`: "dance", `{}`: "unknown type", `{"type":"hello","version":"one"}`: "hello",
		"{\"type\":\"ping\xff\"}": "UTF-8", `{"type":"ping","nonce":-1}`: "ping", `{"type":"assign","slots":{"kv":"q9"}}`: "q9",
	} {
		_, err := wire.DecodeControl([]byte(frame))
		require.ErrorContains(t, err, want, frame)
	}
	_, err := wire.DecodeControl(make([]byte, wire.MaxControl+1))
	require.ErrorContains(t, err, "at most")
	// A later version may add fields.
	got, err := wire.DecodeControl([]byte(`{"type":"ping","nonce":3,"mood":"good"}`))
	require.NoError(t, err)
	require.Equal(t, &wire.Ping{Nonce: 3}, got)
}

// rounded are rows as they leave a layer.
func rounded(r *rand.Rand, rows, hidden int, scale float64) []float32 {
	values := make([]float32, rows*hidden)
	for i := range values {
		values[i] = float32(r.NormFloat64() * scale)
	}
	for i := range rows {
		quant.RoundRow(values[i*hidden : (i+1)*hidden])
	}
	return values
}

func TestPassRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var got wire.PassFrame
	for _, scale := range []float64{1e-6, 1, 1e4, 1e9, 1e30} {
		for _, rows := range []int{1, 2, 3, 5, 64} {
			for _, inside := range []bool{false, true} {
				p := wire.PassFrame{Result: rows%2 == 0, Pass: r.Uint64(), Span: r.Uint32(), QueueUs: 1, ComputeUs: 2, ReadbackUs: 3}
				for i := range rows {
					p.Rows = append(p.Rows, wire.Row{Slot: int32(i), Epoch: r.Uint32(), Pos: int32(i * 7)})
				}
				p.Hidden = rounded(r, rows, 33, scale)
				if inside {
					p.Hidden[0] = float32(math.Pi) // sums are not rounded
					p.Normed = append([]float32(nil), p.Hidden...)
					for range rows * 3 {
						p.Chosen, p.Weights = append(p.Chosen, r.Int32N(99)), append(p.Weights, r.Float32())
					}
				}
				frame, err := wire.AppendPass([]byte("before"), &p, true)
				require.NoError(t, err)
				require.NoError(t, wire.DecodePass(frame[len("before"):], &got))
				require.Equal(t, p.Rows, got.Rows)
				require.Equal(t, p.Hidden, got.Hidden)
				require.Equal(t, [...]any{p.Result, p.Pass, p.Span, p.QueueUs, p.ComputeUs, p.ReadbackUs}, [...]any{got.Result, got.Pass, got.Span, got.QueueUs, got.ComputeUs, got.ReadbackUs})
				if inside {
					require.Equal(t, [...]any{p.Normed, p.Chosen, p.Weights}, [...]any{got.Normed, got.Chosen, got.Weights})
				} else {
					require.Empty(t, got.Chosen)
				}
			}
		}
	}
}

func TestPassLosesNothingSilently(t *testing.T) {
	p := &wire.PassFrame{State: wire.State{Rows: []wire.Row{{}}, Hidden: []float32{1, math.Pi}}}
	_, err := wire.AppendPass(nil, p, true)
	require.ErrorContains(t, err, "rounded first")
	frame, err := wire.AppendPass(nil, p, false)
	require.NoError(t, err)
	var got wire.PassFrame
	require.NoError(t, wire.DecodePass(frame, &got))
	require.Equal(t, p.Hidden, got.Hidden)
}

func good(t testing.TB) []byte {
	frame, err := wire.AppendPass(nil, &wire.PassFrame{Pass: 3, Span: 2, State: wire.State{Rows: []wire.Row{{Slot: 1, Epoch: 2, Pos: 3}, {Slot: 1, Epoch: 2, Pos: 4}}, Hidden: []float32{1, -2, 0.5, 4}}}, true)
	require.NoError(t, err)
	return frame
}

// Every cut and every changed bit is noticed.
func TestPassRefusals(t *testing.T) {
	frame := good(t)
	var p wire.PassFrame
	for n := range frame {
		require.Error(t, wire.DecodePass(frame[:n], &p), "%d bytes", n)
	}
	for i := range frame {
		changed := append([]byte(nil), frame...)
		changed[i] ^= 0x40
		require.Error(t, wire.DecodePass(changed, &p), "byte %d", i)
	}
	huge := append([]byte(nil), frame...)
	huge[20], huge[21], huge[22], huge[23] = 0xff, 0xff, 0xff, 0x7f
	require.ErrorContains(t, wire.DecodePass(huge, &p), "rows")
	_, err := wire.AppendPass(nil, &wire.PassFrame{}, true)
	require.ErrorContains(t, err, "0 rows")
	_, err = wire.AppendPass(nil, &wire.PassFrame{State: wire.State{Rows: make([]wire.Row, 3), Hidden: make([]float32, 4)}}, true)
	require.Error(t, err)
}

// The bytes on the wire are a contract between builds.
func TestGoldenBytes(t *testing.T) {
	lines := []string{hex.EncodeToString(good(t))}
	for _, m := range messages() {
		frame, err := wire.EncodeControl(m)
		require.NoError(t, err)
		lines = append(lines, string(frame))
	}
	text := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", "frames.txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

func TestDecodingAllocatesNothing(t *testing.T) {
	frame := good(t)
	var p wire.PassFrame
	require.NoError(t, wire.DecodePass(frame, &p))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = wire.DecodePass(frame, &p) }))
}

func FuzzDecodePass(f *testing.F) {
	f.Add(good(f))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var p wire.PassFrame
		if wire.DecodePass(frame, &p) != nil {
			return
		}
		require.LessOrEqual(t, len(p.Rows), wire.MaxRows)
		for _, v := range p.Hidden {
			if v != v || math.IsInf(float64(v), 0) {
				return // whoever decodes looks for those
			}
		}
		_, err := wire.AppendPass(nil, &p, p.F16)
		require.NoError(t, err, "what came can be sent on")
	})
}

func FuzzDecodeControl(f *testing.F) {
	for _, m := range messages() {
		frame, err := wire.EncodeControl(m)
		require.NoError(f, err)
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, err := wire.DecodeControl(frame)
		if err == nil {
			require.True(t, json.Valid(frame))
			require.NotEmpty(t, wire.TypeOf(m))
		}
	})
}

// A scale that no sender gives may stand for numbers that cannot be sent on.
func TestPassOfAnotherScale(t *testing.T) {
	frame := good(t)
	scaled := append([]byte(nil), frame...)
	scaled[48+2*12]++ // the first row's scale
	binary.LittleEndian.PutUint32(scaled[4:], crc32.Checksum(scaled[8:], crc32.MakeTable(crc32.Castagnoli)))
	var p wire.PassFrame
	require.ErrorContains(t, wire.DecodePass(scaled, &p), "row 0 has scale 2^1")
	require.NoError(t, wire.DecodePass(frame, &p))
	require.True(t, p.F16)
}
