package storepb

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/anypb"
)

// batchHeader is the space reserved for a batch's tag and length, because the length is known last.
// Frames of 16 KiB to 1 MiB need all of it: their lengths have three bytes.
const batchHeader = 1 + 3

// FrameWriter divides a sorted sequence of series into frames, by the response_batch_size of a
// request, and sends them.
//
// A frame ends at the batch size or at MaxFrameBytes, whichever comes first, and before a warning
// or hints. A series that does not fit into a frame continues in the next one, with its labels
// repeated. A chunk that does not fit gets a frame of its own.
//
// Chunk bytes are copied once, into the frame's buffer. They are copied again if a batch exceeds
// the size that was estimated from the previous frame.
//
// A FrameWriter is not safe for concurrent use. It holds at most one unfinished frame, and
// therefore at most MaxFrameBytes of buffer. The caller ends every use with Flush or Discard.
type FrameWriter struct {
	pool  mem.BufferPool
	batch int64
	send  func(*Frame) error

	buf   *[]byte // the unfinished batch, after batchHeader free bytes; nil if there is none
	inBuf int64   // series in buf
	// mean encoded size of a series in the last batch, rounded up; it sizes the next buffer
	perSeries int
	expected  int64 // series of the whole answer; 0 if unknown
	stats     FrameStats
	err       error

	chunkBytes int64 // encoded chunks of all series written
}

// FrameStats counts what a FrameWriter has sent. Bytes are the lengths of messages before
// compression.
type FrameStats struct {
	Frames, Series, Chunks, Bytes int64
}

// NewFrameWriter returns a writer for one response. A batch above 1 is the maximum number of series
// in a frame. With a batch of 1 or less each series is a response of its own. send is usually
// stream.SendMsg. It must not keep the frame. The writer releases frames that send did not pass to
// grpc.
func NewFrameWriter(pool mem.BufferPool, batch int64, send func(*Frame) error) *FrameWriter {
	return &FrameWriter{pool: pool, batch: batch, send: send}
}

// Expect announces that at most n more series follow. It only bounds the size of buffers: a client
// may ask for batches of far more series than match.
func (w *FrameWriter) Expect(n int64) { w.expected = w.stats.Series + n }

// Stats returns what was sent so far. Frames and bytes exclude the unfinished frame; series and
// chunks count when they are written. A series that continues in another frame counts once.
func (w *FrameWriter) Stats() FrameStats { return w.stats }

// ChunkBytes returns the encoded size of the chunks of all series written so far.
func (w *FrameWriter) ChunkBytes() int64 { return w.chunkBytes }

// Pending reports whether Flush would send a frame.
func (w *FrameWriter) Pending() bool { return w.buf != nil }

