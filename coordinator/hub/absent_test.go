package hub_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/link/mem"
	"github.com/potluck-llm/potluck/wire"
)

// A peer whose connection is open but that answers nothing is gone after three
// heartbeats, whether it ever answered or not.
func TestHalfOpenPeers(t *testing.T) {
	for name, pongs := range map[string]int{"silent from the start": 0, "silent after it joined": 4} {
		t.Run(name, func(t *testing.T) {
			r := open(t, plan.Auto, func(o *hub.Options) { o.Heartbeat = 30 * time.Millisecond })
			here, there := mem.Pair(mem.Options{})
			served := make(chan error, 1)
			go func() { served <- r.hub.Serve(context.Background(), there, "eve") }()
			require.NoError(t, here.Send(context.Background(), r.control(&wire.Hello{Version: wire.Version, Token: token, Name: "eve", Kind: "native"})))
			for left := pongs; left > 0; {
				m, err := here.Receive(context.Background())
				require.NoError(t, err)
				message, err := wire.DecodeControl(m.Data)
				require.NoError(t, err)
				if ping, ok := message.(*wire.Ping); ok {
					require.NoError(t, here.Send(context.Background(), r.control(&wire.Pong{Nonce: ping.Nonce})))
					left--
				}
			}
			select {
			case err := <-served:
				require.ErrorContains(t, err, "silent")
			case <-time.After(10 * time.Second):
				t.Fatal("it is still waited for")
			}
			r.await("nobody is left", func(s hub.Snapshot) bool { return len(s.Workers) == 0 })
		})
	}
}

// A peer that says nothing at all is not waited for either; one that ends
// before its hello is told apart.
func TestNoHello(t *testing.T) {
	r := open(t, plan.Auto)
	here, there := mem.Pair(mem.Options{})
	require.NoError(t, here.Close("bye"))
	require.ErrorContains(t, r.hub.Serve(context.Background(), there, "port scanner"), "no hello")
}

// A peer that reads nothing fills its queue, and no more than that.
func TestAPeerThatReadsNothing(t *testing.T) {
	r := open(t, plan.Auto)
	here, there := mem.Pair(mem.Options{})
	served := make(chan error, 1)
	go func() { served <- r.hub.Serve(context.Background(), there, "eve") }()
	send := func(m any) error { return here.Send(context.Background(), r.control(m)) }
	require.NoError(t, send(&wire.Hello{Version: wire.Version, Token: token, Name: "eve", Kind: "native"}))
	for range 2000 { // each asks for an answer
		if send(&wire.Ping{Nonce: 1}) != nil {
			break
		}
	}
	select {
	case err := <-served:
		require.ErrorContains(t, err, "does not read")
	case <-time.After(10 * time.Second):
		t.Fatal("it is still served")
	}
}

// A worker that goes while it loads is not waited for: whoever is there takes
// its part, and the request that waited is answered.
func TestLeavingWhileLoading(t *testing.T) {
	r := open(t, plan.Auto)
	want := r.local(prompt, 8)
	here, there := mem.Pair(mem.Options{})
	served := make(chan error, 1)
	go func() { served <- r.hub.Serve(context.Background(), there, "eve") }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, here.Send(ctx, r.control(&wire.Hello{Version: wire.Version, Token: token, Name: "eve", Kind: "native", Capacity: wire.Capacity{Bytes: gib, ReadGBs: 900}})))
	answered := make(chan []int32, 1)
	for assigned := false; !assigned; {
		m, err := here.Receive(ctx)
		require.NoError(t, err)
		message, err := wire.DecodeControl(m.Data)
		require.NoError(t, err)
		switch message := message.(type) {
		case *wire.Ping:
			require.NoError(t, here.Send(ctx, r.control(&wire.Pong{Nonce: message.Nonce})))
		case *wire.Assign:
			require.NoError(t, here.Send(ctx, r.control(&wire.Progress{Span: message.Span, Loaded: 1, Total: 100})))
			assigned = true
		}
	}
	go func() { answered <- r.ask(prompt, 8, nil) }()
	r.await("the request waits", func(s hub.Snapshot) bool { return s.Queued == 1 && s.Workers[0].BytesLoaded == 1 })
	r.join("ana", gib)
	r.await("ana is there", func(s hub.Snapshot) bool { return len(s.Workers) == 2 })
	require.NoError(t, here.Close("gone"))
	require.Error(t, <-served)
	require.Equal(t, want, <-answered)
}

// Many come and go at random while questions are asked: all are answered.
func TestComingAndGoing(t *testing.T) {
	r := open(t, plan.Spread)
	want := r.local(prompt, 60)
	r.join("rock", gib)
	r.await("rock holds", holding(1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 6 {
			stop, kill := r.join("guest", gib)
			time.Sleep(time.Duration(10+7*i) * time.Millisecond)
			if i%2 == 0 {
				kill()
			}
			stop()
		}
	}()
	for {
		require.Equal(t, want, r.ask(prompt, 60, nil))
		select {
		case <-done:
			return
		default:
		}
	}
}
