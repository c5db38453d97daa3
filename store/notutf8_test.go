package store_test

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// TestTextThatIsNotUTF8 checks that label names and values are bytes, same as in Thanos. Text that
// is not UTF-8 is returned unchanged by label calls and Series, and matchers find it.
func TestTextThatIsNotUTF8(t *testing.T) {
	const bad, name = "caf\xe9", "n\xffme"
	series := seriesList{}
	for i, value := range []string{"cafe", bad, "z\x80"} {
		series = append(series, dataset.Series{
			Labels: labels.FromStrings(
				"__name__", dataset.WholeMetricName, "pod", value, name, "x",
			), Kind: dataset.Ratio, Seed: uint64(i),
		})
	}
	dir, _ := writeMetric(t, series, nil)
	g := startGateway(t, dir, gatewayOptions{})
	eq := func(name, value string, kind storepb.LabelMatcher_Type) []*storepb.LabelMatcher {
		return []*storepb.LabelMatcher{{Type: kind, Name: name, Value: value}}
	}
	for _, m := range [][]*storepb.LabelMatcher{
		nil, eq("__name__", dataset.WholeMetricName, storepb.LabelMatcher_EQ),
		eq(name, "x", storepb.LabelMatcher_EQ), eq("none", "\xff", storepb.LabelMatcher_NEQ),
	} {
		v, err := g.client.LabelValues(t.Context(),
			&storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, Matchers: m})
		if want := []string{"cafe", bad, "z\x80"}; err != nil ||
			!slices.Equal(v.GetValues(), want) {
			t.Errorf("%v: got values %q, %v, want %q", m, v.GetValues(), err, want)
		}
		n, err := g.client.LabelNames(t.Context(),
			&storepb.LabelNamesRequest{End: 1 << 50, Matchers: m})
		if want := []string{"__name__", "cluster", name, "pod"}; err != nil ||
			!slices.Equal(n.GetNames(), want) {
			t.Errorf("%v: got names %q, %v, want %q", m, n.GetNames(), err, want)
		}
	}
	if v, err := g.client.LabelValues(t.Context(), &storepb.LabelValuesRequest{Label: name,
		End: 1 << 50}); err != nil ||
		!slices.Equal(v.GetValues(), []string{"x"}) {
		t.Errorf("values of a name that is not UTF-8: got %q, %v", v.GetValues(), err)
	}

	ask := func(want int, m ...*storepb.LabelMatcher) *answer {
		t.Helper()
		req := wholeMetric(0)
		req.Matchers = append(req.Matchers, m...)
		a, err := g.query(t.Context(), req)
		if err != nil || len(a.series) != want {
			t.Errorf("%q: got %d series, %v, want %d", m, len(a.series), err, want)
		}
		return a
	}
	ask(3)
	ask(2, eq("pod", bad, storepb.LabelMatcher_NEQ)...)
	ask(1, eq("pod", "z.", storepb.LabelMatcher_RE)...)
	if a := ask(1, eq("pod", bad, storepb.LabelMatcher_EQ)...); len(a.series) == 1 {
		if got, want := seriesLabels(a.series[0]),
			labels.FromStrings("__name__", dataset.WholeMetricName, "cluster", "eu", name, "x",
				"pod", bad); !labels.Equal(
			got, want,
		) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// Labels to remove and hints may also contain such text.
	req := wholeMetric(0)
	req.WithoutReplicaLabels = []string{name, "\xff"}
	if a, err := g.query(t.Context(), req); err != nil || len(a.series) != 3 ||
		len(a.series[0].Labels) != 3 {
		t.Errorf("without %q: got %v, %v", name, a.series, err)
	}
	hints, err := anypb.New(&storepb.SeriesRequestHints{
		BlockMatchers: eq("__block_id", "\xff", storepb.LabelMatcher_EQ),
	})
	if err != nil {
		t.Fatal(err)
	}
	req = wholeMetric(0)
	req.Hints = hints
	if a, err := g.query(t.Context(), req); err != nil || len(a.series) != 0 {
		t.Errorf("hints of no block: got %d series, %v", len(a.series), err)
	}
	// An expression must be UTF-8, same as in Thanos.
	req = wholeMetric(0)
	req.Matchers = eq("pod", "\xff.*", storepb.LabelMatcher_RE)
	if _, err := g.query(t.Context(), req); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an expression that is not UTF-8: got %v, want InvalidArgument", err)
	}
}
