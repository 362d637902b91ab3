package main

import (
	"context"
	"fmt"

	"github.com/potluck-llm/potluck/internal/browsertest"
)

// openTabs opens /join in count tabs of a headless Chromium and presses the
// button in each.
func openTabs(ctx context.Context, base, token string, count int) (*browsertest.Browser, error) {
	b, err := browsertest.Launch(ctx, browsertest.WebGPU...)
	if err != nil {
		return nil, err
	}
	for i := range count {
		tab, err := b.Tab(true)
		if err == nil {
			// The adapter is a software one; a demo wants the kernels that GPUs run.
			err = tab.Open(fmt.Sprintf("%s/join?backend=webgpu#%s", base, token))
		}
		if err == nil {
			err = tab.Click("#lend")
		}
		if err != nil {
			b.Close()
			return nil, fmt.Errorf("tab %d: %w", i+1, err)
		}
	}
	return b, nil
}
