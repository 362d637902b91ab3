package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// How a file is checked against the SHA-256 of its whole content, although it
// is read in pieces and out of order, and over several runs:
//
// Every block that arrives gets a digest of its own, which is noted in a log
// before anyone uses the block. A hash of the whole file follows: whenever the
// block that it stands before is at hand, in memory or in the window on disk, it
// takes it and goes on; where it stands is noted too. What is missing at the
// end (the window has a limit; a run may have been killed) is fetched again, and
// must then have the digest that was noted the first time. So the bytes that
// were used are the bytes that were hashed.

// ErrHash is the error for a file that is not what its host says it is.
var ErrHash = errors.New("the content does not have the host's SHA-256")

// A checker follows a file's content.
type checker struct {
	file *File
	want string // SHA-256 in hex; "": the host does not say
	next atomic.Int64

	lock    sync.Mutex
	sum     hash.Hash
	digests map[int][32]byte
}

func (c *checker) reset() { c.sum = sha256.New() }

// wants tells whether the hash has not yet come to a block.
func (c *checker) wants(block int) bool { return c.want != "" && int64(block) >= c.next.Load() }

// note takes a block that has just arrived.
func (c *checker) note(block int, data []byte) error {
	digest := sha256.Sum256(data)
	c.lock.Lock()
	defer c.lock.Unlock()
	if known, ok := c.digests[block]; ok && known != digest {
		return fmt.Errorf("%s: %w", c.file.Name, ErrChanged)
	} else if !ok {
		c.digests[block] = digest
		if err := c.file.model.log.block(c.file.Name, block, digest); err != nil {
			return err
		}
	}
	return c.advance(block, data)
}

// advance hashes as many blocks as are at hand. The caller holds the lock.
func (c *checker) advance(block int, data []byte) error {
	if c.want == "" {
		return nil
	}
	moved := false
	for next := int(c.next.Load()); next < c.file.blocks(); next++ {
		at := data
		if next != block {
			if at = c.file.model.cache.peek(key{c.file, next}); at == nil {
				break
			}
		}
		c.sum.Write(at)
		c.next.Store(int64(next) + 1)
		moved = true
	}
	if !moved {
		return nil
	}
	return c.file.model.log.state(c.file.Name, int(c.next.Load()), c.sum)
}

