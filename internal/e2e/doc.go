// Package e2e holds the tests of a whole room: the real program, real sockets,
// real browser tabs and the embedded model.
package e2e
