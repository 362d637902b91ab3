package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/bench"
	"github.com/potluck-llm/potluck/safetensors"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/token"
)

// run executes a command line with an input and returns what it printed.
func run(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	cmd := root()
	var out bytes.Buffer
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// Every command teaches with an example, every flag says what it is for, and
// the examples use no flag that is not there.
func TestHelpTeaches(t *testing.T) {
	for _, cmd := range root().Commands() {
		t.Run(cmd.Name(), func(t *testing.T) {
			text, err := run(t, "", cmd.Name(), "--help")
			require.NoError(t, err)
			require.Contains(t, text, "Usage:")
			require.NotEmpty(t, cmd.Short)
			if cmd.Name() == "version" || cmd.Name() == "help" || cmd.Name() == "completion" {
				return
			}
			require.Contains(t, cmd.Example, "potluck "+cmd.Name())
			for _, word := range strings.Fields(cmd.Example) {
				if name, ok := strings.CutPrefix(word, "--"); ok {
					name, _, _ = strings.Cut(name, "=")
					require.NotNil(t, cmd.Flags().Lookup(name), "the example's --%s", name)
				}
			}
			for _, line := range strings.Split(strings.TrimSpace(cmd.Flags().FlagUsages()), "\n") {
				require.Regexp(t, `--[a-z-]+.*\s{3}\S`, line, "a flag that says what it is for")
			}
		})
	}
}

// What is asked wrongly is answered with what to do, before anything is loaded.
func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	t.Setenv("POTLUCK_JOIN_TOKEN", "")
	for want, args := range map[string][]string{
		`unknown command "dance"`:          {"dance"},
		"unknown flag: --fast":             {"run", "--fast"},
		"unknown command \"x\"":            {"serve", "x"},
		"--prompt TEXT, or --tokens":       {"run"},
		"exclude each other":               {"run", "-p", "x", "--tokens", "1"},
		"--tokens needs --logits":          {"run", "--tokens", "1"},
		`"x" is not a token id`:            {"run", "--tokens", "1,x", "--logits", "/dev/null"},
		"99999 is outside the vocabulary":  {"run", "--tokens", "99999", "--logits", "/dev/null"},
		"--activations f64":                {"run", "-p", "x", "--activations", "f64"},
		"no model there":                   {"run", "-p", "x", "--model", "/no/such/model"},
		`policy "chaos": auto or spread`:   {"serve", "--policy", "chaos"},
		"choose another --listen address":  {"serve", "--listen", taken.Addr().String()},
		"--join http://HOST:7777":          {"worker"},
		"want http:// or https://":         {"worker", "--join", "ftp://x"},
		"join token is missing":            {"worker", "--join", "http://127.0.0.1:1"},
		"too little (--memory)":            {"worker", "--join", "http://127.0.0.1:1#t", "--memory", "0.0001", "--threads", "1"},
		"--tensor needs --out":             {"inspect", "--tensor", "embed"},
		"want at least 1 of each":          {"bench", "--prompt", "0"},
		"exceed the model's context":       {"bench", "--prompt", "100000"},
		"want NAME=COMMAND":                {"bench", "--compare", "nothing"},
		"line 2: want a JSON string":       {"tokenize"},
		"line 1: want a JSON array of ids": {"tokenize", "--decode"},
		"no such file":                     {"tokenize", "--file", "/no/such/tokenizer.json"},
	} {
		_, err := run(t, "\"a\"\n{}\n", args...)
		require.ErrorContains(t, err, want, "potluck %s", strings.Join(args, " "))
	}
}

func TestTokenizeBothWays(t *testing.T) {
	texts := []string{"Once upon a time", "", "Grüße, 世界 🦊\n\ttab", `"quoted" <|user|>`}
	var lines bytes.Buffer
	for _, text := range texts {
		require.NoError(t, json.NewEncoder(&lines).Encode(text))
	}
	ids, err := run(t, lines.String(), "tokenize")
	require.NoError(t, err)
	require.Equal(t, len(texts), strings.Count(ids, "\n"))
	require.Contains(t, ids, "\n[]\n", "nothing is an empty list, not null")
	back, err := run(t, ids, "tokenize", "--decode", "--special")
	require.NoError(t, err)
	for i, line := range strings.Split(strings.TrimSuffix(back, "\n"), "\n") {
		var text string
		require.NoError(t, json.Unmarshal([]byte(line), &text))
		require.Equal(t, texts[i], text)
	}
	// One line too many bytes is an error, not a cut.
	_, err = run(t, `"`+strings.Repeat("x", token.MaxLine)+`"`, "tokenize")
	require.ErrorContains(t, err, "too long")
}

