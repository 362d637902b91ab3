package browsertest

import (
	"context"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
)

// call makes an action of a command of the browser's protocol.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

// New starts Chromium for a test and closes it with the test. A missing
// browser fails the test: `make test` installs one where it may.
func New(t testing.TB, flags ...string) *Browser {
	t.Helper()
	b, err := Launch(context.Background(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// NewTab opens a tab for a test; what the page wrote to its console shows when
// the test fails.
func NewTab(t testing.TB, b *Browser, private bool) *Tab {
	t.Helper()
	tab, err := b.Tab(private)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, line := range tab.Console() {
				t.Log("console: " + line)
			}
		}
		tab.Close()
	})
	return tab
}
