package convert

import (
	"os"

	"golang.org/x/sys/unix"
)

// readAhead asks for a range of a file that will be read: several readers of one
// file, each somewhere else, keep the system from seeing that itself.
func readAhead(f *os.File, offset, bytes int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, bytes, unix.FADV_WILLNEED) // only a wish
}
