package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"larder/internal/bucket/cost"
	"larder/store/block"
)

const (
	// minWindowBytes is the window that a large request reserves before its first frame.
	minWindowBytes = 1 << 20
	// maxFirstWindow bounds what is reserved for a single long series, because the estimate may be
	// wrong.
	maxFirstWindow = 16 << 20
	// maxWindowBytes bounds a window. Larger ones save too few requests for their memory. The first
	// window of a small answer may be larger.
	maxWindowBytes = 4 << 20
	// firstWindowBytes keeps the first frame early.
	firstWindowBytes = 256 << 10
	// coldWindowBytes is the first window of a large answer whose chunks are not in memory: 6 ms of
	// a read with 80 MB/s. A smaller one would save less than the wait for the first byte.
	coldWindowBytes = 512 << 10
	// maxWholeAnswer is up to how many bytes of chunks an answer is small. If its chunks are not in
	// memory, the first window has all of them. maxWholeWindow bounds that window, with its arrays
	// and the parts of pages that are not needed.
	maxWholeAnswer = 8 << 20
	maxWholeWindow = 2 * maxWholeAnswer
	// defaultWindows bounds the windows of a request. Each is read by itself: with 80 MB/s a read,
	// 8 of them fill a connection of 5 Gbit/s.
	defaultWindows = 8
	// windowSlack is how many bytes a window may exceed its reservation by.
	windowSlack = 64 << 10

	// segmentLabels is how many bytes of labels a window may keep in memory besides its own: those
	// of the segments at its ends, of which it has a part.
	segmentLabels = 1 << 20

	// windowSeriesBytes and windowChunkBytes are the bytes of the window's own arrays for a series
	// and for a chunk.
	windowSeriesBytes = 64
	windowChunkBytes  = 64
	// firstBatch bounds the arrays that a window allocates at first for the chunks of a source.
	firstBatch = 4 << 10
	// guessedLabels is the estimated length of the labels of a series, before one is read.
	guessedLabels = 256
)

// window is a run of merged series whose chunks are fetched together. Label bytes alias segments,
// and chunk records alias pages. The producer fills a window; the consumer sends it and hands it
// back for reuse.
type window struct {
	series []windowSeries
	chunks []windowChunk
	// batches are the chunk records to fetch, by source. used lists the sources that have any.
	batches []block.Batch
	used    []int
	// lastPage is, by source, one more than the chunk page counted last, as file << 32 | page.
	// Adjacent records share pages.
	lastPage []uint64
	bytes    int64 // of distinct chunk pages, labels and the arrays above
	labels   int64 // bytes of labels
	pieces   int64 // series of its sources: equal ones are joined
	longest  int64 // bytes of the longest labels
	err      error // what ended the merge after these series: errMergeDone at its end

	reserved int64 // bytes that are reserved for it
	// filled gets a value when the window has its series, fetched when it has their chunks. err
	// tells why they are missing.
	filled, fetched chan struct{}
	// ctx is the context of the fetch. Its reads are look-ahead until need is called.
	ctx        context.Context
	need       func()
	began, end time.Time // of the fetch
}

func newWindow(reserved int64) *window {
	return &window{
		reserved: reserved, need: func() {},
		filled: make(chan struct{}, 1), fetched: make(chan struct{}, 1),
	}
}

// windowSeries is a series: its final labels and where its chunks end in window.chunks.
type windowSeries struct {
	labels   []byte
	chunkEnd int
	// firstPiece is how many of its chunks come from the first of the joined series.
	firstPiece int
	// sorted says that its chunks are in strictly ascending order of time. They need neither
	// sorting nor deduplication.
	sorted bool
}

// windowChunk is a chunk: where it comes from and its times.
type windowChunk struct {
	source           int32 // of the merge
	index            int32 // in the source's batch
	minTime, maxTime int64
}

