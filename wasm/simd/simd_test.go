//go:build !js

package simd_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/browsertest"
	"github.com/potluck-llm/potluck/wasm/assets"
)

const page = `<!doctype html><title>kernels</title><script type="module" src="/page.js"></script>`

const pageScript = `window.output = ''; window.code = null;
const w = new Worker('/worker.js', {type: 'module'});
w.onerror = e => { window.output += e.message; window.code = -1; };
w.onmessage = ({data}) => {
  if (data.text) window.output += data.text;
  if ('code' in data) { window.code = data.code; w.terminate(); }
};
w.postMessage(location.search);`

// The worker runs the tests that the query names, with the kernels of one kind.
const workerScript = `import {startGo} from '/worker/go.js';
self.onmessage = async ({data}) => {
  const query = new URLSearchParams(data);
  const decoder = new TextDecoder();
  globalThis.fs.writeSync = (fd, bytes) => { self.postMessage({text: decoder.decode(bytes)}); return bytes.length; };
  const {go, instance} = await startGo('/kernel.test', {}, {kernels: query.get('kernels'), threads: 2});
  if (!self.potluckKernels) return self.postMessage({text: 'not here', code: 0});
  go.argv = ['kernel.test', ...query.getAll('arg')];
  go.exit = code => { self.postMessage({code}); self.close(); };
  await go.run(instance);
};`

// The tests of exec/cpu/kernel pass in a real browser, with kernels of plain and of
// relaxed SIMD, in shared memory with two threads and in memory of its own.
func TestKernelsInBrowser(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kernel.test")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", program, "github.com/potluck-llm/potluck/exec/cpu/kernel")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	var isolated bool
	text := func(kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, body)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", text("text/html", page))
	mux.HandleFunc("GET /page.js", text("text/javascript", pageScript))
	mux.HandleFunc("GET /worker.js", text("text/javascript", workerScript))
	mux.Handle("GET /worker/", http.StripPrefix("/worker/", http.FileServerFS(assets.Files())))
	mux.HandleFunc("GET /kernel.test", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, program) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isolated {
			w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
			w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		}
		mux.ServeHTTP(w, r)
	}))
	defer server.Close()
	browser := browsertest.New(t)
	base := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	for _, c := range []struct {
		kernels  string
		isolated bool
	}{
		{"SIMD", false}, {"SIMD", true}, {"relaxed SIMD in pairs", true}, {"relaxed SIMD in fours", true}, {"relaxed SIMD in unsigned fours", true},
	} {
		t.Run(fmt.Sprintf("%s, isolated %v", c.kernels, c.isolated), func(t *testing.T) {
			isolated = c.isolated
			tab := browsertest.NewTab(t, browser, true)
			// TestExperts and the like for reference and planar too would take minutes.
			query := "?kernels=" + c.kernels + "&arg=-test.v&arg=-test.run=/^" + strings.ReplaceAll(c.kernels, " ", "_") + "$"
			require.NoError(t, tab.Open(base+"/"+strings.ReplaceAll(query, " ", "%20")))
			require.NoError(t, tab.Wait("window.code !== null", 2*time.Minute))
			var result struct {
				Output string
				Code   int
			}
			require.NoError(t, tab.Evaluate("({output: window.output, code: window.code})", &result))
			require.Zero(t, result.Code, result.Output)
			if strings.Contains(c.kernels, "unsigned") && result.Output == "not here" {
				t.Skip("this processor has no dot product of unsigned bytes")
			}
			require.Contains(t, result.Output, "--- PASS: TestProducts/"+strings.ReplaceAll(c.kernels, " ", "_"), "the kernels were not tested")
		})
	}
}
