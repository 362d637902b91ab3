// Command tab measures a whole model in a tab's processor, and beside it wllama
// (llama.cpp in WebAssembly) in the same browser, alternating.
//
//	go run ./bench/tab --store STORE [--gguf FILE --wllama node_modules/@wllama/wllama]
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/potluck-llm/potluck/internal/browsertest"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wasm/assets"
)

//go:embed static
var static embed.FS

type options struct {
	store, gguf, wllama, kernels, threads string
	prompt, depth, gen, runs, rounds      int
}

func main() {
	var o options
	flag.StringVar(&o.store, "store", "", "folder of the model's shard store (required)")
	flag.StringVar(&o.gguf, "gguf", "", "the same model as a GGUF file, for wllama")
	flag.StringVar(&o.wllama, "wllama", "", "folder of the npm package @wllama/wllama")
	flag.StringVar(&o.kernels, "kernels", "", "kernels to use instead of the best, such as reference")
	flag.StringVar(&o.threads, "threads", "1,2", "numbers of threads")
	flag.IntVar(&o.prompt, "prompt", 512, "tokens of the prompt")
	flag.IntVar(&o.depth, "depth", 4, "tokens before those that are decoded")
	flag.IntVar(&o.gen, "gen", 64, "tokens to decode")
	flag.IntVar(&o.runs, "runs", 3, "measured runs of each round")
	flag.IntVar(&o.rounds, "rounds", 1, "rounds, the engines alternating")
	flag.Parse()
	o.depth = max(o.depth, 1)
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "tab:", err)
		os.Exit(1)
	}
}

// A measurement is what a page answers.
type measurement struct {
	Error  string  `json:"error"`
	Pause  float64 `json:"pause"` // the page's longest, in ms; ours only
	Result struct {
		Kernels string    `json:"kernels"`
		Threads int       `json:"threads"`
		LoadMs  float64   `json:"load_ms"`
		Prefill []float64 `json:"prefill"`
		Decode  []float64 `json:"decode"`
	} `json:"result"`
}

func run(o options) error {
	if !assets.Built() {
		return errors.New("the browser's files are not there: run `make wasm` first")
	}
	folder, err := os.MkdirTemp("", "potluck-tab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	program := filepath.Join(folder, "bench.wasm")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "github.com/potluck-llm/potluck/wasm/bench")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	store, err := shard.OpenDir(o.store)
	if err != nil {
		return err
	}
	_, hash, err := shard.EncodeManifest(store.Manifest())
	if err != nil {
		return err
	}
	server := httptest.NewServer(handler(o, program, hash.String()))
	defer server.Close()
	base := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	engines := []string{"potluck"}
	if o.gguf != "" && o.wllama != "" {
		engines = append(engines, "wllama")
	}
	fmt.Printf("%s, prompt %d, decode %d behind %d\n", store.Manifest().Model.Name, o.prompt, o.gen, o.depth)
	all := map[string]*measurement{}
	for range o.rounds {
		for _, threads := range strings.Split(o.threads, ",") {
			for _, engine := range engines {
				query := url.Values{"threads": {threads}, "prompt": {fmt.Sprint(o.prompt)}, "depth": {fmt.Sprint(o.depth)}, "gen": {fmt.Sprint(o.gen)}, "runs": {fmt.Sprint(o.runs)}, "manifest": {hash.String()}, "kernels": {o.kernels}}
				m, err := measure(base + "/" + engine + ".html?" + query.Encode())
				if err != nil {
					return fmt.Errorf("%s with %s threads: %w", engine, threads, err)
				}
				fmt.Printf("%-8s %s threads (%s %d): load %.1f s, prefill %s, decode %s tok/s\n", engine, threads, m.Result.Kernels, m.Result.Threads, m.Result.LoadMs/1000, spread(m.Result.Prefill), spread(m.Result.Decode))
				if m.Pause > 0 {
					fmt.Printf("         the page's longest pause was %.0f ms\n", m.Pause)
				}
				key := engine + " " + threads
				if sum := all[key]; sum != nil {
					sum.Result.Prefill, sum.Result.Decode = append(sum.Result.Prefill, m.Result.Prefill...), append(sum.Result.Decode, m.Result.Decode...)
				} else {
					all[key] = m
				}
			}
		}
	}
	for _, threads := range strings.Split(o.threads, ",") {
		if ours, theirs := all["potluck "+threads], all["wllama "+threads]; ours != nil && theirs != nil {
			fmt.Printf("%s threads: prefill %.1f ×, decode %.1f × wllama\n", threads, median(ours.Result.Prefill)/median(theirs.Result.Prefill), median(ours.Result.Decode)/median(theirs.Result.Decode))
		}
	}
	return nil
}

// measure opens a page in a browser of its own and waits for its answer.
func measure(address string) (*measurement, error) {
	browser, err := browsertest.Launch(context.Background())
	if err != nil {
		return nil, err
	}
	defer browser.Close()
	tab, err := browser.Tab(false)
	if err != nil {
		return nil, err
	}
	if err := tab.Open(address); err != nil {
		return nil, err
	}
	if err := tab.Wait("window.answer", 10*time.Minute); err != nil {
		return nil, fmt.Errorf("%w; console: %v", err, tab.Console())
	}
	m := &measurement{}
	if err := tab.Evaluate("window.answer", m); err != nil {
		return nil, err
	}
	if m.Error != "" {
		return nil, errors.New(m.Error)
	}
	return m, nil
}

func handler(o options, program, manifest string) http.Handler {
	mux := http.NewServeMux()
	pages := http.FileServerFS(static)
	mux.HandleFunc("GET /{name}", func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/static" + r.URL.Path
		pages.ServeHTTP(w, r)
	})
	mux.Handle("GET /worker/", http.StripPrefix("/worker/", http.FileServerFS(assets.Files())))
	mux.Handle("GET /shards/"+manifest+"/", http.StripPrefix("/shards/"+manifest+"/", http.FileServer(http.Dir(o.store))))
	mux.Handle("GET /wllama/", http.StripPrefix("/wllama/", http.FileServer(http.Dir(filepath.Join(o.wllama, "esm")))))
	mux.HandleFunc("GET /bench.wasm", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, program) })
	mux.HandleFunc("GET /model.gguf", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, o.gguf) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin") // threads need them
		w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		mux.ServeHTTP(w, r)
	})
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func spread(values []float64) string {
	return fmt.Sprintf("%.1f [%.1f–%.1f]", median(values), slices.Min(values), slices.Max(values))
}
