package postings

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
)

var (
	postingsNames  = []string{"__name__", "a", "b", "job", "é"}
	postingsValues = []string{
		"a",
		"b",
		"ab",
		"A",
		"aB",
		"f.o",
		"foo",
		"foobar",
		"foobaz",
		"FOO",
		"up",
		"x\ny",
		"é",
		"éé",
		"\xff",
	}
	// postingsPatterns are values and expressions alike: every one is used with every kind of
	// matcher.
	postingsPatterns = []string{
		"", "a", "b", "up", "foo", "not there", "a|b", "a|", "|", "a||b", "foo|foobar|nope", ".*", ".+", "(.*)", "(.+)", ".?", "..", "..*", "()",
		"f.*", "f.+", "foo.*", "fo+.*", "foo(bar|baz)", "foo(bar|)", "foo(.*)", "(?i)foo", "(?i)foo.*", "(?i:a)b", ".*o", ".*oo.*", "[ab]", "[^a]",
		"[ab]?", "^a$", "^foo.*$", "(a|b)?", "nope.*", "é.*", "é+", "x.y", "(?s:x.y)", "a.*|b.*", "a.*|", "(foo|a).*", "\\.*", "f\\.o", "f\\..*",
	}
)

func postingsRandomBlock(t *testing.T, rnd *rand.Rand) *postingsBlock {
	// Few values make large groups, many make small ones; an explicit empty value is rare in the
	// world but legal.
	values := postingsValues[:2+rnd.IntN(len(postingsValues)-1)]
	if rnd.IntN(3) == 0 {
		values = append([]string{""}, values...)
	}
	seen := map[string]bool{}
	var series []labels.Labels
	for range 1 + rnd.IntN(120) {
		m := map[string]string{}
		for _, n := range postingsNames {
			if rnd.IntN(4) != 0 {
				m[n] = values[rnd.IntN(len(values))]
			}
		}
		ls := labels.FromMap(m)
		if !seen[ls.String()] && ls.Len() > 0 {
			seen[ls.String()] = true
			series = append(series, ls)
		}
	}
	if len(series) == 0 {
		return postingsRandomBlock(t, rnd)
	}
	return newPostingsBlock(t, series)
}

func postingsRandomMatchers(t *testing.T, rnd *rand.Rand, names []string) []*labels.Matcher {
	var out []*labels.Matcher
	for range 1 + rnd.IntN(4) {
		value := postingsPatterns[rnd.IntN(len(postingsPatterns))]
		kind := labels.MatchType(rnd.IntN(4))
		if kind == labels.MatchEqual && rnd.IntN(4) != 0 || rnd.IntN(4) == 0 {
			value = postingsValues[rnd.IntN(len(postingsValues)-1)] // the last one is no expression
		}
		m, err := labels.NewMatcher(kind, names[rnd.IntN(len(names))], value)
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		out = append(out, m)
	}
	return out
}

// TestPostingsLikePrometheus holds expansion equal to Prometheus's own, with every group read and
// with groups left pending.
func TestPostingsLikePrometheus(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	var seen postingsCoverage
	for range 60 {
		b := postingsRandomBlock(t, rnd)
		pages, hdr := newPostingsPages(t, b), postingsRealHeader(t, b)
		for range 120 {
			ms := postingsRandomMatchers(t, rnd, append([]string{"missing"}, postingsNames...))
			postingsCheck(t, b, hdr, pages, ms, &seen)
		}
	}
	seen.check(t)
}

// TestPostingsLikePrometheusV1 does it with the only index of format V1 that there is: Prometheus's
// own test data. Its references are byte offsets, and its lists are not in the order of their
// values.
func TestPostingsLikePrometheusV1(t *testing.T) {
	b, matchers := postingsV1(t)
	rnd := rand.New(rand.NewPCG(13, 14))
	pages, hdr := newPostingsPages(t, b), postingsRealHeader(t, b)
	var seen postingsCoverage
	for range 500 {
		postingsCheck(t, b, hdr, pages, matchers(rnd), &seen)
	}
	seen.check(t)
}

