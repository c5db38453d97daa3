package postings

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

func parseMatchers(t testing.TB, lines ...string) []*labels.Matcher {
	t.Helper()
	var out []*labels.Matcher
	for _, l := range lines {
		out = append(out, parseMatcher(t, l))
	}
	return out
}

// wideIndex is a block in which every series has another pod, and 50 series of one job have none.
func wideIndex(t testing.TB, pods int) *testIndex {
	var series []labels.Labels
	add := func(ls ...string) { series = append(series, labels.FromStrings(ls...)) }
	for i := range pods {
		job, pod := fmt.Sprintf("j%d", i%1000), fmt.Sprintf("pod-%06d", i)
		add("__name__", "cpu", "job", job, "pod", pod)
	}
	for i := range 50 {
		add("__name__", "up", "job", "small", "n", fmt.Sprint(i))
	}
	return newTestIndex(t, series)
}

// TestPostingsWideNegative checks that a matcher which selects any pod, beside a selective matcher,
// reads no list of a pod and streams no pod, eager or not. maxWideBytes holds even if checking the
// series costs more than the lists.
func TestPostingsWideNegative(t *testing.T) {
	b := wideIndex(t, 70_000)
	f := func(eager bool, seriesBytes int64, lines ...string) {
		t.Helper()
		what := fmt.Sprintf("%q, eager %v, %d bytes a series", lines, eager, seriesBytes)
		pages := newTestPages(t, b)
		var acct pagecache.Account
		b.visited = 0
		ms := parseMatchers(t, lines...)
		got, err := expand(context.Background(), b, pages, request{
			matchers: ms, object: b.object, account: &acct,
			eager: eager, seriesBytes: seriesBytes,
		})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if diff := cmp.Diff(b.want(t, ms), b.matching(got.refs, got.pending)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff([]string{lines[0]}, matcherStrings(got.pending)); diff != "" {
			t.Errorf("%s: pending (-want +got):\n%s", what, diff)
		}
		if b.visited != 0 || got.stats.Values != 0 {
			t.Errorf("%s: %d values streamed, %d in the stats; want none",
				what, b.visited, got.stats.Values)
		}
		if len(pages.fetches) != 1 || pages.bucket.reads() != 1 || acct.Requests.Load() != 1 {
			t.Errorf("%s: %d fetches, %d reads, %d charged; want one of each",
				what, len(pages.fetches), pages.bucket.reads(), acct.Requests.Load())
		}
		if n := acct.FetchedBytes.Load(); n > 2048 {
			t.Errorf("%s: fetched %d bytes, want at most 2048", what, n)
		}
	}
	for _, eager := range []bool{false, true} {
		for _, wide := range []string{`pod!=""`, `pod=~".+"`, `pod!~""`, `pod=""`} {
			f(eager, 0, wide, `job="j7"`)
			f(eager, 1<<30, wide, `job="j7"`)
		}
	}
	f(false, 0, `pod=~".*7.*"`, `job="j7"`)
	f(false, 0, `pod!~".*7.*"`, `job="j7"`)
}

// TestPostingsWideExpression checks that an expression which selects nearly every pod stays
// pending, like one that obviously does.
func TestPostingsWideExpression(t *testing.T) {
	b := wideIndex(t, 70_000)
	f := func(pending int, lines ...string) {
		t.Helper()
		ms := parseMatchers(t, lines...)
		got, err := expand(
			context.Background(), b, newTestPages(t, b),
			request{matchers: ms, object: b.object, seriesBytes: 1 << 30},
		)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b.want(t, ms), b.matching(got.refs, got.pending)); diff != "" {
			t.Fatalf("%q (-want +got):\n%s", lines, diff)
		}
		if len(got.pending) != pending || pending > 0 && got.stats.ListBytes > 4096 {
			t.Errorf("%q: pending %v, %d bytes of lists", lines, got.pending, got.stats.ListBytes)
		}
	}
	f(1, `job="j7"`, `pod=~".*-.*"`)
	f(1, `job="j7"`, `pod=~"pod.*"`)
	f(0, `job="j7"`, `pod=~".*7"`)
	f(0, `__name__="cpu"`, `pod=~"pod.*"`) // not selective
}

func matcherStrings(ms []*labels.Matcher) []string {
	out := []string{}
	for _, m := range ms {
		out = append(out, m.String())
	}
	return out
}