// WriteSeries writes one series. It keeps neither labels nor chunks. An error is that of send; all
// later calls return it.
func (w *FrameWriter) WriteSeries(labels []byte, chunks []WireChunk) error {
	if w.err != nil {
		return w.err
	}
	w.stats.Series++
	w.stats.Chunks += int64(len(chunks))
	size, ofChunks := seriesSize(labels, chunks)
	w.chunkBytes += int64(ofChunks)
	for w.frameSize(size) > MaxFrameBytes && len(chunks) > 1 {
		n, part := w.fit(labels, chunks)
		if err := w.writeAlone(labels, chunks[:n]); err != nil {
			return err
		}
		chunks = chunks[n:]
		size -= part - len(labels)
	}
	if w.batch <= 1 || w.frameSize(size) > MaxFrameBytes {
		return w.writeAlone(labels, chunks)
	}

	need := fieldSize(size)
	if w.buf != nil && len(*w.buf)+need > MaxFrameBytes {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	w.grow(need)
	b := append(*w.buf, tagBatchSeries)
	b = appendVarint(b, uint64(size))
	*w.buf = AppendSeries(b, labels, chunks)
	if w.inBuf++; w.inBuf >= w.batch {
		return w.Flush()
	}
	return nil
}

// frameSize returns the size of a frame with a single series of n bytes, to compare with
// MaxFrameBytes.
func (w *FrameWriter) frameSize(n int) int {
	return batchHeader + fieldSize(n)
}

// fit returns how many of the chunks one frame can hold, at least one, and the size of the series
// with these.
func (w *FrameWriter) fit(labels []byte, chunks []WireChunk) (n, size int) {
	size = len(labels)
	for n < len(chunks) {
		next := size + fieldSize(wireChunkSize(&chunks[n]))
		if n > 0 && w.frameSize(next) > MaxFrameBytes {
			break
		}
		size = next
		n++
	}
	return n, size
}

// writeAlone sends the pending frame, then a frame with one series.
func (w *FrameWriter) writeAlone(labels []byte, chunks []WireChunk) error {
	if err := w.Flush(); err != nil {
		return err
	}
	if w.batch > 1 {
		return w.sendFrame(newLoneBatchFrame(w.pool, labels, chunks))
	}
	return w.sendFrame(NewSeriesFrame(w.pool, labels, chunks))
}

// grow makes buf large enough for need more bytes.
func (w *FrameWriter) grow(need int) {
	if w.buf == nil {
		// A full batch of series as long as those of the last batch, or as this one, plus an
		// eighth.
		guess, batch := int64(max(w.perSeries, need)), w.batch
		if w.expected > 0 {
			// Series counts this one already
			batch = max(1, min(batch, w.expected-w.stats.Series+1))
		}
		if batch >= MaxFrameBytes/guess {
			guess = MaxFrameBytes
		} else {
			guess = min(MaxFrameBytes, batchHeader+batch*guess*9/8)
		}
		w.buf = w.pool.Get(max(int(guess), batchHeader+need))
		*w.buf = (*w.buf)[:batchHeader]
		return
	}
	if old := w.buf; len(*old)+need > cap(*old) {
		w.buf = w.pool.Get(min(MaxFrameBytes, max(2*cap(*old), len(*old)+need)))
		*w.buf = append((*w.buf)[:0], *old...)
		w.pool.Put(old)
	}
}

// WriteWarning sends the pending frame, then a warning.
func (w *FrameWriter) WriteWarning(text string) error {
	if err := w.Flush(); err != nil {
		return err
	}
	return w.sendFrame(NewWarningFrame(w.pool, text))
}

// WriteHints sends the pending frame, then hints.
func (w *FrameWriter) WriteHints(hints *anypb.Any) error {
	if err := w.Flush(); err != nil {
		return err
	}
	f, err := NewHintsFrame(w.pool, hints)
	if err != nil {
		return err
	}
	return w.sendFrame(f)
}

// Flush sends the unfinished frame, if there is one.
func (w *FrameWriter) Flush() error {
	if w.buf == nil || w.err != nil {
		return w.err
	}
	buf := w.buf
	w.buf = nil
	size := len(*buf) - batchHeader
	w.perSeries = (size + int(w.inBuf) - 1) / int(w.inBuf)
	w.inBuf = 0

	// The header ends where the series begin, therefore no series moves.
	off := batchHeader - 1 - sizeVarint(uint64(size))
	b := append((*buf)[:off], tagResponseBatch)
	appendVarint(b, uint64(size))
	return w.sendFrame(newFrame(w.pool, buf, off))
}

// Discard releases the buffer of the unfinished frame without sending it.
func (w *FrameWriter) Discard() {
	if w.buf != nil {
		w.pool.Put(w.buf)
		w.buf, w.inBuf = nil, 0
	}
}

func (w *FrameWriter) sendFrame(f *Frame) error {
	size := f.Size()
	w.err = w.send(f)
	f.Release()
	if w.err != nil {
		return w.err
	}
	w.stats.Frames++
	w.stats.Bytes += int64(size)
	return nil
}
