package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/potluck-llm/potluck/exec"
	"github.com/potluck-llm/potluck/exec/cpu"
	"github.com/potluck-llm/potluck/exec/cpu/kernel"
	"github.com/potluck-llm/potluck/internal/version"
	"github.com/potluck-llm/potluck/link"
	"github.com/potluck-llm/potluck/link/ws"
	"github.com/potluck-llm/potluck/shard"
	"github.com/potluck-llm/potluck/wire"
	"github.com/potluck-llm/potluck/worker"
	"github.com/potluck-llm/potluck/worker/httpsource"
)

type workerFlags struct {
	join, token, name, cache string
	threads                  int
	memory                   float64
	noCache, verbose         bool
}

func workerCommand() *cobra.Command {
	f := &workerFlags{}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Lend this machine to a room",
		Long: `Joins a room and computes the layers that its coordinator assigns. Weights are
fetched by hash, verified, and kept for next time. The worker reconnects by
itself; on Ctrl-C it leaves in order, and the room goes on without it.`,
		Example: `  potluck worker --join http://192.168.1.5:7777 --join-token 3f9a…
  potluck worker --join 'http://192.168.1.5:7777/join#3f9a…'   # the join link, as it is`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.join, "join", "", "the coordinator's address, or its join link (required)")
	flags.StringVar(&f.token, "join-token", os.Getenv("POTLUCK_JOIN_TOKEN"), "the room's join token")
	flags.StringVar(&f.name, "name", "", "what the room calls this machine (default: its host name)")
	flags.StringVar(&f.cache, "cache", "", "folder for fetched weights (default: the user's cache)")
	flags.BoolVar(&f.noCache, "no-cache", false, "keep fetched weights in memory only")
	flags.IntVar(&f.threads, "threads", 0, "processor threads, 0: all cores")
	flags.Float64Var(&f.memory, "memory", 0, "GB to lend, 0: half of what is free")
	flags.BoolVar(&f.verbose, "verbose", false, "log more")
	return cmd
}

// joinAddress reads a coordinator's address or a join link.
func joinAddress(text string) (base, token string, err error) {
	if text == "" {
		return "", "", errors.New("say whom to join: --join http://HOST:7777")
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", fmt.Errorf("--join: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", "", fmt.Errorf("--join %s: want http:// or https:// and a host", text)
	}
	return u.Scheme + "://" + u.Host, u.Fragment, nil
}

func (f *workerFlags) run(ctx context.Context) error {
	base, token, err := joinAddress(f.join)
	if err != nil {
		return err
	}
	if f.token == "" {
		f.token = token
	}
	if f.token == "" {
		return errors.New("the room's join token is missing: --join-token, POTLUCK_JOIN_TOKEN, or the join link as it is")
	}
	folder := f.cache
	if folder == "" && !f.noCache {
		if folder, err = httpsource.CacheFolder(); err != nil {
			return err
		}
	}
	engine, err := kernel.New(kernel.Options{Threads: f.threads})
	if err != nil {
		return err
	}
	defer engine.Close()
	name := f.name
	if name == "" {
		name = hostName()
	}
	hello, err := nativeHello(engine, f.token, name, f.memory)
	if err != nil {
		return err
	}
	logger := newLogger(f.verbose)
	logger.Info("lending", "to", base, "memory_gb", fmt.Sprintf("%.1f", float64(hello.Capacity.Bytes)/1e9), "read_gb_s", fmt.Sprintf("%.1f", hello.Capacity.ReadGBs), "backend", hello.Backend)
	return worker.Run(ctx, worker.Options{
		Link: func(ctx context.Context) (link.Link, error) {
			l, err := ws.Dial(ctx, "ws"+strings.TrimPrefix(base, "http")+"/v1/join", nil)
			return l, explainCertificate(err, base)
		},
		Hello:       hello,
		NewExecutor: func() (exec.Executor, error) { return cpu.New(cpu.Options{Engine: engine}), nil },
		Open: func(ctx context.Context, manifest string) (shard.Source, func(), error) {
			src, err := httpsource.Open(ctx, httpsource.Options{Base: base, Folder: folder}, manifest)
			if err != nil {
				return nil, nil, err
			}
			return src, src.Close, nil
		},
		Logger: logger,
	})
}

// explainCertificate says what to do about a certificate that a room made for
// itself: its port answers http too.
func explainCertificate(err error, base string) error {
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return err
	}
	return fmt.Errorf("the room made its own certificate, which this machine does not know: join http%s instead, the port is the same (%w)", strings.TrimPrefix(base, "https"), err)
}

// measureTime is how long a native worker measures itself before it joins.
const measureTime = 200 * time.Millisecond

// nativeHello introduces this machine, measured.
func nativeHello(engine *kernel.Engine, token, name string, memoryGB float64) (wire.Hello, error) {
	bytes := int64(memoryGB * 1e9)
	if bytes == 0 {
		bytes = freeMemory() / 2
	}
	if bytes < 1<<20 {
		return wire.Hello{}, fmt.Errorf("%d bytes of memory to lend: too little (--memory)", bytes)
	}
	readGBs, layerMs := cpu.Measure(engine, measureTime)
	return wire.Hello{Token: token, Name: limitName(name), Kind: "native", Build: version.String(), Backend: "cpu " + engine.Variant(),
		Capacity: wire.Capacity{Bytes: bytes, ReadGBs: readGBs, DispatchMs: layerMs, Credit: 8, Threads: engine.Threads()}}, nil
}
