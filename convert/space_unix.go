//go:build linux || darwin

package convert

import "golang.org/x/sys/unix"

// freeSpace is how many bytes can be written below path.
func freeSpace(path string) (int64, bool) {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
