//go:build !amd64 && !arm64

package kernel

// pause tells the processor that a thread polls.
func pause() {}
