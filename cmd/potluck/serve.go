package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/coordinator/api"
	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/version"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/mem"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wasm/assets"
	"github.com/potluck-llm/potluck/web"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
)

type serveFlags struct {
	listen, model, weights, policy, token, operator string
	activations                                     string
	local, verbose                                  bool
	threads, slots, context                         int
	memory                                          float64
}

func serveCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Open a room: a coordinator with API and pages",
		Long: `Opens a room. The coordinator serves an OpenAI-compatible API below /v1, a chat
page at /, the room's picture at /room, and lets workers in: browser tabs that
open the join link, and machines that run potluck worker.

With --local-worker (the default) this machine computes layers too, so that a
request is answered before anyone joined. The join token admits workers; it
comes from --join-token, from POTLUCK_JOIN_TOKEN, or is made up.`,
		Example: `  potluck serve
  potluck serve --listen :7777 --model ./GLM-4.5-Air-q4_0 --policy spread
  POTLUCK_JOIN_TOKEN=secret potluck serve --local-worker=false`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:7777", "address to listen on; :7777 lets others in")
	flags.StringVar(&f.model, "model", "", modelHelp)
	flags.StringVar(&f.weights, "weights", "", "weight type to convert to: f32, q8_0 or q4_0 (default: as stored, else q4_0)")
	flags.StringVar(&f.policy, "policy", "auto", "auto: fewest milliseconds a token; spread: everyone takes part")
	flags.StringVar(&f.token, "join-token", os.Getenv("POTLUCK_JOIN_TOKEN"), "what workers must show")
	flags.StringVar(&f.operator, "operator-key", os.Getenv("POTLUCK_OPERATOR_KEY"), "what the room's controls ask for")
	flags.BoolVar(&f.local, "local-worker", true, "this machine computes layers too")
	flags.IntVar(&f.threads, "threads", 0, "processor threads, 0: all cores")
	flags.IntVar(&f.slots, "slots", 16, "conversations at once")
	flags.IntVar(&f.context, "context", 4096, "room of a conversation in tokens")
	flags.StringVar(&f.activations, "activations", "f16", "what travels between layers: f16 or f32")
	flags.Float64Var(&f.memory, "memory", 0, "GB that the local worker may use, 0: half of what is free")
	flags.BoolVar(&f.verbose, "verbose", false, "log more")
	return cmd
}

func randomToken() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (f *serveFlags) run(ctx context.Context, out io.Writer) error {
	policy, err := plan.ParsePolicy(f.policy)
	if err != nil {
		return fmt.Errorf("--policy: %w", err)
	}
	if f.token == "" {
		f.token = randomToken()
	}
	if f.operator == "" {
		f.operator = randomToken()
	}
	// Listening first: a port that is taken should not cost a model's loading.
	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("%w: choose another --listen address", err)
	}
	defer listener.Close()
	src, err := openModel(ctx, f.model, f.weights)
	if err != nil {
		return err
	}
	logger := newLogger(f.verbose)
	room, err := f.openRoom(ctx, src, policy, logger)
	if err != nil {
		return err
	}
	defer room.Close()
	handler, err := f.handler(src, room, logger)
	if err != nil {
		return err
	}
	if f.local {
		stop, err := f.lend(ctx, src, room, logger)
		if err != nil {
			return err
		}
		defer stop()
	}
	f.announce(out, src, listener.Addr())
	return serveUntil(ctx, listener, handler)
}

func (f *serveFlags) openRoom(ctx context.Context, src shard.Source, policy plan.Policy, logger *slog.Logger) (*hub.Hub, error) {
	slots, err := slotPlan(src.Manifest().Model, f.slots, f.context, f.activations)
	if err != nil {
		return nil, err
	}
	_, hash, err := shard.EncodeManifest(src.Manifest())
	if err != nil {
		return nil, err
	}
	exact := f.activations == "f32"
	small, err := kernel.New(kernel.Options{Threads: 1, Exact: exact})
	if err != nil {
		return nil, err
	}
	head, err := kernel.New(kernel.Options{Threads: f.threads, Exact: exact})
	if err != nil {
		return nil, err
	}
	return hub.Open(ctx, hub.Options{Source: src, Manifest: hash, Name: displayName(src.Manifest(), f.model), Policy: policy, Slots: slots, Token: f.token, Logger: logger,
		Embed: cpu.New(cpu.Options{Engine: small}), Head: cpu.New(cpu.Options{Engine: head})})
}

func (f *serveFlags) handler(src shard.Source, room *hub.Hub, logger *slog.Logger) (http.Handler, error) {
	m := src.Manifest()
	tokenizer, err := needTokenizer(m)
	if err != nil {
		return nil, err
	}
	template, err := openTemplate(m, tokenizer)
	if err != nil {
		logger.Warn("chat is off, completions work", "error", err)
		template = nil
	}
	stops, err := stopTokens(m, tokenizer, template)
	if err != nil {
		return nil, err
	}
	g, err := generation(m)
	if err != nil {
		return nil, err
	}
	return api.New(api.Options{Engine: room, Source: src, Name: displayName(m, f.model), Tokenizer: tokenizer, Template: template, Stop: stops, Defaults: g.defaults(),
		Positions: min(f.context, m.Model.MaxPositions), Build: version.String(), JoinToken: f.token, OperatorKey: f.operator, Pages: web.Files(), Assets: assets.Files(), Logger: logger})
}

// lend joins this machine to its own room.
func (f *serveFlags) lend(ctx context.Context, src shard.Source, room *hub.Hub, logger *slog.Logger) (stop func(), err error) {
	engine, err := kernel.New(kernel.Options{Threads: f.threads, Exact: f.activations == "f32"})
	if err != nil {
		return nil, err
	}
	hello, err := nativeHello(engine, f.token, hostName(), f.memory)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = worker.Run(ctx, worker.Options{
			Link: func(context.Context) (link.Link, error) {
				here, there := mem.Pair(mem.Options{})
				go func() { _ = room.Serve(context.WithoutCancel(ctx), there, "this process") }()
				return here, nil
			},
			Hello:       hello,
			NewExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
			Open:        func(context.Context, string) (shard.Source, error) { return src, nil },
			Logger:      logger.With("part", "local worker"),
		})
	}()
	return func() { cancel(); <-done; engine.Close() }, nil
}

// announce prints what people need to know.
func (f *serveFlags) announce(out io.Writer, src shard.Source, address net.Addr) {
	base := "http://" + reachable(address)
	fmt.Fprintf(out, "Potluck %s serves %s\n", version.String(), displayName(src.Manifest(), f.model))
	fmt.Fprintf(out, "  chat          %s/\n  room          %s/room\n  API           %s/v1\n", base, base, base)
	fmt.Fprintf(out, "  lend a tab    %s/join#%s\n  lend a host   potluck worker --join %s --join-token %s\n  operator key  %s\n", base, f.token, base, f.token, f.operator)
}

// reachable is an address that others can use: a LAN address for a listener on
// all of them.
func reachable(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return address.String()
	}
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsPrivate() {
				return net.JoinHostPort(n.IP.String(), port)
			}
		}
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// serveUntil serves until ctx ends, and lets requests finish for a moment.
func serveUntil(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(closing); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	_ = server.Close()
	return nil
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "this computer"
	}
	name, _, _ = strings.Cut(name, ".")
	return limitName(name)
}

// limitName keeps a name within what the protocol allows.
func limitName(name string) string {
	chars := []rune(name)
	if len(chars) > wire.MaxName {
		chars = chars[:wire.MaxName]
	}
	return string(chars)
}
