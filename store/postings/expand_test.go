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

func postingsMatchers(t testing.TB, lines ...string) []*labels.Matcher {
	t.Helper()
	var out []*labels.Matcher
	for _, l := range lines {
		out = append(out, postingsMatcher(t, l))
	}
	return out
}

// postingsWideBlock is a block in which every series has a pod of its own but those of one job.
func postingsWideBlock(t testing.TB, pods int) *postingsBlock {
	var series []labels.Labels
	for i := range pods {
		series = append(
			series,
			labels.FromStrings(
				"__name__", "cpu", "job", fmt.Sprintf("j%d", i%1000), "pod",
				fmt.Sprintf("pod-%06d", i),
			),
		)
	}
	for i := range 50 {
		series = append(
			series, labels.FromStrings("__name__", "up", "job", "small", "n", fmt.Sprint(i)),
		)
	}
	return newPostingsBlock(t, series)
}

// TestPostingsWideNegative: beside a selective matcher, what takes any pod reads no pod list and
// streams none of the pods, eager or not; and once a job is large enough that checking its series
// costs more than the lists, there is still the cap.
func TestPostingsWideNegative(t *testing.T) {
	b := postingsWideBlock(t, 70_000)
	f := func(eager bool, seriesBytes int64, lines ...string) {
		t.Helper()
		what := fmt.Sprintf("%q, eager %v, %d bytes a series", lines, eager, seriesBytes)
		pages := newPostingsPages(t, b)
		var acct pagecache.Account
		b.visited = 0
		ms := postingsMatchers(t, lines...)
		got, err := expandPostings(
			context.Background(),
			b,
			pages,
			postingsRequest{
				matchers:    ms,
				object:      b.object,
				eager:       eager,
				seriesBytes: seriesBytes,
				account:     &acct,
			},
		)
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
			t.Errorf("%s: %d values streamed, the stats say %d", what, b.visited, got.stats.Values)
		}
		if len(pages.fetches) != 1 || pages.bucket.reads != 1 || acct.Requests.Load() != 1 {
			t.Errorf(
				"%s: %d fetches, %d reads, %d charged; want one", what, len(pages.fetches),
				pages.bucket.reads, acct.Requests.Load(),
			)
		}
		if n := acct.FetchedBytes.Load(); n > 2048 {
			t.Errorf("%s: fetched %d bytes", what, n)
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

// TestPostingsWideExpression: an expression that turns out to take nearly every pod is no better
// than one that says so.
func TestPostingsWideExpression(t *testing.T) {
	b := postingsWideBlock(t, 70_000)
	f := func(pending int, lines ...string) {
		t.Helper()
		ms := postingsMatchers(t, lines...)
		got, err := expandPostings(
			context.Background(), b, newPostingsPages(t, b),
			postingsRequest{matchers: ms, object: b.object, seriesBytes: 1 << 30},
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

// TestPostingsOneFetch: however many lists a query needs, they are one Fetch and, lying together, a
// few reads.
func TestPostingsOneFetch(t *testing.T) {
	b := postingsWideBlock(t, 20_000)
	pages := newPostingsPages(t, b)
	ms := postingsMatchers(t, `pod=~"pod-00.*"`, `job=~"j[0-4].*"`, `n=""`)
	got, err := expandPostings(
		context.Background(), b, pages, postingsRequest{matchers: ms, object: b.object},
	)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.want(t, ms), b.matching(got.refs, got.pending)); diff != "" {
		t.Errorf("refs (-want +got):\n%s", diff)
	}
	if len(pages.fetches) != 1 || len(pages.fetches[0]) > 3 || pages.bucket.reads > 3 {
		t.Errorf(
			"%d fetches of %v in %d reads", len(pages.fetches), pages.fetches, pages.bucket.reads,
		)
	}
	if got.stats.Lists < 10_000 || got.stats.Pending > 0 {
		t.Errorf("%+v: the test shows nothing", got.stats)
	}
}

// TestPostingsDamage flips bits of a list: once, it is read again and right; for good, it is an
// error that says where. Damage to bytes that are not part of what is read does not matter.
func TestPostingsDamage(t *testing.T) {
	b := postingsWideBlock(t, 300)
	ms := postingsMatchers(t, `pod=~"pod-.*"`)
	want := b.want(t, ms)
	lists := []indexheader.List{}
	for _, e := range b.names["pod"] {
		lists = append(lists, e.list)
	}
	other := b.names["n"][0].list.Off
	f := func(off int64, times, repairs, refetches int, wantErr error) {
		t.Helper()
		pages := newPostingsPages(t, b)
		pages.bucket.flips = []postingsFlip{{off: off, times: times}}
		got, err := expandPostings(
			context.Background(), b, pages, postingsRequest{matchers: ms, object: b.object},
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
			if text := fmt.Sprintf("object BLOCK/index: posting list at offset %d:", lists[at].Off); !strings.Contains(
				err.Error(), text,
			) {
				t.Errorf("error %q does not say %q", err, text)
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
			t.Errorf(
				"offset %d damaged %d times: %d lists repaired, want %d", off, times,
				got.stats.Repaired, repairs,
			)
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

// TestPostingsDamagedPage: a page on which every list is spoilt is read again once, not once a
// list.
func TestPostingsDamagedPage(t *testing.T) {
	b := postingsWideBlock(t, 300)
	ms := postingsMatchers(t, `pod=~"pod-.*"`)
	pages := newPostingsPages(t, b)
	page := (b.names["pod"][0].list.End/512 + 2) * 512
	spoilt := 0
	for _, e := range b.names["pod"] {
		if e.list.Off >= page && e.list.End <= page+512 {
			pages.bucket.flips = append(
				pages.bucket.flips, postingsFlip{off: e.list.Off + 8, times: 1},
			)
			spoilt++
		}
	}
	got, err := expandPostings(
		context.Background(), b, pages, postingsRequest{matchers: ms, object: b.object},
	)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.want(t, ms), got.refs); diff != "" {
		t.Errorf("refs (-want +got):\n%s", diff)
	}
	if spoilt < 10 || got.stats.Repaired != spoilt || len(pages.refetches) != 1 {
		t.Errorf(
			"%d of %d lists repaired by %d refetches", got.stats.Repaired, spoilt,
			len(pages.refetches),
		)
	}
}

// TestPostingsErrors: what fails, fails the expansion, and says what it was.
func TestPostingsErrors(t *testing.T) {
	b := postingsWideBlock(t, 10)
	f := func(name string, hdr header, change func(p *postingsPages, req *postingsRequest), want error, text string) {
		t.Helper()
		pages := newPostingsPages(t, b)
		req := postingsRequest{matchers: postingsMatchers(t, `job="small"`), object: b.object}
		change(pages, &req)
		_, err := expandPostings(context.Background(), hdr, pages, req)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %v, want %v and %q", name, err, want, text)
		}
	}
	f(
		"bucket", b, func(p *postingsPages, _ *postingsRequest) { p.bucket.fail = true },
		errPostingsBucket, "BLOCK/index",
	)
	f(
		"a smaller index", b, func(_ *postingsPages, req *postingsRequest) { req.object.Size /= 2 },
		tsdbfmt.ErrCorrupt, "BLOCK/index of ",
	)
	f(
		"a header that fails", postingsBrokenHeader{b}, func(*postingsPages, *postingsRequest) {},
		errPostingsHeader, `label "job"`,
	)
	f(
		"a header that fails to stream",
		postingsBrokenHeader{b},
		func(_ *postingsPages, req *postingsRequest) {
			req.matchers = postingsMatchers(t, `job=~".*m.*"`)
		},
		errPostingsHeader,
		`label "job"`,
	)
}

var errPostingsHeader = errors.New("header is gone")

type postingsBrokenHeader struct{ header }

func (postingsBrokenHeader) Lists(
	context.Context, string, []string, []indexheader.List,
) ([]indexheader.List, error) {
	return nil, errPostingsHeader
}

func (postingsBrokenHeader) Values(
	context.Context, string, string, func([]byte, indexheader.List) (bool, error),
) error {
	return errPostingsHeader
}

// TestPostingsCancel: a regex over many values ends soon after its request does.
func TestPostingsCancel(t *testing.T) {
	b := postingsWideBlock(t, 10_000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.visit = func() {
		if b.visited == 2000 {
			cancel()
		}
	}
	_, err := expandPostings(
		ctx, b, newPostingsPages(t, b),
		postingsRequest{matchers: postingsMatchers(t, `pod=~".*9"`), object: b.object},
	)
	if !errors.Is(err, context.Canceled) || b.visited > 2000+checkEvery {
		t.Errorf("error %v after %d values", err, b.visited)
	}
}

// TestPostingsNoMatchers: without a matcher there are no postings, without a name no label, in a
// block without series no answer.
func TestPostingsNoMatchers(t *testing.T) {
	b := postingsWideBlock(t, 10)
	f := func(hdr header, want int, lines ...string) {
		t.Helper()
		got, err := expandPostings(
			context.Background(), hdr, newPostingsPages(t, b),
			postingsRequest{matchers: postingsMatchers(t, lines...), object: b.object},
		)
		if err != nil || len(got.refs) != want || len(got.pending) > 0 {
			t.Errorf(
				"%q: %d postings, pending %v, error %v; want %d", lines, len(got.refs), got.pending,
				err, want,
			)
		}
	}
	f(b, 0)
	f(b, 60, `=""`)
	f(b, 50, `=""`, `job="small"`)
	f(b, 0, `!=""`, `job="small"`)
	f(&postingsHeader{}, 0, `job!="small"`)
}

// TestPostingsStreamAllocations: evaluating a regex on a value of the header allocates nothing.
func TestPostingsStreamAllocations(t *testing.T) {
	b := postingsWideBlock(t, 20_000)
	f := func(line string, most float64) {
		t.Helper()
		req := postingsRequest{matchers: postingsMatchers(t, line), object: b.object, eager: true}
		n := testing.AllocsPerRun(5, func() {
			p, err := planPostings(context.Background(), b, &req)
			if err != nil || p.stats.Values < 20_000 {
				t.Fatalf("%d values, error %v", p.stats.Values, err)
			}
		})
		if n > most {
			t.Errorf("%s over 20,000 values: %v allocations", line, n)
		}
	}
	f(`pod=~".*00"`, 60)
	f(`pod=~".+"`, 60)
	f(`pod!~"pod-0.*"`, 60)
	// This one needs package regexp, whose pool of machines forgets a part of them under the race
	// detector.
	f(`pod=~".*(1|2)+7.*"`, 10_000)
}
