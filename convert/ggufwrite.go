package convert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/potluck-llm/potluck/convert/remote"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
)

// ToGGUF writes the model at path, a store or what Convert reads, as one GGUF
// file that llama.cpp reads. Memory stays small whatever the model's size. The
// file grows under another name beside out, and gets out's when it is whole;
// stopped at any moment, the same call goes on where it was.
func ToGGUF(ctx context.Context, path, out string, o Options) (report *Report, err error) {
	start := time.Now()
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	origin, err := openOrigin(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, origin.close()) }()
	e := &export{origin: origin, o: o, out: out}
	if err := e.prepare(path); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := e.open(); err != nil {
		return nil, err
	}
	if err := e.run(ctx, start); err != nil {
		return nil, errors.Join(err, e.file.Close()) // what is written stays, to go on with
	}
	checks, err := e.check(start)
	if err != nil {
		return nil, errors.Join(err, e.file.Close())
	}
	if err := e.finish(); err != nil {
		return nil, err
	}
	r := &Report{Bytes: e.writer.Offset(), Types: map[string]int64{}, Errors: e.errors.relative(), Notes: e.notes, Checks: checks, Elapsed: time.Since(start), Resumed: e.resumed}
	for i, t := range e.infos {
		r.Types[t.Type.String()] += e.bytes(i)
	}
	return r, nil
}

// finish gives the file its name, once all of it is on the disk.
func (e *export) finish() error {
	if err := errors.Join(e.file.Chmod(0o644), e.file.Sync(), e.file.Close()); err != nil {
		return err
	}
	return os.Rename(e.file.Name(), e.out)
}

// An export is one GGUF file in the making.
type export struct {
	origin  origin
	o       Options
	out     string
	meta    []gguf.Pair
	infos   []gguf.Info
	tensors []model.GGUFTensor // as infos
	notes   []string
	errors  classErrors

	file    *os.File
	writer  *gguf.Writer
	resumed int64
}

// prepare decides what the file holds.
func (e *export) prepare(path string) error {
	facts := e.origin.facts()
	pairs, err := facts.config.GGUFMeta()
	if err != nil {
		return err
	}
	e.notes = facts.config.GGUFNotes()
	if e.tensors, err = facts.config.GGUFTensors(); err != nil {
		return err
	}
	for i := range e.tensors {
		info, err := e.info(&e.tensors[i])
		if err != nil {
			return err
		}
		e.infos = append(e.infos, info)
	}
	if facts.license != "" {
		pairs = append(pairs, model.Pair{Key: "general.license", Value: facts.license})
	}
	pairs = append(pairs, model.Pair{Key: "general.file_type", Value: e.fileType()}, model.Pair{Key: "general.quantization_version", Value: uint32(2)})
	pairs = append(pairs, samplingPairs(facts.generation)...)
	vocabulary, err := e.vocabulary(facts)
	if err != nil {
		return err
	}
	e.addMeta(append(pairs, vocabulary...))
	e.addMeta(facts.general)
	return nil
}

// addMeta adds pairs whose keys there are none of yet.
func (e *export) addMeta(pairs []model.Pair) {
	for _, p := range pairs {
		if !slices.ContainsFunc(e.meta, func(q gguf.Pair) bool { return q.Key == p.Key }) {
			e.meta = append(e.meta, gguf.Pair(p))
		}
	}
}

// info chooses the type of a tensor.
func (e *export) info(t *model.GGUFTensor) (gguf.Info, error) {
	info := gguf.Info{Name: t.Name, Shape: t.Shape, Type: quant.ForeignF32}
	if t.F32 {
		return info, nil
	}
	var err error
	if info.Type, err = e.typeOf(t); err != nil {
		return info, fmt.Errorf("tensor %s: %w", t.Name, err)
	}
	if _, err := info.Type.RowBytes(t.Cols()); err != nil {
		info.Type = quant.ForeignF16
	}
	return info, nil
}

// typeOf follows the recipe. A source's own types stay, block types that
// nothing here writes too: their rows only move.
func (e *export) typeOf(t *model.GGUFTensor) (quant.Foreign, error) {
	if e.o.Weights != "" && e.o.Weights != "source" {
		typ, err := recipeType(e.o.Weights, t.Parts[0].Of.Name)
		if err == nil && typ == quant.Q6_0 {
			err = errors.New("GGUF has no q6_0: use --weights q8_0, or source where that has Q6_K")
		}
		return typ.Foreign(), err
	}
	var kinds []quant.Foreign
	for i := range t.Parts {
		found, err := e.origin.elements(&t.Parts[i])
		if err != nil {
			return 0, err
		}
		for _, f := range found {
			if !slices.Contains(kinds, f) {
				kinds = append(kinds, f)
			}
		}
	}
	if len(kinds) == 1 {
		return kinds[0], nil
	}
	widest := quant.Type(0)
	for _, f := range kinds {
		native, ok := f.Native()
		if !ok {
			return 0, fmt.Errorf("type %v cannot be read", f)
		}
		widest = quant.Common(widest, native)
	}
	return widest.Foreign(), nil
}

