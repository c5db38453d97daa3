package store_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/dataset"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/admission"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// labelRequests returns random label requests about a demo bucket.
func labelRequests(rng *rand.Rand, metas []*dataset.Meta, n int) (out []proto.Message) {
	eq := func(name, value string, kind storepb.LabelMatcher_Type) *storepb.LabelMatcher {
		return &storepb.LabelMatcher{Type: kind, Name: name, Value: value}
	}
	pick := func(in ...string) string { return in[rng.IntN(len(in))] }
	bound := func() int64 {
		m := metas[rng.IntN(len(metas))]
		at := []int64{m.MinTime, m.MaxTime, (m.MinTime + m.MaxTime) / 2, 0, 1 << 50}
		return at[rng.IntN(len(at))] + rng.Int64N(3) - 1
	}
	for range n {
		from, to := bound(), bound()
		var ms []*storepb.LabelMatcher
		for range rng.IntN(3) {
			ms = append(ms, []*storepb.LabelMatcher{
				eq("__name__", pick("up", "http_requests_total"), storepb.LabelMatcher_EQ),
				eq("cluster", "eu-west-1", storepb.LabelMatcher_EQ),
				eq("pod", "c.*", storepb.LabelMatcher_RE),
				eq("job", pick("checkout", "ledger"), storepb.LabelMatcher_NEQ),
				eq("pod", "", storepb.LabelMatcher_NEQ),
			}[rng.IntN(5)])
		}
		var without []string
		if rng.IntN(3) == 0 {
			without = []string{pick("replica", "pod", "none")}
		}
		var hints *anypb.Any
		limit := int64(rng.IntN(2) * rng.IntN(4))
		if rng.IntN(3) == 0 {
			out = append(out, &storepb.LabelNamesRequest{
				Start: min(from, to), End: max(from, to), Matchers: ms, Limit: limit,
				WithoutReplicaLabels: without, Hints: hints,
			})
			continue
		}
		out = append(out, &storepb.LabelValuesRequest{
			Label: pick("pod", "__name__", "cluster", "replica", "le", "none", "handler"),
			Start: min(from, to), End: max(from, to), Matchers: ms, Limit: limit,
			WithoutReplicaLabels: without, Hints: hints,
		})
	}
	return out
}

func (g *gateway) labels(t testing.TB, req proto.Message) (proto.Message, error) {
	t.Helper()
	switch req := req.(type) {
	case *storepb.LabelNamesRequest:
		return g.client.LabelNames(t.Context(), req)
	case *storepb.LabelValuesRequest:
		return g.client.LabelValues(t.Context(), req)
	}
	panic("not a label request")
}

