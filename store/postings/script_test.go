package postings

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/bucket/cost"
	"larder/store/indexheader"
)

// TestPostingsScript runs testdata/postings. Its commands are
//
//	block             writes a block. A line is "[count *] name=value ...", where $i is the number
//	                  of the series, and $i%7 that number modulo 7.
//	expand [options]  expands matchers, one a line. It prints which lists are read (+ to intersect,
//	                  - to subtract), which matchers stay pending, which series match, and how many
//	                  label values were looked at. Options: eager, series-bytes=N (default 64),
//	                  disk (the bucket is a disk, which answers a request after 40 µs), count
//	                  (print only the number of series).
func TestPostingsScript(t *testing.T) {
	var b *testIndex
	datadriven.RunTest(t, "testdata/postings", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "block":
			var series []labels.Labels
			for line := range strings.Lines(d.Input) {
				series = append(series, parseSeries(t, line)...)
			}
			b = newTestIndex(t, series)
			return fmt.Sprintf("%d series\n", len(series))
		case "expand":
			req := request{object: b.object, seriesBytes: 64, eager: d.HasArg("eager")}
			if d.HasArg("disk") {
				req.costs = cost.Model{
					FirstByte: 40 * time.Microsecond, PerRequest: 40 * time.Microsecond,
				}
			}
			if d.HasArg("series-bytes") {
				d.ScanArgs(t, "series-bytes", &req.seriesBytes)
			}
			for line := range strings.Lines(d.Input) {
				req.matchers = append(req.matchers, parseMatcher(t, line))
			}
			return scriptExpand(t, b, req, d.HasArg("count"))
		}
		return "unknown command"
	})
}

func scriptExpand(t *testing.T, b *testIndex, req request, count bool) string {
	b.looked, b.visited = 0, 0
	plan, err := newPlan(context.Background(), b, &req)
	if err != nil {
		return err.Error()
	}
	looked, visited := b.looked, b.visited
	pages := newTestPages(t, b)
	got, err := expand(context.Background(), b, pages, req)
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	if plan.empty {
		out.WriteString("nothing to read\n")
	} else {
		fmt.Fprintf(&out, "read     at most %d series:", plan.stats.MaxSeries)
		for _, l := range plan.adds {
			out.WriteString(" +" + describeLists(b, l.lists))
		}
		for _, l := range plan.subtracts {
			out.WriteString(" -" + describeLists(b, l.lists))
		}
		out.WriteString("\n")
	}
	for _, spans := range pages.fetches {
		size := int64(0)
		for _, s := range spans {
			size += s.End - s.Off
		}
		fmt.Fprintf(&out, "fetch    %d spans, %d bytes\n", len(spans), size)
	}
	if len(got.pending) > 0 {
		fmt.Fprintf(&out, "pending  %v\n", got.pending)
	}
	fmt.Fprintf(&out, "header   %d values looked up, %d streamed\n", looked, visited)
	match := b.matching(got.refs, got.pending)
	if !slices.Equal(match, b.want(t, req.matchers)) {
		out.WriteString("NOT WHAT PROMETHEUS ANSWERS\n")
	}
	fmt.Fprintf(&out, "answer   %d postings, %d series\n", len(got.refs), len(match))
	if !count {
		for _, ref := range match {
			fmt.Fprintf(&out, "  %s\n", b.labels[ref])
		}
	}
	return out.String()
}

// describeLists names a set of lists.
func describeLists(b *testIndex, lists []indexheader.List) string {
	var values []string
	name := ""
	for i, l := range lists {
		n, v := b.name(l)
		if name = n; name == "" {
			return "everything"
		}
		if i < 4 {
			values = append(values, v)
		}
	}
	if n := len(lists) - len(values); n > 0 {
		values = append(values, fmt.Sprintf("and %d more", n))
	}
	return fmt.Sprintf("%s(%s)", name, strings.Join(values, " "))
}

var (
	numberPattern  = regexp.MustCompile(`\$i(%\d+)?`)
	matcherPattern = regexp.MustCompile(`^([^=!~]*)(=~|!~|!=|=)(".*")$`)
)

func parseSeries(t *testing.T, line string) []labels.Labels {
	n := 1
	if before, after, ok := strings.Cut(line, "*"); ok {
		var err error
		if n, err = strconv.Atoi(strings.TrimSpace(before)); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		line = after
	}
	var out []labels.Labels
	for i := range n {
		m := map[string]string{}
		for field := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(field, "=")
			m[name] = numberPattern.ReplaceAllStringFunc(value, func(s string) string {
				if _, mod, ok := strings.Cut(s, "%"); ok {
					by, err := strconv.Atoi(mod)
					if err != nil {
						t.Fatalf("%q: %v", line, err)
					}
					return strconv.Itoa(i % by)
				}
				return strconv.Itoa(i)
			})
		}
		out = append(out, labels.FromMap(m))
	}
	return out
}

func parseMatcher(t testing.TB, line string) *labels.Matcher {
	parts := matcherPattern.FindStringSubmatch(strings.TrimSpace(line))
	if parts == nil {
		t.Fatalf("%q is not a matcher", line)
	}
	kinds := map[string]labels.MatchType{
		"=":  labels.MatchEqual,
		"!=": labels.MatchNotEqual,
		"=~": labels.MatchRegexp,
		"!~": labels.MatchNotRegexp,
	}
	value, err := strconv.Unquote(parts[3])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	m, err := labels.NewMatcher(kinds[parts[2]], parts[1], value)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return m
}
