package bench

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSumReadsEverything(t *testing.T) {
	x := make([]uint64, 128)
	want := uint64(0)
	for i := range x {
		x[i] = uint64(i * i)
		want += x[i]
	}
	require.Equal(t, want, sum(x))
}

func TestParseSpeed(t *testing.T) {
	for _, test := range []struct {
		name, out string
		want      Speed
	}{
		{"ours", `{"prefill_tok_s": 120.5, "decode_tok_s": 30}`, Speed{Prefill: 120.5, Decode: 30}},
		{"ours, nothing decoded", `{"prefill_tok_s": 120.5}`, Speed{Prefill: 120.5}},
		{"llama-bench", `[{"n_prompt":512,"n_gen":0,"avg_ts":9,"samples_ts":[1,5,2]},{"n_prompt":0,"n_gen":64,"avg_ts":33.5}]`, Speed{Prefill: 2, Decode: 33.5}},
		{"ik after a prompt", `[{"n_prompt":512,"n_gen":0,"avg_ts":9},{"n_prompt":1024,"n_gen":16,"avg_ts":44,"test":"tg16@pp1024"}]`, Speed{Prefill: 9, Decode: 44}},
		{"llama-bench, a prompt and an answer together", `[{"n_prompt":0,"n_gen":64,"avg_ts":33.5},{"n_prompt":512,"n_gen":64,"avg_ts":99}]`, Speed{Decode: 33.5}},
		{"words", "prefill: 44.5 tok/s\ndecode 12 tokens/s", Speed{Prefill: 44.5, Decode: 12}},
		{"dllama", "Evaluation\n   nBatches: 32\n    nTokens: 511\n   tokens/s: 44.50 (22.47 ms/tok)\nPrediction\n    nTokens: 64\n   tokens/s: 14.51 (68.9 ms/tok)\n", Speed{Prefill: 44.5, Decode: 14.51}},
	} {
		got, err := parseSpeed([]byte(test.out))
		require.NoError(t, err, test.name)
		require.Equal(t, test.want, got, test.name)
	}
	_, err := parseSpeed([]byte("segmentation fault"))
	require.ErrorContains(t, err, "segmentation fault")
}

func TestTableOfComparison(t *testing.T) {
	c := Comparison{
		Names: []string{"potluck", "other"}, Threads: 1, BytesPerToken: 1e9, WeightBytes: 2e9, MACsPerToken: 1e9,
		Walls: []Walls{{20, 400}, {22, 500}, {21, 450}},
		Runs: map[string][]Speed{
			"potluck": {{120, 18, 0.5, 1100e6}, {100, 19, 0.4, 1000e6}, {110, 20, 0.6, 1050e6}},
			"other":   {{50, 0, 0, 2100e6}},
		},
	}
	var out strings.Builder
	require.NoError(t, c.Print(&out))
	lines := strings.Split(out.String(), "\n")
	require.Equal(t, "1 thread; a token reads 1000.0 MB (of 2000.0 MB of weights, and keys and values) and takes 1.00 G multiply-adds.", lines[0])
	require.Contains(t, lines[1], "21.0 [20.0–22.0] GB/s")
	require.Equal(t, strings.Fields("potluck 110.0 100–120 1.00 24% 19.0 18.0–20.0 1.00 90% 0.50 1.00 1050 1.00"), strings.Fields(lines[4]))
	require.Equal(t, strings.Fields("other 50.0 50–50 2.20 11% 0.0 0.0–0.0 - - 0.00 - 2100 0.50"), strings.Fields(lines[5]))
}
