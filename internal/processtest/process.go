// Package processtest runs programs beside a test, as package browsertest runs
// browsers.
package processtest

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// maxOutput is how much of what a program prints is kept.
const maxOutput = 1 << 20

// endLimit is how soon a program must end after SIGTERM.
const endLimit = 10 * time.Second

// A Process is a program that a test started. It ends with the test; what it
// printed shows when the test fails.
type Process struct {
	Done chan struct{} // closed when it has ended

	cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
}

// Start starts cmd. A program that does not end in time after the test's
// SIGTERM fails the test.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{cmd: cmd, Done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(p.Done) }()
	t.Cleanup(func() {
		name := filepath.Base(cmd.Path) + " " + strings.Join(cmd.Args[1:], " ")
		p.Signal(syscall.SIGTERM)
		select {
		case <-p.Done:
		case <-time.After(endLimit):
			p.Signal(syscall.SIGKILL)
			t.Errorf("%s did not end %v after SIGTERM", name, endLimit)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, p.Output())
		}
	})
	return p
}

// Write keeps what the program prints.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.output.Len() < maxOutput {
		p.output.Write(b)
	}
	return len(b), nil
}

// Output is what the program has printed so far.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// Signal sends a signal; an ended program does not mind.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// FreeAddress is one of this machine that nobody listens at.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Healthy tells whether the coordinator at base accepts requests.
func Healthy(base string) bool {
	response, err := http.Get(base + "/healthz")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}