// reset empties the window. It returns how many bytes its batches had reserved while reading.
func (w *window) reset(sources int) (grown int64) {
	if w.batches == nil {
		w.batches = make([]block.Batch, sources)
		w.lastPage = make([]uint64, sources)
	}
	for _, i := range w.used {
		b := &w.batches[i]
		clear(b.Record)
		grown += b.Reserved
		b.Ref, b.Bound, b.Record = b.Ref[:0], b.Bound[:0], b.Record[:0]
		b.Reserved, b.LastPart = 0, 0
		w.lastPage[i] = 0
	}
	clear(w.series)
	w.series, w.chunks, w.used = w.series[:0], w.chunks[:0], w.used[:0]
	w.bytes, w.labels, w.pieces, w.longest, w.err = 0, 0, 0, 0, nil
	return grown
}

// windowDensity is the size of a window in bytes, series and chunks.
type windowDensity struct{ bytes, series, chunks int64 }

func (w *window) density() windowDensity {
	return windowDensity{bytes: w.bytes, series: int64(len(w.series)), chunks: int64(len(w.chunks))}
}

// grow allocates the arrays for a window of target bytes. It estimates their lengths from the
// previous window, because arrays that double repeatedly would leave as many bytes of garbage.
func (w *window) grow(d *windowDensity, target int64) {
	if d.bytes == 0 {
		return
	}
	estimate := func(n int64) int { return int(n*target/d.bytes + n/8) }
	w.series = slices.Grow(w.series, estimate(d.series))
	n := estimate(d.chunks)
	w.chunks = slices.Grow(w.chunks, n)
	if len(w.batches) == 1 {
		b := &w.batches[0]
		b.Ref, b.Bound = slices.Grow(b.Ref, n), slices.Grow(b.Bound, n)
		b.Record = slices.Grow(b.Record, n)
	}
}

// growBy allocates the arrays for what is left of the segments of the sources, as far as a window
// of target bytes is expected to have it.
func (w *window) growBy(sources []*source, target int64) {
	series, chunks := 0, 0
	for _, src := range sources {
		if src.seg != nil {
			lo, _ := src.seg.ChunkRange(src.at)
			series += src.seg.Len() - src.at
			chunks += src.seg.Chunks().Len() - lo
		}
	}
	more := max(target-w.bytes, 0)
	expected := func(have, left int) int {
		return min(left, int(int64(have)*more/max(w.bytes, 1)))
	}
	w.series = slices.Grow(w.series, expected(len(w.series), series))
	w.chunks = slices.Grow(w.chunks, expected(len(w.chunks), chunks))
}

// addChunks adds the chunks of the current series of src, source number i of the merge.
func (w *window) addChunks(src *source, i int, pageSize int64) {
	lo, hi := src.seg.ChunkRange(src.at)
	if lo == hi {
		return
	}
	b := &w.batches[i]
	if len(b.Ref) == 0 {
		w.used = append(w.used, i)
	}
	metas := src.seg.Chunks()
	if cap(b.Ref) == 0 {
		n := min(metas.Len(), firstBatch)
		b.Ref, b.Bound = make([]uint64, 0, n), make([]uint32, 0, n)
	}
	for k := lo; k < hi; k++ {
		ref, bound := metas.Ref[k], metas.Bound[k]
		w.chunks = append(w.chunks, windowChunk{
			source: int32(i), index: int32(len(b.Ref)),
			minTime: metas.Min[k], maxTime: metas.Max[k],
		})
		b.Ref = append(b.Ref, ref)
		b.Bound = append(b.Bound, bound)

		file, off, size := ref>>32, int64(ref&(1<<32-1)), src.chunks.Block().RecordBytes(bound)
		first, last := off/pageSize, (off+size-1)/pageSize
		from, end := file<<32|uint64(first), file<<32|uint64(last)+1
		if counted := w.lastPage[i]; counted>>32 == file && counted > from {
			from = min(counted, end)
		}
		w.bytes += int64(end-from)*pageSize + windowChunkBytes
		if last > first {
			w.bytes += size // a record that spans pages is copied into one buffer
		}
		w.lastPage[i] = end
	}
}

