package shard_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/embedded"
	"github.com/potluck-llm/potluck/model"
	"github.com/potluck-llm/potluck/quant"
	"github.com/potluck-llm/potluck/shard"
)

func open(t testing.TB) shard.Source {
	src, err := embedded.Open()
	require.NoError(t, err)
	return src
}

func manifest(t testing.TB) []byte {
	data, _, err := shard.EncodeManifest(open(t).Manifest())
	require.NoError(t, err)
	return data
}

// Every change makes the manifest wrong; the error must say where.
func TestManifestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *shard.Manifest)
		want   string
	}{
		"version":         {func(m *shard.Manifest) { m.Version = 9 }, "version 9"},
		"no model":        {func(m *shard.Manifest) { m.Model = nil }, "model is missing"},
		"absurd model":    {func(m *shard.Manifest) { m.Model.Hidden = -3 }, "hidden_size"},
		"empty piece":     {func(m *shard.Manifest) { m.Pieces[2].Bytes = 0 }, "piece 2"},
		"huge piece":      {func(m *shard.Manifest) { m.Pieces[2].Bytes = 1 << 40 }, "piece 2"},
		"missing tensor":  {func(m *shard.Manifest) { m.Tensors = m.Tensors[1:] }, "embed is missing"},
		"tensor twice":    {func(m *shard.Manifest) { m.Tensors = append(m.Tensors, m.Tensors[0]) }, "embed"},
		"wrong shape":     {func(m *shard.Manifest) { m.Tensors[0].Rows++ }, "embed"},
		"norm not f32":    {func(m *shard.Manifest) { m.Tensors[1].Type = quant.F16 }, "must be f32"},
		"gap":             {func(m *shard.Manifest) { m.Tensors[0].Segments[0].Row = 1 }, "go on at 0"},
		"too few rows":    {func(m *shard.Manifest) { m.Tensors[0].Segments[0].Rows-- }, "hold"},
		"piece beyond":    {func(m *shard.Manifest) { m.Tensors[0].Segments[0].Piece = 999 }, "piece 999"},
		"offset beyond":   {func(m *shard.Manifest) { m.Tensors[0].Segments[0].Offset = 1 << 20 }, "bytes at"},
		"crooked offset":  {func(m *shard.Manifest) { m.Tensors[0].Segments[0].Offset = 3 }, "multiple of 16"},
		"negative offset": {func(m *shard.Manifest) { m.Tensors[0].Segments[0].Offset = -16 }, "multiple of 16"},
	} {
		m := &shard.Manifest{}
		require.NoError(t, json.Unmarshal(manifest(t), m))
		c.change(m)
		data, err := json.Marshal(m)
		require.NoError(t, err)
		_, err = shard.ParseManifest(data)
		require.ErrorContains(t, err, c.want, name)
	}
	for _, text := range []string{"", "{", `{"version":1}`, `{"version":1,"pieces":[{"hash":"zz"}]}`, `{"tensors":[{"type":"q9"}]}`} {
		_, err := shard.ParseManifest([]byte(text))
		require.Error(t, err, text)
	}
	_, err := shard.ParseManifest(make([]byte, shard.MaxManifest+1))
	require.ErrorContains(t, err, "at most")
}

// Spans that follow one another read every piece of the layers, and a span
// reads no more than it must.
func TestUses(t *testing.T) {
	m := open(t).Manifest()
	first, _, err := m.Uses(model.Span{To: model.Cut{Layer: 3, Expert: 2}})
	require.NoError(t, err)
	for _, u := range first {
		require.NotContains(t, u.Tensor.Name, "layers.4.")
		if u.Tensor.Name == "layers.3.experts.down" {
			require.Equal(t, 2*m.Model.Hidden, u.Rows)
		}
	}
	whole, err := m.SpanBytes(m.Model.Whole())
	require.NoError(t, err)
	sum := int64(0)
	for layer := range m.Model.Layers {
		n, err := m.SpanBytes(model.Span{From: model.Cut{Layer: layer}, To: model.Cut{Layer: layer + 1}})
		require.NoError(t, err)
		sum += n
	}
	require.Less(t, sum, whole)
	_, _, err = m.Uses(model.Span{To: model.Cut{Layer: 99}})
	require.Error(t, err)
}

// failing is a source that breaks at one piece.
type failing struct {
	shard.Source
	at int
}

func (f failing) Piece(ctx context.Context, i int) ([]byte, error) {
	if i == f.at {
		return nil, errors.New("the network is down")
	}
	return f.Source.Piece(ctx, i)
}