func TestTemplates(t *testing.T) {
	text, err := run(t, `{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}`+"\n", "template")
	require.NoError(t, err)
	require.Contains(t, text, "Hi")
	parsed, err := run(t, `{"raw": "<think>Easy.</think>Four."}`+"\n", "template", "--parse")
	require.NoError(t, err)
	var v struct{ Reasoning, Content string }
	require.NoError(t, json.Unmarshal([]byte(parsed), &v))
	require.Equal(t, "Easy.", v.Reasoning)
	require.Equal(t, "Four.", v.Content)
	file := filepath.Join(t.TempDir(), "t.jinja")
	require.NoError(t, os.WriteFile(file, []byte("{% if not messages %}{{ raise_exception('nobody speaks') }}{% endif %}{% for m in messages %}{{ m.content }}!{% endfor %}"), 0o644))
	text, err = run(t, `{"messages": [{"role": "user", "content": "Hi"}]}`+"\n{\"messages\": []}\n", "template", "--file", file)
	require.NoError(t, err)
	lines := strings.Split(text, "\n")
	require.Equal(t, `"Hi!"`, lines[0])
	require.Contains(t, lines[1], `{"error":`)
	require.Contains(t, lines[1], "nobody speaks")
	_, err = run(t, "{}\n{\n", "template", "--file", file)
	require.ErrorContains(t, err, "line 2")
}

// The same prompt gives the same text, and nothing but it is printed.
func TestRunAnswers(t *testing.T) {
	raw := []string{"run", "-p", "Once upon a time", "--raw", "--temperature", "0", "--max-tokens", "12", "--threads", "1"}
	first, err := run(t, "", raw...)
	require.NoError(t, err)
	require.Greater(t, len(first), 10)
	again, err := run(t, "", raw...)
	require.NoError(t, err)
	require.Equal(t, first, again)
	seeded := []string{"run", "-p", "Tell me a story.", "--no-thinking", "--temperature", "1", "--seed", "7", "--max-tokens", "12", "--threads", "1"}
	one, err := run(t, "", seeded...)
	require.NoError(t, err)
	two, err := run(t, "", seeded...)
	require.NoError(t, err)
	require.Equal(t, one, two, "a seed decides")
}

func TestRunWritesLogits(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.safetensors")
	_, err := run(t, "", "run", "--tokens", "3242, 3244,302", "--logits", out, "--hidden", "--threads", "1")
	require.NoError(t, err)
	f, err := safetensors.Open(out)
	require.NoError(t, err)
	defer f.Close()
	src, err := openModel(t.Context(), "", "")
	require.NoError(t, err)
	c := src.Manifest().Model
	shapes := map[string][]int64{}
	for _, name := range f.Names() {
		tensor, _ := f.Tensor(name)
		shapes[name] = tensor.Shape
	}
	require.Equal(t, []int64{3, int64(c.Vocab)}, shapes["logits"])
	require.Equal(t, []int64{3, int64(c.Hidden)}, shapes["hidden.0"])
	require.Len(t, shapes, c.Layers+2)
}

func TestInspectATensor(t *testing.T) {
	src, err := openModel(t.Context(), "", "")
	require.NoError(t, err)
	list, err := run(t, "", "inspect")
	require.NoError(t, err)
	for _, tensor := range src.Manifest().Tensors {
		require.Contains(t, list, tensor.Name)
	}
	out := filepath.Join(t.TempDir(), "out.safetensors")
	_, err = run(t, "", "inspect", "--tensor", "embed", "--out", out)
	require.NoError(t, err, "the embedded model's embedding")
	_, err = run(t, "", "inspect", "--tensor", "nothing", "--out", out)
	require.ErrorContains(t, err, "nothing")
}

