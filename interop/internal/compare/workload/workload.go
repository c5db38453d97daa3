// Package workload lists what the comparison asks: the queries of each data set, and what each
// means to a user.
package workload

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/compare/client"
	"larder/interop/internal/query"
)

// Query is a row of the table.
type Query struct {
	Name string
	// Set is the data set that it asks.
	Set string
	// Meaning says what a user does when this is asked.
	Meaning string
	Ask     query.Query
	// Concurrent is set if it is asked by several clients at once, too, of a bucket in a folder;
	// ConcurrentS3 if of one behind S3, too, with empty and with warm caches.
	Concurrent, ConcurrentS3 bool
	// Grows names the curve of docs/performance.md that the query is a point of, and At the place
	// of the point; Grows is empty for a query of the table. A point is measured on the file system
	// only.
	Grows string
	At    float64
	// Slow is set if one call takes seconds: one round may do.
	Slow bool
	// Goal is what it should take with a disk cache that has the indexes; nil if it is not asked
	// with one.
	Goal *Goal
	// Seconds is about how much longer a round takes than one of a small query: for progress lines.
	Seconds float64
}

// Goal is what a query should take at most with a disk cache that has the indexes: medians.
type Goal struct {
	// First and P50 are milliseconds; First is 0 for answers of one frame.
	First, P50 float64
	// Requests are those to the bucket.
	Requests int
	// Trips are dependent reads. It is 0 for an answer that needs none, and for one above 8 MB,
	// which has no goal for trips.
	Trips int
}

// Call is the encoded request.
func (q *Query) Call() (client.Call, error) {
	var m interface{ Marshal() ([]byte, error) }
	switch {
	case q.Ask.Series != nil:
		m = q.Ask.Series
	case q.Ask.Names != nil:
		m = q.Ask.Names
	case q.Ask.Values != nil:
		m = q.Ask.Values
	default:
		return client.Call{}, fmt.Errorf("query %s asks for nothing that can be compared", q.Name)
	}
	b, err := m.Marshal()
	return client.Call{Method: "/thanos.Store/" + q.Ask.Kind(), Request: b}, err
}

// Times of the data sets in milliseconds: see benchmarks/dataset/comparison.go.
const (
	hour  = int64(3_600_000)
	epoch = int64(1767571200_000)
	// batch is how many series a Querier wants in a message.
	batch = 64
)

// span is the time range of a query.
type span struct{ from, to int64 }

// lastBlock is the last block of two hours of medium; the first of large.
func lastBlock() span    { return span{epoch + 22*hour, epoch + 24*hour - 1} }
func firstBlock() span   { return span{epoch, epoch + 2*hour - 1} }
func compacted() span    { return span{epoch - 24*hour, epoch - 1} }
func twoDays() span      { return span{epoch - 24*hour, epoch + 24*hour - 1} }
func manyBlocks() span   { return span{epoch, epoch + 100*hour - 1} }
func month() span        { return span{epoch, epoch + 30*24*hour - 1} }
func wholeCrowded() span { return span{epoch, epoch + 2000*hour - 1} }
func rawDays() span      { return span{epoch + 12*24*hour, epoch + 14*24*hour - 1} }
func fortnight() span    { return span{epoch, epoch + 14*24*hour - 1} }

// option changes a Series request.
type option func(*storepb.SeriesRequest)

func labelsOnly(r *storepb.SeriesRequest) { r.SkipChunks = true }

func fiveMinutes(aggrs ...storepb.Aggr) option { return resolution(hour/12, aggrs) }
func oneHour(aggrs ...storepb.Aggr) option     { return resolution(hour, aggrs) }

func resolution(window int64, aggrs []storepb.Aggr) option {
	return func(r *storepb.SeriesRequest) { r.MaxResolutionWindow, r.Aggregates = window, aggrs }
}

// series is a Series request. The selectors are constants of this package; one that cannot be
// parsed is a mistake in the source.
func series(at span, selector string, opts ...option) query.Query {
	r := &storepb.SeriesRequest{
		MinTime: at.from, MaxTime: at.to, Matchers: matchers(selector), ResponseBatchSize: batch,
		Aggregates: []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM},
	}
	for _, o := range opts {
		o(r)
	}
	return query.Query{Series: r}
}

