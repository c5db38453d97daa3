package store_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"

	"larder/benchmarks/dataset"
	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/storepb"
)

// TestScanLeavesWhatDashboardsRead: a scan of cold chunks, four times what is for chunk pages, leaves at least four fifths of the chunk pages that
// dashboards have read a few times, and all that was kept of the index: pages, expanded postings, series sets. The caches are full of something
// else when the dashboards begin, and where their policies are in their cycles differs by seed.
func TestScanLeavesWhatDashboardsRead(t *testing.T) {
	const allowance, page, coldFile = 4 << 20, 8 << 10, "cold/chunks/000001"
	dir := t.TempDir()
	if _, err := dataset.WholeMetric("hot", 6, 4_000, 30_000).Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	// A file of nothing, as long as all that is read of it.
	const coldBytes = 64 << 20
	cold := filepath.Join(dir, coldFile)
	if err := os.MkdirAll(filepath.Dir(cold), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(cold, coldBytes); err != nil {
		t.Fatal(err)
	}

	dashboard := func(handler string) *storepb.SeriesRequest {
		req := wholeMetric(64)
		req.Matchers = append(req.Matchers, &storepb.LabelMatcher{Name: "handler", Value: handler})
		return req
	}
	hot := []*storepb.SeriesRequest{wholeMetric(64), dashboard("/api/v1/orders"), dashboard("/api/v1/search")}

	f := func(t *testing.T, seed uint64) {
		t.Helper()
		var chunks *chunkcache.Cache
		var postings *indexcache.Postings
		g := startGateway(t, dir, gatewayOptions{chunkBytes: allowance, server: func(o *store.Options) {
			chunks, postings = o.Blocks.Chunks.(*chunkcache.Cache), o.Blocks.Postings.(*indexcache.Postings)
		}})
		ask := func(req *storepb.SeriesRequest) {
			t.Helper()
			if err := g.server.Series(req, &sink{ctx: t.Context()}); err != nil {
				t.Fatal(err)
			}
		}
		scan := func(from, to int64) {
			t.Helper()
			obj := chunks.Object(1<<20, ulid.ULID{1}, 1, coldFile, coldBytes)
			const window = 1 << 20
			for ; from < to; from += window {
				if _, err := chunks.Fetch(t.Context(), obj, []pagecache.Span{{Off: from, End: min(from+window, to)}}, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		before := allowance + rng.Int64N(8*allowance/page)*page
		scan(0, before)
		g.bucket.take()
		for range 4 {
			for _, req := range hot {
				ask(req)
			}
			// What the index says of the same series under other labels is no series set that is known, and its postings are.
			other := wholeMetric(64)
			other.WithoutReplicaLabels = []string{"replica"}
			ask(other)
		}
		scan(before, before+4*allowance)

		g.bucket.take()
		sets, expanded := g.sets.Stats(), postings.Stats()
		var chunkBytes int64
		for _, req := range hot {
			ask(req)
		}
		counts, bytes := g.bucket.take()
		chunkBytes = bytes["chunks"]
		if counts["index"] != 0 {
			t.Errorf("seed %d: %d reads of the index after the scan", seed, counts["index"])
		}
		if got := g.sets.Stats(); got.Hits-sets.Hits != int64(len(hot)) || got.Evictions+got.Refused != 0 {
			t.Errorf("seed %d: series sets: %+v, before %+v", seed, got, sets)
		}
		// Everything of the hot metric, so all of the index's series, but a question that was not asked before.
		fresh := wholeMetric(64)
		fresh.WithoutReplicaLabels = []string{"replica", "pod"}
		ask(fresh)
		if counts, _ := g.bucket.take(); counts["index"] != 0 {
			t.Errorf("seed %d: %d reads of the index for series whose pages were read before the scan", seed, counts["index"])
		}
		if got := postings.Stats(); got.Hits == expanded.Hits || got.Evictions+got.Refused != 0 {
			t.Errorf("seed %d: expanded postings: %+v, before %+v", seed, got, expanded)
		}
		total := chunkFileBytes(t, dir)
		t.Logf("seed %d: %d of %d bytes of hot chunks were read again after the scan", seed, chunkBytes, total)
		if chunkBytes > total/5 {
			t.Errorf("seed %d: of %d bytes of hot chunks %d had to be read again", seed, total, chunkBytes)
		}
	}
	seeds := uint64(5)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		f(t, seed)
	}
}

// chunkFileBytes returns the bytes of the chunk files of the blocks in a folder.
func chunkFileBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "0*", "chunks", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		n += fi.Size()
	}
	return n
}
