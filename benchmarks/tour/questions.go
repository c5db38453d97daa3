package tour

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"larder/store/storepb"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
	// batch is the number of series that a Querier requests per message.
	batch = 64
)

// Questions returns the questions for a server with the demo layout.
func Questions() []Question {
	all := []Question{
		{Name: "time range and label sets", ask: askInfo},
		{Name: "all label names", ask: askNames},
		{Name: "values of namespace", ask: askValues("namespace")},
		{Name: `values of pod where namespace="shop"`,
			ask: askValues("pod", Eq("namespace", "shop"))},
	}
	for _, s := range []seriesQuestion{
		{
			name: "one series, one hour", back: hour,
			matchers: []*storepb.LabelMatcher{
				Eq("__name__", "node_load1"), Eq("cluster", "eu-west-1"),
				Eq("replica", "prometheus-0"), Eq("node", "node-03"),
			},
		},
		{name: "one metric, two hours, both replicas", back: 2 * hour,
			matchers: []*storepb.LabelMatcher{Eq("__name__", "http_requests_total")}},
		{
			name: "the same, replicas merged", back: 2 * hour,
			replicas: []string{"replica"},
			matchers: []*storepb.LabelMatcher{Eq("__name__", "http_requests_total")},
		},
		{
			name: "metrics and nodes by regular expression, one day", back: 24 * hour,
			matchers: []*storepb.LabelMatcher{Re("__name__", "node_(cpu|memory).*"),
				Re("node", "node-0[0-2]"), Neq("mode", "idle")},
		},
		{
			name: "labels of one cluster, no samples, one day", back: 24 * hour, skipChunks: true,
			matchers: []*storepb.LabelMatcher{Re("__name__", ".+"), Eq("cluster", "us-east-1")},
		},
		{
			name: "ten days, downsampled to one hour", back: 240 * hour,
			resolution: hour,
			aggregates: []storepb.Aggr{storepb.Aggr_SUM, storepb.Aggr_COUNT},
			matchers: []*storepb.LabelMatcher{
				Eq("__name__", "container_memory_working_set_bytes"), Eq("cluster", "eu-west-1")},
		},
		{
			name: "two days of counters, downsampled to five minutes", back: 48 * hour,
			resolution: 5 * minute,
			aggregates: []storepb.Aggr{storepb.Aggr_COUNTER}, replicas: []string{"replica"},
			matchers: []*storepb.LabelMatcher{Eq("__name__", "http_requests_total"),
				Eq("code", "500"), Eq("cluster", "eu-west-1")},
		},
		{
			name: "native histograms", back: 2 * hour, replicas: []string{"replica"},
			matchers: []*storepb.LabelMatcher{Eq("__name__", "http_request_duration_seconds"),
				Eq("cluster", "eu-west-1")},
		},
		{
			name: "newest chunk encodings, converted for Thanos", back: 6 * hour,
			matchers: []*storepb.LabelMatcher{Eq("tenant_id", "acme"), Re("__name__", ".+")},
		},
		{
			name: "series whose labels must be sorted again", back: 12 * hour,
			replicas: []string{"replica"},
			matchers: []*storepb.LabelMatcher{
				Re("__name__", "prefix_chain_total|federated_samples_total")},
		},
		{name: "everything of the last two hours", back: 2 * hour,
			matchers: []*storepb.LabelMatcher{Re("__name__", ".+")}},
		{name: "a regular expression with a mistake", fails: codes.InvalidArgument, back: hour,
			matchers: []*storepb.LabelMatcher{Re("pod", "checkout-(")}},
	} {
		all = append(all, Question{Name: s.name, Fails: s.fails, ask: s.ask})
	}
	return all
}

// seriesQuestion is a Series request for the newest part of the data.
type seriesQuestion struct {
	name       string
	fails      codes.Code
	back       int64 // how far back, in milliseconds
	matchers   []*storepb.LabelMatcher
	resolution int64
	aggregates []storepb.Aggr
	replicas   []string
	skipChunks bool
}

func (q seriesQuestion) ask(ctx context.Context, t *Tour) Answer {
	s, err := t.span(ctx)
	if err != nil {
		return Answer{Err: err}
	}
	return t.series(ctx, &storepb.SeriesRequest{
		MinTime: s.max - q.back, MaxTime: s.max, Matchers: q.matchers,
		MaxResolutionWindow: q.resolution, Aggregates: q.aggregates,
		WithoutReplicaLabels: q.replicas, SkipChunks: q.skipChunks,
		ResponseBatchSize: batch, PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT,
	})
}

func askInfo(ctx context.Context, t *Tour) (a Answer) {
	start := time.Now()
	s, err := t.span(ctx)
	a.Total, a.Err = time.Since(start), err
	if err == nil {
		const format = "2006-01-02 15:04"
		a.Text = fmt.Sprintf("%s to %s, %s", time.UnixMilli(s.min).UTC().Format(format),
			time.UnixMilli(s.max).UTC().Format(format), strings.Join(s.sets, " "))
	}
	return a
}

func askNames(ctx context.Context, t *Tour) (a Answer) {
	s, err := t.span(ctx)
	if err != nil {
		return Answer{Err: err}
	}
	start := time.Now()
	resp, err := t.store.LabelNames(ctx, &storepb.LabelNamesRequest{Start: s.min, End: s.max})
	a.Total, a.Err = time.Since(start), err
	if err == nil {
		a.Bytes, a.Text = proto.Size(resp), list(resp.Names)
	}
	return a
}

func askValues(
	label string, matchers ...*storepb.LabelMatcher,
) func(context.Context, *Tour) Answer {
	return func(ctx context.Context, t *Tour) (a Answer) {
		s, err := t.span(ctx)
		if err != nil {
			return Answer{Err: err}
		}
		start := time.Now()
		resp, err := t.store.LabelValues(
			ctx, &storepb.LabelValuesRequest{Label: label, Start: s.min, End: s.max,
				Matchers: matchers})
		a.Total, a.Err = time.Since(start), err
		if err == nil {
			a.Bytes, a.Text = proto.Size(resp), list(resp.Values)
		}
		return a
	}
}

// list returns the first of many strings.
func list(s []string) string {
	const shown = 6
	if len(s) <= shown {
		return fmt.Sprintf("%d: %s", len(s), strings.Join(s, ", "))
	}
	return fmt.Sprintf("%d: %s, ...", len(s), strings.Join(s[:shown], ", "))
}
