package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/dataset"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/catalog"
	"larder/store/storepb"
)

// noted is one call of a recorder.
type noted struct {
	blocks   int
	matchers string
	without  string
}

type fakeRecorder struct{ notes []noted }

func (r *fakeRecorder) Note(blocks []*catalog.Block, ms []*labels.Matcher, without []string) {
	var text []string
	for _, m := range ms {
		text = append(text, m.String())
	}
	r.notes = append(r.notes,
		noted{len(blocks), strings.Join(text, ","), strings.Join(without, ",")})
}

// warmAll warms every block of the view for a request.
func (g *gateway) warmAll(
	t *testing.T, req *storepb.SeriesRequest, acct *pagecache.Account,
) (finished bool, err error) {
	t.Helper()
	for _, b := range g.Catalog.View().Blocks {
		if finished, err = g.Server.Warm(context.Background(), b, req.Matchers,
			req.WithoutReplicaLabels, acct); !finished ||
			err != nil {
			return finished, err
		}
	}
	return true, nil
}

// TestAWarmedRequestReadsNoIndex checks that a request after Warm reads no index, for each way of
// finding series, and that its answer is the same as without warming.
func TestAWarmedRequestReadsNoIndex(t *testing.T) {
	dir := wholeBlock(t, 4000)
	plain := startGateway(t, dir, gatewayOptions{setBytes: -1, postingsBytes: -1})
	f := func(name string, change func(*storepb.SeriesRequest)) {
		t.Helper()
		recorder := &fakeRecorder{}
		g := startGateway(t, dir,
			gatewayOptions{server: func(o *store.Options) { o.Recorder = recorder }})
		req := wholeMetric(64)
		change(req)
		requests := func() float64 {
			n, err := testutil.GatherAndCount(g.reg, "larder_stage_duration_seconds")
			if err != nil {
				t.Fatal(err)
			}
			return float64(n)
		}
		before := requests()
		var acct pagecache.Account
		if finished, err := g.warmAll(t, req, &acct); !finished || err != nil {
			t.Fatalf("%s: finished %v, %v", name, finished, err)
		}
		if (acct.FetchedBytes.Load() == 0) != (name == "nothing") || len(recorder.notes) > 0 ||
			requests() != before {
			t.Errorf("%s: %d bytes read, recorded %v, requests %v before and %v after",
				name, acct.FetchedBytes.Load(), recorder.notes, before, requests())
		}
		if n := g.inUse(t); n != 0 {
			t.Errorf("%s: %v bytes of the allowance are still reserved", name, n)
		}
		g.bucket.take()
		got, err := g.query(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		want, err := plain.query(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.texts(), want.texts()) ||
			(len(want.series) == 0) != (name == "nothing") {
			t.Errorf("%s: %d series, %d where nothing was warmed, or others",
				name, len(got.series), len(want.series))
		}
		if sets := g.Sets.Stats(); name != "nothing" && sets.Hits == 0 {
			t.Errorf("%s: its series set is not cached after warming: %+v", name, sets)
		}
		if counts, _ := g.bucket.take(); counts["index"] != 0 {
			t.Errorf("%s: %d reads of the index after it was warmed", name, counts["index"])
		}
		if len(recorder.notes) != 1 || recorder.notes[0].blocks != len(g.Catalog.View().Blocks) {
			t.Errorf("%s: recorded %v", name, recorder.notes)
		}
	}
	f("a metric", func(*storepb.SeriesRequest) {})
	f(
		"part of the time",
		func(req *storepb.SeriesRequest) {
			req.MinTime, req.MaxTime = dataset.Epoch+1, dataset.Epoch+60_000
		},
	)
	f("removed labels",
		func(req *storepb.SeriesRequest) { req.WithoutReplicaLabels = []string{"replica", "pod"} })
	f("pending matchers", func(req *storepb.SeriesRequest) {
		req.Matchers = append(req.Matchers,
			&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".+a.*"})
	})
	f("nothing", func(req *storepb.SeriesRequest) {
		req.Matchers = append(req.Matchers,
			&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: "none-.*"})
	})
}

