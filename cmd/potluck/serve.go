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
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skip2/go-qrcode"
	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/coordinator/api"
	"github.com/potluck-llm/potluck/coordinator/cluster"
	"github.com/potluck-llm/potluck/coordinator/hub"
	"github.com/potluck-llm/potluck/coordinator/plan"
	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/lan"
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
	local, verbose, https                           bool
	threads, slots, context                         int
	memory                                          float64
	wait                                            time.Duration
}

func serveCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Open a room: a coordinator with API and pages",
		Long: `Opens a room. The coordinator serves an OpenAI-compatible API below /v1, a chat
page at /, the room's picture at /room, and lets workers in: browser tabs that
open the join link, and machines that run potluck worker.

Browsers compute only on secure pages. From this machine http is one; for others
the same port speaks https too, with a certificate that this installation makes
for itself: each browser warns once, and the page before says what to click.
--https=false leaves that to a proxy in front.

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
	flags.StringVar(&f.activations, "activations", "f16", "what travels between layers: f16 or f32 (f32 also multiplies weights by unrounded activations, on every worker)")
	flags.Float64Var(&f.memory, "memory", 0, "GB that the local worker may use, 0: half of what is free")
	flags.BoolVar(&f.https, "https", true, "answer https on the same port where others can reach it")
	flags.DurationVar(&f.wait, "wait", time.Minute, "how long a request waits for a room that lacks memory, before it fails with 503")
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
	invitation, listener, err := f.invite(&silentListener{listener, logger})
	if err != nil {
		return err
	}
	handler, err := f.handler(src, room, invitation, logger)
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
	f.announce(out, src, invitation)
	return serveUntil(ctx, listener, handler, logger)
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
	small, err := kernel.New(kernel.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	head, err := kernel.New(kernel.Options{Threads: f.threads})
	if err != nil {
		return nil, err
	}
	return hub.Open(ctx, hub.Options{Source: src, Manifest: hash, Name: displayName(src.Manifest(), f.model), Policy: policy, Slots: slots, Token: f.token, Logger: logger,
		Cluster: cluster.Options{WaitLimit: max(f.wait, time.Millisecond)},
		Embed:   cpu.New(cpu.Options{Engine: small}), Head: cpu.New(cpu.Options{Engine: head})})
}

func (f *serveFlags) handler(src shard.Source, room *hub.Hub, invitation api.Invitation, logger *slog.Logger) (http.Handler, error) {
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
		Positions: min(f.context, m.Model.MaxPositions), Build: version.String(), JoinToken: f.token, OperatorKey: f.operator, Invitation: invitation, Pages: web.Files(), Assets: assets.Files(), Logger: logger})
}

// lend joins this machine to its own room.
func (f *serveFlags) lend(ctx context.Context, src shard.Source, room *hub.Hub, logger *slog.Logger) (stop func(), err error) {
	engine, err := kernel.New(kernel.Options{Threads: f.threads})
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
			Open:        func(context.Context, string) (shard.Source, func(), error) { return src, nil, nil },
			Logger:      logger.With("part", "local worker"),
		})
	}()
	return func() { cancel(); <-done; engine.Close() }, nil
}

// announce prints what people need to know.
func (f *serveFlags) announce(out io.Writer, src shard.Source, invitation api.Invitation) {
	base, here := invitation.Bases[0], ownBase(invitation.Bases)
	fmt.Fprintf(out, "Potluck %s serves %s\n", version.String(), displayName(src.Manifest(), f.model))
	fmt.Fprintf(out, "  chat          %s/\n  room          %s/room\n  API           %s/v1\n", here, here, here)
	fmt.Fprintf(out, "  lend a tab    %s\n  lend a host   potluck worker --join %s --join-token %s\n  operator key  %s\n", api.Link(base, f.token), base, f.token, f.operator)
	if invitation.Words == "" {
		return
	}
	fmt.Fprintf(out, "  certificate   %s\n", invitation.Words)
	if code, err := qrcode.New(api.Link(base, f.token), qrcode.Medium); err == nil && isTerminal(out) {
		fmt.Fprintf(out, "\n%s", code.ToSmallString(false))
	}
}

// ownBase is the address for this machine's own browser: loopback where it is
// one of them, because there http is secure enough for browsers.
func ownBase(bases []string) string {
	for _, base := range bases {
		if u, err := url.Parse(base); err == nil {
			if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() {
				return base
			}
		}
	}
	return bases[0]
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// invite tells how the room is reached, and lets a listener that others can
// reach speak https as well.
func (f *serveFlags) invite(l net.Listener) (api.Invitation, net.Listener, error) {
	var invitation api.Invitation
	for _, address := range lan.Reachable(l.Addr()) {
		invitation.Bases = append(invitation.Bases, "http://"+address)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); !f.https || !ok || tcp.IP.IsLoopback() {
		return invitation, l, nil
	}
	folder, err := os.UserConfigDir()
	if err != nil {
		return invitation, nil, fmt.Errorf("nowhere to keep the room's certificate: %w (set XDG_CONFIG_HOME, or --https=false)", err)
	}
	identity, err := lan.Load(filepath.Join(folder, "potluck"), lan.Names(), lan.Addresses(), time.Now())
	if err != nil {
		return invitation, nil, fmt.Errorf("the room's certificate: %w (--https=false does without)", err)
	}
	invitation.Words, invitation.Authority = identity.Words, identity.Authority
	return invitation, lan.Listen(l, identity.Config), nil
}

// serveUntil serves until ctx ends, and lets requests finish for a moment.
func serveUntil(ctx context.Context, listener net.Listener, handler http.Handler, logger *slog.Logger) error {
	quiet := slog.NewLogLogger(logger.Handler(), slog.LevelDebug) // browsers break off handshakes while their user reads the warning
	server := &http.Server{Handler: handler, ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
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
