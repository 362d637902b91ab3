package convert

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/potluck-llm/potluck/convert/remote"
)

// remoteFile notes in a store how far its source was checked, until it is done.
const remoteFile = "convert.remote"

// mostWindow is how much of a host's files may lie on disk at a time: a layer of
// the largest models, whose tensors may lie there in another order than here.
const mostWindow = 8 << 30

// diskSpace is freeSpace but in tests.
var diskSpace = freeSpace

// keepNotes begins the notes of what is read from a host. missing is what is
// still to be written beside them.
func keepNotes(m *remote.Model, path, fingerprint string, missing int64) error {
	window := int64(mostWindow)
	if free, ok := diskSpace(filepath.Dir(path)); ok {
		window = min(window, max(0, free-missing)/2)
	}
	return m.Keep(path, fingerprint, window)
}

// checkRemote holds what was read from a host against its hashes and says what
// was checked. Where they differ nothing that was made is worth keeping: drop
// sees to it.
func checkRemote(m *remote.Model, start time.Time, progress func(Progress), drop func() error) (string, error) {
	s, err := m.Check(func(done, total int64) {
		if progress != nil {
			progress(Progress{Done: done, Total: total, Elapsed: time.Since(start), Checking: true})
		}
	})
	switch {
	case errors.Is(err, remote.ErrHash) || errors.Is(err, remote.ErrChanged):
		err = fmt.Errorf("%w; what was converted of it is dropped", err)
		return "", errors.Join(err, drop(), m.Forget())
	case err != nil:
		return "", err
	}
	return checked(s), m.Forget()
}

// checked says it in a sentence.
func checked(s remote.Summary) string {
	var said []string
	if s.Hashed > 0 {
		said = append(said, fmt.Sprintf("%d files have the SHA-256 that the host states", s.Hashed))
	}
	if n := len(s.Unhashed); n > 0 {
		said = append(said, fmt.Sprintf("for %d files the host states none: that size and tag stayed the same is all that could be checked", n))
	}
	return strings.Join(said, "; ")
}
