package store_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// TestIndexFormats serves blocks with indexes of format versions 1, 2 and 3, and compares their
// samples with those that Prometheus reads.
func TestIndexFormats(t *testing.T) {
	dir := t.TempDir()
	external := labels.FromStrings("cluster", "c")
	v1, err := dataset.WriteV1(dir, external)
	if err != nil {
		t.Fatal(err)
	}
	l := dataset.WholeMetric("v2", 5, 400, 60_000)
	l.Blocks = append(l.Blocks, l.Blocks[0])
	l.Blocks[1].ID[3]++
	l.Blocks[1].Labels = external
	l.Blocks[0].Labels = external
	metas, err := l.Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := dataset.SetIndexV3(filepath.Join(dir, metas[1].ULID.String())); err != nil {
		t.Fatal(err)
	}

	g := startGateway(t, dir, gatewayOptions{})
	r := rand.New(rand.NewPCG(1, 2))
	for _, m := range append([]*dataset.Meta{v1}, metas...) {
		if g.Catalog.View().ByID(m.ULID) == nil {
			t.Fatalf("block %s is not served", m.ULID)
		}
		b, err := tsdb.OpenBlock(nil, filepath.Join(dir, m.ULID.String()), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		names, err := b.LabelNames(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		answers := 0
		selectors := 40
		if testing.Short() {
			selectors = 10
		}
		for range selectors {
			ms := randomMatchers(t, r, b, names)
			want := prometheusAnswer(t, b, m.MinTime, m.MaxTime, external, ms)
			got := larderAnswer(t, g, m.ULID, m.MinTime, m.MaxTime, ms, 16)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("block %s, %v (-prometheus +larder):\n%s", m.ULID, ms, diff)
			}
			answers += len(want)
		}
		if answers == 0 {
			t.Errorf("block %s: no selector matched anything", m.ULID)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLabelCallsAgreeWithSeries compares LabelNames and LabelValues, with and without matchers,
// with the labels of the series.
func TestLabelCallsAgreeWithSeries(t *testing.T) {
	dir := t.TempDir()
	if _, err := dataset.Demo(3, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)).
		Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, dir, gatewayOptions{})
	view := g.Catalog.View()
	for _, matcher := range []*storepb.LabelMatcher{
		{Name: "job", Type: storepb.LabelMatcher_NEQ, Value: ""},
		{Name: "__name__", Type: storepb.LabelMatcher_RE, Value: "http_.*|up"},
		{Name: "pod", Type: storepb.LabelMatcher_RE, Value: ".*-4.*"},
	} {
		if testing.Short() && matcher.Name != "pod" {
			continue
		}
		want := map[string]map[string]bool{}
		// Raw samples only, because Series chooses blocks by resolution, but label calls do not.
		a, err := g.query(context.Background(), &storepb.SeriesRequest{
			MinTime: view.MinTime, MaxTime: view.MaxTime, SkipChunks: true,
			Matchers: []*storepb.LabelMatcher{matcher}, MaxResolutionWindow: 3_600_000,
		})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := g.query(context.Background(), &storepb.SeriesRequest{
			MinTime: view.MinTime, MaxTime: view.MaxTime, SkipChunks: true,
			Matchers: []*storepb.LabelMatcher{matcher},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(a.series, raw.series...) {
			for _, l := range s.Labels {
				if want[l.Name] == nil {
					want[l.Name] = map[string]bool{}
				}
				want[l.Name][l.Value] = true
			}
		}
		names, err := g.client.LabelNames(context.Background(), &storepb.LabelNamesRequest{
			Start: view.MinTime, End: view.MaxTime, Matchers: []*storepb.LabelMatcher{matcher},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]map[string]bool{}
		for _, name := range names.Names {
			values, err := g.client.LabelValues(context.Background(), &storepb.LabelValuesRequest{
				Label: name, Start: view.MinTime, End: view.MaxTime,
				Matchers: []*storepb.LabelMatcher{matcher},
			})
			if err != nil {
				t.Fatal(err)
			}
			got[name] = map[string]bool{}
			for _, v := range values.Values {
				got[name][v] = true
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-series +label calls):\n%s", matcher, diff)
		}
	}
}
