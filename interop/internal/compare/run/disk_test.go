package run_test

import (
	"path/filepath"
	"testing"
	"time"

	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
)

// TestDiskCacheReadsNoIndexes: with the indexes on disk a query reads none from the bucket, and its
// chunks in few requests. A restart reads nothing. How many reads depend on one another is counted
// in virtual time: benchmarks/trips.
func TestDiskCacheReadsNoIndexes(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..")
	res, err := run.Run(t.Context(), run.Options{
		Root: root, Cache: t.TempDir(), Systems: []string{server.Larder}, Sets: []string{"medium"},
		Modes: []string{run.S3Disk}, Concurrency: []int{1}, Rounds: 1, Short: true, Untimed: true,
		Latency:  server.Latency{FirstByte: 5 * time.Millisecond, BytesPerSecond: 80_000_000},
		Progress: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range res.Rows {
		a := row.Systems[server.Larder].Asked()
		if a.Index.Requests > 0 || a.Requests() > 13 { // blocks
			t.Errorf("%s: %d reads, %d of them of indexes", row.Query, a.Requests(),
				a.Index.Requests)
		}
	}
	if len(res.Rows) != 6 {
		t.Errorf("%d rows, want 6", len(res.Rows))
	}
	if a := res.Restart.Bucket[0]; a.Requests() > 0 {
		t.Errorf("after a restart: %d reads of indexes, %d of chunks", a.Index.Requests,
			a.Chunks.Requests)
	}
}
