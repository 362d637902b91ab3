package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/potluck-llm/potluck/convert/remote"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/safetensors"
)

// A folder is where a model's files lie, on this machine or on a host.
type folder interface {
	// read returns a small file, open a large one with its size; the error for
	// one that is not there is fs.ErrNotExist.
	read(name string) ([]byte, error)
	open(name string) (io.ReaderAt, int64, error)
	// stamps tell these versions of the large files that were opened from any others.
	stamps() ([]string, error)
	close() error
}

// local is a folder on this machine.
type local struct {
	path   string
	opened []string
	files  []io.Closer
}

func (l *local) read(name string) ([]byte, error) { return os.ReadFile(filepath.Join(l.path, name)) }

func (l *local) open(name string) (io.ReaderAt, int64, error) {
	path := filepath.Join(l.path, name)
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	l.files = append(l.files, f)
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.IsDir() {
		return nil, 0, fmt.Errorf("%s is a folder, want a file", path)
	}
	l.opened = append(l.opened, fmt.Sprintf("%s %d %d", name, info.Size(), info.ModTime().UnixNano()))
	return aheadReader{f}, info.Size(), nil
}

// aheadReader reads a file in long pieces, and hides that it can be closed: the
// folder does that.
type aheadReader struct{ f *os.File }

// longRead is from when on a read is worth asking for what follows it.
const longRead = 1 << 20

func (r aheadReader) ReadAt(buf []byte, offset int64) (int, error) {
	if len(buf) >= longRead {
		readAhead(r.f, offset, 2*int64(len(buf)))
	}
	return r.f.ReadAt(buf, offset)
}

func (l *local) stamps() ([]string, error) { return l.opened, nil }

func (l *local) close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// distant is a folder on a host.
type distant struct{ *remote.Model }

func (d distant) read(name string) ([]byte, error) { return d.ReadFile(name) }

func (d distant) open(name string) (io.ReaderAt, int64, error) {
	if strings.HasSuffix(name, ".json") { // an index: small, and read once
		data, err := d.read(name)
		if err == nil && name == safetensors.IndexName {
			d.Announce(partsOf(data))
		}
		return bytes.NewReader(data), int64(len(data)), err
	}
	f, err := d.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return f, f.Size, nil
}

// partsOf lists the files that an index names; nothing of a damaged one, whose
// reader says what is wrong.
func partsOf(index []byte) []string {
	var i struct {
		Parts map[string]string `json:"weight_map"`
	}
	if json.Unmarshal(index, &i) != nil {
		return nil
	}
	seen := map[string]bool{}
	var names []string
	for _, name := range i.Parts {
		if !seen[name] && filepath.IsLocal(name) && strings.HasSuffix(name, ".safetensors") && len(names) < 4096 {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

func (d distant) stamps() ([]string, error) { return d.Stamps(), nil }
func (d distant) close() error              { return d.Close() }

// openSource opens a Hugging Face folder or a GGUF file, here or on a host.
func openSource(ctx context.Context, name string) (*source, error) {
	if remote.Is(name) {
		m, err := remote.Open(ctx, name, remote.Environment())
		if err != nil {
			return nil, err
		}
		s, err := openIn(distant{m}, m.Place, m.GGUF)
		if err != nil {
			return nil, errors.Join(hint(m, err), m.Close())
		}
		s.remote = m
		if s.license == "" {
			s.license = m.License
		}
		return s, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	path, file := name, ""
	if !info.IsDir() {
		if path, file = filepath.Split(name); !isGGUF(file) {
			return nil, fmt.Errorf("%s: want a folder with config.json and safetensors, or a .gguf file", name)
		}
	}
	l := &local{path: path}
	s, err := openIn(l, name, file)
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return s, nil
}

// hint names a repository's GGUF files where it has nothing else.
func hint(m *remote.Model, err error) error {
	if names := m.Names(".gguf"); m.GGUF == "" && len(names) > 0 && len(m.Names(".safetensors")) == 0 {
		slices.Sort(names)
		return fmt.Errorf("%s holds GGUF files: name one, for instance %s/%s: %w", m.Place, m.Place, names[0], err)
	}
	return err
}

// openIn opens the folder's checkpoint, or its GGUF file of that name.
func openIn(f folder, place, file string) (*source, error) {
	s := &source{place: place, folder: f}
	if file == "" {
		return s, s.openCheckpoint()
	}
	return s, s.openGGUF(file)
}

// openGGUFParts opens a GGUF file or, where it is one of several, all of them.
func openGGUFParts(f folder, name string) (*gguf.File, error) {
	open := func(names ...string) (*gguf.File, error) {
		readers := make([]gguf.Reader, len(names))
		for i, part := range names {
			r, size, err := f.open(part)
			if err != nil {
				return nil, err
			}
			readers[i] = gguf.Reader{Name: part, ReaderAt: r, Size: size}
		}
		return gguf.NewSplit(readers)
	}
	if names := gguf.SplitNames(name); len(names) > 1 {
		return open(names...)
	}
	return open(name)
}

func isGGUF(name string) bool { return strings.HasSuffix(strings.ToLower(name), ".gguf") }
