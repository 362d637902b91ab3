package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/chromedp/chromedp"
)

// browser is a headless Chromium whose tabs lend this computer.
type browser struct {
	cancel []context.CancelFunc
}

func (b *browser) close() {
	for i := len(b.cancel) - 1; i >= 0; i-- {
		b.cancel[i]()
	}
}

// openTabs opens /join in count tabs and presses the button in each.
func openTabs(ctx context.Context, base, token string, count int) (*browser, error) {
	b := &browser{}
	options := append([]chromedp.ExecAllocatorOption{},
		chromedp.NoSandbox, // Chromium refuses to run as root with it
		chromedp.Flag("disable-quic", true), chromedp.Flag("enable-unsafe-webgpu", true))
	if path := os.Getenv("CHROMIUM"); path != "" {
		options = append(options, chromedp.ExecPath(path))
	}
	all, cancel := chromedp.NewExecAllocator(ctx, options...)
	b.cancel = append(b.cancel, cancel)
	first, cancel := chromedp.NewContext(all)
	b.cancel = append(b.cancel, cancel)
	for i := range count {
		tab := first
		if i > 0 {
			tab, cancel = chromedp.NewContext(first)
			b.cancel = append(b.cancel, cancel)
		}
		// Only the first Run starts the browser, and must not end with it.
		if err := chromedp.Do(tab); err != nil {
			b.close()
			return nil, fmt.Errorf("Chromium does not start (apt-get install chromium, or set CHROMIUM to its path): %w", err)
		}
		limited, done := context.WithTimeout(tab, 30*time.Second)
		err := chromedp.Do(limited,
			chromedp.Navigate(fmt.Sprintf("%s/join#%s", base, token)),
			chromedp.WaitVisible(chromedp.CSS("#lend")), chromedp.Click(chromedp.CSS("#lend")))
		done()
		if err != nil {
			b.close()
			return nil, fmt.Errorf("tab %d: %w", i+1, err)
		}
	}
	return b, nil
}