// TestWarmedPagesAreNotReadAgain: the pages that one process has in memory are enough for another
// one to answer the same request from memory.
func TestWarmedPagesAreNotReadAgain(t *testing.T) {
	dir := wholeBlock(t, 4000)
	type cache interface {
		EachResident(f func(pagecache.Resident))
	}
	resident := func(g *gateway) (all []pagecache.Resident) {
		for _, c := range []cache{g.Index, g.Chunks} {
			c.EachResident(func(r pagecache.Resident) { all = append(all, r) })
		}
		return all
	}
	without := gatewayOptions{setBytes: -1, postingsBytes: -1}
	former, heir := startGateway(t, dir, without), startGateway(t, dir, without)
	req := wholeMetric(64)
	if _, err := former.query(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	pages := resident(former)
	files := map[int]int{}
	for _, p := range pages {
		files[p.File]++
		off := p.Page * int64(former.Index.PageSize())
		span := pagecache.Span{Off: off, End: off + int64(former.Index.PageSize())}
		finished, err := heir.Server.WarmPages(t.Context(), heir.Catalog.View().Blocks[0], p.File,
			[]pagecache.Span{span}, pagecache.Warming{Asked: true}, &pagecache.Account{})
		if !finished || err != nil {
			t.Fatal(finished, err)
		}
	}
	if files[0] == 0 || files[1] == 0 {
		t.Fatalf("pages of files: %v", files)
	}
	for _, p := range resident(heir) {
		if !p.Asked {
			t.Errorf("%+v does not count as asked", p)
		}
	}
	if n := heir.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}
	heir.bucket.take()
	if _, err := heir.query(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if counts, _ := heir.bucket.take(); counts["index"]+counts["chunks"] != 0 {
		t.Errorf("reads after all pages were warmed: %v", counts)
	}
	// A page that is not in the file is not read, and a file that does not exist fails.
	meta := heir.Catalog.View().Blocks[0]
	beyond := []pagecache.Span{{Off: 1 << 40, End: 1<<40 + 100}}
	if finished, err := heir.Server.WarmPages(t.Context(), meta, 1, beyond, pagecache.Warming{},
		&pagecache.Account{}); !finished || err != nil {
		t.Errorf("beyond the end: %t %v", finished, err)
	}
	if finished, err := heir.Server.WarmPages(t.Context(), meta, 99, beyond, pagecache.Warming{},
		&pagecache.Account{}); finished || err == nil {
		t.Errorf("file 99: %t %v", finished, err)
	}
}

func TestWarmingEnds(t *testing.T) {
	g := startGateway(t, wholeBlock(t, 4000), gatewayOptions{})
	req := wholeMetric(0)

	// At the limit of the account.
	over := errors.New("enough")
	var acct pagecache.Account
	acct.Spend = func(touched, fetched int64) error { return over }
	if finished, err := g.warmAll(t, req, &acct); finished || !errors.Is(err, over) {
		t.Errorf("over the limit: %v, %v", finished, err)
	}
	// When its context ends.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := g.Catalog.View().Blocks[0]
	if finished, err := g.Server.Warm(ctx, b, req.Matchers, nil, &pagecache.Account{}); finished ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", finished, err)
	}
	// At matchers that no request can have.
	bad := []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "a", Value: "("}}
	for _, ms := range [][]*storepb.LabelMatcher{bad, nil} {
		if finished, err := g.Server.Warm(context.Background(), b, ms, nil,
			&pagecache.Account{}); finished ||
			err == nil {
			t.Errorf("%v: %v, %v", ms, finished, err)
		}
	}
	if n := g.inUse(t); n != 0 {
		t.Errorf("%v bytes of the allowance are still reserved", n)
	}
}

// TestWarmingYieldsToRequests checks that nothing is warmed while requests have reserved half of
// the allowance, and that a warm-up that can never fit fails.
func TestWarmingYieldsToRequests(t *testing.T) {
	dir, req := wholeBlock(t, 4000), wholeMetric(64)
	start := func(allowance int64) *gateway {
		t.Helper()
		return startGateway(t, dir,
			gatewayOptions{server: func(o *store.Options) { o.Allowance.Bytes = allowance }})
	}
	// beside calls f while a request has reserved bytes and is blocked, because its client does not
	// read.
	beside := func(g *gateway, f func()) {
		t.Helper()
		held, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			first := true
			done <- g.Server.Series(wholeMetric(64), &frames{ctx: context.Background(), on: func(
				int,
			) error {
				if first {
					first = false
					close(held)
					<-end
				}
				return nil
			}})
		}()
		<-held
		f()
		close(end)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}

	large := start(64 << 20)
	beside(large, func() {
		if finished, err := large.warmAll(t, req, &pagecache.Account{}); !finished || err != nil {
			t.Errorf("beside a request, with a large allowance: %v, %v", finished, err)
		}
	})

	filled := start(6 << 20)
	beside(filled, func() {
		if !filled.Server.Busy() {
			t.Errorf("the request has reserved %v bytes, less than half", filled.inUse(t))
		}
		var acct pagecache.Account
		if finished, err := filled.warmAll(t, req, &acct); finished || err != nil ||
			acct.TouchedBytes.Load() > 0 {
			t.Errorf("beside a request that holds half of the allowance: %v, %v, %d bytes touched",
				finished, err, acct.TouchedBytes.Load())
		}
	})
	if finished, err := filled.warmAll(t, req, &pagecache.Account{}); !finished || err != nil {
		t.Errorf("after it: %v, %v", finished, err)
	}

	small := start(300 << 10)
	if finished, err := small.warmAll(t, req, &pagecache.Account{}); finished || err == nil ||
		!strings.Contains(err.Error(), "--store.request-bytes") {
		t.Errorf("in an allowance that is too small: %v, %v", finished, err)
	}
}
