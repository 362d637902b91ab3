package jinja_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/potluck-llm/potluck/token/jinja"
)

// families are folders with a template and what the reference makes of it:
// ours in testdata, published ones where POTLUCK_GOLDENS points.
func families(t testing.TB) []string {
	roots := []string{"testdata"}
	if goldens := os.Getenv("POTLUCK_GOLDENS"); goldens != "" {
		roots = append(roots, filepath.Join(goldens, "templates"))
	} else {
		t.Log("POTLUCK_GOLDENS is unset: published templates are other people's text and are not tested here, our own are")
	}
	seen := map[string]bool{}
	var list []string
	for _, root := range roots {
		found, err := filepath.Glob(filepath.Join(root, "*", "cases.jsonl"))
		require.NoError(t, err)
		require.NotEmpty(t, found, root)
		for _, f := range found {
			if folder := filepath.Dir(f); !seen[filepath.Base(folder)] {
				seen[filepath.Base(folder)] = true
				list = append(list, folder)
			}
		}
	}
	return list
}

func TestGoldens(t *testing.T) {
	for _, folder := range families(t) {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(folder, "template.jinja"))
			require.NoError(t, err)
			template, err := jinja.Parse(filepath.Base(folder), string(source))
			require.NoError(t, err)
			data, err := os.ReadFile(filepath.Join(folder, "cases.jsonl"))
			require.NoError(t, err)
			lines := bufio.NewScanner(bytes.NewReader(data))
			lines.Buffer(nil, 1<<24)
			for n := 1; lines.Scan(); n++ {
				checkCase(t, template, n, lines.Bytes())
			}
		})
	}
}

func checkCase(t *testing.T, template *jinja.Template, n int, line []byte) {
	var c struct {
		Name    string          `json:"name"`
		Vars    json.RawMessage `json:"vars"`
		Now     string          `json:"now"`
		Out     *string         `json:"out"`
		Kind    string          `json:"kind"`
		Message string          `json:"message"`
	}
	require.NoError(t, json.Unmarshal(line, &c))
	vars, err := jinja.FromJSON(c.Vars)
	require.NoError(t, err)
	var o jinja.Options
	if c.Now != "" {
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02"} {
			if now, err := time.Parse(layout, c.Now); err == nil {
				o.Now = now
			}
		}
		require.False(t, o.Now.IsZero(), c.Now)
	}
	got, err := template.Render(vars.(*jinja.Dict), o)
	var raised *jinja.RaisedError
	switch {
	case c.Out != nil:
		require.NoError(t, err, "line %d: %s", n, c.Name)
		require.Equal(t, *c.Out, got, "line %d: %s", n, c.Name)
	case c.Kind == "raised":
		require.True(t, errors.As(err, &raised), "line %d: %s: %v", n, c.Name, err)
		require.Equal(t, c.Message, raised.Message)
	default:
		require.Error(t, err, "line %d: %s: rendered %q", n, c.Name, got)
	}
}

func render(t *testing.T, source string) string {
	template, err := jinja.Parse("test", source)
	require.NoError(t, err, source)
	vars, err := jinja.FromJSON([]byte(`{"items":[1,2.0,"x",null,true],"d":{"b":1,"a":[1,2]},"big":123456789012345678901234567890,"s":"héllo","e":[]}`))
	require.NoError(t, err)
	out, err := template.Render(vars.(*jinja.Dict), jinja.Options{})
	require.NoError(t, err, source)
	return out
}

