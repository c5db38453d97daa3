package storepb

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/anypb"
)

// batchHeader is the room left for a batch's tag and length, which is known last. Three bytes of
// length are what a frame of 16 KiB to 1 MiB needs, so full frames start at the buffer's first
// byte.
const batchHeader = 1 + 3

// FrameWriter cuts a sorted sequence of series into frames, as a request's response_batch_size
// asks, and sends them.
//
// A frame ends at the batch size or at MaxFrameBytes, whichever comes first, and before everything
// that is not a series. A series longer than a frame goes on in the next one, with its labels
// repeated; a chunk longer than a frame has one to itself.
//
// Chunk bytes are copied once, into the frame's buffer; a batch that outgrows the size guessed from
// the frame before is the exception.
//
// A FrameWriter is not safe for concurrent use. It holds at most one unfinished frame, so at most
// MaxFrameBytes of buffer, until Flush or Discard: one of the two ends every use.
type FrameWriter struct {
	pool  mem.BufferPool
	batch int64
	send  func(*Frame) error

	buf   *[]byte // the unfinished batch, after batchHeader free bytes; nil if there is none
	inBuf int64   // series in buf
	// encoded bytes of a series in the last batch, rounded up, to size the next buffer
	perSeries int
	most      int64 // series that are expected in all; 0: nobody knows
	stats     FrameStats
	err       error

	chunkBytes int64 // encoded chunks of all series written
}

// FrameStats counts what a FrameWriter sent. Bytes are those of messages before compression.
type FrameStats struct {
	Frames, Series, Chunks, Bytes int64
}

// NewFrameWriter makes a writer for one response. A batch above 1 is the most series of a frame;
// otherwise each series is a response of its own. send is usually stream.SendMsg; it may keep
// nothing of the frame, and the writer releases what it did not send.
func NewFrameWriter(pool mem.BufferPool, batch int64, send func(*Frame) error) *FrameWriter {
	return &FrameWriter{pool: pool, batch: batch, send: send}
}

// Expect says that at most n more series come. It sizes buffers, no more: a client may ask for
// batches of far more series than match, and what it gets must not take memory for them.
func (w *FrameWriter) Expect(n int64) { w.most = w.stats.Series + n }

// Stats is what was sent so far, without the unfinished frame. Series and chunks count when they
// are written; a series that continues counts once.
func (w *FrameWriter) Stats() FrameStats { return w.stats }

// ChunkBytes is the size of the encoded chunks of all series written so far.
func (w *FrameWriter) ChunkBytes() int64 { return w.chunkBytes }

// Pending says whether Flush would send something.
func (w *FrameWriter) Pending() bool { return w.buf != nil }

// WriteSeries writes one series. Nothing of labels or chunks is kept. After an error, which is the
// one that send returned, the response is over: every later call returns it too.
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
	w.reserve(need)
	b := append(*w.buf, tagBatchSeries)
	b = appendVarint(b, uint64(size))
	*w.buf = AppendSeries(b, labels, chunks)
	if w.inBuf++; w.inBuf >= w.batch {
		return w.Flush()
	}
	return nil
}

// frameSize is the size of a frame with a single series of n bytes, as far as MaxFrameBytes is
// concerned.
func (w *FrameWriter) frameSize(n int) int {
	return batchHeader + fieldSize(n)
}

// fit is how many of the chunks one frame can hold, at least one, and the size of the series with
// them.
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

// writeAlone sends a frame with one series, after what is pending.
func (w *FrameWriter) writeAlone(labels []byte, chunks []WireChunk) error {
	if err := w.Flush(); err != nil {
		return err
	}
	if w.batch > 1 {
		return w.sendFrame(newLoneBatchFrame(w.pool, labels, chunks))
	}
	return w.sendFrame(NewSeriesFrame(w.pool, labels, chunks))
}

// reserve makes room for need more bytes in buf.
func (w *FrameWriter) reserve(need int) {
	if w.buf == nil {
		// A full batch of series like the last ones, or like this one, and an eighth more.
		guess, batch := int64(max(w.perSeries, need)), w.batch
		if w.most > 0 {
			batch = max(1, min(batch, w.most-w.stats.Series+1)) // this one counts already
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

// WriteWarning sends a warning, after what is pending.
func (w *FrameWriter) WriteWarning(text string) error {
	if err := w.Flush(); err != nil {
		return err
	}
	return w.sendFrame(NewWarningFrame(w.pool, text))
}

// WriteHints sends hints, after what is pending.
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

	// The header is written backwards from the series, so that nothing moves.
	off := batchHeader - 1 - sizeVarint(uint64(size))
	b := append((*buf)[:off], tagResponseBatch)
	appendVarint(b, uint64(size))
	return w.sendFrame(newFrame(w.pool, buf, off))
}

// Discard gives the unfinished frame's buffer back without sending it.
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
