package cluster_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/wire"
)

var update = flag.Bool("update", false, "write what the transcripts expect anew")

// shape is a dense model of eight layers, 5.0 MB each.
func shape() *plan.Shape {
	c := &model.Config{Arch: "llama", Hidden: 1024, Layers: 8, Vocab: 32000, Heads: 16, KVHeads: 4, HeadDim: 64, FFN: 2048, NormEps: 1e-5,
		RoPE: model.RoPE{Dims: 64, Theta: 1e4}, MaxPositions: 2048}
	return plan.NewShape(c, func(model.Tensor) quant.Type { return quant.Q4_0 })
}

// A story is a room that is told what happens, line by line.
type story struct {
	t     *testing.T
	state *cluster.State
	now   cluster.Tick
}

func newStory(t *testing.T, policy plan.Policy) *story {
	return &story{t: t, state: cluster.New(cluster.Options{Shape: shape(), Policy: policy, ChunkRows: 4,
		Slots: plan.Slots{Slots: 2, Positions: 64, KV: quant.F16, Round: true}})}
}

// number reads the n-th word as a number, after a # or without.
func (s *story) number(words []string, n int) int {
	require.Greater(s.t, len(words), n, words)
	v, err := strconv.Atoi(strings.TrimPrefix(words[n], "#"))
	require.NoError(s.t, err, words)
	return v
}

// event reads a line.
func (s *story) event(line string) cluster.Event {
	w := strings.Fields(line)
	n := func(i int) int { return s.number(w, i) }
	switch w[0] {
	case "join": // NAME MB [GB/s]
		speed := 10.0
		if len(w) > 3 {
			speed = float64(n(3))
		}
		return cluster.Joined{Worker: w[1], Name: w[1], Kind: "native", HopMs: 1, Capacity: wire.Capacity{Bytes: int64(n(2)) * 1e6, ReadGBs: speed, Credit: 4}}
	case "leave":
		return cluster.Left{Worker: w[1], Reason: "left"}
	case "ready": // NAME SPAN [milliseconds of a trial pass]
		e := cluster.SpanReady{Worker: w[1], Span: uint32(n(2))}
		if len(w) > 3 {
			e.StepMs = float64(n(3))
		}
		return e
	case "measured": // NAME milliseconds of a hop, of its part
		return cluster.Measured{Worker: w[1], HopMs: float64(n(2)), ComputeMs: float64(n(3))}
	case "load": // NAME SPAN BYTES
		return cluster.Progressed{Worker: w[1], Span: uint32(n(2)), Loaded: int64(n(3)), Total: 1000}
	case "refuse":
		return cluster.Refused{Worker: w[1], Span: uint32(n(2)), Code: w[3], Reason: "told so"}
	case "ask": // ID PROMPT MAX
		prompt := make([]int32, n(2))
		for i := range prompt {
			prompt[i] = int32(100 + i)
		}
		return cluster.Requested{Sequence: w[1], Prompt: prompt, MaxTokens: n(3), Stop: []int32{2}}
	case "cancel":
		return cluster.Cancelled{Sequence: w[1]}
	case "done":
		return cluster.PassDone{Worker: w[1], Pass: uint64(n(2))}
	case "fail":
		return cluster.PassFailed{Worker: w[1], Pass: uint64(n(2)), Code: w[3], Reason: "told so"}
	case "sampled": // PASS ID=TOKEN …
		e := cluster.Sampled{Pass: uint64(n(1))}
		for _, pair := range w[2:] {
			id, token, _ := strings.Cut(pair, "=")
			v, err := strconv.Atoi(token)
			require.NoError(s.t, err)
			e.Tokens = append(e.Tokens, cluster.SampledToken{Sequence: id, Token: int32(v)})
		}
		return e
	case "policy":
		return cluster.PolicyChanged{Policy: plan.Policy(w[1])}
	case "wait":
		d, err := time.ParseDuration(w[1])
		require.NoError(s.t, err)
		s.now += d
		return cluster.Ticked{}
	}
	s.t.Fatalf("the transcript says %q", line)
	return nil
}

// show writes an action.
func show(a cluster.Action) string {
	switch a := a.(type) {
	case cluster.Assign:
		return fmt.Sprintf("%s <- assign #%d %v", a.Worker, a.Span.Number, a.Span.Range)
	case cluster.Release:
		return fmt.Sprintf("%s <- release #%d", a.Worker, a.Span)
	case cluster.Begin:
		var rows []string
		for i, r := range a.Rows {
			rows = append(rows, fmt.Sprintf("slot %d/%d at %d: %d", r.Slot, r.Epoch, r.Pos, a.Tokens[i]))
		}
		return fmt.Sprintf("%s <- pass %d #%d [%s]", a.Worker, a.Pass, a.Span, strings.Join(rows, ", "))
	case cluster.Forward:
		return fmt.Sprintf("%s <- pass %d #%d", a.Worker, a.Pass, a.Span)
	case cluster.Sample:
		var wants []string
		for _, w := range a.Want {
			wants = append(wants, fmt.Sprintf("%s from row %d", w.Sequence, w.Row))
		}
		return fmt.Sprintf("sample pass %d [%s]", a.Pass, strings.Join(wants, ", "))
	case cluster.Trim:
		return fmt.Sprintf("%s <- trim #%d slot %d to %d", a.Worker, a.Span, a.Slot, a.Length)
	case cluster.Emit:
		end := ""
		if a.Last {
			end = ", the last: " + a.Finish
		}
		return fmt.Sprintf("%s gets %d%s", a.Sequence, a.Token, end)
	case cluster.Fail:
		return fmt.Sprintf("%s fails: %s: %s", a.Sequence, a.Code, a.Reason)
	case cluster.Moved:
		return fmt.Sprintf("%s is %s", a.Sequence, a.State)
	case cluster.Planned:
		if !a.Plan.OK() {
			return "no plan: " + a.Plan.Reasons[0]
		}
		return "planned: " + a.Why
	case cluster.Serving:
		var names []string
		for _, st := range a.Plan.Stages {
			names = append(names, st.Worker)
		}
		return "serving through " + strings.Join(names, ", ")
	case cluster.Drop:
		return fmt.Sprintf("%s is dropped: %s: %s", a.Worker, a.Code, a.Reason)
	}
	return fmt.Sprintf("%T", a)
}

// TestTranscripts plays every story in testdata. A block is events, a line of
// dashes, and what is done because of them; the first line names the policy.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			blocks := strings.Split(strings.TrimSpace(string(data)), "\n\n")
			policy, ok := strings.CutPrefix(blocks[0][strings.LastIndexByte(blocks[0], '\n')+1:], "policy ")
			require.True(t, ok, "%s: the first block ends with its policy", file)
			s := newStory(t, plan.Policy(policy))
			written := []string{blocks[0]}
			for _, block := range blocks[1:] {
				events, _, _ := strings.Cut(block, "\n----")
				var lines []string
				for _, line := range strings.Split(events, "\n") {
					if strings.HasPrefix(line, "#") {
						continue
					}
					for _, a := range s.state.Step(s.now, s.event(line)) {
						lines = append(lines, show(a))
					}
				}
				written = append(written, events+"\n----\n"+strings.Join(append(lines, ""), "\n"))
			}
			text := strings.Join(written, "\n\n") + "\n"
			text = strings.ReplaceAll(text, "\n\n\n", "\n\n")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			}
			require.Equal(t, strings.TrimSpace(string(data)), strings.TrimSpace(text), "%s: -update writes it anew", file)
		})
	}
}
