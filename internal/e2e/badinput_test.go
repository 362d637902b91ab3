package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/internal/processtest"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
)

// complaints are the lines of a log that report something bad; of connections
// that never spoke, which orderly clients have too, only the one from there.
func complaints(p *processtest.Process, from string) (lines []string) {
	for _, line := range strings.Split(p.Output(), "\n") {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") || strings.Contains(line, "said anything") && strings.HasSuffix(line, "from="+from) {
			lines = append(lines, line)
		}
	}
	return lines
}

// dial opens a link as a worker would.
func (r *room) dial() *websocket.Conn {
	d := websocket.Dialer{Subprotocols: []string{wire.Subprotocol}, HandshakeTimeout: 5 * time.Second}
	conn, _, err := d.Dial("ws"+strings.TrimPrefix(r.base, "http")+"/v1/join", nil)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func control(t *testing.T, m any) string {
	data, err := wire.EncodeControl(m)
	require.NoError(t, err)
	return string(data)
}

// lastWord reads until the coordinator closes the connection and returns the
// error that it sent.
func lastWord(t *testing.T, conn *websocket.Conn) string {
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	word := ""
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			return word
		}
		if m, err := wire.DecodeControl(data); err == nil {
			if e, ok := m.(*wire.Error); ok {
				word = e.Message
			}
		}
	}
}