func TestReadSpan(t *testing.T) {
	src := open(t)
	var last, total int64
	found, size, err := shard.ReadSpan(context.Background(), src, src.Manifest().Model.Whole(), func(loaded, all int64) {
		require.Greater(t, loaded, last, "progress never goes back")
		last, total = loaded, all
	})
	require.NoError(t, err)
	require.Equal(t, total, last)
	require.Equal(t, total, size)
	require.Equal(t, src.Manifest().Model.Vocab, found["embed"][0].Rows)
	_, _, err = shard.ReadSpan(context.Background(), failing{src, 5}, src.Manifest().Model.Whole(), nil)
	require.ErrorContains(t, err, "the network is down")
	require.ErrorContains(t, err, "piece 5")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = shard.ReadSpan(ctx, src, src.Manifest().Model.Whole(), nil)
	require.ErrorIs(t, err, context.Canceled)
}

// A piece that was tampered with, or cut, is never handed out.
func TestFSVerifies(t *testing.T) {
	src := open(t)
	files := fstest.MapFS{shard.ManifestFile: {Data: manifest(t)}}
	piece, err := src.Piece(context.Background(), 0)
	require.NoError(t, err)
	name := shard.PieceFolder + "/" + src.Manifest().Pieces[0].Hash.String()
	for damage, data := range map[string][]byte{"tampered": append([]byte{piece[0] ^ 1}, piece[1:]...), "cut": piece[:len(piece)-1]} {
		files[name] = &fstest.MapFile{Data: data}
		s, err := shard.OpenFS(files)
		require.NoError(t, err)
		_, err = s.Piece(context.Background(), 0)
		require.ErrorContains(t, err, name, damage)
	}
	files[name] = &fstest.MapFile{Data: piece}
	s, err := shard.OpenFS(files)
	require.NoError(t, err)
	got, err := s.Piece(context.Background(), 0)
	require.NoError(t, err)
	require.Equal(t, piece, got)
	_, err = s.Piece(context.Background(), 1)
	require.Error(t, err, "missing")
	_, err = s.Piece(context.Background(), -1)
	require.Error(t, err)
}

// Large tensors are cut by rows, experts stay whole, and no piece is too big.
func TestLayoutOfALargeModel(t *testing.T) {
	c := &model.Config{Arch: "glm4moe", Hidden: 4096, Layers: 3, Vocab: 151552, Heads: 96, KVHeads: 8, HeadDim: 128, FFN: 10944, NormEps: 1e-5,
		RoPE: model.RoPE{Dims: 64, Theta: 1e6}, QKVBias: true, MaxPositions: 131072,
		MoE: &model.MoE{Experts: 128, PerToken: 8, FFN: 1408, SharedFFN: 1408, Sigmoid: true, Correction: true, Normalise: true, Scale: 1, DenseFirst: 1}}
	m, err := shard.Layout(c, func(model.Tensor) quant.Type { return quant.Q4_0 })
	require.NoError(t, err)
	require.NoError(t, m.Check())
	layerOf := map[int]string{}
	for _, tensor := range m.Tensors {
		if tensor.Name == "embed" {
			require.Greater(t, len(tensor.Segments), 5)
		}
		for _, s := range tensor.Segments {
			layer := tensor.Name
			if parts := strings.SplitN(tensor.Name, ".", 3); parts[0] == "layers" {
				layer = parts[0] + parts[1]
			} else if layer == "norm" || layer == "head" {
				layer = "end"
			}
			if other, ok := layerOf[s.Piece]; ok {
				require.Equal(t, other, layer, "piece %d", s.Piece)
			}
			layerOf[s.Piece] = layer
			if strings.HasSuffix(tensor.Name, "experts.down") {
				require.Zero(t, s.Rows%c.Hidden, "experts are whole")
			}
		}
	}
}

func TestRecode(t *testing.T) {
	src := open(t)
	wide, err := shard.Recode(context.Background(), src, quant.F32)
	require.NoError(t, err)
	back, err := shard.Recode(context.Background(), wide, quant.Q4_0)
	require.NoError(t, err)
	require.Equal(t, src.Manifest().Pieces, back.Manifest().Pieces, "q4_0 decoded and encoded again is itself")
}

func FuzzParseManifest(f *testing.F) {
	f.Add(manifest(f))
	f.Add([]byte(`{"version":1,"model":{},"pieces":[],"tensors":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := shard.ParseManifest(data); err == nil {
			require.NoError(t, m.Check())
		}
	})
}
