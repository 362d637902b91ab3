package convert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

// Options say how to convert.
type Options struct {
	Weights string // a recipe; "" is q4_0 for floats and "source" for GGUF files
	Threads int    // 0: all cores
	// Origin and License go into the store's manifest, for people; "" is what
	// the source says of itself.
	Origin, License string
	// Progress is told how far it is; may be nil.
	Progress func(Progress)
	locked   bool // the caller holds the folder's lock
}

// Progress is how far a conversion has come, in bytes of the store.
type Progress struct {
	Done, Total int64
	Resumed     int64 // of Done, what an earlier run had written
	Elapsed     time.Duration
	// Checking: the store is written, what was read is now held against the
	// host's hashes; Done and Total count what must be read for that.
	Checking bool
}

// A Report is what a conversion did.
type Report struct {
	Bytes   int64              // of the store
	Read    int64              // of the source, by this run; 0: not counted
	Types   map[string]int64   // bytes by element type
	Errors  map[string]float64 // relative RMS error by class of tensor, sampled
	Notes   []string           // what the result cannot say
	Elapsed time.Duration
	Resumed int64
	// Checks says what the files on a host were held against; "" for files
	// on this machine.
	Checks string
}

// job is one conversion.
type job struct {
	src      *source
	o        Options
	out      string
	manifest *shard.Manifest
	tensors  map[string]model.Tensor
	pieces   [][]use // what each piece holds
	journal  *journal
	errors   classErrors

	// cpu has room for as many as may compute at once: more assemblers than
	// that are at work, so that while some read and write others compute.
	cpu chan struct{}

	mu   sync.Mutex
	done int64
	read int64 // of the source
}

// use is a segment of a piece.
type use struct {
	tensor  *shard.Tensor
	segment shard.Segment
}

// atOnce bounds how many pieces are in memory.
const atOnce = 16

// Convert writes a model as a store into the folder out. name is a Hugging Face
// folder or a GGUF file, on this machine or on a host: see package remote.
func Convert(ctx context.Context, name, out string, o Options) (_ *Report, err error) {
	start := time.Now()
	defer limitMemory()()
	src, err := openSource(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.folder.close()) }()
	if !o.locked {
		l, err := lock(out)
		if err != nil {
			return nil, err
		}
		defer l.unlock()
	}
	j, err := prepare(src, out, o)
	if err != nil {
		return nil, err
	}
	defer j.journal.close()
	if err := j.run(ctx, start); err != nil {
		return nil, err
	}
	checks := ""
	if src.remote != nil {
		if checks, err = checkRemote(src.remote, start, o.Progress, j.journal.remove); err != nil {
			return nil, err
		}
	}
	data, _, err := shard.EncodeManifest(j.manifest)
	if err != nil {
		return nil, err
	}
	// The manifest says that all pieces are there: their names, too, must be on
	// the disk before its own is.
	if err := syncFolder(filepath.Join(out, shard.PieceFolder)); err != nil {
		return nil, err
	}
	if err := errors.Join(writeWhole(filepath.Join(out, shard.ManifestFile), data), syncFolder(out)); err != nil {
		return nil, err
	}
	r := &Report{Read: j.read, Types: map[string]int64{}, Errors: j.errors.relative(), Elapsed: time.Since(start), Resumed: j.journal.resumed, Checks: checks}
	for _, t := range j.manifest.Tensors {
		for _, s := range t.Segments {
			r.Types[t.Type.String()] += t.Type.Bytes(s.Rows, t.Cols)
		}
	}
	for _, p := range j.manifest.Pieces {
		r.Bytes += p.Bytes
	}
	return r, j.journal.remove()
}

// mostMemory is what the collector is told to stay below while converting: the
// pieces at work take 64 MiB each, and by default as much garbage would be left
// lying about.
const mostMemory = 1536 << 20

