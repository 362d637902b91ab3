// Package pieces reads shard stores in a tab: the glue (pieces.js) fetches
// pieces, verifies them, and keeps them in the origin's private file system.
package pieces