// postingsV1 returns an index of format V1, and what makes matchers for it.
func postingsV1(t *testing.T) (b *postingsBlock, matchers func(rnd *rand.Rand) []*labels.Matcher) {
	t.Helper()
	file, _ := runtime.FuncForPC(reflect.ValueOf(index.NewReader).Pointer()).FileLine(0)
	raw, err := os.ReadFile(
		filepath.Join(filepath.Dir(file), "..", "testdata", "index_format_v1", "index"),
	)
	if err != nil {
		t.Fatalf("Prometheus's test data is not at hand: %v", err)
	}
	b = openPostingsBlock(t, raw)
	if b.reader.Version() != 1 {
		t.Fatalf("version %d", b.reader.Version())
	}
	names := []string{"missing"}
	values := []string{"", ".*", ".+", "0|1", "1.*", ".*1", "nope", "[0-4]+"}
	for name, entries := range b.names {
		names = append(names, name)
		for _, e := range entries[:min(len(entries), 20)] {
			values = append(values, string(e.value))
		}
	}
	slices.Sort(names)
	slices.Sort(values)
	return b, func(rnd *rand.Rand) (ms []*labels.Matcher) {
		for range 1 + rnd.IntN(3) {
			ms = append(
				ms,
				labels.MustNewMatcher(
					labels.MatchType(rnd.IntN(4)), names[rnd.IntN(len(names))],
					values[rnd.IntN(len(values))],
				),
			)
		}
		return ms
	}
}

// TestPostingsLikePrometheusV3 changes the version of an index of format V2, which is the whole
// difference.
func TestPostingsLikePrometheusV3(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	raw := slices.Clone(postingsRandomBlock(t, rnd).index)
	raw[4] = 3
	b := openPostingsBlock(t, raw)
	pages, hdr := newPostingsPages(t, b), postingsRealHeader(t, b)
	var seen postingsCoverage
	for range 300 {
		postingsCheck(t, b, hdr, pages, postingsRandomMatchers(t, rnd, postingsNames), &seen)
	}
	seen.check(t)
}

// postingsCheck expands ms eagerly and lazily and compares with Prometheus.
func postingsCheck(
	t *testing.T, b *postingsBlock, hdr header, pages *postingsPages, ms []*labels.Matcher,
	seen *postingsCoverage,
) {
	t.Helper()
	want := b.want(t, ms)
	lazy, filtered, read := false, false, false
	for _, req := range []postingsRequest{
		{eager: true}, {}, {seriesBytes: 1}, {seriesBytes: 4}, {seriesBytes: 24}, {seriesBytes: 1 << 20},
		{eager: true, markFrom: 1, batch: 3}, {markFrom: 1}, {seriesBytes: 24, markFrom: 2, batch: 1}, {seriesBytes: 1 << 20, markFrom: 1, batch: 2},
	} {
		pages.fetches = nil
		req.matchers, req.object = slices.Clone(ms), b.object
		what := fmt.Sprintf(
			"%v, eager %v, series of %d bytes, marked from %d", ms, req.eager, req.seriesBytes,
			req.markFrom,
		)
		got, err := expandPostings(context.Background(), hdr, pages, req)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if req.eager && len(got.pending) > 0 {
			t.Fatalf("%s: pending %v", what, got.pending)
		}
		if diff := cmp.Diff(want, b.matching(got.refs, got.pending)); diff != "" {
			t.Fatalf("%s, pending %v (-want +got):\n%s", what, got.pending, diff)
		}
		if len(pages.fetches) > 1 && req.markFrom == 0 {
			t.Fatalf("%s: %d fetches", what, len(pages.fetches))
		}
		if int64(len(got.refs)) > got.stats.MaxSeries {
			t.Fatalf(
				"%s: %d postings, but %d said to be the most", what, len(got.refs),
				got.stats.MaxSeries,
			)
		}
		if cap(got.refs) > 2*len(got.refs) {
			t.Fatalf("%s: %d postings hold memory for %d", what, len(got.refs), cap(got.refs))
		}
		read = len(pages.fetches) > 0
		lazy = lazy || len(got.pending) > 0
		filtered = filtered || len(got.refs) > len(want)
	}
	seen.all++
	seen.full += one(len(want) > 0)
	seen.unread += one(!read)
	seen.lazy += one(lazy)
	seen.filtered += one(filtered)
}

// postingsCoverage counts what random requests have met: answers, answers known without reading,
// matchers left pending, and pending matchers that some series does not match.
type postingsCoverage struct{ all, full, unread, lazy, filtered int }

func (c postingsCoverage) check(t *testing.T) {
	t.Helper()
	t.Logf("%+v", c)
	if min(c.full*3, c.unread*10, c.lazy*8, c.filtered*12) < c.all {
		t.Errorf("the requests do not cover enough: %+v", c)
	}
}
