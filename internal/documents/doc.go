// Package documents holds the test that what the documents name is there:
// linked files, make targets, commands and their flags.
package documents
