// Command screenshots takes the pictures of the pages for the documents: it
// starts a real room with the embedded model, native workers and a browser tab
// that lends itself, and photographs every page as people see it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/potluck-llm/potluck/internal/browsertest"
)

var (
	potluck = flag.String("potluck", "bin/potluck", "the program")
	out     = flag.String("out", "docs/screenshots", "folder for the pictures")
	workers = flag.Int("workers", 3, "native workers beside the tab")
)

// What the room is opened with.
const (
	joinToken   = "pot-luck-42"
	operatorKey = "screenshots"
	question    = "What is the capital of France?"
	tale        = "Tell me a story about a fox."
)

// written waits for so many letters of the last answer.
const written = `[...document.querySelectorAll('article.assistant > .answer')].at(-1)?.textContent.length > %d`

var names = []string{"tower-1", "laptop-7", "lab-pc-3", "studio-2", "attic-9"}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "screenshots:", err)
		os.Exit(1)
	}
}

// A studio is the room, the browser and where pictures go.
type studio struct {
	base    string
	browser *browsertest.Browser
	leave   func()
}

func run(ctx context.Context) error {
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	end, err := start(ctx, "serve", "--listen", address, "--local-worker=false", "--join-token", joinToken, "--operator-key", operatorKey, "--policy", "spread")
	if err != nil {
		return err
	}
	defer end()
	s := &studio{base: "http://" + address}
	if err := s.await(ctx); err != nil {
		return err
	}
	for i := range min(*workers, len(names)) {
		end, err := start(ctx, "worker", "--join", s.base, "--join-token", joinToken, "--name", names[i])
		if err != nil {
			return err
		}
		s.leave = end // the last one, in the middle of an answer
		defer end()
	}
	if s.browser, err = browsertest.Launch(ctx, browsertest.WebGPU...); err != nil {
		return err
	}
	defer s.browser.Close()
	lender, err := s.browser.Tab(true)
	if err != nil {
		return err
	}
	defer lender.Close()
	if err := s.join(lender); err != nil {
		return err
	}
	if err := s.chat(lender); err != nil {
		return err
	}
	return s.room()
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts a part of the room; end ends it in order.
func start(ctx context.Context, args ...string) (end func(), err error) {
	cmd := exec.CommandContext(ctx, *potluck, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}), nil
}

// await waits until the coordinator accepts requests.
func (s *studio) await(ctx context.Context) error {
	for {
		response, err := http.Get(s.base + "/healthz")
		if err == nil {
			response.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the coordinator does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var (
	desktop = browsertest.View{Width: 1280, Height: 800}
	dark    = browsertest.View{Width: 1280, Height: 800, Dark: true}
	wall    = browsertest.View{Width: 1920, Height: 1080}
	phone   = browsertest.View{Width: 360, Height: 740, Scale: 2, Touch: true}
)

// take photographs a tab as it would look to one of the views.
func take(tab *browsertest.Tab, name string, v browsertest.View) error {
	if err := tab.Pretend(v); err != nil {
		return err
	}
	// Two frames, and the time of one layout, so that nothing is half drawn.
	if err := tab.Evaluate("new Promise(done => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 500))", nil); err != nil {
		return err
	}
	return shoot(tab, name)
}

// shoot photographs a tab as it is.
func shoot(tab *browsertest.Tab, name string) error {
	png, err := tab.Screenshot()
	if err != nil {
		return err
	}
	fmt.Println(name)
	return os.WriteFile(filepath.Join(*out, name+".png"), png, 0o644)
}

// steps runs until something fails.
func steps(list ...func() error) error {
	for _, step := range list {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *studio) join(tab *browsertest.Tab) error {
	return steps(
		func() error { return tab.Pretend(phone) },
		func() error { return tab.Open(s.base + "/join?backend=cpu&name=phone-2#" + joinToken) },
		func() error { return take(tab, "join-offer", phone) },
		func() error { return tab.Click("#lend") },
		func() error {
			return tab.Wait("document.querySelector('#state').dataset.state === 'idle'", 60*time.Second)
		},
		func() error { return take(tab, "join-idle", phone) },
	)
}

func (s *studio) chat(lender *browsertest.Tab) error {
	tab, err := s.browser.Tab(true)
	if err != nil {
		return err
	}
	defer tab.Close()
	return steps(
		func() error { return tab.Pretend(desktop) },
		func() error { return tab.Open(s.base + "/") },
		func() error { return take(tab, "chat-new", desktop) },
		func() error { return tab.Type("#text", question+"\r") },
		func() error { return tab.Wait("document.querySelector('#again')", 60*time.Second) },
		func() error { return lender.Front() },
		func() error { return take(lender, "join-working", phone) },
		func() error { return tab.Front() },
		func() error { return tab.Type("#text", tale+"\r") },
		func() error { return tab.Wait(fmt.Sprintf(written, 60), 30*time.Second) },
		func() error { return shoot(tab, "chat-answering") },
		func() error {
			return tab.Wait("!document.querySelector('#send').classList.contains('stop')", 60*time.Second)
		},
		func() error { return take(tab, "chat-done", desktop) },
		func() error { return take(tab, "chat-dark", dark) },
		func() error { return take(tab, "chat-phone", phone) },
		func() error { return tab.Pretend(desktop) },
		func() error { return tab.Click("#again") },
		func() error { return tab.Wait(fmt.Sprintf(written, 20), 30*time.Second) },
		func() error { s.leave(); return nil },
		func() error {
			return tab.Wait("!document.querySelector('#send').classList.contains('stop')", 60*time.Second)
		},
		func() error { return take(tab, "chat-recovered", desktop) },
		func() error { return tab.Open(s.base + "/warning.html") },
		func() error { return take(tab, "warning", phone) },
	)
}

func (s *studio) room() error {
	tab, err := s.browser.Tab(true)
	if err != nil {
		return err
	}
	defer tab.Close()
	// Somebody else asks meanwhile, so that there is a token to follow.
	asking := `fetch('/v1/completions', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({prompt: 'Once upon a time', max_tokens: 200, temperature: 0, ignore_eos: true})}).then(r => r.status)`
	return steps(
		func() error { return tab.Pretend(wall) },
		func() error { return tab.Open(s.base + "/room#" + operatorKey) },
		func() error { return tab.Evaluate(asking, nil) },
		func() error { return tab.Wait("!document.querySelector('#replay').disabled", 30*time.Second) },
		func() error { return take(tab, "room", wall) },
		func() error { return take(tab, "room-dark", browsertest.View{Width: 1920, Height: 1080, Dark: true}) },
		func() error { return take(tab, "room-phone", phone) },
	)
}
