// Package wire is the protocol between a coordinator and its workers: the
// messages, how they are framed, and what each side may send when.
//
// It takes messages and gives frames, and back, checking every size before it
// allocates. Moving frames is the work of package link; deciding what to send,
// of coordinator/cluster and worker.
//
// # Transport
//
// One WebSocket, subprotocol "potluck.v1". A text frame is one control message,
// a binary frame is one pass. The coordinator is the server.
//
// # Control messages
//
// One JSON object in UTF-8, at most MaxControl bytes; "type" names the message:
//
//	worker → coordinator: hello progress ready refuse failed stats
//	coordinator → worker: welcome assign release trim cancel
//	both ways:            ping pong leave error
//
// Unknown fields are ignored, so that a later minor version may add some; an
// unknown type is an error.
//
// # Order
//
// A worker's first message is hello; until it is answered by welcome the worker
// sends nothing else. After welcome the worker may be assigned spans. A pass
// names a span that is ready. A result, or failed, answers each pass once, in
// any order. A worker holds at most the passes of its credit. A message that
// its sender's state does not allow, or that breaks a limit, is answered by one
// error, and the connection is closed.
//
// # Passes
//
// All numbers are little endian.
//
//	offset  bytes  field
//	0       1      version: 1
//	1       1      kind: 1 pass, 2 result
//	2       1      element type of the hidden rows: 1 f16 with a scale a row, 2 f32
//	3       1      flags: 1 inside a layer (f32 sums, normed rows, experts follow)
//	4       4      CRC-32C of all bytes from 8 on
//	8       8      pass id
//	16      4      span number
//	20      4      rows
//	24      4      hidden size
//	28      4      chosen experts a row (0 unless inside)
//	32      12     result: microseconds in the queue, computing, reading back
//	44      4      zero
//	48             rows × 12: slot, epoch, position
//	               f16: rows × 1 scale exponent, zeros to a multiple of 4
//	               rows × hidden elements
//	               inside: rows × hidden f32 normed, rows × experts int32 ids, rows × experts f32 weights
//
// An f16 row is its numbers divided by 2^scale, where scale is the one that
// quant.RowScale gives them. Rows between layers have been
// rounded by quant.RoundRow, so nothing is lost; a row that has not is refused
// by the sender. Zeros end a frame to a multiple of 4 bytes.
package wire
