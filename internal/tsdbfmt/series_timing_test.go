package tsdbfmt

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

// BenchmarkSeriesEntry verifies and decodes a series with 10 labels and 24 chunks.
func BenchmarkSeriesEntry(b *testing.B) {
	var symbols []uint32
	for i := range uint32(20) {
		symbols = append(symbols, 100*i)
	}
	var metas []chunks.Meta
	for i := range int64(24) {
		metas = append(metas, chunks.Meta{
			Ref: chunks.ChunkRef(500 * i), MinTime: 7_200_000 * i, MaxTime: 7_200_000*i + 7_199_000,
		})
	}
	entry := seriesEntry(seriesContentOf(symbols, metas...))
	var refs []uint32
	var all ChunkMetas
	b.SetBytes(int64(len(entry)))
	b.ReportAllocs()
	for b.Loop() {
		content, err := SeriesContent(entry)
		if err != nil {
			b.Fatal(err)
		}
		var rest []byte
		if refs, rest, err = AppendSeriesLabels(refs[:0], content); err != nil {
			b.Fatal(err)
		}
		all.Reset()
		_, _, _, err = AppendChunkMetas(&all, rest, math.MinInt64, math.MaxInt64)
		if err != nil {
			b.Fatal(err)
		}
	}
}
