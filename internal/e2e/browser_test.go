package e2e

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/browsertest"
	"github.com/potluck-llm/potluck/internal/processtest"
)

// lend opens /join in a new tab and presses the button. Pages and workers are
// the real ones; backend says what must compute.
func (r *room) lend(b *browsertest.Browser, backend string) *browsertest.Tab {
	tab := browsertest.NewTab(r.t, b, true)
	require.NoError(r.t, tab.Open(fmt.Sprintf("%s/join?backend=%s#%s", r.base, backend, token)))
	require.NoError(r.t, tab.Click("#lend"))
	return tab
}

// kinds counts the workers of a kind that are ready and hold layers, and
// checks what they compute with.
func (r *room) holdingKind(kind, backend string) (n int) {
	for _, w := range r.cluster().Workers {
		if w.Kind == kind && w.State == "ready" && w.LayerCount > 0 && len(w.Backend) >= len(backend) && w.Backend[:len(backend)] == backend {
			n++
		}
	}
	return n
}

// TestTabs: two tabs and a native worker answer as one process does, whoever
// leaves or joins in the middle.
func TestTabs(t *testing.T) {
	for _, c := range []struct {
		backend string
		flags   []string
	}{
		{"webgpu", browsertest.WebGPU},
		{"cpu", nil},
	} {
		t.Run(c.backend, func(t *testing.T) {
			want := local(t, story, tokens)
			r := openRoom(t, "--policy", "spread")
			r.worker("native-1")
			b := browsertest.New(t, c.flags...)
			first := r.lend(b, c.backend)
			r.lend(b, c.backend)
			r.eventually("two tabs and a native worker hold layers", 90*time.Second, func() bool {
				return r.holdingKind("browser", c.backend) == 2 && r.holdingKind("native", "cpu") == 1
			})
			if c.backend == "cpu" && runtime.NumCPU() > 1 { // the pages are isolated, and their policies let threads start
				require.Equal(t, 2, r.holdingKind("browser", "cpu relaxed SIMD"))
				for _, w := range r.cluster().Workers {
					require.True(t, w.Kind != "browser" || strings.HasSuffix(w.Backend, " threads"), w.Backend)
				}
			}
			require.Equal(t, want, r.stream(completion(story, tokens), nil))

			t.Run("a tab is closed in the middle of an answer", func(t *testing.T) {
				got := r.stream(completion(story, tokens), func(pieces int) {
					if pieces == 10 {
						first.Close()
					}
				})
				require.Equal(t, want, got)
				require.Equal(t, 1, r.holdingKind("browser", c.backend))
			})
			t.Run("a tab joins in the middle of an answer", func(t *testing.T) {
				got := r.stream(completion(story, tokens), func(pieces int) {
					if pieces == 5 {
						r.lend(b, c.backend)
						r.eventually("the tab holds layers", 60*time.Second, func() bool { return r.holdingKind("browser", c.backend) == 2 })
					}
				})
				require.Equal(t, want, got)
			})
		})
	}
}

// TestLAN: a browser on another machine comes by the room's http link, is told
// of the warning, and lends itself over https.
func TestLAN(t *testing.T) {
	want := local(t, story, 20)
	_, port, err := net.SplitHostPort(processtest.FreeAddress(t))
	require.NoError(t, err)
	r := openRoomAt(t, "0.0.0.0:"+port, "http://127.0.0.1:"+port)
	b := browsertest.New(t, "host-resolver-rules=MAP room.test 127.0.0.1")
	tab := browsertest.NewTab(t, b, true)
	require.NoError(t, tab.Open("http://room.test:"+port+"/j#"+token))
	require.NoError(t, tab.Wait(`document.querySelector('#words').textContent.split(' ').length === 3`, 10*time.Second))
	require.NoError(t, tab.Click("#state button"))
	require.NoError(t, tab.Wait(`location.protocol === 'https:' && isSecureContext && location.hash === '' && !!document.querySelector('#lend')`, 20*time.Second))
	require.NoError(t, tab.Click("#lend"))
	r.eventually("the tab holds layers", 60*time.Second, func() bool { return r.holdingKind("browser", "") == 1 })
	require.Equal(t, want, r.stream(completion(story, 20), nil))
}
