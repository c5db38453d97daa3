package gateway

import (
	"github.com/thanos-io/thanos/pkg/block/metadata"

	"github.com/thanos-io/thanos/pkg/store"
)

// estimate is how thanos store uses its --debug.estimated-max-* flags: the block's statistic if it
// is known and smaller, else the limit.
func estimate(limit uint64, known func(metadata.IndexStats) int64) store.BlockEstimator {
	return func(m metadata.Meta) uint64 {
		if n := known(m.Thanos.IndexStats); n > 0 && uint64(n) < limit {
			return uint64(n)
		}
		return limit
	}
}

func seriesMax(s metadata.IndexStats) int64 { return s.SeriesMaxSize }
func chunkMax(s metadata.IndexStats) int64  { return s.ChunkMaxSize }
