package browsertest

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBrowser(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<title>a page</title><link rel=icon href="data:,"><input id=in><button id=b onclick="console.warn(document.querySelector('#in').value)">b</button>`))
	}))
	defer server.Close()
	b := New(t)
	tab := NewTab(t, b, false)
	require.NoError(t, tab.Pretend(View{Width: 360, Height: 640, Dark: true, Still: true}))
	require.NoError(t, tab.Open(server.URL))
	require.NoError(t, tab.Wait("document.title === 'a page'", time.Second))
	var dark, still bool
	require.NoError(t, tab.Evaluate("matchMedia('(prefers-color-scheme: dark)').matches", &dark))
	require.NoError(t, tab.Evaluate("Promise.resolve(matchMedia('(prefers-reduced-motion: reduce)').matches)", &still))
	require.True(t, dark && still)
	require.NoError(t, tab.Type("#in", "hello"))
	require.NoError(t, tab.Click("#b"))
	require.Eventually(t, func() bool { return len(tab.Console()) == 1 }, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, "warning: hello", tab.Console()[0])
	require.Equal(t, []string{server.URL + "/"}, tab.Requests())
	png, err := tab.Screenshot()
	require.NoError(t, err)
	require.Equal(t, "\x89PNG", string(png[:4]))

	private := NewTab(t, b, true)
	require.NoError(t, private.Open(server.URL))
	require.ErrorContains(t, private.Wait("document.title === 'none'", 50*time.Millisecond), "in vain")
	require.Error(t, private.Evaluate("nothing.at.all", nil))
}

func TestSoftwareWebGPU(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	tab := NewTab(t, New(t, WebGPU...), false)
	require.NoError(t, tab.Open(server.URL))
	var adapter bool
	require.NoError(t, tab.Evaluate("navigator.gpu.requestAdapter().then(a => a !== null)", &adapter))
	require.True(t, adapter)
}

func TestMissingBrowser(t *testing.T) {
	t.Setenv("CHROMIUM", "")
	t.Setenv("PATH", t.TempDir())
	_, err := Find()
	require.ErrorContains(t, err, "apt-get install chromium")
}
