package wat

import (
	"fmt"
	"strings"
)

// A node is an atom, or a list in parentheses.
type node struct {
	atom string
	list []node
	line int
}

func (n *node) isList() bool { return n.atom == "" }

// head is the first atom of a list.
func (n *node) head() string {
	if len(n.list) > 0 {
		return n.list[0].atom
	}
	return ""
}

// parse reads one list.
func parse(text string) (node, error) {
	line := 1
	open := []node{{}}
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t':
			i++
		case strings.HasPrefix(text[i:], ";;"):
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case c == '(':
			open = append(open, node{line: line})
			i++
		case c == ')':
			last := len(open) - 1
			if last == 0 {
				return node{}, fmt.Errorf("line %d: a list ends that did not begin", line)
			}
			open[last-1].list = append(open[last-1].list, open[last])
			open = open[:last]
			i++
		default:
			end := i
			for end < len(text) && !strings.ContainsRune(" \t\n()", rune(text[end])) {
				end++
			}
			open[len(open)-1].list = append(open[len(open)-1].list, node{atom: text[i:end], line: line})
			i = end
		}
	}
	if len(open) != 1 || len(open[0].list) != 1 || !open[0].list[0].isList() {
		return node{}, fmt.Errorf("line %d: want one whole list", line)
	}
	return open[0].list[0], nil
}
