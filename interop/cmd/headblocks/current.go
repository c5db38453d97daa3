//go:build current

package main

import (
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

func useNewest(o *tsdb.HeadOptions) error {
	o.FloatChunkEncoding.Store(uint32(chunkenc.EncXOR2))
	o.EnableHistogramSTEncoding.Store(true)
	o.EnableSTStorage.Store(true)
	return nil
}
