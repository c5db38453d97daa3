package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/scenario"
	"larder/store/storepb"
)

// Bounds of a survey, so that it stays short on a large bucket.
const (
	surveyMetrics = 60
	surveySeries  = 20_000
	// surveyRange is the newest part of the data, in milliseconds. It is searched for metrics.
	surveyRange = int64(time.Hour / time.Millisecond)
	// fewValues is the largest number of values of a label for ${other}.
	fewValues = 30
	// keptSeries is the number of series for ${series}.
	keptSeries = 1000
	// sampledValues is how many values give series of a metric with more than surveySeries.
	sampledValues = 100
)

// survey finds out what scenarios need to know about the bucket behind a target: its time range
// and, with variables, a metric with many series and its labels. It looks at some metrics only,
// which seed chooses.
func survey(
	ctx context.Context, t *Target, vars bool, seed uint64,
) (s *scenario.Subject, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("finding out what the bucket contains: %w", err)
		}
	}()
	conn, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	info, err := storepb.NewInfoClient(conn).Info(ctx, &storepb.InfoRequest{})
	if err != nil {
		return nil, err
	}
	s = &scenario.Subject{MinTime: math.MaxInt64}
	for _, tsdb := range info.GetStore().GetTsdbInfos() {
		s.MinTime = min(s.MinTime, tsdb.MinTime)
		s.MaxTime = max(s.MaxTime, tsdb.MaxTime-1)
	}
	if s.MinTime > s.MaxTime { // a store that does not list its blocks
		s.MinTime, s.MaxTime = info.GetStore().GetMinTime(), info.GetStore().GetMaxTime()
		if now := time.Now().UnixMilli(); s.MaxTime > now {
			s.MaxTime = now
		}
	}
	if s.MaxTime <= 0 || s.MinTime > s.MaxTime {
		return nil, errors.New("the gateway serves no blocks")
	}
	if !vars {
		return s, nil
	}
	store := storepb.NewStoreClient(conn)
	return s, chooseMetric(ctx, store, s, rand.New(rand.NewPCG(seed, 0x737572)))
}

// chooseMetric chooses the metric with the most series.
func chooseMetric(
	ctx context.Context, store storepb.StoreClient, s *scenario.Subject, r *rand.Rand,
) error {
	resp, err := store.LabelValues(ctx, &storepb.LabelValuesRequest{
		Label: labels.MetricName, Start: s.MaxTime - surveyRange, End: s.MaxTime,
	})
	if err != nil {
		return err
	}
	metrics := resp.Values
	r.Shuffle(len(metrics), func(i, j int) { metrics[i], metrics[j] = metrics[j], metrics[i] })
	var most []labels.Labels
	for _, m := range metrics[:min(len(metrics), surveyMetrics)] {
		got, err := seriesOf(ctx, store, s, metricIs(m))
		if err != nil {
			return err
		}
		if len(got) > len(most) {
			most, s.Metric = got, m
		}
		if len(most) == surveySeries {
			break
		}
	}
	if len(most) == 0 {
		return errors.New("there are no series in the newest hour")
	}
	chooseLabels(s, most)
	if len(most) == surveySeries {
		if most, err = sampleMetric(ctx, store, s, r, most); err != nil {
			return err
		}
	}
	r.Shuffle(len(most), func(i, j int) { most[i], most[j] = most[j], most[i] })
	s.Series = most[:min(len(most), keptSeries)]
	return nil
}

// sampleMetric replaces the values of ${label} by those of the whole metric, and returns series of
// some of them. The first series of a large metric lie beside each other in an index. Requests for
// them alone would find more in the pages of others than users do.
func sampleMetric(
	ctx context.Context, store storepb.StoreClient, s *scenario.Subject, r *rand.Rand,
	first []labels.Labels,
) ([]labels.Labels, error) {
	resp, err := store.LabelValues(ctx, &storepb.LabelValuesRequest{
		Label: s.Label, Start: s.MaxTime - surveyRange, End: s.MaxTime,
		Matchers: []*storepb.LabelMatcher{metricIs(s.Metric)},
	})
	if err != nil || len(resp.Values) == 0 {
		return first, err
	}
	s.Values = resp.Values
	var some []string
	for _, i := range r.Perm(len(s.Values))[:min(len(s.Values), sampledValues)] {
		some = append(some, regexp.QuoteMeta(s.Values[i]))
	}
	got, err := seriesOf(ctx, store, s, metricIs(s.Metric), &storepb.LabelMatcher{
		Type: storepb.LabelMatcher_RE, Name: s.Label, Value: strings.Join(some, "|"),
	})
	if err != nil || len(got) == 0 {
		return first, err
	}
	return got, nil
}

func metricIs(name string) *storepb.LabelMatcher {
	return &storepb.LabelMatcher{Name: labels.MetricName, Value: name}
}

// chooseLabels chooses the label with the most values, and of the others the one with the most that
// still are few. Labels that all series of the metric share are not chosen, unless there is no
// other.
func chooseLabels(s *scenario.Subject, series []labels.Labels) {
	values := map[string]map[string]struct{}{}
	for _, ls := range series {
		ls.Range(func(l labels.Label) {
			if l.Name == labels.MetricName {
				return
			}
			if values[l.Name] == nil {
				values[l.Name] = map[string]struct{}{}
			}
			values[l.Name][l.Value] = struct{}{}
		})
	}
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := len(values[b]) - len(values[a]); d != 0 {
			return d
		}
		// Of labels with the same values, the name of the thing rather than its address.
		if p, q := rank(a), rank(b); p != q {
			return q - p
		}
		if a < b {
			return -1
		}
		return 1
	})
	list := func(name string) []string {
		var out []string
		for v := range values[name] {
			out = append(out, v)
		}
		slices.Sort(out)
		return out
	}
	if len(names) == 0 { // a metric without labels
		s.Label, s.Values = labels.MetricName, []string{s.Metric}
		s.Other, s.OtherValues = s.Label, s.Values
		return
	}
	s.Label, s.Values = names[0], list(names[0])
	s.Other, s.OtherValues = s.Label, s.Values
	for _, n := range names[1:] {
		// A label with nearly as many values may be another name of the same thing.
		if k := len(values[n]); k > 1 && k <= min(fewValues, len(s.Values)/2) {
			s.Other, s.OtherValues = n, list(n)
			return
		}
	}
}

func rank(name string) int {
	switch name {
	case "pod":
		return 2
	case "node", "namespace":
		return 1
	}
	return 0
}

// seriesOf returns series that match, at most surveySeries.
func seriesOf(
	ctx context.Context, store storepb.StoreClient, s *scenario.Subject,
	matchers ...*storepb.LabelMatcher,
) ([]labels.Labels, error) {
	stream, err := store.Series(ctx, &storepb.SeriesRequest{
		MinTime: s.MaxTime - surveyRange, MaxTime: s.MaxTime, SkipChunks: true,
		Limit: surveySeries, ResponseBatchSize: 64, Matchers: matchers,
	})
	if err != nil {
		return nil, err
	}
	var out []labels.Labels
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		batch := resp.GetBatch().GetSeries()
		if one := resp.GetSeries(); one != nil {
			batch = []*storepb.Series{one}
		}
		for _, one := range batch {
			b := labels.NewScratchBuilder(len(one.Labels))
			for _, l := range one.Labels {
				b.Add(l.Name, l.Value)
			}
			out = append(out, b.Labels())
		}
	}
}