func values(at span, label, selector string) query.Query {
	return query.Query{Values: &storepb.LabelValuesRequest{
		Label: label, Start: at.from, End: at.to, Matchers: matchers(selector),
	}}
}

func names(at span, selector string) query.Query {
	return query.Query{Names: &storepb.LabelNamesRequest{
		Start: at.from, End: at.to, Matchers: matchers(selector),
	}}
}

func matchers(selector string) []storepb.LabelMatcher {
	if selector == "" {
		return nil
	}
	ms, err := parser.ParseMetricSelector(selector)
	if err != nil {
		panic(err)
	}
	// The parser's order is that of the text; gateways must not care.
	slices.SortFunc(
		ms,
		func(a, b *labels.Matcher) int { return strings.Compare(a.String(), b.String()) },
	)
	out, err := storepb.PromMatchersToMatchers(ms...)
	if err != nil {
		panic(err)
	}
	return out
}

// All are the queries, by data set.
func All() []Query { return append(table(), growth()...) }

func table() []Query {
	const (
		pod        = `pod="pod-7"`
		count, sum = storepb.Aggr_COUNT, storepb.Aggr_SUM
	)
	return []Query{
		{
			Name: "Q1", Set: "medium", Concurrent: true,
			Goal:    &Goal{P50: 30, Requests: 2, Trips: 1},
			Meaning: "one series by four `=` matchers, 2 hours: an alert, a single stat",
			Ask: series(
				lastBlock(),
				`http_requests_total{`+pod+`,handler="/api/v1/orders",code="500"}`,
			),
		},
		{
			Name: "Q1b", Set: "medium",
			Goal:    &Goal{P50: 55, Requests: 64, Trips: 1},
			Meaning: "every series of one pod (98), 2 hours: exploring",
			Ask:     series(lastBlock(), `{`+pod+`}`),
		},
		{
			Name: "Q2", Set: "medium", Concurrent: true,
			Goal:    &Goal{P50: 60, Requests: 30, Trips: 1},
			Meaning: "one metric (1,020 series) over all 13 blocks, 2 days",
			Ask:     series(twoDays(), `up`),
		},
		{
			Name: "Q3", Set: "medium", Concurrent: true, ConcurrentS3: true, Seconds: 0.5,
			Goal:    &Goal{First: 45, P50: 260, Requests: 15},
			Meaning: "one metric (49,980 series), 2 hours: a dashboard that sums everything",
			Ask:     series(lastBlock(), `http_requests_total`),
		},
		{
			Name: "Q3d", Set: "medium", Seconds: 4,
			Meaning: "the same over the compacted day: 1.2 million chunks",
			Ask:     series(compacted(), `http_requests_total`),
		},
		{
			Name: "Q4", Set: "medium",
			Goal:    &Goal{P50: 90, Requests: 40, Trips: 1},
			Meaning: "a regex on pods, `pod-1.*` (6,419 series), 2 hours",
			Ask:     series(lastBlock(), `http_requests_total{pod=~"pod-1.*"}`),
		},
		{
			Name: "Q5", Set: "medium",
			Meaning: "a negative matcher and a regex (12,240 series), 2 hours",
			Ask: series(
				lastBlock(),
				`http_requests_total{code!="200",handler=~"/api/v1/(orders|search)"}`,
			),
		},
		{
			Name: "Q6", Set: "medium",
			Meaning: "values of `pod`, no matcher, 13 blocks: a dashboard's drop-down",
			Ask:     values(twoDays(), "pod", ""),
		},
		{
			Name: "Q6b", Set: "medium", Concurrent: true,
			Goal:    &Goal{P50: 5},
			Meaning: "values of `pod` of one metric, 13 blocks: a drop-down that depends on another",
			Ask:     values(twoDays(), "pod", `up`),
		},
		{
			Name: "Q7b", Set: "medium",
			Meaning: "label names of one metric's pod, 13 blocks: completion in an editor",
			Ask:     names(twoDays(), `http_requests_total{`+pod+`}`),
		},
		{
			Name: "Q8", Set: "medium", Seconds: 0.5,
			Meaning: "labels of 49,980 series without chunks: `/api/v1/series`",
			Ask:     series(lastBlock(), `http_requests_total`, labelsOnly),
		},
		{
			Name: "Q9f", Set: "large", Seconds: 0.5,
			Meaning: "labels of 71,428 series of a block of 1,000,000, without chunks",
			Ask:     series(firstBlock(), `http_requests_total{code="200"}`, labelsOnly),
		},
		{
			Name: "Q9h", Set: "large",
			Meaning: "10,204 values of `pod` of a block of 1,000,000 series",
			Ask:     values(firstBlock(), "pod", ""),
		},
		{
			Name: "Q11", Set: "histograms",
			Meaning: "2,000 native histograms, 4 hours",
			Ask:     series(span{epoch, epoch + 4*hour - 1}, `http_request_duration_seconds`),
		},
		{
			Name: "M1", Set: "many",
			Meaning: "40 series over 500 blocks",
			Ask:     series(manyBlocks(), `up`),
		},
		{
			Name: "M2", Set: "many",
			Meaning: "380 series over 500 blocks",
			Ask:     series(manyBlocks(), `http_requests_total`),
		},
		{
			Name: "M4", Set: "many", Concurrent: true,
			Meaning: "values of `pod` over 500 blocks",
			Ask:     values(manyBlocks(), "pod", ""),
		},
		{
			Name: "M5", Set: "many",
			Meaning: "values of `pod` of one metric over 500 blocks",
			Ask:     values(manyBlocks(), "pod", `up`),
		},
		{
			Name: "Q6m", Set: "month",
			Meaning: "values of `pod` of one metric over 30 days in 360 blocks: the same drop-down",
			Ask:     values(month(), "pod", `up`),
		},
		{
			Name: "D1", Set: "downsampled",
			Meaning: "1,000 series, 2 days raw",
			Ask:     series(rawDays(), `http_requests_total`),
		},
		{
			Name: "D2", Set: "downsampled", Seconds: 1,
			Meaning: "count and sum of 1,000 series, 14 days at 5 minutes",
			Ask:     series(fortnight(), `http_response_size_bytes`, fiveMinutes(count, sum)),
		},
		{
			Name: "D3", Set: "downsampled",
			Meaning: "the same at 1 hour",
			Ask:     series(fortnight(), `http_response_size_bytes`, oneHour(count, sum)),
		},
		{
			Name: "D4", Set: "downsampled", Seconds: 1,
			Meaning: "counters of 1,000 series, 14 days at 5 minutes: `rate`",
			Ask:     series(fortnight(), `http_requests_total`, fiveMinutes(storepb.Aggr_COUNTER)),
		},
		{
			Name: "D5", Set: "downsampled",
			Meaning: "minimum and maximum of one pod's 10 series, 14 days at 1 hour",
			Ask: series(
				fortnight(), `http_response_size_bytes{pod="pod-1"}`,
				oneHour(storepb.Aggr_MIN, storepb.Aggr_MAX),
			),
		},
		{
			Name: "C1", Set: "crowded", Slow: true, Seconds: 35,
			Meaning: "80 series over 10,000 blocks",
			Ask:     series(wholeCrowded(), `http_requests_total`),
		},
	}
}

