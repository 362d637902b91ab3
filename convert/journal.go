package convert

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/potluck-llm/potluck/shard"
)

func sqrt(v float64) float64 { return math.Sqrt(v) }

// journalFile notes which pieces are done, until the manifest says so.
const journalFile = "convert.journal"

// A journal is one line a piece, after the fingerprint of the conversion. A
// line that was cut off counts for nothing.
type journal struct {
	mu      sync.Mutex
	path    string
	file    *os.File
	hashes  map[int]shard.Hash
	resumed int64
}

// openJournal goes on with the journal of the same conversion, or begins anew.
func openJournal(out, print string, m *shard.Manifest) (*journal, error) {
	j := &journal{path: filepath.Join(out, journalFile), hashes: map[int]shard.Hash{}}
	old, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	first, rest, _ := strings.Cut(string(old), "\n")
	if first == print {
		j.read(rest, out, m)
	}
	// Written anew: what was cut off does not stay.
	var text strings.Builder
	fmt.Fprintln(&text, print)
	for i, h := range j.hashes {
		fmt.Fprintln(&text, i, h)
	}
	if err := writeWhole(j.path, []byte(text.String())); err != nil {
		return nil, err
	}
	j.file, err = os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
	return j, err
}

// read takes lines whose pieces are there in full size.
func (j *journal) read(text, out string, m *shard.Manifest) {
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		var index int
		var name string
		if n, _ := fmt.Sscan(lines.Text(), &index, &name); n != 2 || index < 0 || index >= len(m.Pieces) {
			continue
		}
		var hash shard.Hash
		if hash.UnmarshalText([]byte(name)) != nil {
			continue
		}
		info, err := os.Stat(filepath.Join(out, shard.PieceFolder, name))
		if err != nil || info.Size() != m.Pieces[index].Bytes {
			continue
		}
		if _, twice := j.hashes[index]; !twice {
			j.hashes[index] = hash
			j.resumed += info.Size()
		}
	}
}

func (j *journal) has(index int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.hashes[index]
	return ok
}

func (j *journal) hash(index int) shard.Hash {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.hashes[index]
}

func (j *journal) add(index int, hash shard.Hash) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hashes[index] = hash
	_, err := fmt.Fprintln(j.file, index, hash)
	return err
}

func (j *journal) close() error {
	if err := j.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// remove ends a conversion: the manifest says all from now on.
func (j *journal) remove() error { return errors.Join(j.close(), os.Remove(j.path)) }
