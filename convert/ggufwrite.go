package convert

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/potluck-llm/potluck/convert/remote"
	"github.com/potluck-llm/potluck/gguf"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/token"
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
	if err := errors.Join(e.file.Chmod(0o644), e.file.Close(), os.Rename(e.file.Name(), out)); err != nil {
		return nil, err
	}
	r := &Report{Bytes: e.writer.Offset(), Types: map[string]int64{}, Errors: e.errors.relative(), Notes: e.notes, Checks: checks, Elapsed: time.Since(start), Resumed: e.resumed}
	for i, t := range e.infos {
		r.Types[t.Type.String()] += e.bytes(i)
	}
	return r, nil
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
	for _, p := range append(pairs, vocabulary...) {
		e.meta = append(e.meta, gguf.Pair(p))
	}
	return nil
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
		if widest == 0 || native < widest { // wider types have lower numbers
			widest = native
		}
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

// vocabulary is the tokenizer's metadata: a GGUF file's own, or what says the
// same as tokenizer.json.
func (e *export) vocabulary(f facts) ([]model.Pair, error) {
	var pairs []model.Pair
	switch {
	case len(f.vocabulary) > 0:
		pairs = f.vocabulary
	case len(f.tokenizer) == 0:
		pairs = append(pairs, model.Pair{Key: "tokenizer.ggml.model", Value: "none"})
	default:
		t, err := token.FromJSON(f.tokenizer)
		if err != nil {
			return nil, err
		}
		c := f.config
		var notes []string
		pairs, notes, err = t.GGUF(token.GGUFOptions{Vocab: c.Vocab, Arch: c.Arch, BOS: c.BOS, Pad: c.Pad, Ends: endTokens(f)})
		if err != nil {
			return nil, err
		}
		e.notes = append(e.notes, notes...)
	}
	if f.template != "" {
		pairs = append(pairs, model.Pair{Key: "tokenizer.chat_template", Value: f.template})
	}
	return pairs, nil
}

