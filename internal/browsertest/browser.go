// Package browsertest runs the tests' pages in a real headless Chromium.
//
// It finds and starts the browser, opens tabs, and gives back what they show,
// write to the console and ask the network for. What is right on a page is for
// the tests to say.
package browsertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// Step is how long one step may take: a navigation, an evaluation, a click.
const Step = 30 * time.Second

// WebGPU gives pages a WebGPU adapter in software. Without it tabs have none.
var WebGPU = []string{"enable-unsafe-webgpu", "use-webgpu-adapter=swiftshader"}

// A Browser is a running headless Chromium with a profile of its own.
type Browser struct {
	first  context.Context
	cancel []context.CancelFunc
	mu     sync.Mutex
	used   bool // the browser's first tab was given out
}

// Find returns the path of Chromium: $CHROMIUM, or a known name in PATH.
func Find() (string, error) {
	if path := os.Getenv("CHROMIUM"); path != "" {
		return exec.LookPath(path)
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium found: apt-get install chromium (or set CHROMIUM to its path)")
}

// Launch starts Chromium. Flags are without their dashes: "name" or
// "name=value". The browser must be closed; it also ends with ctx.
func Launch(ctx context.Context, flags ...string) (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // it refuses to run as root otherwise
		chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	for _, f := range flags {
		name, value, ok := strings.Cut(f, "=")
		if ok {
			options = append(options, chromedp.Flag(name, value))
		} else {
			options = append(options, chromedp.Flag(name, true))
		}
	}
	b := &Browser{}
	all, cancel := chromedp.NewExecAllocator(ctx, options...)
	b.cancel = append(b.cancel, cancel)
	b.first, cancel = chromedp.NewContext(all, chromedp.WithLogf(func(string, ...any) {}), chromedp.WithErrorf(func(string, ...any) {}))
	b.cancel = append(b.cancel, cancel)
	// The first step starts the browser, and the browser ends with that step's
	// context: it must not be one with a time limit.
	started := make(chan error, 1)
	go func() { started <- chromedp.Do(b.first) }()
	select {
	case err = <-started:
	case <-time.After(2 * Step):
		err = errors.New("no answer")
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("%s does not start: %w", path, err)
	}
	return b, nil
}

// Close ends the browser and all its tabs.
func (b *Browser) Close() {
	for i := len(b.cancel) - 1; i >= 0; i-- {
		b.cancel[i]()
	}
}

// Tab opens an empty tab. With private it shares no storage with the others.
func (b *Browser) Tab(private bool) (*Tab, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := b.first, context.CancelFunc(func() {})
	if b.used || private {
		var options []chromedp.ContextOption
		if private {
			options = append(options, chromedp.WithNewBrowserContext())
		}
		ctx, cancel = chromedp.NewContext(b.first, options...)
	} else {
		b.used = true
	}
	t := &Tab{ctx: ctx, cancel: cancel, Limit: Step}
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		return nil, err
	}
	if err := chromedp.Listen(ctx, t.heard); err != nil {
		cancel()
		return nil, err
	}
	if err := t.Do(call(network.Enable, network.EnableParams{})); err != nil {
		cancel()
		return nil, err
	}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			t.mu.Lock()
			t.console = append(t.console, fmt.Sprintf("%s: %s", m.Type, m.Text))
			t.mu.Unlock()
		}
	}()
	return t, nil
}

// A Tab is one page.
type Tab struct {
	ctx      context.Context
	cancel   context.CancelFunc
	Limit    time.Duration // for one step
	mu       sync.Mutex
	console  []string
	requests []string
}

func (t *Tab) heard(event any) {
	if e, ok := event.(*network.EventRequestWillBeSent); ok && e.Request != nil {
		t.mu.Lock()
		t.requests = append(t.requests, e.Request.URL)
		t.mu.Unlock()
	}
}

// Close closes the tab, as a person would.
func (t *Tab) Close() {
	ctx, cancel := context.WithTimeout(t.ctx, t.Limit)
	defer cancel()
	_ = chromedp.Do(ctx, call(page.Close, cdp.Empty{}))
	t.cancel()
}

