package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func output(t *testing.T, args ...string) string {
	t.Helper()
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	require.NoError(t, cmd.Execute())
	return out.String()
}

// From INTELLECT-3's configuration alone: what it needs, and who can run it.
func TestPlanOfIntellect3(t *testing.T) {
	const config = "../../coordinator/plan/testdata/intellect-3.json"
	text := output(t, "plan", "--model", config)
	for _, line := range []string{
		`weights +60\.2 GB`, `read per token +7\.3 GB`, `KV per token +188416 bytes; 772 MB for one conversation of 4096 tokens`,
		`thirty tabs of 2 GB +no: needs 59\.6 GB, the room has 60\.0 GB, but what each has left`, `thirty-one tabs of 2 GB +yes`,
		`four machines with 16 GB +yes`, `one machine with 64 GB +yes`, `one machine with 8 GB +no: needs 59\.6 GB, the room has 8\.0 GB; 7 more`,
	} {
		require.Regexp(t, line, text)
	}
	require.Regexp(t, `weights +113\.6 GB`, output(t, "plan", "--model", config, "--weights", "q8_0"))
	require.Contains(t, output(t, "plan", "--model", config, "--room", "16@60x4"), "This room can run it at about")
	require.Contains(t, output(t, "plan", "--help"), "no\nweights are needed")
}

// Model files that are no store yet are listed and planned by their headers.
func TestWithoutConverting(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // nothing may come of it
	for _, model := range []string{"../../testdata/models/glm4moe", "../../testdata/gguf/glm4moe.gguf"} {
		require.Contains(t, output(t, "inspect", model), "layers.1.experts.down")
		require.Regexp(t, `weights +\d`, output(t, "plan", "--model", model))
	}
}