// TestPostingsOneFetch checks that a query reads its lists by one Fetch. Lists that are adjacent
// need few reads.
func TestPostingsOneFetch(t *testing.T) {
	b := wideIndex(t, 20_000)
	pages := newTestPages(t, b)
	ms := parseMatchers(t, `pod=~"pod-00.*"`, `job=~"j[0-4].*"`, `n=""`)
	got, err := expand(
		context.Background(), b, pages, request{matchers: ms, object: b.object},
	)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.want(t, ms), b.matching(got.refs, got.pending)); diff != "" {
		t.Errorf("refs (-want +got):\n%s", diff)
	}
	if len(pages.fetches) != 1 || len(pages.fetches[0]) > 3 || pages.bucket.reads() > 3 {
		t.Errorf("%d fetches of %v in %d reads, want one fetch and at most 3 reads",
			len(pages.fetches), pages.fetches, pages.bucket.reads())
	}
	if got.stats.Lists < 10_000 || got.stats.Pending > 0 {
		t.Errorf("%+v: the test shows nothing", got.stats)
	}
}

// TestPostingsDamage flips a bit of a list. If it is flipped once, the list is read again. If it
// stays flipped, the error names the list. Damage outside of the lists does not matter.
func TestPostingsDamage(t *testing.T) {
	b := wideIndex(t, 300)
	ms := parseMatchers(t, `pod=~"pod-.*"`)
	want := b.want(t, ms)
	lists := []indexheader.List{}
	for _, e := range b.names["pod"] {
		lists = append(lists, e.list)
	}
	other := b.names["n"][0].list.Off
	f := func(off int64, times, repairs, refetches int, wantErr error) {
		t.Helper()
		pages := newTestPages(t, b)
		pages.bucket.flips = []flip{{off: off, times: times}}
		got, err := expand(
			context.Background(), b, pages, request{matchers: ms, object: b.object},
		)
		if !errors.Is(err, wantErr) {
			t.Fatalf("offset %d damaged %d times: error %v, want %v", off, times, err, wantErr)
		}
		if n := len(pages.refetches); n != refetches {
			t.Errorf("offset %d damaged %d times: %d refetches, want %d", off, times, n, refetches)
		}
		if err != nil {
			at, _ := slices.BinarySearchFunc(
				lists, off, func(l indexheader.List, off int64) int { return int(l.End - 1 - off) },
			)
			want := fmt.Sprintf("object BLOCK/index: posting list at offset %d:", lists[at].Off)
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not contain %q", err, want)
			}
			if got.refs != nil {
				t.Errorf("postings beside an error: %v", got.refs)
			}
			return
		}
		if diff := cmp.Diff(want, got.refs); diff != "" {
			t.Errorf("offset %d damaged %d times (-want +got):\n%s", off, times, diff)
		}
		if got.stats.Repaired != repairs {
			t.Errorf("offset %d damaged %d times: %d lists repaired, want %d",
				off, times, got.stats.Repaired, repairs)
		}
	}
	l := lists[150]
	for _, off := range []int64{l.Off + 4, l.Off + 11, l.End - 1} {
		f(off, 1, 1, 1, nil)
		f(off, 2, 0, 1, tsdbfmt.ErrChecksum)
	}
	f(l.Off+1, 1, 1, 1, nil) // the length
	f(l.Off+1, 2, 0, 1, tsdbfmt.ErrCorrupt)
	f(other, 1, 0, 0, nil)
}

// TestPostingsDamagedPage checks that a page with many damaged lists is read again once, not once a
// list.
func TestPostingsDamagedPage(t *testing.T) {
	b := wideIndex(t, 300)
	ms := parseMatchers(t, `pod=~"pod-.*"`)
	pages := newTestPages(t, b)
	page := (b.names["pod"][0].list.End/512 + 2) * 512
	damaged := 0
	for _, e := range b.names["pod"] {
		if e.list.Off >= page && e.list.End <= page+512 {
			damage := flip{off: e.list.Off + 8, times: 1}
			pages.bucket.flips = append(pages.bucket.flips, damage)
			damaged++
		}
	}
	got, err := expand(
		context.Background(), b, pages, request{matchers: ms, object: b.object},
	)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.want(t, ms), got.refs); diff != "" {
		t.Errorf("refs (-want +got):\n%s", diff)
	}
	if damaged < 10 || got.stats.Repaired != damaged || len(pages.refetches) != 1 {
		t.Errorf("%d of %d lists repaired by %d refetches, want all by one",
			got.stats.Repaired, damaged, len(pages.refetches))
	}
}