// limitMemory holds for the whole process, until the function that it returns
// is called. A limit that the user set (GOMEMLIMIT) stays.
func limitMemory() func() {
	before := debug.SetMemoryLimit(-1)
	if before <= mostMemory {
		return func() {}
	}
	debug.SetMemoryLimit(mostMemory)
	return func() { debug.SetMemoryLimit(before) }
}

// Layout says what the store of a model would be, without making it: the
// manifest lacks the pieces' hashes. Of the source only headers are read.
func Layout(ctx context.Context, name, weights string) (_ *shard.Manifest, err error) {
	src, err := openSource(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.folder.close()) }()
	m, _, err := layout(src, &Options{Weights: weights})
	return m, err
}

// layout lays the store out.
func layout(src *source, o *Options) (*shard.Manifest, []model.Tensor, error) {
	if o.Weights == "" {
		o.Weights = "q4_0"
		if src.format == model.GGUF {
			o.Weights = "source"
		}
	}
	if err := src.config.Probe(src.format, src.shape); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", src.place, err)
	}
	tensors, err := src.config.Sources(src.format, src.shape)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", src.place, err)
	}
	typeOf, err := src.typesOf(o.Weights, tensors)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", src.place, err)
	}
	m, err := shard.Layout(src.config, typeOf)
	if err != nil {
		return nil, nil, err
	}
	m.Source, m.License, m.Weights = cmp.Or(o.Origin, src.origin()), cmp.Or(o.License, src.license), o.Weights
	m.Tokenizer, m.Template, m.Generation = src.tokenizer, src.template, src.generation
	return m, tensors, nil
}

// prepare lays the store out and finds what an earlier run has done.
func prepare(src *source, out string, o Options) (*job, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	m, tensors, err := layout(src, &o)
	if err != nil {
		return nil, err
	}
	j := &job{src: src, o: o, out: out, manifest: m, tensors: map[string]model.Tensor{}, pieces: make([][]use, len(m.Pieces)), cpu: make(chan struct{}, o.Threads)}
	for _, t := range tensors {
		j.tensors[t.Name] = t
	}
	for i := range m.Tensors {
		for _, s := range m.Tensors[i].Segments {
			j.pieces[s.Piece] = append(j.pieces[s.Piece], use{&m.Tensors[i], s})
		}
	}
	if err := os.MkdirAll(filepath.Join(out, shard.PieceFolder), 0o755); err != nil {
		return nil, err
	}
	if err := sweep(out); err != nil {
		return nil, err
	}
	print, err := fingerprint(src, m)
	if err != nil {
		return nil, err
	}
	if j.journal, err = openJournal(out, print, m); err != nil {
		return nil, err
	}
	missing := int64(0)
	for i, p := range m.Pieces {
		if !j.journal.has(i) {
			missing += p.Bytes
		}
	}
	free, known := diskSpace(out)
	if known && free < missing+missing/100+1<<20 {
		return nil, errors.Join(fmt.Errorf("%s: %s are free, the store needs %s more: make room, or give --out a folder on a larger disk", out, size(free), size(missing)), j.journal.close())
	}
	if src.remote != nil {
		if err := keepNotes(src.remote, filepath.Join(out, remoteFile), print, missing); err != nil {
			return nil, errors.Join(err, j.journal.close())
		}
	}
	return j, nil
}