func TestLanguage(t *testing.T) {
	for source, want := range map[string]string{
		`{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 // -2 }} {{ 1 / 2 }} {{ 2 ** 10 }} {{ 1e-7 }} {{ 1.0 }}`: "7 3 -4 2 -2 -4 0.5 1024 1e-07 1.0",
		`{{ items }} {{ d }} {{ big + 1 }} {{ none }} {{ true }}`:                                                                           `[1, 2.0, 'x', None, True] {'b': 1, 'a': [1, 2]} 123456789012345678901234567891 None True`,
		`{{ d | tojson }} {{ s | tojson(ensure_ascii=true) }}`:                                                                              `{"b": 1, "a": [1, 2]} "h\u00e9llo"`,
		"{{ d | tojson(indent=2) }}":                             "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    2\n  ]\n}",
		`{{ s[1:3] }}{{ s[::-1] }}{{ s[-1] }}{{ items[1:][0] }}`: "élollého2.0",
		`{% for x in items if x is number %}{{ loop.index }}{% if not loop.last %},{% endif %}{% endfor %}`:                         "1,2,3",
		`{% for x in e %}a{% else %}none{% endfor %}`:                                                                               "none",
		`{% for i in range(9) %}{% if i == 5 %}{% break %}{% endif %}{% if i is odd %}{% continue %}{% endif %}{{ i }}{% endfor %}`: "024",
		`{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}`:                                                       "1",
		`{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}`:                                      "2",
		`{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(b=3, a=4) }}`:                                              "1243",
		`{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}`:                                                 "[x]",
		`{% set t %}a{{ 1 }}{% endset %}{{ t|upper }}`:                                                                              "A1",
		`{{ 'a' if false else 'b' }}{{ 'c' if true }}{{ 'x' if false }}`:                                                            "bc",
		`{{ 1 < 2 < 3 }} {{ not 1 == 2 }} {{ 'a' in 'abc' }} {{ 3 not in [1,2] }} {{ x is defined }}`:                               "True True True True False",
		`{{ " a b ".split() }}{{ "a,b,c".split(",", 1) }}{{ "x".join(["1","2"]) }}`:                                                 "['a', 'b']['a', 'b,c']1x2",
		"a\n  {%- if true %}\n  b\n  {% endif %}\nc\n":                                                                              "a  b\nc",
		"{# note #}\nx":                "x",
		`{% raw %}{{ x }}{% endraw %}`: "{{ x }}",
		`{{ items | map('string') | join('-') }}|{{ d | dictsort | first | first }}`:                "1-2.0-x-None-True|a",
		`{{ missing }}{{ missing | default('d') }}{{ d.get('zz') }}{{ d.items() | list | length }}`: "dNone2",
		`{% generation %}g{% endgeneration %}`:                                                      "g",
	} {
		require.Equal(t, want, render(t, source), source)
	}
}

func TestRefusals(t *testing.T) {
	for source, want := range map[string]string{
		`{% if %}`: "line 1", "\n{{ 1 + }}": "line 2", `{{ x`: "}}", `{% for x in y %}`: "endfor", `{{ x | nofilter }}`: "nofilter", `{{ x is notest }}`: "notest",
		`{# open`: "comment", `{{ "open }}`: "string", `{% unknown %}`: "unknown", "{{ " + strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300) + " }}": "deeper",
	} {
		_, err := jinja.Parse("test", source)
		require.ErrorContains(t, err, want, source)
	}
	for source, want := range map[string]string{
		`{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}`: "too many steps",
		`{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`:                                "too many steps",
		`{{ "x" * 999999999 }}`: "too much", `{{ range(999999999) }}`: "range", `{{ 9 ** 999999 }}`: "too much",
		`{% set n = namespace(s="x") %}{% for i in range(999) %}{% set n.s = n.s + n.s %}{% endfor %}`: "too much",
		`{{ none + "x" }}`: "unsupported", `{{ "x" + none }}`: "concatenate", `{{ a.b }}`: "undefined", `{{ none.x() }}`: "None", `{{ 1 / 0 }}`: "zero",
	} {
		template, err := jinja.Parse("test", source)
		require.NoError(t, err, source)
		_, err = template.Render(nil, jinja.Options{})
		require.ErrorContains(t, err, want, source)
	}
}

func FuzzRender(f *testing.F) {
	f.Add(`{% for m in messages %}{{ m.role | upper }}{{ m['content'][::-1] }}{% endfor %}`, `{"messages":[{"role":"user","content":"hi"}]}`)
	f.Fuzz(func(t *testing.T, source, vars string) {
		v, err := jinja.FromJSON([]byte(vars))
		if err != nil {
			return
		}
		d, ok := v.(*jinja.Dict)
		if !ok {
			return
		}
		template, err := jinja.Parse("fuzz", source)
		if err != nil {
			return
		}
		_, _ = template.Render(d, jinja.Options{Steps: 10000, Output: 1 << 16})
	})
}
