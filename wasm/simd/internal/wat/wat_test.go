package wat

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A module whose bytes were written by hand, after the specification.
func TestAssemble(t *testing.T) {
	got, err := Assemble(`(module ;; a comment
(import "go" "mem" (memory 1 65536 shared))
(func $double (param $x i32) (result i32) (i32.mul (local.get $x) (i32.const -2)))
(func (export "f") (param $x i32) (local $v v128)
 (block $end (loop $again (br_if $end (i32.eqz (local.get $x)))
  (local.set $v (v128.load offset=16 align=1 (local.get $x)))
  (local.set $x (call $double (local.get $x))) (br $again)))
 (if (local.get $x) (then (return)) (else (drop (f32.const 0x1p112))))))`)
	require.NoError(t, err)
	want := "\x00asm\x01\x00\x00\x00" +
		"\x01\x0a\x02\x60\x01\x7f\x01\x7f\x60\x01\x7f\x00" +
		"\x02\x0e\x01\x02go\x03mem\x02\x03\x01\x80\x80\x04" +
		"\x03\x03\x02\x00\x01" +
		"\x07\x05\x01\x01f\x00\x01" +
		"\x0a\x36\x02" +
		"\x07\x00\x20\x00\x41\x7e\x6c\x0b" +
		"\x2c\x01\x01\x7b" +
		"\x02\x40\x03\x40\x20\x00\x45\x0d\x01" +
		"\x20\x00\xfd\x00\x00\x10\x21\x01" +
		"\x20\x00\x10\x00\x21\x00\x0c\x00\x0b\x0b" +
		"\x20\x00\x04\x40\x0f\x05\x43\x00\x00\x80\x77\x1a\x0b\x0b"
	require.Equal(t, []byte(want), got)
}

func TestAssembleRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"(module":                                                            "want one whole list",
		"(module))":                                                          "line 1: a list ends that did not begin",
		"(function)":                                                         "want (module",
		"(module\n(func (i32.load9))))":                                      "a list ends that did not begin",
		"(module\n(func\n(i32.load9)))":                                      `line 3: no instruction "i32.load9"`,
		"(module (func (local.get $x)))":                                     "there is no $x",
		"(module (func (br $out)))":                                          "there is no $out",
		"(module (func (call $f)))":                                          "there is no $f",
		"(module (func (param $x i64)))":                                     "want ($name type)",
		"(module (func (local $x i32) (local $x i32)))":                      "$x is there already",
		"(module (func (drop (v128.const i32x4 1 2 3))))":                    "12 bytes, want 16",
		"(module (func (i8x16.shuffle 1 2)))":                                "with 2 immediates, want 16",
		"(module (func (i32.load offset=x (i32.const 0))))":                  `"offset=x"`,
		"(module (func (i32.load align=3 (i32.const 0))))":                   `"align=3" at a memory access`,
		"(module (func nop))":                                                "want an instruction in parentheses",
		"(module (table 1))":                                                 `"table" in a module`,
		`(module (import "a" "b" (func)))`:                                   "want an imported memory",
		"(module (func (block (nop))))":                                      "a block without a label",
		"(module (func (drop (i32.const many))))":                            "i32.const",
		`(module (import "go" "mem" (memory many)))`:                         `memory of "many" pages`,
		"(module (func (f32x4.extract_lane 40 (v128.const i32x4 0 0 0 0))))": `lane "40"`,
	} {
		_, err := Assemble(text)
		require.ErrorContains(t, err, reason, text)
	}
}
