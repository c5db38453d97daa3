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
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"

	"larder/internal/bucket/cost"
)

var (
	testNames  = []string{"__name__", "a", "b", "job", "é"}
	testValues = []string{
		"a", "b", "ab", "A", "aB", "f.o", "foo", "foobar", "foobaz", "FOO", "up", "x\ny", "é", "éé",
		"\xff",
	}
	// testPatterns has values and expressions. Each is used in every kind of matcher.
	testPatterns = []string{
		"", "a", "b", "up", "foo", "not there", "a|b", "a|", "|", "a||b", "foo|foobar|nope",
		".*", ".+", "(.*)", "(.+)", ".?", "..", "..*", "()", "f.*", "f.+", "foo.*", "fo+.*",
		"foo(bar|baz)", "foo(bar|)", "foo(.*)", "(?i)foo", "(?i)foo.*", "(?i:a)b", ".*o", ".*oo.*",
		"[ab]", "[^a]", "[ab]?", "^a$", "^foo.*$", "(a|b)?", "nope.*", "é.*", "é+", "x.y",
		"(?s:x.y)", "a.*|b.*", "a.*|", "(foo|a).*", "\\.*", "f\\.o", "f\\..*",
	}
)

func randomIndex(t *testing.T, rnd *rand.Rand) *testIndex {
	// Few values make large groups, many make small ones. An explicit empty value is rare but
	// legal.
	values := testValues[:2+rnd.IntN(len(testValues)-1)]
	if rnd.IntN(3) == 0 {
		values = append([]string{""}, values...)
	}
	seen := map[string]bool{}
	var series []labels.Labels
	for range 1 + rnd.IntN(120) {
		m := map[string]string{}
		for _, n := range testNames {
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
		return randomIndex(t, rnd)
	}
	return newTestIndex(t, series)
}

func randomMatchers(t *testing.T, rnd *rand.Rand, names []string) []*labels.Matcher {
	var out []*labels.Matcher
	for range 1 + rnd.IntN(4) {
		value := testPatterns[rnd.IntN(len(testPatterns))]
		kind := labels.MatchType(rnd.IntN(4))
		if kind == labels.MatchEqual && rnd.IntN(4) != 0 || rnd.IntN(4) == 0 {
			value = testValues[rnd.IntN(len(testValues)-1)] // the last one is no expression
		}
		m, err := labels.NewMatcher(kind, names[rnd.IntN(len(names))], value)
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		out = append(out, m)
	}
	return out
}

// TestPostingsLikePrometheus checks that an expansion finds what Prometheus finds, whether matchers
// stay pending or not.
func TestPostingsLikePrometheus(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	var seen coverage
	for range 60 {
		b := randomIndex(t, rnd)
		pages, hdr := newTestPages(t, b), realHeader(t, b)
		for range 120 {
			ms := randomMatchers(t, rnd, append([]string{"missing"}, testNames...))
			checkLikePrometheus(t, b, hdr, pages, ms, &seen)
		}
	}
	seen.check(t)
}

// TestPostingsLikePrometheusV1 does the same with the only index of format V1 that exists, in the
// test data of Prometheus. Its references are byte offsets, and its lists are in no order.
func TestPostingsLikePrometheusV1(t *testing.T) {
	b, matchers := indexV1(t)
	rnd := rand.New(rand.NewPCG(13, 14))
	pages, hdr := newTestPages(t, b), realHeader(t, b)
	var seen coverage
	for range 500 {
		checkLikePrometheus(t, b, hdr, pages, matchers(rnd), &seen)
	}
	seen.check(t)
}

// indexV1 returns an index of format V1, and a function that makes matchers for it.
func indexV1(t *testing.T) (b *testIndex, matchers func(rnd *rand.Rand) []*labels.Matcher) {
	t.Helper()
	file, _ := runtime.FuncForPC(reflect.ValueOf(index.NewReader).Pointer()).FileLine(0)
	raw, err := os.ReadFile(
		filepath.Join(filepath.Dir(file), "..", "testdata", "index_format_v1", "index"),
	)
	if err != nil {
		t.Fatalf("the test data of Prometheus cannot be read: %v", err)
	}
	b = openTestIndex(t, raw)
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
			kind := labels.MatchType(rnd.IntN(4))
			name, value := names[rnd.IntN(len(names))], values[rnd.IntN(len(values))]
			ms = append(ms, labels.MustNewMatcher(kind, name, value))
		}
		return ms
	}
}

// TestPostingsLikePrometheusV3 changes the version of an index of format V2. Nothing else differs.
func TestPostingsLikePrometheusV3(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	raw := slices.Clone(randomIndex(t, rnd).index)
	raw[4] = 3
	b := openTestIndex(t, raw)
	pages, hdr := newTestPages(t, b), realHeader(t, b)
	var seen coverage
	for range 300 {
		checkLikePrometheus(t, b, hdr, pages, randomMatchers(t, rnd, testNames), &seen)
	}
	seen.check(t)
}

// checkLikePrometheus expands ms eagerly and lazily and compares with Prometheus.
func checkLikePrometheus(
	t *testing.T, b *testIndex, hdr header, pages *testPages, ms []*labels.Matcher,
	seen *coverage,
) {
	t.Helper()
	want := b.want(t, ms)
	lazy, filtered, read := false, false, false
	for _, req := range []request{
		{eager: true}, {}, {seriesBytes: 1}, {seriesBytes: 4}, {seriesBytes: 24},
		{seriesBytes: 1 << 20}, {eager: true, markFrom: 1, batch: 3}, {markFrom: 1},
		{seriesBytes: 24, markFrom: 2, batch: 1}, {seriesBytes: 1 << 20, markFrom: 1, batch: 2},
		{seriesBytes: 4, costs: cost.Model{PerRequest: -1}},
		{seriesBytes: 1 << 20, costs: cost.Model{PerRequest: time.Second}},
	} {
		pages.fetches = nil
		req.matchers, req.object = slices.Clone(ms), b.object
		what := fmt.Sprintf(
			"%v, eager %v, series of %d bytes, marked from %d", ms, req.eager, req.seriesBytes,
			req.markFrom,
		)
		got, err := expand(context.Background(), hdr, pages, req)
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
			t.Fatalf("%s: %d postings, but MaxSeries is %d",
				what, len(got.refs), got.stats.MaxSeries)
		}
		if cap(got.refs) > 2*len(got.refs) {
			t.Fatalf("%s: %d postings use memory for %d", what, len(got.refs), cap(got.refs))
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

// coverage counts random requests: all, those with an answer, those that read nothing, those with
// pending matchers, and those with a pending matcher that some series does not match.
type coverage struct{ all, full, unread, lazy, filtered int }

func (c coverage) check(t *testing.T) {
	t.Helper()
	t.Logf("%+v", c)
	if min(c.full*3, c.unread*10, c.lazy*8, c.filtered*12) < c.all {
		t.Errorf("the requests do not cover enough: %+v", c)
	}
}
