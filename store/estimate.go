package store

import (
	"slices"

	"larder/store/block"
	"larder/store/storepb"
)

const (
	// maxRunBytes is how much index a stream reads at a time; many streams share runBytesPerRequest.
	minRunBytes        = 32 << 10
	maxRunBytes        = 1 << 20
	runBytesPerRequest = 8 << 20
)

// streamBytes returns how much index the streams of n blocks read at a time.
func streamBytes(n int) int64 {
	return min(max(runBytesPerRequest/int64(n), minRunBytes), maxRunBytes)
}

// planBytes estimates what a request over plans holds besides its windows: postings, index pages and segments. Of what streams give back before their
// first segment, only as many as are started side by side hold theirs.
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

// windowBytes is what a request reserves for its first window: less than minWindowBytes where its postings show that it cannot need as
// much, so that a small request counts as one; more where a single series may, because a series is never divided over windows.
func (s *Server) windowBytes(q *seriesQuery, plans []*block.Plan) int64 {
	all, one := int64(0), int64(0)
	for _, p := range plans {
		each := int64(windowSeriesBytes + guessedLabels)
		if !q.req.SkipChunks {
			n, bytes := p.Block().ChunksPerSeries(q.minT, q.maxT)
			// Records of a series lie next to one another, most often on one page more than they fill.
			each += n*windowChunkBytes + bytes + s.opts.ChunkPageBytes
		}
		one += each
		all += each * int64(p.Postings())
	}
	return max(min(minWindowBytes, all), min(one, maxFirstWindow))
}

// postings is an upper bound of the series of plans.
func postings(plans []*block.Plan) (n int64) {
	for _, p := range plans {
		n += int64(p.Postings())
	}
	return n
}

// frameBytes estimates the buffers of the frame that is being written and of the one before, which grpc has until it is sent, of series with so many
// bytes of labels: powers of two. Labels are not divided over frames.
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