// Kill ends the tab's process: nothing in it runs any more, no farewell is
// sent.
func (t *Tab) Kill() {
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	_ = chromedp.Do(ctx, call(page.Crash, cdp.Empty{}))
}

// Do runs chromedp's actions within the limit of a step.
func (t *Tab) Do(actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.Limit)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

// Open goes to an address and waits until it is loaded.
func (t *Tab) Open(url string) error {
	if err := t.Do(chromedp.Navigate(url)); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// Evaluate runs JavaScript, waits for its promise, and decodes its value into
// out, which may be nil.
func (t *Tab) Evaluate(script string, out any) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.Limit)
	defer cancel()
	// The value travels as text, so that any type of out will do.
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		"(async () => { const v = await ("+script+"); return JSON.stringify(v === undefined ? null : v); })()", chromedp.EvalAwaitPromise))
	if err != nil {
		return fmt.Errorf("%.200s: %w", script, err)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal([]byte(text), out)
}

// Wait waits until a JavaScript expression is true.
func (t *Tab) Wait(expression string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		var ok bool
		err := t.Evaluate("!!("+expression+")", &ok)
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v in vain for %s (last error: %v); the page says %q", limit, expression, err, t.text())
		}
		select {
		case <-t.ctx.Done():
			return t.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// text is the beginning of what the page shows, for messages.
func (t *Tab) text() (s string) {
	_ = t.Evaluate("document.body ? document.body.innerText.slice(0, 600) : ''", &s)
	return s
}

// Click clicks the element that a CSS selector finds, as a mouse would.
func (t *Tab) Click(selector string) error {
	if err := t.Do(chromedp.WaitVisible(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector))); err != nil {
		return fmt.Errorf("click %s: %w", selector, err)
	}
	return nil
}

// Type types text into the element that a CSS selector finds.
func (t *Tab) Type(selector, text string) error {
	if err := t.Do(chromedp.SendKeys(chromedp.CSS(selector), text)); err != nil {
		return fmt.Errorf("type into %s: %w", selector, err)
	}
	return nil
}

// Keys presses keys in whatever has the focus; package chromedp/kb names them.
func (t *Tab) Keys(keys string) error { return t.Do(chromedp.KeyEvent(keys)) }

// View is what a tab pretends to be.
type View struct {
	Width, Height int64
	Scale         float64 // 0: 1
	Dark, Still   bool    // colour scheme; reduced motion
	Touch         bool
	Cores         int64 // of the processor; 0: what it has
}

// Pretend sets the size, colours and motion of the page.
func (t *Tab) Pretend(v View) error {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}, {Name: "prefers-reduced-motion", Value: "no-preference"}}
	if v.Dark {
		features[0].Value = "dark"
	}
	if v.Still {
		features[1].Value = "reduce"
	}
	options := []chromedp.EmulateViewportOption{}
	if v.Scale > 0 {
		options = append(options, chromedp.EmulateScale(v.Scale))
	}
	if v.Touch {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	if v.Cores > 0 {
		if err := t.Do(call(emulation.SetHardwareConcurrencyOverride, emulation.SetHardwareConcurrencyOverrideParams{HardwareConcurrency: v.Cores})); err != nil {
			return err
		}
	}
	return t.Do(chromedp.EmulateViewport(v.Width, v.Height, options...), call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}))
}

// Screenshot is what the tab shows, as PNG.
func (t *Tab) Screenshot() ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.Limit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.CaptureScreenshot())
}

// FullScreenshot is the whole page, as PNG.
func (t *Tab) FullScreenshot() ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.Limit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.FullScreenshot(100))
}

// Console is what the page wrote to its console so far, one "type: text" each.
func (t *Tab) Console() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.console...)
}

// Requests are the addresses that the page asked for so far.
func (t *Tab) Requests() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.requests...)
}

// Front brings the tab to the front; the others count as hidden then.
func (t *Tab) Front() error {
	ctx, cancel := context.WithTimeout(t.ctx, t.Limit)
	defer cancel()
	c := chromedp.FromContext(t.ctx)
	_, err := chromedp.CallBrowser(ctx, target.ActivateTarget, target.ActivateTargetParams{TargetID: c.Target.TargetID})
	return err
}
