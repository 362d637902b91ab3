package directions

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/potluck-llm/potluck/"

// A rule forbids imports to packages.
type rule struct {
	packages []string // below the module; "…/" at the end means all below
	forbids  func(imported string) bool
	reason   string
}

func standard(path string) bool { return !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") }

func below(prefixes ...string) func(string) bool {
	return func(path string) bool {
		for _, p := range prefixes {
			if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") {
				return true
			}
		}
		return false
	}
}

func own(names ...string) []string {
	for i, n := range names {
		names[i] = module + n
	}
	return names
}

// onlyStandard forbids all but the standard library and some of our packages.
func onlyStandard(allowed ...string) func(string) bool {
	ok := below(allowed...)
	return func(path string) bool { return !standard(path) && !ok(path) }
}

var rules = []rule{
	{own("quant"), onlyStandard(), "weights' bytes must be readable anywhere, with nothing to install"},
	{own("model"), onlyStandard(own("quant")...), "architectures are facts: they need no library and no I/O"},
	{own("model"), below("os", "net", "io/fs", "syscall"), "opening files is the work of safetensors and gguf"},
	{own("wire"), onlyStandard(own("model", "quant")...), "both ends of every link speak it, in a tab too"},
	{own("token", "token/jinja", "token/chat"), onlyStandard(append(own("token", "model", "quant"), "golang.org/x/text/unicode/norm")...), "NFC needs Unicode's tables; all else is our own"},
	{own("sample"), onlyStandard(own("token")...), "sampling is arithmetic"},
	{own("shaders"), onlyStandard(), "kernels are text"},
	{own("coordinator/plan", "coordinator/cluster"), below("net", "os", "sync", "math/rand", "math/rand/v2", "crypto/rand"), "decisions are pure: same input, same plan, so that a test can replay them"},
	{own("worker"), below(own("coordinator")...), "worker and coordinator meet in wire, so that a tab need not carry a coordinator"},
}

// homes say which packages alone may import something.
var homes = []struct {
	imported string
	packages []string
	reason   string
}{
	{"syscall/js", own("gpu/browser", "link/browser", "wasm"), "a Call costs 400 ns and more: what talks to the page stays in one place"},
	{"github.com/gorilla/websocket", own("link/ws"), "everything above a link works over any of them"},
	{"github.com/gogpu/wgpu", own("gpu/native"), "foreign calls stay behind gpu.Device"},
	{"github.com/syumai/workers", own("edge"), "only the edge runs on it"},
}

// unwelcome must not be in the browser's binary.
var unwelcome = map[string]string{
	"net/http":                     "adds 8 MB to the download; the page fetches for us",
	"github.com/gorilla/websocket": "has no network in a tab; the browser has its own WebSocket",
	"github.com/stretchr/testify":  "is for tests",
	"github.com/spf13/cobra":       "a tab has no command line",
}

type pkg struct {
	ImportPath   string
	Imports      []string
	Deps         []string
	TestGoFiles  []string
	XTestGoFiles []string
	GoFiles      []string
	Dir          string
}

func list(t *testing.T, env []string, args ...string) []pkg {
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports,Deps,GoFiles,Dir"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []pkg
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err)
		}
		all = append(all, p)
	}
}

var targets = map[string][]string{"native": nil, "js/wasm": {"GOOS=js", "GOARCH=wasm"}}

func TestDirections(t *testing.T) {
	for target, env := range targets {
		packages := list(t, env, "./...")
		require.NotEmpty(t, packages)
		for _, p := range packages {
			for _, imported := range p.Imports {
				check(t, target, p.ImportPath, imported)
			}
		}
	}
}

func check(t *testing.T, target, path, imported string) {
	for _, r := range rules {
		for _, name := range r.packages {
			if path == name && r.forbids(imported) {
				t.Errorf("%s: %s imports %s: %s", target, path, imported, r.reason)
			}
		}
	}
	for _, h := range homes {
		if below(h.imported)(imported) && !below(h.packages...)(path) {
			t.Errorf("%s: %s imports %s: %s", target, path, imported, h.reason)
		}
	}
}

// Decisions may use the type time.Duration, but not the clock.
func TestNoClockInDecisions(t *testing.T) {
	for _, p := range list(t, nil, "./coordinator/plan", "./coordinator/cluster") {
		for _, file := range p.GoFiles {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			for _, call := range []string{"time.Now", "time.Since", "time.After", "time.Tick", "time.NewTimer", "time.Sleep", "\tgo func", "\tgo "} {
				require.NotContains(t, string(source), call, "%s: decisions are pure", file)
			}
		}
	}
}

func TestBrowserBinaryStaysLight(t *testing.T) {
	for _, p := range list(t, targets["js/wasm"], "./wasm") {
		require.Equal(t, module+"wasm", p.ImportPath)
		for _, dep := range p.Deps {
			for name, reason := range unwelcome {
				require.False(t, below(name)(dep), "the browser's binary holds %s, which %s", dep, reason)
			}
		}
	}
}
