//go:build !(js && wasm)

// Command bench measures a whole model in a browser's tab; bench/tab builds,
// serves and runs it.
package main

func main() { panic("this program runs in a browser: go run ./bench/tab") }
