// Package storepb has the messages and services of the StoreAPI, as Thanos Queriers speak it. The
// .proto files are larder's own and wire-identical to Thanos's. The generated code beside them is
// committed; `make proto` (generate.sh) regenerates it. Requests, Info and label responses are
// ordinary generated messages. Series responses are written by FrameWriter, sent through Codec, and
// never exist as messages. This saves allocations and copies on the hot path.
//
// # Series responses
//
// Labels arrive as finished protobuf bytes (AppendLabel), chunks as slices of pages. FrameWriter
// appends both to a pooled buffer, and Codec passes that buffer to grpc unchanged:
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
// Create the server with grpc.ForceServerCodecV2(storepb.Codec()), and one FramePool per process.
// The bytes equal those of proto.Marshal for the same message. Strings are bytes, same as in
// Thanos: text that is not UTF-8 is sent and received unchanged (see protocgen).
//
// Importing this package registers the message compressions "gzip" and "snappy" with grpc.
//
// # Who owns which bytes
//
//   - Labels and chunk data belong to the caller. A call reads them while it runs, and copies them
//     once.
//   - A frame's buffer belongs to the Frame until grpc encodes the message, which is the first
//     thing SendMsg does. Then it belongs to grpc, which returns it to the pool once the last byte
//     is written. That may be after SendMsg has returned. Therefore a Frame must not be read, and
//     its buffer must not be reused, even after SendMsg. Call Release after SendMsg: it frees the
//     buffer of a frame that never reached grpc. FrameWriter does this.
//   - When a stream breaks, grpc may drop a buffer instead of returning it. The garbage collector
//     then frees it. Accounts of memory must therefore not rely on the buffers that return to the
//     pool.
//   - With the race detector, and in this package's tests, the pool overwrites buffers that return.
//
// # Locks
//
// There are none. A FramePool and Codec are safe for concurrent use. A Frame, a FrameWriter and a
// ShardMatcher belong to one goroutine.
package storepb
