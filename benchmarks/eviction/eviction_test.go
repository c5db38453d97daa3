package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"larder/benchmarks/dataset"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// smallBucket is a service of the demo in four blocks.
func smallBucket(t *testing.T) string {
	t.Helper()
	series := dataset.Service{Name: "checkout", Namespace: "shop", Pods: 3, Handlers: 2}.Series(1)
	var l dataset.Layout
	for i := range 4 {
		b := dataset.Block{Labels: labels.FromStrings("cluster", "eu-west-1"), Series: series}
		b.MinTime = dataEnd - int64(8-2*i)*hour
		b.MaxTime = b.MinTime + 2*hour
		b.ID[0], b.ID[15] = 1, byte(i+1)
		l.Blocks = append(l.Blocks, b)
	}
	dir := filepath.Join(t.TempDir(), "bucket")
	if err := makeBucket(t.Context(), dir, l); err != nil {
		t.Fatal(err)
	}
	return dir
}

func small(seed uint64) workload {
	return workload{seed: seed, regions: 1, visits: 20, scans: 1, duration: 2 * hour,
		scanBytes: 4 << 20}
}

func recordSmall(t *testing.T, w workload, bucket string) [kinds]*trace {
	t.Helper()
	g, err := openGateway(t.Context(), bucket, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	traces, err := w.record(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	return traces
}

// TestTraceIsDecidedBySeed: two recordings with one seed are equal, and differ with another seed.
func TestTraceIsDecidedBySeed(t *testing.T) {
	bucket := smallBucket(t)
	first, again, other := recordSmall(t, small(1), bucket), recordSmall(t, small(1), bucket),
		recordSmall(t, small(2), bucket)
	for k := range kinds {
		a, b, c := first[k].summary(), again[k].summary(), other[k].summary()
		if a != b {
			t.Errorf("%s: %+v, then %+v", k, a, b)
		}
		if a.hash == c.hash {
			t.Errorf("%s: the seed changes nothing", k)
		}
		if a.dashboardPages == 0 || a.workingSet == 0 || a.scanPages == 0 {
			t.Errorf("%s: %+v", k, a)
		}
	}
}

// TestReplayFindsWhatIsThere: a cache that is large enough misses every page once, no cache finds
// more than the optimum, and pages that are read only to join others do not count as hits.
func TestReplayFindsWhatIsThere(t *testing.T) {
	tr := newTrace(chunkPages)
	const hot, cold = 200, 2000 // pages
	read := func(object int, from, to int64, scan bool) {
		for ; from < to; from += 20 {
			a := access{object: object, scan: scan}
			for no := from; no < min(from+20, to); no++ {
				a.pages = append(a.pages, no)
			}
			tr.accesses = append(tr.accesses, a)
		}
	}
	o := tr.object("hot", hot*pageSize)
	for range 5 {
		read(o, 0, hot, false)
	}
	tr.archive(0, 0, cold*pageSize)
	read(o, 0, hot, false)

	if d, all := optimum(tr, 1<<30); d.hitPages != 5*hot || d.pages != 6*hot ||
		all.pages != d.pages+cold ||
		all.hitPages != d.hitPages {
		t.Errorf("a cache for everything: %+v of dashboards, %+v of all", d, all)
	}
	const size = 3 * hot * (pageSize + entryOverhead)
	best, _ := optimum(tr, size)
	for _, cand := range candidates() {
		c := cand.make(size)
		d, _, err := replay(context.Background(), tr, c, time.Microsecond)
		c.close()
		if err != nil {
			t.Fatal(err)
		}
		if d.hitPages > best.hitPages || d.pages != best.pages || d.bytes != hot*6*pageSize {
			t.Errorf("%s: %+v, at best %+v", cand.name, d, best)
		}
		if scanned := d.hitPages < 5*hot*8/10; scanned && cand.name == "ristretto" {
			t.Errorf("%s: the scan evicted the pages of dashboards: %+v", cand.name, d)
		}
	}
}