// endTokens are the ids that end an answer: generation_config's, which people
// set last, then the configuration's.
func endTokens(f facts) []int32 {
	var g struct {
		EOS json.RawMessage `json:"eos_token_id"`
	}
	var ids []int32
	if json.Unmarshal(f.generation, &g) == nil {
		var one int32
		if json.Unmarshal(g.EOS, &one) == nil {
			ids = []int32{one}
		} else if json.Unmarshal(g.EOS, &ids) != nil {
			ids = nil
		}
	}
	for _, id := range f.config.EOS {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// A samplingKey is what a generation_config.json and GGUF metadata call the same
// setting.
type samplingKey struct {
	json, gguf string
	whole      bool
}

var samplingKeys = []samplingKey{
	{"temperature", "general.sampling.temp", false},
	{"top_k", "general.sampling.top_k", true},
	{"top_p", "general.sampling.top_p", false},
	{"min_p", "general.sampling.min_p", false},
}

// samplingPairs are the sampling settings of a generation_config.json.
func samplingPairs(generation json.RawMessage) (pairs []model.Pair) {
	var settings map[string]any
	if json.Unmarshal(generation, &settings) != nil {
		return nil
	}
	if sample, ok := settings["do_sample"].(bool); ok && !sample {
		settings = map[string]any{"temperature": 0.0}
	}
	for _, k := range samplingKeys {
		switch v, ok := settings[k.json].(float64); {
		case !ok:
		case k.whole:
			pairs = append(pairs, model.Pair{Key: k.gguf, Value: int32(v)})
		default:
			pairs = append(pairs, model.Pair{Key: k.gguf, Value: float32(v)})
		}
	}
	return pairs
}

// samplingSettings are those of a GGUF file, as a generation_config.json says
// them; nil where there are none.
func samplingSettings(meta map[string]any) (json.RawMessage, error) {
	settings := map[string]any{}
	for _, k := range samplingKeys {
		switch v := meta[k.gguf].(type) {
		case float64: // the shortest number that is the same float32
			settings[k.json] = json.Number(strconv.FormatFloat(v, 'g', -1, 32))
		case int64, uint64:
			settings[k.json] = v
		}
	}
	if len(settings) == 0 {
		return nil, nil
	}
	return json.Marshal(settings)
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

// A chunk is some rows of a tensor: what one thread makes at once.
type chunk struct {
	index       int // of the tensor
	first, rows int
	bytes       int64
}

// ggufChunk is how many bytes a chunk has at most, but whole rows and heads.
var ggufChunk = chunkBytes

// chunks lists them in the order of the file.
func (e *export) chunks(yield func(chunk) bool) {
	for i := range e.tensors {
		t := &e.tensors[i]
		row := int(e.bytes(i)) / t.Rows()
		step := max(1, ggufChunk/row)
		for _, p := range t.Parts {
			if p.Heads > 0 { // rows are shuffled within heads: take whole ones
				head := p.Rows / p.Heads
				step = max(1, step/head) * head
			}
		}
		for first := 0; first < t.Rows(); first += step {
			n := min(step, t.Rows()-first)
			if !yield(chunk{i, first, n, int64(n) * int64(row)}) {
				return
			}
		}
	}
}

// A made chunk is its bytes, or why there are none.
type made struct {
	chunk
	data []byte
	err  error
}

// run makes the chunks that are missing, several at once, and writes them in
// order.
func (e *export) run(ctx context.Context, start time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	total := e.writer.Size()
	report := func() {
		if e.o.Progress != nil {
			e.o.Progress(Progress{Done: e.writer.Offset(), Total: total, Resumed: e.resumed, Elapsed: time.Since(start)})
		}
	}
	report()
	ordered := make(chan chan made, e.o.Threads) // bounds what waits in memory
	var wait sync.WaitGroup
	wait.Add(1)
	go func() {
		defer wait.Done()
		e.makeAll(ctx, ordered)
	}()
	var failed error
	for next := range ordered {
		m := <-next
		if failed != nil {
			continue
		}
		if failed = m.err; failed == nil {
			_, failed = e.writer.Write(m.data)
		}
		if failed != nil {
			cancel()
			continue
		}
		report()
	}
	wait.Wait()
	if failed == nil {
		failed = context.Cause(ctx)
	}
	if failed == nil {
		failed = e.writer.Close()
	}
	return failed
}

// makeAll starts a goroutine a chunk, as many at once as ordered holds.
func (e *export) makeAll(ctx context.Context, ordered chan<- chan made) {
	defer close(ordered)
	plan, err := gguf.NewWriter(io.Discard, e.meta, e.infos)
	if err != nil {
		return // NewWriter accepted them before
	}
	begin := e.writer.Offset()
	for c := range e.chunks {
		if ctx.Err() != nil {
			return
		}
		at := plan.Offset()
		if err := plan.Skip(c.bytes); err != nil {
			return
		}
		if at < begin {
			continue
		}
		result := make(chan made, 1)
		ordered <- result
		go func() {
			data, err := e.chunk(ctx, c)
			if err != nil {
				err = fmt.Errorf("%s: tensor %s: %w", e.origin.name(), e.tensors[c.index].Name, err)
			}
			result <- made{c, data, err}
		}()
	}
}

// chunk makes the bytes of a chunk.
func (e *export) chunk(ctx context.Context, c chunk) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, typ := &e.tensors[c.index], e.infos[c.index].Type
	data := make([]byte, c.bytes)
	switch {
	case t.Values != nil:
		return data, typ.Encode(data, t.Values)
	case len(t.Shape) == 1:
		return data, e.vector(data, t)
	}
	refs, err := rowsOf(t, c.first, c.rows)
	if err != nil {
		return nil, err
	}
	b := &rowWriter{typ: typ, cols: t.Cols(), data: data, errors: &e.errors, tensor: t.Name}
	return data, e.origin.rows(refs, b.put)
}

// A rowRef is a row of one of the model's tensors.
type rowRef struct {
	of  *model.Tensor
	row int
}

// rowsOf lists where rows of a GGUF tensor come from.
func rowsOf(t *model.GGUFTensor, first, rows int) ([]rowRef, error) {
	refs := make([]rowRef, 0, rows)
	at := 0 // the part that had the row before
	for r := first; r < first+rows; r++ {
		found := false
		for range t.Parts {
			if row, ok := t.Parts[at].Row(r); ok {
				refs, found = append(refs, rowRef{t.Parts[at].Of, row}), true
				break
			}
			at = (at + 1) % len(t.Parts)
		}
		if !found {
			return nil, fmt.Errorf("row %d has no source", r)
		}
	}
	return refs, nil
}

// vector fills a tensor of one dimension, whose parts count elements.
func (e *export) vector(data []byte, t *model.GGUFTensor) error {
	values := make([]float32, t.Cols())
	for _, p := range t.Parts {
		whole, err := e.origin.vector(p.Of)
		if err != nil {
			return err
		}
		for i := range values {
			if from, ok := p.Row(i); ok {
				values[i] = whole[from]
			}
		}
	}
	return quant.ForeignF32.Encode(data, values)
}

// A rowWriter puts rows of any type into a chunk of one type.
type rowWriter struct {
	typ    quant.Foreign
	cols   int
	data   []byte
	errors *classErrors
	tensor string

	planar []byte
	floats []float32
	back   []float32
}

// put writes row i.
func (w *rowWriter) put(i int, from quant.Foreign, raw []byte) error {
	size := len(w.data) / max(1, w.rows())
	dst := w.data[i*size : (i+1)*size]
	w.floats = grow(w.floats, w.cols)
	if from == w.typ && w.moves() {
		// Blocks that nothing here encodes: check that they are numbers.
		if err := from.Decode(w.floats, raw); err != nil {
			return err
		}
		for column, v := range w.floats {
			if v-v != 0 {
				return &quant.NotFiniteError{Row: i, Column: column, Value: v}
			}
		}
		copy(dst, raw)
		return nil
	}
	if err := w.encode(dst, from, raw); err != nil {
		return err
	}
	if i%sampleEvery != 0 {
		return nil
	}
	w.back = grow(w.back, w.cols)
	if err := errors.Join(from.Decode(w.floats, raw), w.typ.Decode(w.back, dst)); err != nil {
		return err
	}
	w.errors.add(w.tensor, w.floats, w.back)
	return nil
}

// sampleEvery is how many rows there are to one whose loss is measured.
const sampleEvery = 256

// rows is how many rows the chunk has.
func (w *rowWriter) rows() int {
	row, err := w.typ.RowBytes(w.cols)
	if err != nil || row == 0 {
		return 1
	}
	return len(w.data) / row
}

// moves tells whether rows of the type can only be moved.
func (w *rowWriter) moves() bool {
	native, ok := w.typ.Native()
	return ok && native.Foreign() != w.typ
}

// encode turns one row into the chunk's type: by moving bytes where both have
// the same form.
func (w *rowWriter) encode(dst []byte, from quant.Foreign, raw []byte) error {
	native, ok := w.typ.Native()
	if !ok || native.Foreign() != w.typ {
		return fmt.Errorf("element type %v is not written", w.typ)
	}
	w.planar = grow(w.planar, int(native.Bytes(1, w.cols)))
	m, err := quant.NewMatrix(native, 1, w.cols, w.planar)
	if err != nil {
		return err
	}
	if err := m.RepackRows(0, from, raw); err != nil {
		return err
	}
	return m.Interleave(0, dst)
}

// vocabularyPairs are a GGUF file's tokenizer keys with the types that llama.cpp
// expects of them.
func vocabularyPairs(f *gguf.File) []model.Pair {
	pairs := []model.Pair{}
	for _, key := range f.Keys {
		if !strings.HasPrefix(key, "tokenizer.ggml.") {
			continue
		}
		switch v := f.Meta[key].(type) {
		case string, bool, []string:
			pairs = append(pairs, model.Pair{Key: key, Value: v})
		case uint64:
			pairs = append(pairs, model.Pair{Key: key, Value: uint32(v)})
		case int64:
			pairs = append(pairs, model.Pair{Key: key, Value: int32(v)})
		case []int64:
			pairs = append(pairs, model.Pair{Key: key, Value: narrow[int32](v)})
		case []float64:
			pairs = append(pairs, model.Pair{Key: key, Value: narrow[float32](v)})
		}
	}
	return pairs
}

func narrow[To int32 | float32, From int64 | float64](list []From) []To {
	out := make([]To, len(list))
	for i, v := range list {
		out[i] = To(v)
	}
	return out
}
