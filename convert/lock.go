package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lockFile is held by the one converter that may write into a folder. The
// system lets go of it when that process ends, however it ends.
const lockFile = ".convert.lock"

// errLocked is what tryLock returns where another process has the lock.
var errLocked = errors.New("another converter writes there")

// lockEvery is how often a converter that waits looks again.
const lockEvery = 200 * time.Millisecond

// A folderLock is held until unlock.
type folderLock struct {
	file *os.File
	path string
}

// lock takes a folder for this converter alone.
func lock(folder string) (*folderLock, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(folder, lockFile)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := tryLock(f); err != nil {
			who, _ := os.ReadFile(path) // not there on systems whose locks keep readers out
			f.Close()
			if errors.Is(err, errLocked) {
				return nil, fmt.Errorf("%s: %w%s: wait for it, stop it, or choose another folder", folder, err, strings.TrimSuffix(string(who), "\n"))
			}
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if !names(path, f) { // the one before removed it between our two steps
			f.Close()
			continue
		}
		_ = f.Truncate(0)
		_, _ = fmt.Fprintf(f, " (process %d)\n", os.Getpid())
		return &folderLock{f, path}, nil
	}
}

// names tells whether path still is that open file.
func names(path string, f *os.File) bool {
	here, err := os.Stat(path)
	if err != nil {
		return false
	}
	held, err := f.Stat()
	return err == nil && os.SameFile(here, held)
}

// lockWaiting waits until the folder is free.
func lockWaiting(ctx context.Context, folder string) (*folderLock, error) {
	for {
		l, err := lock(folder)
		if !errors.Is(err, errLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(lockEvery):
		}
	}
}

// unlock lets others in, and leaves nothing behind.
func (l *folderLock) unlock() {
	removed := os.Remove(l.path) == nil // while it is held: nobody else's goes
	_ = l.file.Close()
	if !removed {
		_ = os.Remove(l.path) // some systems remove only what is closed
	}
}
