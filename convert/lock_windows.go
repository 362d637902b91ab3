package convert

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks an open file, or says errLocked.
func tryLock(f *os.File) error {
	// A byte far behind the text, which others may read.
	at := &windows.Overlapped{OffsetHigh: 1}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}