func TestConvertAndServeFromTheStore(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	store := filepath.Join(t.TempDir(), "store")
	said, err := run(t, "", "convert", "../../testdata/models/llama-mha", "--out", store, "--weights", "f32")
	require.NoError(t, err)
	require.Contains(t, said, store)
	_, err = shard.OpenDir(store)
	require.NoError(t, err)
	_, err = run(t, "", "run", "--model", store, "-p", "x")
	require.ErrorContains(t, err, "no tokenizer")
	_, err = run(t, "", "run", "--model", store, "--weights", "q8_0", "--tokens", "1", "--logits", filepath.Join(t.TempDir(), "x"))
	require.ErrorContains(t, err, "f32 weights")
	_, err = run(t, "", "convert", "../../testdata/models/llama-mha")
	require.ErrorContains(t, err, "--out")
	_, err = run(t, "", "convert", "../../testdata/models/llama-mha", "--out", store, "--weights", "q17")
	require.ErrorContains(t, err, "q17")
}

func TestBenchJSON(t *testing.T) {
	for _, workers := range []string{"0", "2"} {
		text, err := run(t, "", "bench", "--json", "--prompt", "16", "--gen", "4", "--workers", workers, "--threads", "1")
		require.NoError(t, err)
		var r bench.Result
		require.NoError(t, json.Unmarshal([]byte(text), &r), text)
		require.Positive(t, r.PrefillTokS)
		require.Positive(t, r.DecodeTokS)
		require.GreaterOrEqual(t, r.Runs, 3)
		require.LessOrEqual(t, r.DecodeSpread.Low, r.DecodeTokS)
		require.GreaterOrEqual(t, r.DecodeSpread.High, r.DecodeTokS)
		require.Equal(t, workers == "2", len(r.Hops) == 2)
		require.Equal(t, workers == "2", r.WireBytesPerToken > 0)
		if runtime.GOOS != "windows" {
			require.Greater(t, r.PeakBytes, r.WeightBytes)
			want := 0.0 // what workers keep of a cache is theirs
			if workers == "0" {
				require.Positive(t, r.KVBytes)
				want = float64(r.PeakBytes) / float64(r.WeightBytes+r.KVBytes)
			}
			require.InDelta(t, want, r.PeakRatio, 1e-9)
		}
	}
	table, err := run(t, "", "bench", "--prompt", "16", "--gen", "4", "--threads", "1")
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Regexp(t, `memory +[0-9]+ MB at most, [0-9.]+ × \([0-9]+ MB of weights \+ [0-9]+ MB of KV cache\)`, table)
	}
	table, err = run(t, "", "bench", "--prompt", "16", "--gen", "4", "--workers", "1", "--threads", "1")
	require.NoError(t, err)
	for _, word := range []string{"prefill 16", "decode 4", "first token", "compute ms", "coordinator"} {
		require.Contains(t, table, word)
	}
}

func TestJoinAddress(t *testing.T) {
	for text, want := range map[string][2]string{
		"http://host:7777":            {"http://host:7777", ""},
		"host:7777":                   {"http://host:7777", ""},
		"https://host/join#abc":       {"https://host", "abc"},
		"http://192.168.1.5:7777/j#t": {"http://192.168.1.5:7777", "t"},
	} {
		base, token, err := joinAddress(text)
		require.NoError(t, err, text)
		require.Equal(t, want, [2]string{base, token}, text)
	}
	for _, text := range []string{"", "ftp://host", "http://", "http://[::1"} {
		_, _, err := joinAddress(text)
		require.Error(t, err, text)
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "ana", limitName("ana"))
	require.Equal(t, strings.Repeat("ü", 32), limitName(strings.Repeat("ü", 40)))
	require.NotEmpty(t, hostName())
	require.Positive(t, freeMemory())
	require.Equal(t, `'it'\''s'`, quoteShell("it's"))
}

// Connections that never say anything are told of once, others not at all.
func TestSilentConnections(t *testing.T) {
	var log bytes.Buffer
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &silentListener{plain, slog.New(slog.NewTextHandler(&log, nil))}
	defer l.Close()
	for _, said := range []string{"", "hi"} {
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		_, err = client.Write([]byte(said))
		require.NoError(t, err)
		require.NoError(t, client.Close())
		_, _ = io.Copy(io.Discard, server)
		require.NoError(t, server.Close())
		_ = server.Close()
		if said == "" {
			require.Equal(t, 1, strings.Count(log.String(), client.LocalAddr().String()))
		}
	}
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
}
