package store_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
	"larder/indexcache"
	"larder/internal/bucket/cost"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/storepb"
)

// TestAScanKeepsWhatDashboardsRead scans cold series, each once, with four times the chunks that
// fit into the cache and more index than fits. The cache must keep at least four fifths of the
// chunk pages that dashboards have read a few times, and all of their index pages, expanded
// postings and series sets. At first the caches are full of other data. The seed decides where the
// eviction policies are in their cycles.
func TestAScanKeepsWhatDashboardsRead(t *testing.T) {
	const allowance = 4 << 20
	dir := t.TempDir()
	var hotChunks int64
	for _, l := range []dataset.Layout{dataset.WholeMetric("hot", 6, 4_000, 30_000),
		dataset.WholeMetric("cold", 7, 60_000, 30_000)} {
		l.Blocks[0].Labels = labels.FromStrings("cluster", l.Name, "replica", "0")
		if _, err := l.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if l.Name == "hot" {
			hotChunks = chunkFileBytes(t, dir)
		}
	}
	request := func(cluster string, more ...*storepb.LabelMatcher) *storepb.SeriesRequest {
		req := wholeMetric(64)
		req.Matchers = append(
			append(req.Matchers, &storepb.LabelMatcher{Name: "cluster", Value: cluster}),
			more...)
		return req
	}
	hot := []*storepb.SeriesRequest{
		request("hot"),
		request("hot", &storepb.LabelMatcher{Name: "handler", Value: "/api/v1/orders"}),
		request("hot", &storepb.LabelMatcher{Name: "handler", Value: "/api/v1/search"}),
	}

	f := func(t *testing.T, seed uint64) {
		t.Helper()
		var index *indexcache.Cache
		g := startGateway(t, dir, gatewayOptions{
			chunkBytes: allowance, indexBytes: 6 << 20, postingsBytes: 416 << 10, setBytes: 9 << 20,
			// Requests are free, so that no cached page is read along with an evicted one: the
			// bytes that are read again are those that were evicted.
			pages:  pagecache.Options{Costs: cost.Fixed(cost.Model{PerRequest: -1})},
			server: func(o *store.Options) { index = o.Blocks.Index.(*indexcache.Cache) },
		})
		ask := func(req *storepb.SeriesRequest) {
			t.Helper()
			if err := g.Server.Series(req, &sink{ctx: t.Context()}); err != nil {
				t.Fatal(err)
			}
		}
		values := func(label string) []string {
			t.Helper()
			got, err := g.client.LabelValues(t.Context(),
				&storepb.LabelValuesRequest{Label: label, End: 1 << 50})
			if err != nil {
				t.Fatal(err)
			}
			return got.Values
		}
		// Series of one code and handler are adjacent. Requests for one after the other therefore
		// rarely read the same page.
		var cold []*storepb.SeriesRequest
		for _, code := range values("code") {
			for _, handler := range values("handler") {
				cold = append(
					cold,
					request("cold", &storepb.LabelMatcher{Name: "code", Value: code},
						&storepb.LabelMatcher{Name: "handler", Value: handler}),
				)
			}
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		rng.Shuffle(len(cold), func(i, j int) { cold[i], cold[j] = cold[j], cold[i] })
		// scan requests one series after the other until this many bytes of chunks were read.
		scan := func(want int64) {
			t.Helper()
			g.bucket.take()
			for got := int64(0); got < want; {
				if len(cold) == 0 {
					t.Fatalf("only %d bytes of cold chunks", got)
				}
				ask(cold[0])
				cold = cold[1:]
				_, bytes := g.bucket.take()
				got += bytes["chunks"]
			}
		}
		scan(allowance + rng.Int64N(allowance))
		// unlike returns a request for the whole hot metric with other labels than before. It has
		// no cached series set, but expanded postings and all index pages are cached.
		unlike := func(what string) *storepb.SeriesRequest {
			req := request("hot")
			req.WithoutReplicaLabels = []string{"replica", what}
			return req
		}
		for _, round := range []string{"1", "2", "3", "4"} {
			for _, req := range hot {
				ask(req)
			}
			ask(unlike(round))
		}
		scan(4 * allowance)
		sets, expanded := g.Sets.Stats(), index.Postings().Stats()

		for _, req := range hot {
			ask(req)
		}
		counts, bytes := g.bucket.take()
		chunkBytes := bytes["chunks"]
		if counts["index"] != 0 {
			t.Errorf("seed %d: %d reads of the index after the scan", seed, counts["index"])
		}
		if got := g.Sets.Stats(); got.Hits-sets.Hits != int64(len(hot)) {
			t.Errorf("seed %d: series sets: %+v, before %+v", seed, got, sets)
		}
		ask(unlike("5"))
		if counts, _ := g.bucket.take(); counts["index"] != 0 {
			t.Errorf(
				"seed %d: %d reads of the index for series whose pages were read before the scan",
				seed, counts["index"],
			)
		}
		if got := index.Postings().Stats(); got.Hits == expanded.Hits {
			t.Errorf("seed %d: expanded postings: %+v, before %+v", seed, got, expanded)
		}
		t.Logf("seed %d: %d of %d bytes of hot chunks were read again after the scan",
			seed, chunkBytes, hotChunks)
		if chunkBytes > hotChunks/5 {
			t.Errorf("seed %d: of %d bytes of hot chunks %d had to be read again",
				seed, hotChunks, chunkBytes)
		}
	}
	seeds := uint64(5)
	if testing.Short() {
		seeds = 1
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
