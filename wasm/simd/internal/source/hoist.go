package source

import (
	"fmt"
	"regexp"
	"strings"
)

var vectorConstant = regexp.MustCompile(`\(v128\.const [^()]*\)`)

// hoist moves the constants of each function into locals. V8 makes a vector
// constant anew wherever it is used, in three instructions; a local it keeps.
// Zero takes one and stays.
func hoist(module string) string {
	functions := strings.Split(module, "\n(func ")
	for i := range functions[1:] {
		functions[1+i] = hoistOf(functions[1+i])
	}
	return strings.Join(functions, "\n(func ")
}

func hoistOf(function string) string {
	lines := strings.SplitAfter(function, "\n")
	body := 1
	for body < len(lines) && strings.HasPrefix(lines[body], " (local $") {
		body++
	}
	names := map[string]string{}
	var declared, made strings.Builder
	text := vectorConstant.ReplaceAllStringFunc(strings.Join(lines[body:], ""), func(constant string) string {
		if constant == ints(0) {
			return constant
		}
		name, ok := names[constant]
		if !ok {
			name = fmt.Sprint("$constant", len(names))
			names[constant] = name
			fmt.Fprintf(&declared, " (local %s v128)\n", name)
			fmt.Fprintf(&made, " (local.set %s %s)\n", name, constant)
		}
		return "(local.get " + name + ")"
	})
	return strings.Join(lines[:body], "") + declared.String() + made.String() + text
}
