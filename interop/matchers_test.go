package interop

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/allowed"
	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
	"larder/interop/internal/trial"
)

// matcherValues are label values on which versions of Prometheus's matcher library have differed
// from Go's regexp: case folding beyond ASCII, and characters that are equal only when composed.
var matcherValues = []string{
	"k", "K", "\u212a", "KELVIN", "kelvin", "\u212aELVIN", "st", "\u017ft", "fi", "\ufb01", "a7",
	"a\u2077",
	"200", "404", "500",
}

// manyAlternatives is an expression with so many alternatives that the library looks values up in a
// map.
func manyAlternatives() string {
	var out []string
	for i := range 40 {
		out = append(out, fmt.Sprintf("a%d", i))
	}
	return "(?i)" + strings.Join(out, "|") + "|fi|k"
}

// TestMatchersBesideRegexp sends expressions to both gateways for which Go's regexp gives the right
// result. Each gateway is right, or wrong in the way that docs/compatibility.md states. A new
// version that corrects one fails this test, so that the page stays true.
func TestMatchersBesideRegexp(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	var series []labels.Labels
	for _, v := range append(slices.Clone(matcherValues), "") {
		series = append(series, labels.FromMap(map[string]string{labels.MetricName: "m", "v": v}))
	}
	slices.SortFunc(series, labels.Compare)
	p := layout.Plain{
		External: labels.FromStrings("cluster", "eu"), MaxTime: 10_000, Step: 1000, Series: series,
		Value: func(i int, at int64) float64 { return float64(i) },
	}
	if _, err := p.Write(ctx, dir); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := trial.Start(ctx, l, t.TempDir(), trial.Larder(bin), list)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}()
	f := func(wrong string, exprs ...string) {
		t.Helper()
		req := &storepb.SeriesRequest{MaxTime: 1 << 40, SkipChunks: true}
		want := append(slices.Clone(matcherValues), "")
		for _, e := range exprs {
			req.Matchers = append(
				req.Matchers,
				storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "v", Value: e},
			)
			re := regexp.MustCompile("^(?s:" + e + ")$")
			want = slices.DeleteFunc(want, func(v string) bool { return !re.MatchString(v) })
		}
		req.Matchers = append(
			req.Matchers, storepb.LabelMatcher{Name: labels.MetricName, Value: "m"},
		)
		slices.Sort(want)
		res, err := tr.Ask(ctx, &query.Query{Series: req})
		if err != nil {
			t.Fatal(err)
		}
		valuesOf := func(a *answer.Answer) (got []string) {
			for _, s := range a.Series {
				got = append(got, s.Labels.Get("v"))
			}
			slices.Sort(got)
			return got
		}
		var found []string
		thanos, larder := valuesOf(res.Thanos), valuesOf(res.Subject)
		if !slices.Equal(thanos, want) {
			found = append(found, "thanos")
		}
		if !slices.Equal(larder, want) {
			found = append(found, "larder")
		}
		if got := strings.Join(found, " "); got != wrong {
			t.Errorf(
				"%.60q: wrong are [%s], want [%s]\n  regexp %q\n  thanos %q\n  larder %q", exprs,
				got, wrong, want, thanos, larder,
			)
		}
	}
	f("", "k.*")
	f("", "(?i)fi|k")
	f("thanos", "(?i)k.*")
	f("thanos", "(?i).*k")
	f("thanos", "(?i:\u017f)t")
	f("thanos larder", manyAlternatives())
	f("", "200|200|404")
	f("", "200||404")
	f("", "200|200|404", "200||404")
	f("", "404|200|404", "200||404")
	f("", "200|200|404", "404|200|200")
	f("thanos", "500|500|200", "200||404")
	f("", "404|404|500", "200||404")
	f("thanos", "500|404|500|404", "200||404")
	f("thanos", "k|k|500|404|500|404", "200||404")
	f("thanos", "500|500", "200||404")
	f("thanos", "404|500|500|a7", "200||404|a7")
}
