package storepb

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// MaxFrameBytes bounds a frame, its own framing included. A frame may only be longer when it holds
// a single chunk that is.
const MaxFrameBytes = 1 << maxTier

// Tags of the fields that responses are made of.
const (
	tagResponseSeries  = 1<<3 | 2 // SeriesResponse.series
	tagResponseWarning = 2<<3 | 2 // SeriesResponse.warning
	tagResponseHints   = 3<<3 | 2 // SeriesResponse.hints
	tagResponseBatch   = 4<<3 | 2 // SeriesResponse.batch
	tagBatchSeries     = 1<<3 | 2 // SeriesBatch.series
)

// Frame is a finished SeriesResponse: bytes in a pooled buffer that a server with Codec sends as
// they are, by stream.SendMsg(frame).
//
// A frame is sent at most once, and its buffer is given back exactly once, by whoever holds it
// last:
//   - Codec takes the buffer when grpc encodes the frame, which SendMsg does first. From then on
//     grpc owns the buffer and gives it back when the last byte is on the wire or the stream is
//     gone, whether SendMsg succeeds or not.
//   - Before that the frame owns it. An interceptor may refuse a message before grpc sees it, so
//     whoever calls SendMsg calls Release afterwards, always: it gives the buffer back if grpc has
//     not taken it, and otherwise does nothing.
//
// A Frame is not safe for concurrent use. It is never reused: stats handlers may keep the message
// that was sent.
type Frame struct {
	// bufs is handed to grpc as a slice, which spares an allocation. Once taken is set, it belongs
	// to grpc.
	bufs  [1]mem.Buffer
	size  int
	taken bool
}

// newFrame makes a frame of the bytes of data from off on. The frame owns data, which came from
// pool.
func newFrame(pool mem.BufferPool, data *[]byte, off int) *Frame {
	f := &Frame{size: len(*data) - off}
	b := mem.NewBuffer(data, pool)
	if off > 0 {
		// A slice keeps the whole buffer alive, and the pool gets it back whole.
		s := b.Slice(off, len(*data))
		b.Free()
		b = s
	}
	f.bufs[0] = b
	return f
}

// NewSeriesFrame encodes one series as a response of its own, however long.
func NewSeriesFrame(pool mem.BufferPool, labels []byte, chunks []WireChunk) *Frame {
	size := SeriesSize(labels, chunks)
	buf := pool.Get(fieldSize(size))
	b := append((*buf)[:0], tagResponseSeries)
	b = appendVarint(b, uint64(size))
	*buf = AppendSeries(b, labels, chunks)
	return newFrame(pool, buf, 0)
}

// newLoneBatchFrame encodes one series as a batch of its own, however long.
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

// NewHintsFrame encodes hints, which Thanos's clients expect to be a SeriesResponseHints.
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

// Size is the number of bytes of the message, before compression. It may be asked at any time.
func (f *Frame) Size() int { return f.size }

// Bytes is the encoded message, for tests and tools. It must not be asked for, or looked at, after
// the frame was sent or released.
func (f *Frame) Bytes() []byte {
	if f.taken {
		panic("storepb: Bytes of a frame that was sent or released")
	}
	return f.bufs[0].ReadOnlyData()
}

// Release gives the buffer back unless grpc has it. It may be called any number of times.
func (f *Frame) Release() {
	if f.taken {
		return
	}
	f.taken = true
	f.bufs[0].Free()
}

// String describes the frame without looking at its bytes: tracing may print a message after it was
// sent.
func (f *Frame) String() string {
	return fmt.Sprintf("Frame(%d bytes)", f.size)
}

// take hands the buffer to grpc.
func (f *Frame) take() (mem.BufferSlice, error) {
	if f.taken {
		return nil, fmt.Errorf("frame of %d bytes was already sent or released", f.size)
	}
	f.taken = true
	return f.bufs[:], nil
}
