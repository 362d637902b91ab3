// Package assets holds what a tab's worker needs: the program, compiled to
// wasm by make, and the JavaScript around it.
package assets

import (
	"embed"
	"errors"
	"io/fs"
)

//go:embed static
var static embed.FS

//go:embed files
var files embed.FS

// Built tells whether the program is inside this binary.
func Built() bool {
	_, err := fs.Stat(files, "files/potluck.wasm")
	return err == nil
}

// Files is all of it, in one folder.
func Files() fs.FS {
	a, errA := fs.Sub(static, "static")
	b, errB := fs.Sub(files, "files")
	if err := errors.Join(errA, errB); err != nil {
		panic(err) // the folders are part of this package
	}
	return both{a, b}
}

// both looks in one folder, then in another.
type both [2]fs.FS

func (b both) Open(name string) (fs.File, error) {
	f, err := b[0].Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return b[1].Open(name)
	}
	return f, err
}