// Curves of docs/performance.md.
const (
	PerSeries = "series"
	PerBlock  = "blocks"
)

func growth() []Query {
	var qs []Query
	for _, g := range []struct {
		series   float64
		selector string
	}{
		{980, `{pod=~"pod-[0-9]"}`},
		{9800, `{pod=~"pod-[0-9]{1,2}"}`},
		{98_000, `{pod=~"pod-[0-9]{1,3}"}`},
		{999_992, `{pod=~"pod-.+"}`},
	} {
		qs = append(qs, Query{
			Name: fmt.Sprintf("G%.0f", g.series), Set: "large", Grows: PerSeries, At: g.series,
			Meaning: fmt.Sprintf("%.0f series of one block", g.series), Slow: g.series > 50_000,
			Seconds: g.series / 100_000,
			Ask:     series(firstBlock(), g.selector),
		})
	}
	for _, blocks := range []int64{1, 10, 50, 100, 500} {
		selector, at := `up`, span{epoch, epoch + max(blocks/10, 1)*2*hour - 1}
		if blocks == 1 {
			selector = `up{cluster="cluster-0"}`
		}
		qs = append(qs, Query{
			Name: fmt.Sprintf("B%d", blocks), Set: "many", Grows: PerBlock, At: float64(blocks),
			Meaning: fmt.Sprintf(
				"4 series of each of %d blocks",
				blocks,
			), Ask: series(at, selector),
		})
	}
	return qs
}