// finish hashes what is missing and compares.
func (c *checker) finish(ctx context.Context, done func(bytes int64)) error {
	for {
		next := int(c.next.Load())
		if next >= c.file.blocks() {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		data, err := c.file.block(next)
		if err != nil {
			return err
		}
		c.file.ahead(next + 1)
		c.lock.Lock()
		err = c.advance(next, data)
		c.lock.Unlock()
		if err != nil {
			return err
		}
		done(int64(len(data)))
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if got := hex.EncodeToString(c.sum.Sum(nil)); got != c.want {
		return fmt.Errorf("%s: %w: it says %s, the bytes read have %s", c.file.Name, ErrHash, c.want, got)
	}
	return nil
}

// check holds a small file against what the host said.
func (e entry) check(data []byte) error {
	if e.size >= 0 && int64(len(data)) != e.size {
		return fmt.Errorf("%d bytes, the host's list says %d", len(data), e.size)
	}
	if sum := sha256.Sum256(data); e.sha256 != "" && hex.EncodeToString(sum[:]) != e.sha256 {
		return fmt.Errorf("%w: it says %s, the bytes read have %x", ErrHash, e.sha256, sum)
	}
	if e.blob != "" {
		h := sha1.New()
		fmt.Fprintf(h, "blob %d\x00", len(data))
		h.Write(data)
		if got := hex.EncodeToString(h.Sum(nil)); got != e.blob {
			return fmt.Errorf("the content is not the one that the host lists: its git hash is %s, the list says %s", got, e.blob)
		}
	}
	return nil
}

// A Summary says what Check could do.
type Summary struct {
	Hashed   int      // files whose whole content has the host's SHA-256
	Unhashed []string // files for which the host gives none: only that they did not change was checked
}

// atOnce is how many files are checked at the same time.
const atOnce = 4

// Check reads what of the opened files was not read yet, and holds each
// against its hash. report is told how far it is; it may be nil.
func (m *Model) Check(report func(done, total int64)) (Summary, error) {
	var s Summary
	var files []*File
	var done, total int64
	for _, f := range m.files {
		if f.want == "" {
			s.Unhashed = append(s.Unhashed, f.Name)
			continue
		}
		files = append(files, f)
		total += max(0, f.Size-f.next.Load()*m.sizes.block)
	}
	s.Hashed = len(files)
	ctx, cancel := context.WithCancelCause(m.ctx)
	defer cancel(nil)
	var lock sync.Mutex
	var wait sync.WaitGroup
	queue := make(chan *File)
	for range atOnce {
		wait.Go(func() {
			for f := range queue {
				err := f.finish(ctx, func(n int64) {
					lock.Lock()
					defer lock.Unlock()
					if done += n; report != nil {
						report(done, total)
					}
				})
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, f := range files {
		queue <- f
	}
	close(queue)
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return s, fmt.Errorf("%s: %w", m.Place, err)
	}
	return s, nil
}

// A log notes digests and how far the hashes are. It is text, one line a note; a line that was cut off counts for nothing.
type log struct {
	path string
	mu   sync.Mutex
	file *os.File
}

// Keep begins to note in a file what is checked, or goes on with the notes of an
// earlier run for the same fingerprint; windowBytes may lie beside it meanwhile.
func (m *Model) Keep(path, fingerprint string, windowBytes int64) error {
	l := &log{path: path}
	old, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	first, rest, _ := strings.Cut(string(old), "\n")
	if first != fingerprint {
		rest = ""
	} else if err := m.recall(rest); err != nil {
		return err
	}
	if err := os.WriteFile(l.path, []byte(fingerprint+"\n"), 0o644); err != nil {
		return err
	}
	if l.file, err = os.OpenFile(l.path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
		return err
	}
	m.log = l
	for _, f := range m.files {
		if err := f.write(l); err != nil {
			return err
		}
	}
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	return m.cache.window.open(filepath.Dir(path), windowBytes)
}

// write notes all that is known of a file: what was cut off in the log does not
// stay.
func (c *checker) write(l *log) error {
	for block, digest := range c.digests {
		if err := l.block(c.file.Name, block, digest); err != nil {
			return err
		}
	}
	if c.next.Load() == 0 {
		return nil
	}
	return l.state(c.file.Name, int(c.next.Load()), c.sum)
}

// recall takes what an earlier run noted.
func (m *Model) recall(text string) error {
	files := map[string]*File{}
	for _, f := range m.files {
		files[f.Name] = f
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		field := strings.SplitN(lines.Text(), " ", 4)
		if len(field) != 4 || files[field[3]] == nil {
			continue
		}
		f := files[field[3]]
		var number int
		data, err := hex.DecodeString(field[2])
		if _, scan := fmt.Sscan(field[1], &number); err != nil || scan != nil || number < 0 || number > f.blocks() {
			continue
		}
		switch field[0] {
		case "block":
			if known, ok := f.digests[number]; ok && !bytes.Equal(known[:], data) {
				return fmt.Errorf("%s: %w", f.Name, ErrChanged)
			} else if len(data) == len(known) {
				f.digests[number] = [32]byte(data)
			}
		case "hash":
			sum := sha256.New()
			if sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(data) == nil && int64(number) > f.next.Load() {
				f.sum = sum
				f.next.Store(int64(number))
			}
		}
	}
	return nil
}

func (l *log) block(name string, block int, digest [32]byte) error {
	return l.line("block %d %x %s\n", block, digest, name)
}

func (l *log) state(name string, next int, sum hash.Hash) error {
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	return l.line("hash %d %x %s\n", next, state, name)
}

func (l *log) line(format string, args ...any) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := fmt.Fprintf(l.file, format, args...)
	return err
}

func (l *log) close() error {
	if l == nil || l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// Forget removes the notes: all is done, or must begin anew.
func (m *Model) Forget() error {
	if m.log == nil {
		return nil
	}
	return errors.Join(m.log.close(), os.Remove(m.log.path))
}
