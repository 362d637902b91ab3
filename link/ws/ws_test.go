package ws_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair connects two ends over a real socket.
func pair(t *testing.T) (client, server link.Link) {
	accepted := make(chan link.Link, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l, err := ws.Upgrade(w, r)
		if err == nil {
			accepted <- l
		}
	}))
	t.Cleanup(s.Close)
	client, err := ws.Dial(context.Background(), "ws"+strings.TrimPrefix(s.URL, "http"), nil)
	require.NoError(t, err)
	server = <-accepted
	t.Cleanup(func() { _ = client.Close("bye"); _ = server.Close("bye") })
	return client, server
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMessagesArriveWholeAndInOrder(t *testing.T) {
	client, server := pair(t)
	ctx := soon(t)
	var sent []link.Message
	for i, size := range []int{0, 1, 125, 126, 65535, 65536, 3 << 20} {
		sent = append(sent, link.Message{Binary: i%2 == 0, Data: bytes.Repeat([]byte{byte('a' + i)}, size)})
	}
	for _, ends := range [][2]link.Link{{client, server}, {server, client}} {
		go func() {
			for _, m := range sent {
				_ = ends[0].Send(ctx, m)
			}
		}()
		for _, want := range sent {
			got, err := ends[1].Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, want.Binary, got.Binary)
			require.Equal(t, len(want.Data), len(got.Data))
			require.True(t, bytes.Equal(want.Data, got.Data))
		}
	}
}

func TestSendingFromManyGoroutines(t *testing.T) {
	client, server := pair(t)
	ctx := soon(t)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range 50 {
				_ = client.Send(ctx, link.Message{Binary: true, Data: bytes.Repeat([]byte{byte(i)}, 1000+i)})
			}
		}()
	}
	for range 8 * 50 {
		m, err := server.Receive(ctx)
		require.NoError(t, err)
		require.Len(t, m.Data, 1000+int(m.Data[0]))
	}
	wait.Wait()
}

func TestHowALinkEnds(t *testing.T) {
	t.Run("the peer closes", func(t *testing.T) {
		client, server := pair(t)
		require.NoError(t, client.Close(strings.Repeat("a reason that is too long for a close frame, ", 9)))
		_, err := server.Receive(soon(t))
		require.ErrorIs(t, err, io.EOF)
		_, err = client.Receive(soon(t))
		require.ErrorIs(t, err, link.ErrClosed)
		require.ErrorIs(t, client.Send(soon(t), link.Message{}), link.ErrClosed)
		require.NoError(t, client.Close("again"))
	})
	t.Run("this side closes while it receives", func(t *testing.T) {
		client, _ := pair(t)
		time.AfterFunc(20*time.Millisecond, func() { _ = client.Close("bye") })
		_, err := client.Receive(soon(t))
		require.ErrorIs(t, err, link.ErrClosed)
	})
	t.Run("the context ends", func(t *testing.T) {
		client, _ := pair(t)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err := client.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, client.Send(ctx, link.Message{}), context.DeadlineExceeded)
	})
}

// A connection that breaks is no orderly end.
func TestABrokenConnection(t *testing.T) {
	broken := make(chan net.Conn, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l, err := ws.Upgrade(w, r)
		if err == nil {
			_, _ = l.Receive(context.Background())
			_ = l.Close("bye")
		}
	}))
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateHijacked {
			broken <- c
		}
	}
	s.Start()
	defer s.Close()
	client, err := ws.Dial(soon(t), "ws"+strings.TrimPrefix(s.URL, "http"), nil)
	require.NoError(t, err)
	defer client.Close("bye")
	require.NoError(t, (<-broken).Close())
	_, err = client.Receive(soon(t))
	require.Error(t, err)
	require.False(t, errors.Is(err, io.EOF), "%v", err)
}

// What a message may weigh is decided by its header, and can be lowered.
func TestLimits(t *testing.T) {
	client, server := pair(t)
	server.(link.Limiter).Limit(1000)
	require.NoError(t, client.Send(soon(t), link.Message{Data: make([]byte, 1000)}))
	_, err := server.Receive(soon(t))
	require.NoError(t, err)
	server.(link.Limiter).Limit(2000)
	require.NoError(t, client.Send(soon(t), link.Message{Data: make([]byte, 2000)}))
	_, err = server.Receive(soon(t))
	require.NoError(t, err)
	require.NoError(t, client.Send(soon(t), link.Message{Data: make([]byte, 2001)}))
	_, err = server.Receive(soon(t))
	require.ErrorContains(t, err, "more than 2000 bytes")
}

// A peer that reads nothing cannot hold up whoever wants to stop.
func TestSendToAPeerThatDoesNotRead(t *testing.T) {
	client, _ := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	start := time.Now()
	var err error
	for range 100 { // more than the sockets' buffers hold
		if err = client.Send(ctx, link.Message{Binary: true, Data: make([]byte, 4<<20)}); err != nil {
			break
		}
	}
	require.Error(t, err)
	require.Less(t, time.Since(start), 5*time.Second)
}

func TestStrangersAtTheDoor(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l, err := ws.Upgrade(w, r); err == nil {
			_ = l.Close("bye")
		}
	}))
	defer s.Close()
	response, err := http.Get(s.URL)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	request, err := http.NewRequest(http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	for key, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "chat"} {
		request.Header.Set(key, value)
	}
	response, err = http.DefaultClient.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, string(body), ws.Subprotocol)
	http.DefaultClient.CloseIdleConnections()
}

func TestDialingWhatIsNoCoordinator(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	_, err := ws.Dial(soon(t), "ws"+strings.TrimPrefix(s.URL, "http")+"/v1/join", nil)
	require.ErrorContains(t, err, "404")
	require.ErrorContains(t, err, "/v1/join")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	_, err = ws.Dial(soon(t), "ws://"+address, nil)
	require.ErrorContains(t, err, address)
}