// fill adds series of m until the window has target bytes or limit series, or the merge ends. It
// returns how many it added.
func (w *window) fill(
	ctx context.Context, m *merge, target, pageSize int64, limit int64, skipChunks bool,
) int64 {
	added := int64(0)
	for added < limit && w.bytes < target {
		if len(w.series)%64 == 0 {
			if w.err = ctx.Err(); w.err != nil {
				return added
			}
		}
		src, i, ok := m.first()
		if !ok {
			w.err = errMergeDone
			return added
		}
		labels := src.labels
		pieces, from, firstPiece := 0, len(w.chunks), 0
		for ok && string(src.labels) == string(labels) {
			if !skipChunks {
				w.addChunks(src, i, pageSize)
			}
			if pieces++; pieces == 1 {
				firstPiece = len(w.chunks) - from
			}
			if w.err = m.advance(); w.err != nil {
				return added
			}
			src, i, ok = m.first()
		}
		w.series = append(w.series, windowSeries{
			labels:     labels,
			chunkEnd:   len(w.chunks),
			firstPiece: firstPiece,
			sorted:     ascending(w.chunks[from:]),
		})
		w.bytes += int64(len(labels)) + windowSeriesBytes
		w.labels += int64(len(labels))
		w.pieces += int64(pieces)
		w.longest = max(w.longest, int64(len(labels)))
		added++
	}
	return added
}

// mostlyLabels reports whether labels are two thirds of the window. More windows would then take
// much memory for few chunks.
func (w *window) mostlyLabels() bool { return w.labels > w.bytes*2/3 }

// errMergeDone marks the last window of an answer.
var errMergeDone = errors.New("merge done")

// ascending reports whether chunks are in strictly ascending order of time.
func ascending(chunks []windowChunk) bool {
	for i := 1; i < len(chunks); i++ {
		a, b := &chunks[i-1], &chunks[i]
		if a.minTime > b.minTime || a.minTime == b.minTime && a.maxTime >= b.maxTime {
			return false
		}
	}
	return true
}

// fetch reads the window's chunk records. It reads sources concurrently, more of them than
// minBlocks as widen permits.
func (w *window) fetch(
	ctx context.Context, r *request, sources []*source, widen func(n int) int, times *blockTimes,
) error {
	read := func(ctx context.Context, k int) error {
		i := w.used[k]
		id := sources[i].chunks.Block().Meta().ID
		return r.timedBlock(times, stageChunks, id, func() error {
			return receiveError(sources[i], sources[i].chunks.Read(ctx, &w.batches[i]))
		})
	}
	switch len(w.used) {
	case 0:
		return nil
	case 1:
		return read(ctx, 0)
	}
	return concurrently(ctx, len(w.used), widen, read)
}

// setLast says that no chunks follow those of the window: the longest read ends the answer.
func (w *window) setLast(sources []*source, m cost.Model) {
	sets := make([]int64, 0, len(w.used))
	for _, i := range w.used {
		sets = append(sets, sources[i].chunks.Bytes(&w.batches[i]))
	}
	part := m.LastPart(sets)
	for _, i := range w.used {
		w.batches[i].LastPart = part
	}
}

// inMemory reports whether the window's chunks seem to be in memory. It looks at some of two
// sources.
func (w *window) inMemory(sources []*source) bool {
	for n, i := range w.used {
		if (n == 0 || n == len(w.used)-1) && !sources[i].chunks.InMemory(&w.batches[i]) {
			return false
		}
	}
	return true
}

// receiveError wraps an error of a source with the text of Thanos, because Queriers and users
// search for it.
func receiveError(src *source, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("receive series from %s: %w", src.chunks.Block().Meta().ID, err)
}
