package tsdbfmt_test

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"larder/internal/tsdbfmt"
)

func BenchmarkReencode(b *testing.B) {
	for enc, data := range fuzzChunks(b) {
		b.Run(chunkenc.Encoding(enc).String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			var dst []byte
			for b.Loop() {
				var err error
				if _, dst, err = tsdbfmt.Reencode(dst[:0], enc, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
