// Package storepb is the StoreAPI on the wire: the messages and services that a Thanos Querier
// speaks, and the fast way to send the one message that matters for speed.
//
// The .proto files are our own and wire-identical to Thanos's; the generated code beside them is
// committed, and `make proto` (generate.sh) makes it anew. Requests, Info and the label responses
// are ordinary generated messages.
//
// # Series responses
//
// A SeriesResponse is never built as a message. Its labels arrive as finished protobuf bytes
// (AppendLabel), its chunks as slices of pages; FrameWriter appends both to a pooled buffer, and
// Codec hands that buffer to grpc as it is:
//
//	w := storepb.NewFrameWriter(pool, req.ResponseBatchSize, func(f *storepb.Frame) error { return stream.SendMsg(f) })
//	defer w.Discard()
//	for ... {
//		if err := w.WriteSeries(labels, chunks); err != nil {
//			return err
//		}
//	}
//	return w.Flush()
//
// The server is made with grpc.ForceServerCodecV2(storepb.Codec()); one FramePool serves the
// process. The bytes are the same as proto.Marshal makes of the same message. Strings are bytes, as
// in Thanos: text that is not UTF-8 is sent and received as it is (protocgen says how).
//
// # Who owns which bytes
//
//   - Labels and chunk data belong to the caller. They are read during the call they are passed to,
//     and copied once.
//   - A frame's buffer belongs to the Frame until grpc encodes the message, which is the first
//     thing SendMsg does; then to grpc, which gives it back to the pool when the last byte is
//     written. That is after SendMsg returned, so nothing may be read from a Frame, and no buffer
//     reused, on the ground that SendMsg is done. Release, called after SendMsg, covers the sends
//     that never reached grpc; FrameWriter does it.
//   - When a stream dies, grpc may leave a buffer to the collector instead of giving it back. Bytes
//     must therefore not be accounted for by counting what comes back to the pool.
//   - Under the race detector, and in this package's tests, the pool overwrites what comes back.
//
// # Locks
//
// There are none. A FramePool and Codec are safe for concurrent use; a Frame, FrameWriter or
// ShardMatcher belongs to one goroutine.
//
// Importing this package registers the message compressions "gzip" and "snappy" with grpc.
package storepb
