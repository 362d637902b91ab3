//go:build !(js && wasm)

// Package browser is a link over the browser's own WebSocket. It exists only
// in the js/wasm build.
package browser
