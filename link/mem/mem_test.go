package mem_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/mem"
)

func number(i int) link.Message {
	return link.Message{Binary: true, Data: binary.LittleEndian.AppendUint32(nil, uint32(i))}
}

func TestOrderIsKeptWhateverTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := mem.Pair(mem.Options{Seed: 3, Delay: 80 * time.Millisecond})
		start := time.Now()
		for i := range 200 {
			require.NoError(t, a.Send(context.Background(), number(i)))
		}
		for i := range 200 {
			m, err := b.Receive(context.Background())
			require.NoError(t, err)
			require.Equal(t, number(i), m)
		}
		took := time.Since(start)
		require.Greater(t, took, 40*time.Millisecond, "some message of 200 took more than half the longest delay")
		require.LessOrEqual(t, took, 80*time.Millisecond)
	})
}

// lasts is how many messages a pair carries before it breaks.
func lasts(t *testing.T, seed uint64, after int) (sent int) {
	a, b := mem.Pair(mem.Options{Seed: seed, BreakAfter: after})
	for a.Send(context.Background(), number(sent)) == nil {
		sent++
		require.Less(t, sent, 200)
	}
	for i := range sent { // what was sent before still arrives
		m, err := b.Receive(context.Background())
		require.NoError(t, err)
		require.Equal(t, number(i), m)
	}
	_, err := b.Receive(context.Background())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a break is no orderly end")
	return sent
}

func TestBreaksAsItsSeedSays(t *testing.T) {
	different := map[int]bool{}
	for seed := range uint64(20) {
		n := lasts(t, seed, 100)
		require.Equal(t, n, lasts(t, seed, 100), "seed %d", seed)
		require.GreaterOrEqual(t, n, 50)
		require.LessOrEqual(t, n, 101)
		different[n] = true
	}
	require.Greater(t, len(different), 5)
}

func TestHowALinkEnds(t *testing.T) {
	a, b := mem.Pair(mem.Options{})
	require.NoError(t, a.Send(context.Background(), number(1)))
	require.NoError(t, a.Close("bye"))
	require.NoError(t, a.Close("again"))
	m, err := b.Receive(context.Background())
	require.NoError(t, err, "sent before the close")
	require.Equal(t, number(1), m)
	_, err = b.Receive(context.Background())
	require.ErrorIs(t, err, io.EOF)
	_, err = a.Receive(context.Background())
	require.ErrorIs(t, err, link.ErrClosed)
	require.ErrorIs(t, a.Send(context.Background(), number(2)), link.ErrClosed)
	require.ErrorIs(t, b.Send(context.Background(), number(2)), link.ErrClosed)
}

// A full link waits, for its reader or for the end of the context.
func TestAFullLinkWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := mem.Pair(mem.Options{})
		sent := 0
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := a.Send(ctx, number(sent))
			cancel()
			if err != nil {
				require.True(t, errors.Is(err, context.DeadlineExceeded), err)
				break
			}
			sent++
			require.Less(t, sent, 10000)
		}
		_, err := b.Receive(context.Background())
		require.NoError(t, err)
		require.NoError(t, a.Send(context.Background(), number(sent)))
		_ = a.Close("bye")
	})
}

func TestReceivingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := mem.Pair(mem.Options{Delay: time.Hour, Seed: 1})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := b.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, a.Send(context.Background(), number(1))) // on its way for minutes
		ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err = b.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
