package regex_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token/regex"
)

func pieces(t *testing.T, pattern, text string) []string {
	split, err := regex.Compile(pattern)
	require.NoError(t, err)
	var list []string
	split(text, func(piece string) { list = append(list, piece) })
	require.Equal(t, text, strings.Join(list, ""))
	return list
}

func TestSplit(t *testing.T) {
	require.Equal(t, []string{"ab", "12", "é", "34", "🙂\xff"}, pieces(t, `\d+`, "ab12é34🙂\xff"))
	require.Equal(t, []string{"a", "  ", " b"}, pieces(t, `\s+(?!\S)| ?\w`, "a   b"))
	require.Equal(t, []string{"a", "b", "c"}, pieces(t, `x*`, "abc"), "an empty match cuts too, as in the reference")
	require.Empty(t, pieces(t, `\d+`, ""))
}

// A pattern that backtracks for ages gives up; its text is not lost.
func TestTimeLimit(t *testing.T) {
	text := strings.Repeat("a", 64) + "b"
	begin := time.Now()
	require.Equal(t, []string{text}, pieces(t, `(a+)+$`, text))
	require.Less(t, time.Since(begin), time.Minute)
}

func TestRefusals(t *testing.T) {
	_, err := regex.Compile("(")
	require.Error(t, err)
	_, err = regex.Compile(strings.Repeat("a", 1<<14))
	require.ErrorContains(t, err, "16384 bytes, at most 8192")
}
