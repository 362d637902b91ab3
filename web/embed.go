// Package web is what people see: a chat, a page to lend this computer, and
// the room.
//
// The pages are plain ES modules and one stylesheet, sent as they lie here.
// Package api serves them; they talk to it alone. Every sentence about a state
// stands in strings.js.
package web

import (
	"embed"
	"io/fs"
)

//go:embed files
var files embed.FS

// Files are the pages and what they load: chat.html, join.html, room.html and
// warning.html at the root.
func Files() fs.FS {
	root, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // the folder is part of this package
	}
	return root
}
