package documents

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// documents are the Markdown files that git knows, or in an archive without
// git those that are there.
func documents(t *testing.T) map[string]string {
	texts := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == "build") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			texts[path] = string(data)
		}
		return nil
	}))
	require.Contains(t, texts, filepath.Join(root, "README.md"))
	return texts
}

var (
	link    = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	target  = regexp.MustCompile("(?m)(?:^|[`( ])make ([a-z][a-z0-9-]*)")
	command = regexp.MustCompile("(?m)(?:^|`|bin/)potluck ([a-z]+)([^`\n]*)")
	quoted  = regexp.MustCompile(`'[^']*'|"[^"]*"`)
	flag    = regexp.MustCompile(`--[a-z][a-z0-9-]*`)
)

func TestLinks(t *testing.T) {
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			_, err := os.Stat(filepath.Join(filepath.Dir(path), m[1]))
			require.NoError(t, err, "%s links to %s", path, m[1])
		}
	}
}

func TestTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	rule := func(name string) bool { return regexp.MustCompile(`(?m)^` + name + `:`).Match(makefile) }
	for path, text := range documents(t) {
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			if !prose[m[1]] {
				require.True(t, rule(m[1]), "%s names make %s, which the Makefile lacks", path, m[1])
			}
		}
	}
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindStringSubmatch(string(makefile))
	require.NotNil(t, phony)
	for _, name := range strings.Fields(phony[1]) {
		require.True(t, rule(name), "phony target %s has no rule", name)
	}
}

// prose are words that follow make where it is a verb.
var prose = map[string]bool{"it": true, "the": true, "a": true, "an": true, "are": true, "us": true, "planning": true}

func TestCommands(t *testing.T) {
	program := filepath.Join(t.TempDir(), "potluck")
	build := exec.Command("go", "build", "-o", program, "./cmd/potluck")
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	helps := map[string]string{}
	help := func(name string) string {
		if helps[name] == "" {
			var text bytes.Buffer
			cmd := exec.Command(program, name, "--help")
			cmd.Stdout, cmd.Stderr = &text, &text
			require.NoError(t, cmd.Run(), "potluck %s --help: %s", name, text.String())
			helps[name] = text.String()
		}
		return helps[name]
	}
	for path, text := range documents(t) {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			require.Contains(t, help(m[1]), "potluck "+m[1], "%s names potluck %s", path, m[1])
			own := quoted.ReplaceAllString(m[2], "") // not another program's flags
			for _, f := range flag.FindAllString(own, -1) {
				require.True(t, strings.Contains(help(m[1]), f+" "), "%s: potluck %s has no %s", path, m[1], f)
			}
		}
	}
}