// TestBadInput does to a running room what nobody should, one thing after
// another. Each is refused with an error that names the place, the log has
// exactly one line about it, and the next question is answered as ever.
func TestBadInput(t *testing.T) {
	r := openRoom(t, "--model", copyStore(t))
	r.worker("ana")
	r.awaitHolding(1)
	const question = story
	want := r.stream(completion(question, 12), nil)

	hello := func(change func(*wire.Hello)) string {
		h := &wire.Hello{Version: wire.Version, Token: token, Name: "eve", Kind: "native", Capacity: wire.Capacity{Bytes: 1 << 20, ReadGBs: 0.1, Credit: 1}}
		if change != nil {
			change(h)
		}
		return control(t, h)
	}
	good, err := wire.AppendPass(nil, &wire.PassFrame{Result: true, Pass: 1, Span: 1, State: wire.State{Rows: []wire.Row{{}}, Hidden: make([]float32, 256)}}, true)
	require.NoError(t, err)
	seal := func(change func(frame []byte)) string { // a frame whose checksum is right
		frame := bytes.Clone(good)
		change(frame)
		binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(frame[8:], crc32.MakeTable(crc32.Castagnoli)))
		return string(frame)
	}
	post := func(path, body string) func() string {
		return func() string {
			response, err := http.Post(r.base+path, "application/json", strings.NewReader(body))
			require.NoError(t, err)
			defer response.Body.Close()
			require.GreaterOrEqual(t, response.StatusCode, 400)
			data, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			var v struct {
				Error struct {
					Message string `json:"message"`
				} `json:"error"`
			}
			require.NoError(t, json.Unmarshal(data, &v))
			return v.Error.Message
		}
	}
	text := func(messages ...string) func() string {
		return func() string {
			conn := r.dial()
			for _, m := range messages {
				require.NoError(t, conn.WriteMessage(websocket.TextMessage, []byte(m)))
			}
			return lastWord(t, conn)
		}
	}
	frame := func(data string) func() string { // of a worker that was welcomed
		return func() string {
			conn := r.dial()
			require.NoError(t, conn.WriteMessage(websocket.TextMessage, []byte(hello(nil))))
			require.NoError(t, conn.WriteMessage(websocket.BinaryMessage, []byte(data)))
			return lastWord(t, conn)
		}
	}
	raw := func(send string) func() string { // bytes on the port; the answer, if any, is not looked at
		return func() string {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
			require.NoError(t, err)
			_, err = conn.Write([]byte(send))
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			_, _ = io.Copy(io.Discard, conn)
			return conn.LocalAddr().String()
		}
	}
	const chat = "/v1/chat/completions"
	for _, c := range []struct {
		name  string
		do    func() string
		said  string // to the offender; "": it is not there to be told
		lines string // in the log
	}{
		{"a wrong join token", text(hello(func(h *wire.Hello) { h.Token = "guess" })), "invitation is wrong", "invitation is wrong"},
		{"another version", text(hello(func(h *wire.Hello) { h.Version = 7 })), "version 7", "version 7"},
		{"no JSON", text("hi there"), "control message", "control message"},
		{"hello that is not UTF-8", text("{\"type\":\"hello\",\"name\":\"\xff\"}"), "not UTF-8", ""},
		{"an unknown type", text(hello(nil), `{"type":"dance"}`), `unknown type "dance"`, "dance"},
		{"a message for workers", text(hello(nil), control(t, &wire.Release{Span: 1})), "may not send release", "release"},
		{"hello twice", text(hello(nil), hello(nil)), "may not send hello", "hello"},
		{"an absurd figure", text(hello(func(h *wire.Hello) { h.Capacity.Bytes = -5 })), "-5 bytes", "-5 bytes"},
		{"progress beyond the end", text(hello(nil), control(t, &wire.Progress{Loaded: 9, Total: 2})), "progress 9 of 2", "progress 9 of 2"},
		{"a pass before hello", func() string {
			conn := r.dial()
			require.NoError(t, conn.WriteMessage(websocket.BinaryMessage, good))
			return lastWord(t, conn)
		}, "want hello", "want hello"},
		{"an empty frame", frame(""), "frame of 0 bytes", "frame of 0 bytes"},
		{"half a frame", frame(string(good[:len(good)/2])), "header says", "header says"},
		{"a frame of another version", frame(seal(func(f []byte) { f[0] = 9 })), "version 9", "version 9"},
		{"a frame of an unknown kind", frame(seal(func(f []byte) { f[1] = 9 })), "kind 9", "kind 9"},
		{"a frame of an unknown element", frame(seal(func(f []byte) { f[2] = 9 })), "element type 9", "element type 9"},
		{"a frame of unknown flags", frame(seal(func(f []byte) { f[3] = 0x80 })), "flags 0x80", "flags 0x80"},
		{"a frame of a billion rows", frame(seal(func(f []byte) { binary.LittleEndian.PutUint32(f[20:], 1<<30) })), "1073741824 rows", "1073741824 rows"},
		{"a frame of a wide row", frame(seal(func(f []byte) { binary.LittleEndian.PutUint32(f[24:], 1<<31) })), "2147483648", "2147483648"},
		{"a flipped bit", frame(string(append(bytes.Clone(good[:60]), append([]byte{good[60] ^ 1}, good[61:]...)...))), "checksum", "checksum"},
		{"a pass instead of a result", frame(seal(func(f []byte) { f[1] = 1 })), "may not send a pass", "may not send a pass"},
		{"a message of 1 GB, by its header", func() string {
			conn := r.dial()
			header := []byte{0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4} // text, masked, 2^30 bytes
			_, err := conn.NetConn().Write(header)
			require.NoError(t, err)
			return lastWord(t, conn)
		}, "", "more than 65536 bytes"},
		{"a link that says nothing", func() string {
			conn := r.dial()
			defer conn.Close()
			return conn.LocalAddr().String()
		}, "", "no hello"},
		{"a connection that says nothing", raw(""), "", "ended before it said anything"},
		{"a body that is not UTF-8", post(chat, "{\"messages\":\"\xff\"}"), "not UTF-8", "not UTF-8"},
		{"a body that is no JSON", post(chat, "{"), "no JSON object", "no JSON object"},
		{"a request without messages", post(chat, "{}"), "messages: is missing", "messages: is missing"},
		{"a prompt of 10 MB", post(chat, `{"messages":[{"role":"user","content":"`+strings.Repeat("fox ", 10<<18)+`"}]}`), "the prompt has", "the prompt has"},
		{"a body of 40 MB", post(chat, `{"messages":"`+strings.Repeat("x", 40<<20)+`"}`), "more than 33554432 bytes", "more than 33554432 bytes"},
		{"a thousand answers", post(chat, `{"messages":[{"role":"user","content":"Hi"}],"n":1000}`), "n: is 1000", "n: is 1000"},
		{"a thousand stop strings", post(chat, `{"messages":[{"role":"user","content":"Hi"}],"stop":["x"`+strings.Repeat(`,"x"`, 999)+`]}`), "stop: has 1000", "stop: has 1000"},
		{"a negative length", post("/v1/completions", `{"prompt":"Hi","max_tokens":-1}`), "max_tokens: is -1", "max_tokens: is -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(complaints(r.serve, ""))
			said := c.do()
			if c.said != "" {
				require.Contains(t, said, c.said)
			}
			logged := c.lines
			if logged == "" {
				logged = c.said
			}
			r.eventually("the log says so", 5*time.Second, func() bool { return len(complaints(r.serve, said)) > before })
			require.Equal(t, want, r.stream(completion(question, 12), nil), "the next question")
			lines := complaints(r.serve, said)[before:]
			require.Len(t, lines, 1, strings.Join(lines, "\n"))
			require.Contains(t, strings.ReplaceAll(lines[0], `\"`, `"`), logged)
			require.Contains(t, lines[0], "from=127.0.0.1:", "who did it")
			require.Equal(t, 1, r.holding())
		})
	}
	t.Run("max_tokens of a billion", func(t *testing.T) {
		require.True(t, strings.HasPrefix(r.stream(completion(question, 1e9), nil), want))
	})
	t.Run("a prompt that arrives for ever", func(t *testing.T) { // it holds up nobody
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", chat)
		require.NoError(t, err)
		require.Equal(t, want, r.stream(completion(question, 12), nil))
	})
}