// fileType is llama.cpp's number for what most weights are, which it shows.
func (e *export) fileType() uint32 {
	most, bytes := quant.ForeignF32, map[quant.Foreign]int64{}
	for i, info := range e.infos {
		if bytes[info.Type] += e.bytes(i); bytes[info.Type] > bytes[most] {
			most = info.Type
		}
	}
	number, ok := map[quant.Foreign]uint32{
		quant.ForeignF32: 0, quant.ForeignF16: 1, quant.ForeignQ4_0: 2, quant.ForeignQ4_1: 3, quant.ForeignQ8_0: 7,
		quant.ForeignQ5_0: 8, quant.ForeignQ5_1: 9, quant.ForeignQ2_K: 10, quant.ForeignQ3_K: 12, quant.ForeignQ4_K: 15, quant.ForeignQ5_K: 17,
		quant.ForeignQ6_K: 18, quant.ForeignIQ4_NL: 25, quant.ForeignIQ4_XS: 30, quant.ForeignBF16: 32, quant.ForeignMXFP4: 38,
	}[most]
	if !ok {
		return 1024 // guessed
	}
	return number
}

// bytes is the size of tensor i.
func (e *export) bytes(i int) int64 {
	row, err := e.infos[i].Type.RowBytes(e.tensors[i].Cols())
	if err != nil {
		return 0 // prepare chose a type that fits
	}
	return int64(row) * int64(e.tensors[i].Rows())
}

// open opens the growing file, at the place where an earlier run stopped.
func (e *export) open() error {
	plan, err := gguf.NewWriter(io.Discard, e.meta, e.infos)
	if err != nil {
		return err
	}
	print, err := e.fingerprint()
	if err != nil {
		return err
	}
	name := filepath.Join(filepath.Dir(e.out), fmt.Sprintf(".%s.%s.partial", filepath.Base(e.out), print))
	if e.file, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return err
	}
	if err := tryLock(e.file); err != nil || !names(name, e.file) {
		return errors.Join(fmt.Errorf("%s: %w: wait for it, or stop it", e.out, cmp.Or(err, errLocked)), e.file.Close())
	}
	info, err := e.file.Stat()
	if err == nil {
		missing := plan.Size() - info.Size()
		if free, ok := diskSpace(filepath.Dir(e.out)); ok && free < missing+missing/100+1<<20 {
			err = fmt.Errorf("%s: %s are free, the file needs %s more", filepath.Dir(e.out), size(free), size(missing))
		}
	}
	if err == nil {
		err = e.resume(info.Size())
	}
	if m := e.remote(); m != nil && err == nil {
		err = keepNotes(m, filepath.Join(filepath.Dir(e.out), fmt.Sprintf(".%s.%s.remote", filepath.Base(e.out), print)), print, plan.Size()-info.Size())
	}
	if err != nil {
		return errors.Join(err, e.file.Close())
	}
	return nil
}

// remote is the host that the model is read from; nil: none.
func (e *export) remote() *remote.Model {
	if o, ok := e.origin.(*fileOrigin); ok {
		return o.src.remote
	}
	return nil
}

// check holds what was read from a host against its hashes.
func (e *export) check(start time.Time) (string, error) {
	m := e.remote()
	if m == nil {
		return "", nil
	}
	return checkRemote(m, start, e.o.Progress, func() error { return os.Remove(e.file.Name()) })
}

// resume begins the file, or goes on after the last whole chunk of length bytes.
func (e *export) resume(length int64) error {
	to := &switchable{w: io.Discard}
	var err error
	if e.writer, err = gguf.NewWriter(to, e.meta, e.infos); err != nil {
		return err
	}
	if e.writer.Offset() > length { // not even the header
		if err := e.file.Truncate(0); err != nil {
			return err
		}
		e.writer, err = gguf.NewWriter(e.file, e.meta, e.infos)
		return err
	}
	for c := range e.chunks {
		before := *e.writer
		if err := e.writer.Skip(c.bytes); err != nil {
			return err
		}
		if e.writer.Offset() > length {
			*e.writer = before
			break
		}
		e.resumed = e.writer.Offset()
	}
	if err := e.file.Truncate(e.writer.Offset()); err != nil {
		return err
	}
	_, err = e.file.Seek(e.writer.Offset(), io.SeekStart)
	to.w = e.file
	return err
}

// switchable lets a writer begin with what a file has already.
type switchable struct{ w io.Writer }

func (s *switchable) Write(p []byte) (int, error) { return s.w.Write(p) }

// fingerprint tells one export from another: same source files, same header.
func (e *export) fingerprint() (string, error) {
	h := sha256.New()
	stamps, err := e.origin.stamps()
	if err != nil {
		return "", err
	}
	for _, line := range stamps {
		fmt.Fprintln(h, line)
	}
	if _, err := gguf.NewWriter(h, e.meta, e.infos); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}
