package store

import (
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
func planBytes(plans []*block.Plan) int64 {
	run := streamBytes(len(plans))
	total, passing := int64(0), make([]int64, len(plans))
	for i, p := range plans {
		passing[i] = p.PassingBytes(run)
		total += p.StreamBytes(run) - passing[i]
	}
	slices.Sort(passing)
	for _, n := range passing[max(len(passing)-blockConcurrency, 0):] {
		total += n
	}
	return total
}

// windowBytes returns how many bytes a request reserves for its first window. It is less than
// minWindowBytes if the postings show that less is enough: a small request then counts as small. It
// is more if a single series may need more, because a series is never divided over windows.
func (s *Server) windowBytes(q *seriesQuery, plans []*block.Plan) int64 {
	all, one := int64(0), int64(0)
	for _, p := range plans {
		each := int64(windowSeriesBytes + guessedLabels)
		if !q.req.SkipChunks {
			n, bytes := p.Block().ChunksPerSeries(q.minT, q.maxT)
			// Records of a series are adjacent, and mostly touch one page more than they fill.
			each += n*windowChunkBytes + bytes + s.opts.ChunkPageBytes
		}
		one += each
		all += each * int64(p.Postings())
	}
	return max(min(minWindowBytes, all), min(one, maxFirstWindow))
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