// sweep removes what a killed run was writing.
func sweep(out string) error {
	for _, folder := range []string{out, filepath.Join(out, shard.PieceFolder)} {
		files, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, f := range files {
			if strings.HasPrefix(f.Name(), temporary) {
				if err := os.Remove(filepath.Join(folder, f.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func size(n int64) string {
	if n < 1e9 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

// fingerprint tells one conversion from another: same source files, same
// layout.
func fingerprint(src *source, m *shard.Manifest) (string, error) {
	h := sha256.New()
	stamps, err := src.folder.stamps()
	if err != nil {
		return "", err
	}
	for _, line := range stamps {
		fmt.Fprintln(h, line)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	h.Write(data)
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// run makes the pieces that are missing, several at once.
func (j *job) run(ctx context.Context, start time.Time) error {
	total := int64(0)
	for i, p := range j.manifest.Pieces {
		total += p.Bytes
		if j.journal.has(i) {
			j.manifest.Pieces[i].Hash = j.journal.hash(i)
			j.done += p.Bytes
		}
	}
	report := func() {
		if j.o.Progress != nil {
			j.o.Progress(Progress{Done: j.done, Total: total, Resumed: j.journal.resumed, Elapsed: time.Since(start)})
		}
	}
	report()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wait sync.WaitGroup
	for range min(2*j.o.Threads, atOnce, max(1, len(j.manifest.Pieces))) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			w := &assembler{job: j}
			for i := range next {
				if ctx.Err() != nil {
					continue
				}
				hash, err := w.piece(ctx, i)
				if err != nil {
					cancel(err)
					continue
				}
				j.mu.Lock()
				j.manifest.Pieces[i].Hash = hash
				j.done += j.manifest.Pieces[i].Bytes
				j.read, w.read = j.read+w.read, 0
				report()
				j.mu.Unlock()
			}
		}()
	}
	for i := range j.manifest.Pieces {
		if !j.journal.has(i) {
			next <- i
		}
	}
	close(next)
	wait.Wait()
	return context.Cause(ctx)
}

// assembler makes one piece after another in buffers of its own.
type assembler struct {
	*job
	data   []byte
	raw    []byte
	wide   []byte
	floats []float32
	back   []float32
	read   int64 // of the source, since the last piece
}

// piece assembles a piece, writes it under its hash and notes it down.
func (a *assembler) piece(ctx context.Context, index int) (shard.Hash, error) {
	size := a.manifest.Pieces[index].Bytes
	if int64(cap(a.data)) < size {
		a.data = make([]byte, size)
	}
	a.data = a.data[:size]
	clear(a.data)
	for _, u := range a.pieces[index] {
		if err := ctx.Err(); err != nil {
			return shard.Hash{}, err
		}
		m, err := quant.NewMatrix(u.tensor.Type, u.segment.Rows, u.tensor.Cols, a.data[u.segment.Offset:])
		if err != nil {
			return shard.Hash{}, err
		}
		if err := a.segment(m, a.tensors[u.tensor.Name], u.segment); err != nil {
			return shard.Hash{}, fmt.Errorf("%s: tensor %s: %w", a.src.place, u.tensor.Name, err)
		}
	}
	a.cpu <- struct{}{}
	hash := shard.Sum(a.data)
	<-a.cpu
	if err := writeWhole(filepath.Join(a.out, shard.PieceFolder, hash.String()), a.data); err != nil {
		return hash, err
	}
	return hash, a.journal.add(index, hash)
}

// segment fills the rows of a segment from the parts that they come from.
func (a *assembler) segment(m quant.Matrix, t model.Tensor, s shard.Segment) error {
	if t.Rows == 1 {
		return a.vector(m, t)
	}
	for _, p := range t.Parts {
		// Rows i of the part with s.Row <= To + i·Stride < s.Row + s.Rows.
		first := max(0, ceilDiv(s.Row-p.To, p.Stride))
		end := min(p.Rows, ceilDiv(s.Row+s.Rows-p.To, p.Stride))
		if first < end {
			if err := a.part(m, p, first, end, s.Row); err != nil {
				return fmt.Errorf("from %s: %w", p.Source, err)
			}
		}
	}
	return nil
}

func ceilDiv(a, b int) int {
	if a <= 0 {
		return 0
	}
	return (a + b - 1) / b
}

// chunkBytes is how much of a source tensor is read at once.
const chunkBytes = 4 << 20

// part converts rows first..end-1 of a part into rows of m, whose row 0 is the
// tensor's row base.
func (a *assembler) part(m quant.Matrix, p model.Part, first, end, base int) error {
	element, err := a.src.element(p.Source)
	if err != nil {
		return err
	}
	rowBytes, err := element.RowBytes(m.Cols)
	if err != nil {
		return err
	}
	step := max(1, chunkBytes/rowBytes)
	if p.Heads > 0 { // rows are shuffled within heads
		head := p.Rows / p.Heads
		step = max(1, step/head) * head
	}
	for i := first; i < end; {
		n := min(step, end-i)
		from := i
		if p.Heads > 0 {
			head := p.Rows / p.Heads
			from = i / head * head
			n = min(end, from+step) - i
		}
		count := i + n - from
		if p.Heads > 0 {
			head := p.Rows / p.Heads
			count = (count + head - 1) / head * head
		}
		a.raw = grow(a.raw, count*rowBytes)
		if err := a.src.readAt(p.Source, int64(p.From+from)*int64(rowBytes), a.raw); err != nil {
			return err
		}
		a.read += int64(len(a.raw))
		a.cpu <- struct{}{}
		err := a.rows(m, p, i, n, from, base, element, rowBytes)
		<-a.cpu
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// rows converts n rows of a part from i on, read from row from on.
func (a *assembler) rows(m quant.Matrix, p model.Part, i, n, from, base int, element quant.Foreign, rowBytes int) error {
	if p.Stride == 1 && p.Heads == 0 {
		raw := a.raw[(i-from)*rowBytes : (i-from+n)*rowBytes]
		if err := a.put(m, p.To+i-base, element, raw); err != nil {
			return a.located(err, p, base, m.Cols)
		}
	} else {
		for k := i; k < i+n; k++ {
			at := (p.SourceRow(k) - p.From - from) * rowBytes
			if err := a.put(m, p.To+k*p.Stride-base, element, a.raw[at:at+rowBytes]); err != nil {
				return a.located(err, p, base, m.Cols)
			}
		}
	}
	return a.sample(m, p, i, from, base, element, rowBytes)
}

// located says of an error about a row of the matrix that begins with the
// tensor's row base where the part has it from.
func (a *assembler) located(err error, p model.Part, base, cols int) error {
	var bad *quant.NotFiniteError
	if !errors.As(err, &bad) {
		return err
	}
	return a.src.located(err, p.Source, p.SourceRow((bad.Row+base-p.To)/p.Stride), cols)
}

// put converts whole rows. Q4_0 beside Q4_1 in one tensor becomes the latter
// exactly: its minimum is -8 scales.
func (a *assembler) put(m quant.Matrix, row int, element quant.Foreign, raw []byte) error {
	if m.Type == quant.Q4_1 && element == quant.ForeignQ4_0 {
		a.wide = a.wide[:0]
		for ; len(raw) >= 18; raw = raw[18:] {
			d := uint16(raw[0]) | uint16(raw[1])<<8
			least := quant.F32ToF16(-8 * quant.F16ToF32(d))
			a.wide = append(a.wide, raw[0], raw[1], byte(least), byte(least>>8))
			a.wide = append(a.wide, raw[2:18]...)
		}
		element, raw = quant.ForeignQ4_1, a.wide
	}
	return m.RepackRows(row, element, raw)
}

// sample measures what the first row of a chunk lost.
func (a *assembler) sample(m quant.Matrix, p model.Part, i, from, base int, element quant.Foreign, rowBytes int) error {
	a.floats, a.back = grow(a.floats, m.Cols), grow(a.back, m.Cols)
	at := (p.SourceRow(i) - p.From - from) * rowBytes
	if err := element.Decode(a.floats, a.raw[at:at+rowBytes]); err != nil {
		return err
	}
	m.Row(a.back, p.To+i*p.Stride-base)
	a.errors.add(p.Source, a.floats, a.back)
	return nil
}

// vector fills a tensor of one row, whose parts count elements.
func (a *assembler) vector(m quant.Matrix, t model.Tensor) error {
	a.floats = grow(a.floats, t.Cols)
	for _, p := range t.Parts {
		element, err := a.src.element(p.Source)
		if err != nil {
			return err
		}
		rows, cols, _ := a.src.shape(p.Source)
		total := rows * cols
		bytes, err := element.RowBytes(total)
		if err != nil {
			return err
		}
		a.raw, a.back = grow(a.raw, bytes), grow(a.back, total)
		if err := a.src.readAt(p.Source, 0, a.raw); err != nil {
			return err
		}
		if err := element.Decode(a.back, a.raw); err != nil {
			return err
		}
		if err := a.src.finiteVector(p.Source, a.back); err != nil {
			return err
		}
		for i := range p.Rows {
			a.floats[p.To+i*p.Stride] = a.back[p.SourceRow(i)]
		}
	}
	return m.EncodeRows(0, a.floats)
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// temporary is how files' names begin until they are whole.
const temporary = ".writing-"

// writeWhole writes a file all or nothing, also where the power goes.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// syncFolder puts the names in a folder on the disk, on systems where a folder
// is a file to do that with.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that does it by itself, or not at all
	}
	return errors.Join(err, f.Close())
}

// Print writes what a conversion did.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s in %v", size(r.Bytes), r.Elapsed.Round(time.Millisecond))
	if written := r.Bytes - r.Resumed; r.Elapsed > 0 {
		fmt.Fprintf(w, " (%.0f MB/s", float64(written)/1e6/r.Elapsed.Seconds())
		if r.Read > 0 {
			fmt.Fprintf(w, "; %s were read at %.0f MB/s", size(r.Read), float64(r.Read)/1e6/r.Elapsed.Seconds())
		}
		fmt.Fprint(w, ")")
	}
	if r.Resumed > 0 {
		fmt.Fprintf(w, ", %s of it from an earlier run", size(r.Resumed))
	}
	fmt.Fprintln(w)
	for _, name := range sortedKeys(r.Types) {
		fmt.Fprintf(w, "  %-5s %s\n", name, size(r.Types[name]))
	}
	if r.Checks != "" {
		fmt.Fprintf(w, "checked: %s\n", r.Checks)
	}
	if len(r.Errors) > 0 {
		fmt.Fprintln(w, "relative error of the weights, sampled:")
		for _, name := range sortedKeys(r.Errors) {
			fmt.Fprintf(w, "  %-16s %.4f\n", name, r.Errors[name])
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "note:", note)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// classErrors sums squared errors by class of tensor.
type classErrors struct {
	mu         sync.Mutex
	diff, norm map[string]float64
}

// class is what people call a tensor's kind, from its source name.
func class(name string) string {
	for _, c := range []struct{ part, class string }{
		{"shared_expert", "shared experts"}, {"shexp", "shared experts"}, {"expert", "experts"}, {"_exps", "experts"}, {"embed", "embedding"}, {"token_embd", "embedding"},
		{"lm_head", "head"}, {"output.weight", "head"}, {"output_layer", "head"}, {"attn", "attention"}, {"attention", "attention"}, {"mlp", "dense FFN"}, {"ffn", "dense FFN"},
	} {
		if strings.Contains(name, c.part) {
			return c.class
		}
	}
	return "other"
}

func (c *classErrors) add(name string, want, got []float32) {
	var diff, norm float64
	for i := range want {
		d := float64(got[i]) - float64(want[i])
		diff += d * d
		norm += float64(want[i]) * float64(want[i])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.diff == nil {
		c.diff, c.norm = map[string]float64{}, map[string]float64{}
	}
	c.diff[class(name)] += diff
	c.norm[class(name)] += norm
}

func (c *classErrors) relative() map[string]float64 {
	out := map[string]float64{}
	for name, norm := range c.norm {
		if norm > 0 {
			out[name] = sqrt(c.diff[name] / norm)
		}
	}
	return out
}