// TestPostingsErrors checks that a failure ends the expansion, and that the error says what failed.
func TestPostingsErrors(t *testing.T) {
	b := wideIndex(t, 10)
	f := func(
		name string, hdr header, change func(p *testPages, req *request), want error, text string,
	) {
		t.Helper()
		pages := newTestPages(t, b)
		req := request{matchers: parseMatchers(t, `job="small"`), object: b.object}
		change(pages, &req)
		_, err := expand(context.Background(), hdr, pages, req)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %v, want %v and %q", name, err, want, text)
		}
	}
	fail := func(p *testPages, _ *request) { p.bucket.fail = true }
	f("bucket", b, fail, errBucket, "BLOCK/index")
	shrink := func(_ *testPages, req *request) { req.object.Size /= 2 }
	f("a smaller index", b, shrink, tsdbfmt.ErrCorrupt, "BLOCK/index of ")
	nothing := func(*testPages, *request) {}
	f("a look-up in the header", brokenHeader{b}, nothing, errHeader, `label "job"`)
	expression := func(_ *testPages, req *request) {
		req.matchers = parseMatchers(t, `job=~".*m.*"`)
	}
	f("values of the header", brokenHeader{b}, expression, errHeader, `label "job"`)
}

var errHeader = errors.New("header is gone")

type brokenHeader struct{ header }

func (brokenHeader) Lists(
	context.Context, string, []string, []indexheader.List,
) ([]indexheader.List, error) {
	return nil, errHeader
}

func (brokenHeader) Values(
	context.Context, string, string, func([]byte, indexheader.List) (bool, error),
) error {
	return errHeader
}

// TestPostingsCancel checks that a regex over many values ends soon after its context.
func TestPostingsCancel(t *testing.T) {
	b := wideIndex(t, 10_000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.visit = func() {
		if b.visited == 2000 {
			cancel()
		}
	}
	_, err := expand(
		ctx, b, newTestPages(t, b),
		request{matchers: parseMatchers(t, `pod=~".*9"`), object: b.object},
	)
	if !errors.Is(err, context.Canceled) || b.visited > 2000+checkEvery {
		t.Errorf("got error %v after %d values, want %v soon after value 2000",
			err, b.visited, context.Canceled)
	}
}

// TestPostingsNoMatchers checks that without matchers there are no postings, that matchers without
// a name see no label, and that a block without series has no postings.
func TestPostingsNoMatchers(t *testing.T) {
	b := wideIndex(t, 10)
	f := func(hdr header, want int, lines ...string) {
		t.Helper()
		got, err := expand(
			context.Background(), hdr, newTestPages(t, b),
			request{matchers: parseMatchers(t, lines...), object: b.object},
		)
		if err != nil || len(got.refs) != want || len(got.pending) > 0 {
			t.Errorf("%q: %d postings, pending %v, error %v; want %d",
				lines, len(got.refs), got.pending, err, want)
		}
	}
	f(b, 0)
	f(b, 60, `=""`)
	f(b, 50, `=""`, `job="small"`)
	f(b, 0, `!=""`, `job="small"`)
	f(&testHeader{}, 0, `job!="small"`)
}

// TestPostingsStreamAllocations checks that evaluating a regex on a value of the header does not
// allocate.
func TestPostingsStreamAllocations(t *testing.T) {
	b := wideIndex(t, 20_000)
	f := func(line string, limit float64) {
		t.Helper()
		req := request{matchers: parseMatchers(t, line), object: b.object, eager: true}
		n := testing.AllocsPerRun(5, func() {
			p, err := newPlan(context.Background(), b, &req)
			if err != nil || p.stats.Values < 20_000 {
				t.Fatalf("%d values, error %v", p.stats.Values, err)
			}
		})
		if n > limit {
			t.Errorf("%s over 20,000 values: %v allocations, want at most %v", line, n, limit)
		}
	}
	f(`pod=~".*00"`, 60)
	f(`pod=~".+"`, 60)
	f(`pod!~"pod-0.*"`, 60)
	// This one needs package regexp, whose pool drops some of its machines under the race detector.
	f(`pod=~".*(1|2)+7.*"`, 10_000)
}