// TestDamagedStore tampers with the pieces of a room's store. What a worker
// has stays right; one that needs a damaged piece is told which, and the room
// serves.
func TestDamagedStore(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"changed": func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[len(data)/2] ^= 1
			require.NoError(t, os.WriteFile(path, data, 0o644))
		},
		"cut off": func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 100)) },
	} {
		t.Run(name+" while it is served", func(t *testing.T) {
			store := copyStore(t)
			r := openRoom(t, "--model", store, "--policy", "spread")
			r.worker("ana")
			r.awaitHolding(1)
			want := r.stream(completion(story, 12), nil)
			for _, p := range layerPieces(t, store) {
				damage(t, p)
			}
			ben := r.worker("ben")
			r.eventually("ben cannot load", 60*time.Second, func() bool { return strings.Contains(ben.Output(), "span not loaded") })
			require.Regexp(t, `span not loaded.*piece \d+ \([0-9a-f]{64}\)`, ben.Output())
			require.Equal(t, want, r.stream(completion(story, 12), nil))
		})
		t.Run(name+" before anyone came", func(t *testing.T) {
			store := copyStore(t)
			r := openRoom(t, "--model", store)
			broken := layerPieces(t, store)[0]
			whole, err := os.ReadFile(broken)
			require.NoError(t, err)
			damage(t, broken)
			ana := r.worker("ana")
			r.eventually("ana cannot load and is sent away", 60*time.Second, func() bool {
				select {
				case <-ana.Done:
					return true
				default:
					return false
				}
			})
			require.Contains(t, ana.Output(), filepath.Base(broken))
			lines := complaints(r.serve, "")
			require.Len(t, lines, 2, strings.Join(lines, "\n")) // about the piece, and about ana
			require.Contains(t, lines[0], "piece not served")
			require.Contains(t, lines[0], broken)
			require.Contains(t, lines[1], "could not load its part")
			require.NoError(t, os.WriteFile(broken, whole, 0o644)) // put right, without a restart
			r.worker("ben")
			r.awaitHolding(1)
			require.Equal(t, local(t, story, 12), r.stream(completion(story, 12), nil))
		})
	}
}

func copyStore(t *testing.T) string {
	store := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.CopyFS(store, os.DirFS(filepath.Join("..", "..", "embedded", "store"))))
	return store
}

// layerPieces are the files that only workers need: the coordinator computes
// the embedding and the head itself.
func layerPieces(t *testing.T, store string) (paths []string) {
	data, err := os.ReadFile(filepath.Join(store, shard.ManifestFile))
	require.NoError(t, err)
	m, err := shard.ParseManifest(data)
	require.NoError(t, err)
	own := map[int]bool{}
	for _, tensor := range m.Tensors {
		for _, s := range tensor.Segments {
			own[s.Piece] = own[s.Piece] || !strings.HasPrefix(tensor.Name, "layers.")
		}
	}
	for i, p := range m.Pieces {
		if !own[i] {
			paths = append(paths, filepath.Join(store, shard.PieceFolder, p.Hash.String()))
		}
	}
	require.NotEmpty(t, paths)
	return paths
}

// TestBadModels starts on folders that no model is in: the error names the file
// and what is wrong there, and the program ends with status 1.
func TestBadModels(t *testing.T) {
	config := `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":128,"vocab_size":100,"rms_norm_eps":1e-5,"max_position_embeddings":64}`
	without := func(key string) string {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(config), &m))
		delete(m, key)
		data, err := json.Marshal(m)
		require.NoError(t, err)
		return string(data)
	}
	header := func(n uint64, rest string) string { return string(binary.LittleEndian.AppendUint64(nil, n)) + rest }
	for name, c := range map[string]struct {
		config, weights string
		want            []string
	}{
		"no hidden size":         {without("hidden_size"), header(2, "{}"), []string{"hidden"}},
		"no layers":              {without("num_hidden_layers"), header(2, "{}"), []string{"layers"}},
		"a billion layers":       {strings.Replace(config, `"num_hidden_layers":2`, `"num_hidden_layers":1000000000`, 1), header(2, "{}"), []string{"layers", "1000000000"}},
		"heads that do not fit":  {strings.Replace(config, `"num_attention_heads":4`, `"num_attention_heads":-4`, 1), header(2, "{}"), []string{"heads"}},
		"unknown architecture":   {strings.Replace(config, "LlamaForCausalLM", "Dance", 1), header(2, "{}"), []string{"Dance"}},
		"config that is no JSON": {"{", header(2, "{}"), []string{"config"}},
		"a header of 1 GB":       {config, header(1<<30, "{}"), []string{"model.safetensors", "1073741824"}},
		"a header not UTF-8":     {config, header(4, "{\"\xff"), []string{"model.safetensors"}},
		"no tensors":             {config, header(2, "{}"), []string{"embed"}},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(folder, "config.json"), []byte(c.config), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "model.safetensors"), []byte(c.weights), 0o644))
			cmd := exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--model", folder)
			cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, string(out))
			require.Equal(t, 1, exit.ExitCode(), string(out))
			for _, want := range c.want {
				require.Contains(t, string(out), want)
			}
			require.Equal(t, 1, strings.Count(string(out), "potluck: "), string(out))
		})
	}
}
