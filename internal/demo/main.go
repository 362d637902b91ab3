// Command demo sets up a room on this machine: a coordinator with the embedded
// model, a native worker and, where asked, headless browser tabs. It asks one
// question, shows who computed which layers, and stays up for more tabs.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

var (
	potluck = flag.String("potluck", "bin/potluck", "the program")
	listen  = flag.String("listen", "127.0.0.1:7777", "address of the coordinator; another port is taken where this one is in use")
	tabs    = flag.Int("tabs", 0, "headless browser tabs that join too")
	prompt  = flag.String("prompt", "What is the capital of France?", "the question")
	stay    = flag.Bool("stay", true, "stay up after the answer, until Ctrl-C (never with --tabs)")
)

const token = "demo" // of workers and of the room's controls

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	address := freeAddress(*listen)
	room := &room{base: "http://" + address}
	logs := filepath.Join("build", "demo")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	policy := "auto"
	if *tabs > 0 {
		policy = "spread" // everyone takes part: that is what there is to see
	}
	fmt.Printf("Starting a coordinator with the embedded model at %s …\n", room.base)
	serve, err := start(ctx, filepath.Join(logs, "serve.log"), "serve", "--listen", address, "--local-worker=false", "--join-token", token, "--operator-key", token, "--policy", policy)
	if err != nil {
		return err
	}
	defer serve.end()
	if err := room.await(ctx, serve, 30*time.Second); err != nil {
		return err
	}
	fmt.Println("Starting a native worker that joins it …")
	worker, err := start(ctx, filepath.Join(logs, "worker.log"), "worker", "--join", room.base, "--join-token", token, "--name", "native-1")
	if err != nil {
		return err
	}
	defer worker.end()
	if *tabs > 0 {
		fmt.Printf("Opening %d headless browser tabs that lend their computer …\n", *tabs)
		browser, err := openTabs(ctx, room.base, token, *tabs)
		if err != nil {
			return err
		}
		defer browser.Close()
	}
	if err := room.awaitWorkers(ctx, 1+*tabs, 90*time.Second); err != nil {
		return err
	}
	fmt.Printf("\n  you      %s\n  potluck  ", *prompt)
	if err := room.ask(ctx, *prompt); err != nil {
		return err
	}
	if err := room.table(ctx); err != nil {
		return err
	}
	if *tabs > 0 || !*stay {
		return nil
	}
	fmt.Printf("\nOpen %s to chat, %s/room to watch (its operator key: %s),\nand %s/join#%s in more tabs to lend them. Ctrl-C ends.\n", room.base, room.base, token, room.base, token)
	select {
	case <-ctx.Done():
	case err := <-serve.done:
		return fmt.Errorf("the coordinator ended: %v; see %s", err, filepath.Join(logs, "serve.log"))
	}
	return nil
}

// freeAddress is want, or the same host with a free port where want is in use.
func freeAddress(want string) string {
	if l, err := net.Listen("tcp", want); err == nil {
		l.Close()
		return want
	}
	host, _, _ := net.SplitHostPort(want)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return want
	}
	defer l.Close()
	return l.Addr().String()
}

// A process is a part of the room that runs beside this one.
type process struct {
	cmd  *exec.Cmd
	done chan error
	log  string
}

func start(ctx context.Context, log string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, *potluck, args...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	p := &process{cmd: cmd, done: make(chan error, 1), log: log}
	go func() { p.done <- cmd.Wait() }()
	return p, nil
}

// end asks the process to leave in order, and waits for it.
func (p *process) end() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
	}
}
