// Package shard is the shard store: a model as a folder of plain files that
// any static web server can hand out piece by piece.
//
// A converter writes a store, a coordinator serves it, and a worker reads just
// the pieces of its span, each verified by its hash. Turning model files into
// a store is the work of package convert; turning pieces into running layers,
// of package exec.
//
// # Format, version 1
//
//	manifest.json      one JSON object, see Manifest
//	pieces/<sha256>    raw bytes, at most MaxPiece, named by their hash in lower-case hex
//
// A piece holds segments, each a range of whole rows of one tensor in package
// quant's planar layout (quants plane, then scales plane, each padded to 16
// bytes), so a segment can be used, or copied to a GPU, without looking at
// other bytes. Segments begin at multiples of quant.Align. A piece never holds
// segments of two layers, and never a part of an expert: an expert's gate_up
// and down rows lie in one piece, experts in ascending order, so that a part
// of a layer is a run of pieces' segments.
//
// Tensors and their shapes are those of model.Config.Tensors.
package shard
