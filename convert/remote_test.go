package convert_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/convert"
	"github.com/potluck-llm/potluck/exec/exectest"
)

// serve serves a folder as any web server does, with a file of hashes.
func serve(t *testing.T, folder string) *httptest.Server {
	files := http.StripPrefix("/"+filepath.Base(folder), http.FileServer(http.Dir(folder)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/SHA256SUMS") {
			entries, _ := os.ReadDir(folder)
			for _, e := range entries {
				data, _ := os.ReadFile(filepath.Join(folder, e.Name()))
				fmt.Fprintf(w, "%x  %s\n", sha256.Sum256(data), e.Name())
			}
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

// pieces are a store's files without the manifest, which says where they came from.
func pieces(t *testing.T, folder string) map[string]string {
	files := contents(t, folder)
	require.Contains(t, files, "manifest.json")
	delete(files, "manifest.json")
	return files
}

// A model read from a host becomes the store that its files become.
func TestFromHost(t *testing.T) {
	for folder, names := range map[string][]string{
		exectest.Testdata("models", "glm4moe-mtp"): {""},
		exectest.Testdata("gguf"):                  {"/glm4moe.gguf", "/qwen2-00001-of-00002.gguf"},
	} {
		server := serve(t, folder)
		for _, name := range names {
			local, distant := t.TempDir(), t.TempDir()
			o := convert.Options{Weights: "q8_0"}
			_, err := convert.Convert(context.Background(), folder+name, local, o)
			require.NoError(t, err)
			report, err := convert.Convert(context.Background(), server.URL+"/"+filepath.Base(folder)+name, distant, o)
			require.NoError(t, err)
			require.Contains(t, report.Checks, "have the SHA-256 that the host states")
			require.NotContains(t, report.Checks, "none")
			require.Equal(t, pieces(t, local), pieces(t, distant))
		}
	}
}

// A GGUF file written from a host's files is the one written from them here.
func TestToGGUFFromHost(t *testing.T) {
	path := exectest.Testdata("models", "qwen3")
	folder := t.TempDir()
	here, there := filepath.Join(folder, "here.gguf"), filepath.Join(folder, "there.gguf")
	_, err := convert.ToGGUF(context.Background(), path, here, convert.Options{Weights: "q8_0"})
	require.NoError(t, err)
	report, err := convert.ToGGUF(context.Background(), serve(t, path).URL+"/qwen3", there, convert.Options{Weights: "q8_0"})
	require.NoError(t, err)
	require.Contains(t, report.Checks, "have the SHA-256")
	files := contents(t, folder)
	require.Len(t, files, 2)
	require.Equal(t, files["here.gguf"], files["there.gguf"])
}

// hub answers as a Hugging Face host with one model. While down it only fails.
type hub struct {
	folder string
	down   atomic.Bool
	asked  atomic.Int64
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	const commit = "abcdef0123456789"
	entries, _ := os.ReadDir(h.folder)
	switch name, file := strings.CutPrefix(r.URL.Path, "/owner/name/resolve/"+commit+"/"); {
	case h.down.Load():
		http.NotFound(w, r)
	case file:
		http.ServeFile(w, r, filepath.Join(h.folder, name))
	case r.URL.Path == "/api/models/owner/name/revision/main":
		fmt.Fprintf(w, `{"sha": %q, "cardData": {"license": "mit"}}`, commit)
	case r.URL.Path == "/api/models/owner/name/tree/"+commit:
		fmt.Fprint(w, "[")
		for i, e := range entries {
			data, _ := os.ReadFile(filepath.Join(h.folder, e.Name()))
			fmt.Fprintf(w, `%s{"type": "file", "path": %q, "lfs": {"oid": "%x", "size": %d}}`, strings.Repeat(",", min(i, 1)), e.Name(), sha256.Sum256(data), len(data))
		}
		fmt.Fprint(w, "]")
	default:
		http.NotFound(w, r)
	}
}

// Wherever a model is one argument, hf:OWNER/NAME is converted once into the
// cache; after that the host is not asked any more.
func TestOpenFromHub(t *testing.T) {
	h := &hub{folder: exectest.Testdata("models", "llama-gqa")}
	server := httptest.NewServer(h)
	defer server.Close()
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_TOKEN", "")
	cache := t.TempDir()
	src, err := convert.Open(context.Background(), "hf:owner/name", convert.OpenOptions{Folder: cache})
	require.NoError(t, err)
	require.Equal(t, "owner/name@abcdef0123456789", src.Manifest().Source)
	require.Equal(t, "mit", src.Manifest().License)
	require.Equal(t, "name", src.Manifest().Model.Name)
	h.down.Store(true)
	before := h.asked.Load()
	_, err = convert.Open(context.Background(), "hf:owner/name", convert.OpenOptions{Folder: cache})
	require.NoError(t, err)
	require.Equal(t, before, h.asked.Load())
	_, err = convert.Open(context.Background(), "hf:owner/name@v2", convert.OpenOptions{Folder: cache})
	require.ErrorContains(t, err, "check the name on")
}

// A repository of GGUF files says that one must be named.
func TestHubOfGGUFs(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(exectest.Testdata("gguf"))))
	for _, name := range contentsNames(t, folder) {
		if !strings.HasSuffix(name, ".gguf") {
			require.NoError(t, os.Remove(filepath.Join(folder, name)))
		}
	}
	server := httptest.NewServer(&hub{folder: folder})
	defer server.Close()
	t.Setenv("HF_ENDPOINT", server.URL)
	_, err := convert.Convert(context.Background(), "hf:owner/name", t.TempDir(), convert.Options{})
	require.ErrorContains(t, err, "name one, for instance hf:owner/name/chatglm.gguf")
	_, err = convert.Convert(context.Background(), "hf:owner/name/qwen3.gguf", t.TempDir(), convert.Options{})
	require.NoError(t, err)
}

func contentsNames(t *testing.T, folder string) []string {
	var names []string
	for name := range contents(t, folder) {
		names = append(names, name)
	}
	return names
}

// Content that is not what the host states makes no store, and leaves nothing
// that a next run would go on with.
func TestHostHashMismatch(t *testing.T) {
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(exectest.Testdata("models", "glm4moe-mtp"))))
	sums := fmt.Sprintf("%064x  model-00002-of-00002.safetensors\n", 1)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "SHA256SUMS"), []byte(sums), 0o644))
	server := httptest.NewServer(http.FileServer(http.Dir(folder)))
	defer server.Close()
	out := t.TempDir()
	_, err := convert.Convert(context.Background(), server.URL, out, convert.Options{})
	require.ErrorContains(t, err, "does not have the host's SHA-256")
	require.NoFileExists(t, filepath.Join(out, "manifest.json"))
	require.NoFileExists(t, filepath.Join(out, "convert.journal"))
	require.NoFileExists(t, filepath.Join(out, "convert.remote"))
}
