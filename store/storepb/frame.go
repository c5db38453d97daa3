package storepb

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// MaxFrameBytes bounds a frame in bytes, including its framing. Only a frame with a single chunk
// may exceed it.
const MaxFrameBytes = 1 << maxTier

// Tags of the fields of a response.
const (
	tagResponseSeries  = 1<<3 | 2 // SeriesResponse.series
	tagResponseWarning = 2<<3 | 2 // SeriesResponse.warning
	tagResponseHints   = 3<<3 | 2 // SeriesResponse.hints
	tagResponseBatch   = 4<<3 | 2 // SeriesResponse.batch
	tagBatchSeries     = 1<<3 | 2 // SeriesBatch.series
)

// Frame is an encoded SeriesResponse in a pooled buffer. A server with Codec sends it unchanged:
// stream.SendMsg(frame).
//
// A frame is sent at most once. Its buffer returns to the pool exactly once:
//   - Codec takes the buffer when grpc encodes the frame, at the start of SendMsg. From then on
//     grpc owns it. grpc returns it once the last byte is on the wire or the stream has ended, even
//     if SendMsg fails.
//   - Before that the frame owns it. An interceptor may reject a message before it reaches grpc.
//     The caller of SendMsg therefore always calls Release afterwards. Release does nothing if grpc
//     has taken the buffer.
//
// A Frame is not safe for concurrent use. It is never reused, because stats handlers may keep the
// sent message.
type Frame struct {
	// bufs is an array to avoid an allocation: grpc gets it as a slice. It belongs to grpc once
	// taken is set.
	bufs  [1]mem.Buffer
	size  int
	taken bool
}

// newFrame returns a frame with the bytes of data from off on. The frame owns data, which came from
// pool.
func newFrame(pool mem.BufferPool, data *[]byte, off int) *Frame {
	f := &Frame{size: len(*data) - off}
	b := mem.NewBuffer(data, pool)
	if off > 0 {
		// The slice keeps the whole buffer alive, and the whole buffer returns to the pool.
		s := b.Slice(off, len(*data))
		b.Free()
		b = s
	}
	f.bufs[0] = b
	return f
}

// NewSeriesFrame encodes one series of any length as a response of its own.
func NewSeriesFrame(pool mem.BufferPool, labels []byte, chunks []WireChunk) *Frame {
	size := SeriesSize(labels, chunks)
	buf := pool.Get(fieldSize(size))
	b := append((*buf)[:0], tagResponseSeries)
	b = appendVarint(b, uint64(size))
	*buf = AppendSeries(b, labels, chunks)
	return newFrame(pool, buf, 0)
}

// newLoneBatchFrame encodes one series of any length as a batch of its own.
func newLoneBatchFrame(pool mem.BufferPool, labels []byte, chunks []WireChunk) *Frame {
	size := SeriesSize(labels, chunks)
	buf := pool.Get(fieldSize(fieldSize(size)))
	b := append((*buf)[:0], tagResponseBatch)
	b = appendVarint(b, uint64(fieldSize(size)))
	b = append(b, tagBatchSeries)
	b = appendVarint(b, uint64(size))
	*buf = AppendSeries(b, labels, chunks)
	return newFrame(pool, buf, 0)
}

// NewWarningFrame encodes a warning.
func NewWarningFrame(pool mem.BufferPool, text string) *Frame {
	buf := pool.Get(fieldSize(len(text)))
	b := append((*buf)[:0], tagResponseWarning)
	b = appendVarint(b, uint64(len(text)))
	*buf = append(b, text...)
	return newFrame(pool, buf, 0)
}

// NewHintsFrame encodes hints. Clients of Thanos expect a SeriesResponseHints.
func NewHintsFrame(pool mem.BufferPool, hints *anypb.Any) (*Frame, error) {
	opts := proto.MarshalOptions{Deterministic: true}
	size := opts.Size(hints)
	buf := pool.Get(fieldSize(size))
	b := append((*buf)[:0], tagResponseHints)
	b = appendVarint(b, uint64(size))
	b, err := opts.MarshalAppend(b, hints)
	if err != nil {
		pool.Put(buf)
		return nil, fmt.Errorf("encode hints of a Series response: %w", err)
	}
	*buf = b
	return newFrame(pool, buf, 0), nil
}

// Size returns the length of the message in bytes, before compression. It may be called at any
// time.
func (f *Frame) Size() int { return f.size }

// Bytes returns the encoded message, for tests and tools. The result must not be used after the
// frame was sent or released. Bytes panics if it is called then.
func (f *Frame) Bytes() []byte {
	if f.taken {
		panic("storepb: Bytes of a frame that was sent or released")
	}
	return f.bufs[0].ReadOnlyData()
}

// Release returns the buffer to the pool unless grpc owns it. It may be called more than once.
func (f *Frame) Release() {
	if f.taken {
		return
	}
	f.taken = true
	f.bufs[0].Free()
}

// String describes the frame without reading its bytes, because tracing may print a message after
// it was sent.
func (f *Frame) String() string {
	return fmt.Sprintf("Frame(%d bytes)", f.size)
}

// take passes the buffer to grpc.
func (f *Frame) take() (mem.BufferSlice, error) {
	if f.taken {
		return nil, fmt.Errorf("frame of %d bytes was already sent or released", f.size)
	}
	f.taken = true
	return f.bufs[:], nil
}
