package token

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// randomModel has the bytes a to e and tokens merged at random from those before.
func randomModel(random *rand.Rand, merges int) *bpe {
	b := &bpe{byteLevel: true, unknown: -1, pairs: newPairTable(merges)}
	for i := range b.bytes {
		b.bytes[i] = int32(i)
	}
	tokens := []int32{'a', 'b', 'c', 'd', 'e'}
	for rank := range merges {
		left, right := tokens[random.IntN(len(tokens))], tokens[random.IntN(len(tokens))]
		made := int32(256 + rank)
		b.made = append(b.made, made)
		b.pairs.set(left, right, int32(rank))
		tokens = append(tokens, made)
	}
	return b
}

// mergeReference is the definition: the lowest rank first, of equals the leftmost.
func mergeReference(b *bpe, symbols []int32) []int32 {
	for {
		at, best := -1, int32(noRank)
		for i := range len(symbols) - 1 {
			if rank := b.pairs.rank(symbols[i], symbols[i+1]); rank < best {
				at, best = i, rank
			}
		}
		if at < 0 {
			return symbols
		}
		symbols = slices.Replace(symbols, at, at+2, b.made[best])
	}
}

func TestMergesEqualReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b := randomModel(random, 1+random.IntN(60))
		for range 20 {
			symbols := make([]int32, random.IntN(2*shortPiece))
			for i := range symbols {
				symbols[i] = 'a' + random.Int32N(5)
			}
			want := mergeReference(b, slices.Clone(symbols))
			long := slices.Clone(symbols)
			require.Equal(t, want, long[:b.mergeLong(long)], "queue: %v", symbols)
			if len(symbols) <= shortPiece {
				short := slices.Clone(symbols)
				require.Equal(t, want, short[:b.mergeShort(short)], "search: %v", symbols)
			}
		}
	}
}

func TestPairTable(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const pairs = 5000
	table, want := newPairTable(pairs), map[[2]int32]int32{}
	for rank := range int32(pairs) {
		left, right := random.Int32N(300), random.Int32N(300)
		table.set(left, right, rank)
		want[[2]int32{left, right}] = rank
	}
	for left := range int32(300) {
		for right := range int32(300) {
			rank, ok := want[[2]int32{left, right}]
			if !ok {
				rank = noRank
			}
			require.Equal(t, rank, table.rank(left, right), "%d %d", left, right)
		}
	}
}

// sentenceModel is a SentencePiece-style tokenizer with the given merges.
func sentenceModel(t *testing.T, merges ...string) *Tokenizer {
	vocabulary := []string{`"<unk>":0`, `"▁":1`, `"a":2`, `"b":3`}
	seen := map[string]bool{}
	for _, m := range merges {
		if text := strings.ReplaceAll(m, " ", ""); !seen[text] {
			seen[text] = true
			vocabulary = append(vocabulary, fmt.Sprintf("%q:%d", text, len(vocabulary)))
		}
	}
	tok, err := FromJSON(fmt.Appendf(nil, `{
		"normalizer": {"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
		"decoder": {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},
		"model": {"vocab":{%s},"merges":["%s"],"unk_token":"<unk>","fuse_unk":true,"byte_fallback":true}}`,
		strings.Join(vocabulary, ","), strings.Join(merges, `","`)))
	require.NoError(t, err)
	return tok
}

// Cutting a sentence into words must not change its ids, and is not done where
// it could.
func TestCutsBeforeSpacesChangeNothing(t *testing.T) {
	require.Nil(t, sentenceModel(t, "a ▁").split, "a merge reaches over the cut")
	require.Nil(t, sentenceModel(t, "▁ a", "▁a ▁").split, "a merge reaches over the cut")

	tok := sentenceModel(t, "▁ ▁", "▁ a", "▁▁ ▁▁", "a b", "▁▁ ▁", "▁a b", "▁ b")
	require.NotNil(t, tok.split)
	whole := *tok
	whole.split, whole.cache = nil, newPieceCache()
	random := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		text := make([]byte, random.IntN(40))
		for i := range text {
			text[i] = "aab    xy"[random.IntN(9)]
		}
		require.Equal(t, whole.Encode(string(text), EncodeOptions{}), tok.Encode(string(text), EncodeOptions{}), "%q", text)
	}
}

// A long piece without breaks takes n·log n steps: were they n², these would be
// a million million.
func TestLongPieceIsNotQuadratic(t *testing.T) {
	merges := make([]string, 8)
	for i := range merges {
		half := strings.Repeat("a", 1<<i)
		merges[i] = half + " " + half
	}
	tok := sentenceModel(t, merges...)
	begin := time.Now()
	ids := tok.Encode(strings.Repeat("a", 1<<20), EncodeOptions{})
	require.Len(t, ids, 1+1<<12)
	require.Less(t, time.Since(begin), 20*time.Second)
}

func TestCacheKeepsItsBounds(t *testing.T) {
	tok := sentenceModel(t, "▁ a", "a b")
	for i := range 3 * cacheSlots {
		tok.Encode(fmt.Sprint("ab", i), EncodeOptions{})
	}
	used := 0
	for i := range tok.cache.slots {
		if c := tok.cache.slots[i].Load(); c != nil {
			used++
			require.LessOrEqual(t, len(c.piece), cachedPiece)
		}
	}
	require.Greater(t, used, cacheSlots/2)
	require.Len(t, tok.cache.slots, cacheSlots)
}
