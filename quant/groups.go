package quant

// Groups walks over row ranges that lie in several matrices, a group of Rows
// rows at a time. A group never lies in two of them: experts, for one, are
// stored whole.
type Groups struct {
	Parts []Matrix // in order; what has been taken is gone from it
	Rows  int      // of a group
	row   int      // in the first part
}

// Left is how many groups the part at hand still has.
func (g *Groups) Left() int {
	if len(g.Parts) == 0 {
		return 0
	}
	return (g.Parts[0].Rows - g.row) / g.Rows
}

// Take returns the next count groups; at most Left.
func (g *Groups) Take(count int) Matrix {
	m := g.Parts[0].RowRange(g.row, count*g.Rows)
	if g.row += count * g.Rows; g.row == g.Parts[0].Rows {
		g.Parts, g.row = g.Parts[1:], 0
	}
	return m
}
