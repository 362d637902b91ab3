package httpsource

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"os"

	"github.com/potluck-llm/potluck/shard"
)

// writeAtOnce is how much of a file is written in one go: pages of the system's
// cache become as large as what is written at once, up to what processors map as
// one.
const writeAtOnce = 8 << 20

// A download is what has come of a piece so far, in a file or in memory. Where a file
// can't be written, such as on a full disk, it goes on in memory.
type download struct {
	sum     hash.Hash
	size    int64
	data    []byte   // all of it, or what is not yet in file
	file    *os.File // nil: memory
	written int64    // to file
}

// newDownload begins one to file, or to memory where that is nil.
func newDownload(file *os.File) *download { return &download{sum: sha256.New(), file: file} }

// expect makes room for size bytes in all.
func (d *download) expect(size int64) {
	if d.file != nil {
		size = min(size, writeAtOnce)
	}
	if int64(cap(d.data)) < size {
		d.data = append(make([]byte, 0, size), d.data...)
	}
}

// add takes what came next.
func (d *download) add(p []byte) error {
	d.sum.Write(p)
	d.size += int64(len(p))
	for d.file != nil && len(d.data)+len(p) >= writeAtOnce {
		n := writeAtOnce - len(d.data)
		d.data, p = append(d.data, p[:n]...), p[n:]
		if err := d.flush(); err != nil {
			return err
		}
	}
	d.data = append(d.data, p...)
	return nil
}

// flush writes what is held back. An error says that all has to come again.
func (d *download) flush() error {
	if d.file == nil {
		return nil
	}
	if _, err := d.file.Write(d.data); err != nil {
		return d.leaveFile()
	}
	d.written += int64(len(d.data))
	d.data = d.data[:0]
	return nil
}

// leaveFile goes on in memory.
func (d *download) leaveFile() error {
	all := make([]byte, d.written, d.written+int64(len(d.data)))
	_, err := d.file.ReadAt(all, 0)
	d.file, d.data = nil, append(all, d.data...)
	if err != nil {
		d.restart()
	}
	return err
}

// restart forgets what came.
func (d *download) restart() {
	d.sum.Reset()
	d.size, d.written, d.data = 0, 0, d.data[:0]
	if d.file == nil {
		return
	}
	if _, err := d.file.Seek(0, 0); err != nil || d.file.Truncate(0) != nil {
		d.file = nil
	}
}

// check compares what came with its hash.
func (d *download) check(path string, want shard.Hash) error {
	if got := shard.Hash(d.sum.Sum(nil)); got != want {
		return fmt.Errorf("%s: got hash %v, want %v", path, got, want)
	}
	return nil
}
