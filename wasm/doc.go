//go:build !(js && wasm)

// Command wasm is a tab's worker. Build it with GOOS=js GOARCH=wasm, as
// `make wasm` does.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "this program runs in a browser: make wasm builds it")
	os.Exit(1)
}
