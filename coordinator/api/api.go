// Package api is the coordinator's HTTP side: an OpenAI-compatible API, shards
// by hash, the pages, the room's feed, and the door for workers.
//
// It turns requests into tokens and tokens into answers; computing them is the
// work of package hub, which it knows as an Engine.
package api

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/ws"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/token"
	"github.com/potluck-llm/potluck/token/chat"
)

// An Engine computes. *hub.Hub is one.
type Engine interface {
	Generate(ctx context.Context, r hub.Request) (*hub.Stream, error)
	Serve(ctx context.Context, l link.Link, remote string) error
	Snapshot() hub.Snapshot
	Subscribe(ctx context.Context, after uint64) (<-chan hub.Event, bool)
	SetPolicy(p plan.Policy)
	Remove(id string) bool
}

// Options set the API up.
type Options struct {
	Engine    Engine
	Source    shard.Source
	Name      string // of the model
	Tokenizer *token.Tokenizer
	Template  *chat.Template // nil: no chat
	Stop      []int32        // tokens that end an answer
	Defaults  Defaults
	Positions int // room for prompt and answer
	Build     string
	// JoinToken is shown to those who hold the operator key; OperatorKey guards
	// the room's controls.
	JoinToken, OperatorKey string
	Invitation             Invitation
	Pages                  fs.FS // web pages, at /
	Assets                 fs.FS // what a tab's worker needs, at /worker/
	Logger                 *slog.Logger
}

// Defaults are the model's own sampling parameters.
type Defaults struct {
	Temperature, TopP, MinP float64
	TopK                    int
}

// A Server answers HTTP requests.
type Server struct {
	o        Options
	manifest []byte
	hash     shard.Hash
	pieces   map[string]int
	started  time.Time
	told     sync.Map // of damaged pieces, by their hashes: the errors that were logged
	longest  int      // bytes that one token may stand for
}

// New returns the handler of a coordinator.
func New(o Options) (http.Handler, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	data, hash, err := shard.EncodeManifest(o.Source.Manifest())
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, manifest: data, hash: hash, pieces: map[string]int{}, started: time.Now()}
	for i, p := range o.Source.Manifest().Pieces {
		s.pieces[p.Hash.String()] = i
	}
	if o.Tokenizer != nil {
		s.longest = longestToken(o.Tokenizer, o.Source.Manifest().Model.Vocab)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("GET /v1/models/{id...}", s.model)
	mux.HandleFunc("POST /v1/chat/completions", s.chat)
	mux.HandleFunc("POST /v1/completions", s.completions)
	mux.HandleFunc("GET /v1/cluster", s.cluster)
	mux.HandleFunc("GET /v1/cluster/events", s.events)
	mux.HandleFunc("POST /v1/cluster/policy", s.operator(s.setPolicy))
	mux.HandleFunc("DELETE /v1/cluster/workers/{id}", s.operator(s.remove))
	mux.HandleFunc("GET /v1/cluster/invitation", s.operator(s.invitation))
	mux.HandleFunc("GET /v1/certificate", s.certificate)
	mux.HandleFunc("GET /authority.pem", s.authority)
	mux.HandleFunc("GET /v1/join", s.join)
	mux.HandleFunc("GET /shards/{hash}/manifest.json", s.serveManifest)
	mux.HandleFunc("GET /shards/{manifest}/pieces/{hash}", s.servePiece)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /v1/", s.unknown)
	mux.HandleFunc("POST /v1/", s.unknown)
	s.pages(mux)
	return s.headers(mux), nil
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	failed(w, &apiError{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path)})
}

// policy is the pages' content security policy: nothing but our own origin.
const policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; worker-src 'self'; manifest-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types potluck"

// headers sets what every answer carries.
func (s *Server) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if r.Header.Get("Upgrade") == "" { // a link's connection is taken over
			w = &reporter{w, s.o.Logger, r}
		}
		if strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/shards/") {
			h.Set("Access-Control-Allow-Origin", "*")
			h.Set("Access-Control-Allow-Headers", "*")
			if r.Method == http.MethodOptions {
				h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		} else {
			h.Set("Content-Security-Policy", policy)
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Cross-Origin-Embedder-Policy", "require-corp")
			h.Set("Cross-Origin-Resource-Policy", "same-origin")
		}
		next.ServeHTTP(w, r)
	})
}

// pages serves the three pages, their parts, and a tab's worker.
func (s *Server) pages(mux *http.ServeMux) {
	if s.o.Assets != nil {
		mux.Handle("GET /worker/", noCache(http.StripPrefix("/worker/", http.FileServerFS(s.o.Assets))))
	}
	if s.o.Pages == nil {
		return
	}
	files := noCache(http.FileServerFS(s.o.Pages))
	page := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := name
			w.Header().Set("Cache-Control", "no-cache")
			if s.o.Invitation.Words != "" && !secure(r) { // there is a way to https: explain its warning first
				name = "warning.html"
			}
			http.ServeFileFS(w, r, s.o.Pages, name)
		}
	}
	mux.HandleFunc("GET /{$}", page("chat.html"))
	mux.HandleFunc("GET /join", page("join.html"))
	mux.HandleFunc("GET /j", page("join.html"))
	mux.HandleFunc("GET /room", page("room.html"))
	mux.Handle("GET /", files)
}

// noCache asks browsers to check for a newer build each time.
func noCache(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

func respond(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}

func (s *Server) modelInfo() map[string]any {
	return map[string]any{"id": s.o.Name, "object": "model", "created": s.started.Unix(), "owned_by": "potluck", "context_length": s.o.Positions}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	respond(w, map[string]any{"object": "list", "data": []any{s.modelInfo()}})
}

func (s *Server) model(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); id != s.o.Name {
		failed(w, modelNotFound(id, s.o.Name))
		return
	}
	respond(w, s.modelInfo())
}

// join lets a worker in.
func (s *Server) join(w http.ResponseWriter, r *http.Request) {
	l, err := ws.Upgrade(w, r)
	if err != nil {
		s.o.Logger.Warn("worker refused", "from", r.RemoteAddr, "error", err)
		return
	}
	_ = s.o.Engine.Serve(context.WithoutCancel(r.Context()), l, r.RemoteAddr)
}

// operator guards the room's controls.
func (s *Server) operator(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if s.o.OperatorKey == "" || subtle.ConstantTimeCompare([]byte(key), []byte(s.o.OperatorKey)) != 1 {
			failed(w, &apiError{Status: http.StatusUnauthorized, Code: "unauthorized", Message: "this needs the operator key that serve printed"})
			return
		}
		next(w, r)
	}
}

func (s *Server) setPolicy(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Policy string `json:"policy"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body); err != nil {
		failed(w, invalid("policy", "the body must be {\"policy\": \"auto\"} or \"spread\""))
		return
	}
	p, err := plan.ParsePolicy(body.Policy)
	if err != nil {
		failed(w, invalid("policy", "%v", err))
		return
	}
	s.o.Engine.SetPolicy(p)
	respond(w, map[string]string{"policy": string(p)})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	if !s.o.Engine.Remove(r.PathValue("id")) {
		failed(w, &apiError{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("no worker %q is here", r.PathValue("id"))})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
