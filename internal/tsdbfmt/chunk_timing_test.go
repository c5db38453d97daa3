package tsdbfmt_test

import (
	"bytes"
	"testing"

	"larder/internal/tsdbfmt"
)

func BenchmarkChunkRecord(b *testing.B) {
	rec := tsdbfmt.AppendChunkRecord(nil, 1, bytes.Repeat([]byte("0123456789"), 38))
	b.SetBytes(int64(len(rec)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := tsdbfmt.ChunkRecord(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunkRecordSize(b *testing.B) {
	rec := tsdbfmt.AppendChunkRecord(nil, 1, bytes.Repeat([]byte("0123456789"), 38))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tsdbfmt.ChunkRecordSize(rec); err != nil {
			b.Fatal(err)
		}
	}
}
