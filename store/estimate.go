package store

import (
	"cmp"
	"slices"

	"larder/store/block"
	"larder/store/storepb"
)

const (
	// maxRunBytes bounds the index bytes that a stream reads at a time. Many streams share
	// runBytesPerRequest, with at least minRunBytes each.
	minRunBytes        = 32 << 10
	maxRunBytes        = 1 << 20
	runBytesPerRequest = 8 << 20
)

// streamBytes returns how many index bytes each of n streams reads at a time.
func streamBytes(n int) int64 {
	return min(max(runBytesPerRequest/int64(n), minRunBytes), maxRunBytes)
}

// planBytes estimates the bytes of a request besides its windows: postings, index pages and
// segments. Streams release some of these before their first segment. Only streams that start
// concurrently need those at the same time.
func planBytes(plans []*block.Plan, skipChunks bool) int64 {
	o, total := streamOptions(len(plans), skipChunks), int64(0)
	for _, p := range plans {
		total += p.StreamBytes(o) - p.PassingBytes(o)
	}
	return total + passingBytes(plans, skipChunks, 0, minBlocks)
}

// passingBytes returns the bytes that streams need only while they start: those of the largest
// streams of plans, from number lo to number hi.
func passingBytes(plans []*block.Plan, skipChunks bool, lo, hi int) int64 {
	o, passing := streamOptions(len(plans), skipChunks), make([]int64, len(plans))
	for i, p := range plans {
		passing[i] = p.PassingBytes(o)
	}
	slices.SortFunc(passing, func(a, b int64) int { return cmp.Compare(b, a) })
	return sumOf(passing, lo, hi)
}

// streamOptions returns what determines the memory of each of n streams.
func streamOptions(n int, skipChunks bool) block.StreamOptions {
	return block.StreamOptions{RunBytes: streamBytes(n), SkipChunks: skipChunks}
}

// sumOf returns the sum of values[lo:hi], as far as there are any.
func sumOf(values []int64, lo, hi int) (sum int64) {
	for _, n := range values[min(lo, len(values)):min(hi, len(values))] {
		sum += n
	}
	return sum
}

// answerSize estimates the chunks of an answer.
type answerSize struct {
	chunks int64 // bytes of all chunks
	window int64 // bytes of a window with all series, if no two of them share a page
	series int64 // bytes of a window with one series of each block
}

func (s *Server) answerSize(q *seriesQuery, plans []*block.Plan) (a answerSize) {
	for _, p := range plans {
		each, pages, series := int64(windowSeriesBytes+guessedLabels), int64(0), int64(p.Postings())
		if !q.req.SkipChunks {
			n, bytes := p.Block().ChunksPerSeries(q.minT, q.maxT)
			a.chunks += bytes * series
			each += n * windowChunkBytes
			// Records of a series are adjacent, and mostly touch one page more than they fill.
			pages = bytes + s.opts.ChunkPageBytes
		}
		a.series += each + pages
		if size := p.Block().ChunkFileBytes(); size > 0 {
			// A quarter more, for records that lie on two pages and are copied. The size may be
			// wrong, therefore it does not make small windows smaller.
			pages = min(pages*series, max(size*5/4, minWindowBytes))
		} else {
			pages *= series
		}
		a.window += each*series + pages
	}
	return a
}

// first returns how many bytes a request reserves for its first window. It is less than
// minWindowBytes if the postings show that less is enough: a small request then counts as small. It
// is more if a single series may need more, because a series is never divided over windows.
func (a answerSize) first() int64 {
	return max(min(minWindowBytes, a.window), min(a.series, maxFirstWindow))
}

// measure takes into account what the first series of an answer need: win has pieces of them, of
// the given number of postings. The estimates are averages of whole blocks, and a metric may have
// much smaller chunks.
func (a *answerSize) measure(win *window, postings, page int64) {
	if win.pieces == 0 {
		return
	}
	// The series that follow share the last page of each block.
	shared := int64(len(win.used)) * page
	each := float64(max(win.bytes-win.labels-shared, 0)) / float64(win.pieces)
	a.chunks = min(a.chunks, int64(each*float64(max(postings, win.pieces)))+shared)
}

// cold returns the size of the first window if its chunks are not in memory: all of a small answer,
// so that all chunks are read at once.
func (a answerSize) cold() int64 {
	if a.chunks > maxWholeAnswer {
		return coldWindowBytes
	}
	return min(a.window, maxWholeWindow)
}

// maxSeries returns an upper bound of the number of series of plans.
func maxSeries(plans []*block.Plan) (n int64) {
	for _, p := range plans {
		n += int64(p.Postings())
	}
	return n
}

// frameBytes estimates the buffers of two frames of series with the given bytes of labels: the
// frame being written, and the one before, which grpc keeps until it is sent. Buffers are powers of
// two. The labels of a series are never divided over frames.
func (q *seriesQuery) frameBytes(plans []*block.Plan, labels int64) int64 {
	all, one := int64(0), int64(0)
	for _, p := range plans {
		each := labels
		if !q.req.SkipChunks {
			_, bytes := p.Block().ChunksPerSeries(q.minT, q.maxT)
			each += bytes
		}
		one += each
		all += each * int64(p.Postings())
	}
	batch := min(max(q.req.ResponseBatchSize, 1), storepb.MaxFrameBytes)
	return 2 * min(2*min(all, batch*one), max(storepb.MaxFrameBytes, 2*labels))
}