// TestKeptLabelAnswers shows that what is kept changes no answer: whatever is asked, in any order,
// of blocks that the time range covers or cuts, of a block with samples outside of its own time
// range, before and after blocks come and go.
func TestKeptLabelAnswers(t *testing.T) {
	dir := t.TempDir()
	layout := dataset.Demo(1, time.UnixMilli(dataset.Epoch))
	metas, err := layout.Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	narrow(t, dir, metas[0])
	narrow(t, dir, metas[len(metas)-1])
	away := t.TempDir()
	later := metas[len(metas)/2].ULID.String()
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(from, later), filepath.Join(to, later)); err != nil {
			t.Fatal(err)
		}
	}
	move(dir, away)
	kept := startGateway(t, dir, gatewayOptions{})
	plain := startGateway(t, dir, gatewayOptions{
		setBytes: -1, server: func(o *store.Options) { o.LabelAnswers = nil },
	})
	n := 150
	if testing.Short() {
		n = 30
	}
	requests := labelRequests(rand.New(rand.NewPCG(1, 1)), metas, n)
	compare := func(when string) {
		t.Helper()
		for range 2 {
			for _, req := range requests {
				want, err := plain.labels(t, req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := kept.labels(t, req)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Fatalf("%s, %T %v: (-plain +kept)\n%s", when, req, req, diff)
				}
			}
		}
	}
	sync := func() {
		t.Helper()
		for _, g := range []*gateway{kept, plain} {
			if err := g.Catalog.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	compare("at first")
	move(away, dir)
	sync()
	compare("with a new block")
	move(dir, away)
	sync()
	compare("after the block left")
}

// TestLabelsOfSeriesOutsideTheirBlock asks for labels of blocks in which one series of three has
// all of its chunks outside of the block's own time range. Every range gets what a gateway without
// cached answers returns, whatever was asked before. The blocks are read twice at first, and once
// from then on, however many they are.
func TestLabelsOfSeriesOutsideTheirBlock(t *testing.T) {
	const blocks, hour = 40, int64(3_600_000)
	dir := t.TempDir()
	layout := dataset.Layout{Name: "outsiders"}
	for k := range int64(blocks) {
		from := dataset.Epoch + 2*k*hour
		var series seriesList
		for i := range 3 {
			s := dataset.Series{
				Labels: labels.FromStrings("__name__", "m", "pod", fmt.Sprint("pod-", i)),
				Kind:   dataset.Ratio, Seed: uint64(i),
			}
			if i == 2 {
				s.From = from + hour*3/2
			}
			series = append(series, s)
		}
		layout.Blocks = append(layout.Blocks, dataset.Block{
			ID: ulid.ULID{1, 15: byte(k)}, MinTime: from, MaxTime: from + 2*hour,
			Interval: 60_000, Series: series, Labels: labels.FromStrings("cluster", "eu"),
		})
	}
	metas, err := layout.Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		narrow(t, dir, m)
	}
	pages := gateway{reg: prometheus.NewRegistry()}
	g := startGateway(t, dir, gatewayOptions{
		setBytes: -1, pages: pagecache.Options{Registerer: pages.reg},
	})
	plain := startGateway(t, dir, gatewayOptions{
		setBytes: -1, server: func(o *store.Options) { o.LabelAnswers = nil },
	})
	first := g.Catalog.View().Blocks[0]
	touched := func() float64 {
		t.Helper()
		return pages.metric(t, "larder_pages_touched_total", "index")
	}
	before := 0.0
	for i, r := range [][2]int64{
		{first.MinTime, first.MaxTime - 1}, {0, 1 << 50}, {0, 1 << 49}, {0, 1 << 50},
		{first.MinTime, first.MaxTime - 1}, {first.MinTime, first.MaxTime},
	} {
		req := &storepb.LabelValuesRequest{
			Label: "pod", Start: r[0], End: r[1],
			Matchers: []*storepb.LabelMatcher{{Name: "__name__", Value: "m"}},
		}
		want, err := plain.client.LabelValues(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := g.client.LabelValues(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Values, got.Values); diff != "" {
			t.Errorf("%v: (-plain +kept)\n%s", r, diff)
		}
		// A postings and a series page of each block, twice for the first request of all blocks.
		if n := touched() - before; n > 4*blocks || i > 1 && n > 2*blocks {
			t.Errorf("request %d touched %v index pages of %d blocks", i, n, blocks)
		}
		before = touched()
	}
}

// narrow makes the meta.json of a block state a time range without its first and last samples.
func narrow(t *testing.T, dir string, m *dataset.Meta) {
	t.Helper()
	file := filepath.Join(dir, m.ULID.String(), "meta.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	third := (m.MaxTime - m.MinTime) / 3
	doc["minTime"], doc["maxTime"] = m.MinTime+third, m.MinTime+third+1
	if b, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestIdenticalLabelRequestsDecodeOnce asks the same several times at once, before anything is
// kept. The headers are read as often as for one request.
func TestIdenticalLabelRequestsDecodeOnce(t *testing.T) {
	const requests = 8
	dir := t.TempDir()
	metas, err := dataset.ManyValues("m", 1, 2000).
		Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reads := func(n int) float64 {
		g := startGateway(t, dir, gatewayOptions{
			headers: func(o *indexheader.Options) { o.BlockCacheBytes = -1 },
			server:  func(o *store.Options) { o.LabelAnswers = nil },
		})
		// The first read of the bucket, for the header, ends when all requests have begun.
		goOn := make(chan struct{})
		g.bucket.setOnRead(
			func(_ string, _, _ int64, body io.ReadCloser) (io.ReadCloser, error) {
				<-goOn
				return body, nil
			},
		)
		var wg sync.WaitGroup
		one := 0.0
		for i := range n {
			wg.Go(func() {
				r, err := g.client.LabelValues(t.Context(), &storepb.LabelValuesRequest{
					Label: dataset.ManyValuesLabel, End: metas[0].MaxTime,
				})
				if err != nil || len(r.Values) != 2000 {
					t.Errorf("%d values, %v", len(r.GetValues()), err)
				}
			})
			for i == 0 && one == 0 {
				runtime.Gosched()
				one = g.inUse(t)
			}
		}
		for g.inUse(t) < float64(n)*one {
			runtime.Gosched()
		}
		close(goOn)
		wg.Wait()
		return g.metric(t, "larder_header_block_reads_total")
	}
	if one, many := reads(1), reads(requests); one == 0 || many != one {
		t.Errorf("%v blocks of the header read for %d requests, %v for one", many, requests, one)
	}
}

// TestKeptLabelAnswersReadNothing shows that a label request that was asked before opens no header
// and reads no page, and that one over a new block reads only that block.
func TestKeptLabelAnswersReadNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	layout := dataset.ManyBlocks("m", 1, 41)
	if _, err := layout.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	newest := filepath.Join(dir, layout.Blocks[40].ID.String())
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(newest, away); err != nil {
		t.Fatal(err)
	}
	pages := gateway{reg: prometheus.NewRegistry()}
	g := startGateway(t, dir, gatewayOptions{
		indexBytes: 32 << 20, setBytes: -1, pages: pagecache.Options{Registerer: pages.reg},
	})
	ms := []*storepb.LabelMatcher{{Name: "__name__", Value: "http_requests_total"}}
	ask := func() {
		t.Helper()
		for _, req := range []proto.Message{
			&storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, Matchers: ms},
			&storepb.LabelNamesRequest{End: 1 << 50, Matchers: ms},
			&storepb.LabelNamesRequest{End: 1 << 50},
		} {
			if _, err := g.labels(t, req); err != nil {
				t.Fatal(err)
			}
		}
	}
	touched := func() float64 {
		return pages.metric(t, "larder_pages_touched_total", "index")
	}
	ask()
	first := touched()
	if first == 0 {
		t.Fatal("the first requests touched no pages")
	}
	ask()
	if got := touched(); got != first {
		t.Errorf("repeated requests touched %v pages", got-first)
	}
	if err := os.Rename(away, newest); err != nil {
		t.Fatal(err)
	}
	if err := g.Catalog.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask()
	if got, most := touched()-first, first/40*3/2; got == 0 || got > most {
		t.Errorf(
			"requests over 40 known blocks and a new one touched %v pages, want up to %v", got, most,
		)
	}
}

// TestLimitsAndKeptLabelAnswers shows that limits do not depend on what is kept: a request that a
// limit forbids is refused however often it is asked, and whatever was asked before.
func TestLimitsAndKeptLabelAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	layout := dataset.ManyBlocks("m", 1, 6)
	if _, err := layout.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	ms := []*storepb.LabelMatcher{{Name: "__name__", Value: "http_requests_total"}}
	req := &storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, Matchers: ms}
	for _, limit := range []admission.LimitOptions{
		{Series: 1}, {Series: 20}, {Series: 1 << 20}, {Bytes: 1 << 10}, {Bytes: 1 << 30},
	} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			cold := startGateway(t, dir, gatewayOptions{})
			cold.Server.SetLimits(limit, nil)
			_, want := cold.labels(t, req)

			warm := startGateway(t, dir, gatewayOptions{})
			for range 2 {
				if _, err := warm.labels(t, req); err != nil {
					t.Fatal(err)
				}
			}
			warm.Server.SetLimits(limit, nil)
			for what, req := range map[string]*storepb.LabelValuesRequest{
				"the same": req,
				"some blocks more": {
					Label: "pod", End: 1 << 50, Start: 1, Matchers: slices.Clone(ms),
				},
			} {
				if _, err := warm.labels(t, req); (err == nil) != (want == nil) {
					t.Errorf("%s: got %v when kept, %v when not", what, err, want)
				}
			}
		})
	}
}
