package hub_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/mem"
	"github.com/potluck-llm/potluck/wire"
)

// A liar does everything that a worker must until it is sent a pass; then
// answer says what it sends. It returns the coordinator's last word.
func (r *room) liar(c wire.Capacity, answer func(pass *wire.PassFrame) link.Message) *wire.Error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	here, there := mem.Pair(mem.Options{})
	served := make(chan error, 1)
	go func() { served <- r.hub.Serve(ctx, there, "liar") }()
	defer func() { _ = here.Close("bye"); <-served }()
	send := func(m link.Message) { require.NoError(r.t, here.Send(ctx, m)) }
	send(r.control(&wire.Hello{Version: wire.Version, Token: token, Name: "eve", Kind: "native", Capacity: c}))
	for {
		m, err := here.Receive(ctx)
		require.NoError(r.t, err, "the coordinator says nothing about it")
		if m.Binary {
			pass := &wire.PassFrame{}
			require.NoError(r.t, wire.DecodePass(m.Data, pass))
			pass.Result = true
			send(answer(pass))
			continue
		}
		message, err := wire.DecodeControl(m.Data)
		require.NoError(r.t, err)
		switch message := message.(type) {
		case *wire.Ping:
			send(r.control(&wire.Pong{Nonce: message.Nonce}))
		case *wire.Assign:
			send(r.control(&wire.Ready{Span: message.Span}))
		case *wire.Error:
			return message
		}
	}
}

func (r *room) control(m any) link.Message {
	data, err := wire.EncodeControl(m)
	require.NoError(r.t, err)
	return link.Message{Data: data}
}

func (r *room) pass(p *wire.PassFrame, f16 bool) link.Message {
	data, err := wire.AppendPass(nil, p, f16)
	require.NoError(r.t, err)
	return link.Message{Binary: true, Data: data}
}

// Whatever a worker answers, the one that answered it is blamed, the others
// compute its part, and the asker sees nothing of it.
func TestLiars(t *testing.T) {
	r := open(t, plan.Auto)
	want := r.local(prompt, 12)
	r.join("ana", gib)
	r.await("ana is ready", holding(1))
	fast := wire.Capacity{Bytes: gib, ReadGBs: 1000, Credit: 4}
	for name, c := range map[string]struct {
		code, message string
		answer        func(p *wire.PassFrame) link.Message
	}{
		"too few rows": {"protocol", "rows", func(p *wire.PassFrame) link.Message {
			p.Rows, p.Hidden = p.Rows[:1], p.Hidden[:len(p.Hidden)/len(p.Rows)]
			return r.pass(p, true)
		}},
		"narrow rows": {"protocol", "rows of", func(p *wire.PassFrame) link.Message {
			p.Hidden = p.Hidden[:len(p.Rows)*4]
			return r.pass(p, true)
		}},
		"f32 rows": {"protocol", "want f16", func(p *wire.PassFrame) link.Message { return r.pass(p, false) }},
		"experts between layers": {"protocol", "experts a row", func(p *wire.PassFrame) link.Message {
			p.Normed = p.Hidden
			p.Chosen, p.Weights = make([]int32, 2*len(p.Rows)), make([]float32, 2*len(p.Rows))
			return r.pass(p, false)
		}},
		"a pass for a result": {"protocol", "may not send a pass", func(p *wire.PassFrame) link.Message {
			p.Result = false
			return r.pass(p, true)
		}},
		"half a frame": {"protocol", "header says", func(p *wire.PassFrame) link.Message {
			m := r.pass(p, true)
			return link.Message{Binary: true, Data: m.Data[:len(m.Data)/2]}
		}},
		"infinite numbers": {"removed", "infinite", func(p *wire.PassFrame) link.Message {
			for i := range p.Hidden {
				p.Hidden[i] = float32(math.Inf(1))
			}
			return r.pass(p, true)
		}},
		"failed again and again": {"removed", "no idea", func(p *wire.PassFrame) link.Message {
			return r.control(&wire.Failed{Pass: p.Pass, Span: p.Span, Code: "internal", Reason: "no idea"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			said := make(chan *wire.Error, 1)
			go func() { said <- r.liar(fast, c.answer) }()
			r.await("eve holds the layers", func(s hub.Snapshot) bool {
				return len(s.Chains) == 1 && len(s.Chains[0]) == 1 && len(s.Workers) == 2 && s.Chains[0][0] != s.Workers[0].ID
			})
			require.Equal(t, want, r.ask(prompt, 12, nil))
			e := <-said
			require.Equal(t, c.code, e.Code, e.Message)
			require.Contains(t, e.Message, c.message)
			r.await("ana alone serves", func(s hub.Snapshot) bool { return len(s.Workers) == 1 && s.PredictedTokS > 0 })
		})
	}
}

// Nobody waits for a worker that is welcomed but never said to be full: the
// room has a limit, and says so.
func TestFullRoom(t *testing.T) {
	r := open(t, plan.Auto, func(o *hub.Options) { o.MaxWorkers = 1 })
	stop, _ := r.join("ana", gib)
	r.await("ana is ready", holding(1))
	e := r.liar(wire.Capacity{}, nil)
	require.Equal(t, "busy", e.Code)
	require.Positive(t, e.RetryMs)
	stop()
	r.await("ana is gone", func(s hub.Snapshot) bool { return len(s.Workers) == 0 })
	r.join("ben", gib)
	r.await("ben is ready", holding(1))
}

// A room that closes ends every stream, also those that it has not looked at.
func TestClosingEndsStreams(t *testing.T) {
	r := open(t, plan.Auto)
	s, err := r.hub.Generate(context.Background(), hub.Request{Prompt: prompt, MaxTokens: 5, Sampler: greedy(t)})
	require.NoError(t, err)
	r.hub.Close()
	_, ok, err := s.Next(context.Background())
	require.False(t, ok)
	require.ErrorContains(t, err, "closed")
	_, err = r.hub.Generate(context.Background(), hub.Request{Prompt: prompt, MaxTokens: 5, Sampler: greedy(t)})
	require.ErrorContains(t, err, "closed")
}
