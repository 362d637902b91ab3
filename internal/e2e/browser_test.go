package e2e

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"
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

// A plainProxy stands before a room and takes away the headers by which a page may
// share memory with threads.
type plainProxy struct {
	*httptest.Server
	mu    sync.Mutex
	links []net.Conn // of workers, in the order in which they came
}

func (r *room) plainProxy() *plainProxy {
	target, err := url.Parse(r.base)
	require.NoError(r.t, err)
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorLog = log.New(io.Discard, "", 0)
	forward.ModifyResponse = func(response *http.Response) error {
		response.Header.Del("Cross-Origin-Opener-Policy")
		response.Header.Del("Cross-Origin-Embedder-Policy")
		return nil
	}
	p := &plainProxy{Server: httptest.NewUnstartedServer(forward)}
	p.Config.ConnState = func(link net.Conn, state http.ConnState) {
		if state == http.StateHijacked {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.links = append(p.links, link)
		}
	}
	p.Start()
	r.t.Cleanup(p.Close)
	return p
}

// cut breaks a worker's link.
func (p *plainProxy) cut(link int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[link].Close()
}

// TestSmallWorkers: a page that may share no memory lends its processor as several
// workers, which answer as one process does, and show and end as one computer.
func TestSmallWorkers(t *testing.T) {
	want := local(t, story, tokens)
	r := openRoom(t, "--policy", "spread")
	proxy := r.plainProxy()
	tab := browsertest.NewTab(t, browsertest.New(t), true)
	require.NoError(t, tab.Pretend(browsertest.View{Width: 800, Height: 900, Cores: 4})) // one of them stays the person's
	require.NoError(t, tab.Open(proxy.URL+"/join?backend=cpu&name=Lena%27s+laptop#"+token))
	require.NoError(t, tab.Wait(`!crossOriginIsolated && isSecureContext && !!document.querySelector('#name').value`, 10*time.Second))
	require.NoError(t, tab.Evaluate(`(() => {
		const Original = Worker;
		window.workers = [];
		window.Worker = class extends Original { constructor(...all) { super(...all); workers.push(this); } };
	})()`, nil))
	require.NoError(t, tab.Click("#lend"))
	hold := func(n int) {
		t.Helper()
		r.eventually(fmt.Sprintf("%d small workers hold layers", n), 90*time.Second, func() bool { return r.holdingKind("browser", "cpu") == n })
	}
	says := func(selector, text string) {
		t.Helper()
		require.NoError(t, tab.Wait(fmt.Sprintf(`document.querySelector(%q).textContent.includes(%q)`, selector, text), 30*time.Second))
	}
	hold(3)
	var names []string
	for _, w := range r.cluster().Workers {
		names = append(names, w.Name)
		require.NotContains(t, w.Backend, "threads")
	}
	require.ElementsMatch(t, []string{"Lena's laptop · 1 of 3", "Lena's laptop · 2 of 3", "Lena's laptop · 3 of 3"}, names)
	says("#state", "Ready with layers 0 to 7.")
	says("#facts", "3 of 3 in the room")
	require.Equal(t, want, r.stream(completion(story, tokens), nil))
	says("#facts", "Tokens served")

	t.Run("one loses its connection in the middle of an answer", func(t *testing.T) {
		require.Equal(t, want, r.stream(completion(story, tokens), func(pieces int) {
			if pieces == 10 {
				proxy.cut(0)
			}
		}))
		hold(3)
	})
	t.Run("one ends in the middle of an answer", func(t *testing.T) {
		require.Equal(t, want, r.stream(completion(story, tokens), func(pieces int) {
			if pieces == 10 {
				require.NoError(t, tab.Evaluate(`workers[1].onerror(new ErrorEvent('error', {message: 'out of memory', cancelable: true}))`, nil))
			}
		}))
		hold(2)
		says("#details", "2 of 3: out of memory")
		says("#facts", "2 of 3 in the room")
		says("#state", "layers 0 to 7")
	})
	t.Run("all stop together", func(t *testing.T) {
		require.NoError(t, tab.Click("#stop"))
		r.eventually("nobody is left", 5*time.Second, func() bool { return len(r.cluster().Workers) == 0 })
		require.NoError(t, tab.Wait(`document.querySelector('#state').dataset.state === 'ended'`, 10*time.Second))
	})
}
