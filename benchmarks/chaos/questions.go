package main

import (
	"fmt"
	"math/rand/v2"

	"larder/benchmarks/dataset"
	"larder/benchmarks/tour"
	"larder/store/storepb"
)

// question is one request of any kind. Exactly one field besides the name is set.
type question struct {
	name   string
	series *storepb.SeriesRequest
	names  *storepb.LabelNamesRequest
	values *storepb.LabelValuesRequest
	info   bool
}

// selector is the subject of a question, and the start of its data.
type selector struct {
	name     string
	matchers []*storepb.LabelMatcher
	heavy    bool // thousands of series: asked less often
}

func selectors() []selector {
	re, eq, neq := tour.Re, tour.Eq, tour.Neq
	return []selector{
		{name: "one node", matchers: []*storepb.LabelMatcher{eq("__name__", "node_load1"),
			eq("node", "node-03"), eq("cluster", "eu-west-1")}},
		{name: "a metric",
			matchers: []*storepb.LabelMatcher{eq("__name__", dataset.WholeMetricName),
				eq("cluster", "eu-west-1")}},
		{name: "errors of a service",
			matchers: []*storepb.LabelMatcher{eq("__name__", dataset.WholeMetricName),
				eq("service", "checkout"), re("code", "5..|404")}},
		{name: "histograms",
			matchers: []*storepb.LabelMatcher{eq("__name__", "http_request_duration_seconds"),
				eq("namespace", "shop")}},
		{name: "buckets of a pod",
			matchers: []*storepb.LabelMatcher{
				eq("__name__", "http_request_duration_seconds_bucket"),
				re("pod", "checkout-.*[b-k]"),
				neq("le", "+Inf")}},
		{name: "memory by regex",
			matchers: []*storepb.LabelMatcher{re("__name__", "container_(memory|cpu).*"),
				neq("container", "istio-proxy")}},
		{name: "everything of a cluster", heavy: true,
			matchers: []*storepb.LabelMatcher{re("__name__", ".+"), eq("cluster", "us-east-1")}},
		{name: "a tenant", matchers: []*storepb.LabelMatcher{re("__name__", ".+"),
			eq("tenant_id", "acme")}},
		{name: "awkward",
			matchers: []*storepb.LabelMatcher{
				re("__name__", "prefix_chain_total|federated_samples_total|quoted")}},
		{name: "the wide metric", heavy: true, matchers: wideMetric()},
		{name: "some of the wide metric",
			matchers: []*storepb.LabelMatcher{eq("__name__", dataset.WholeMetricName),
				eq("job", "shop-api"), eq("code", "500"), re("method", "GET|PUT")}},
		{name: "no label", matchers: []*storepb.LabelMatcher{eq("__name__", "up"),
			eq("rollout", "")}},
		{name: "nothing", matchers: []*storepb.LabelMatcher{eq("__name__", dataset.WholeMetricName),
			eq("pod", "no-such-pod")}},
	}
}

// wideMetric selects the metric with the most series.
func wideMetric() []*storepb.LabelMatcher {
	return []*storepb.LabelMatcher{tour.Eq("__name__", dataset.WholeMetricName),
		tour.Eq("cluster", "ap-south-1")}
}

// questions returns about n different questions, selected by r, and some of each kind in any case.
func questions(r *rand.Rand, n int) []question {
	all := []question{{name: "info", info: true},
		{name: "names", names: &storepb.LabelNamesRequest{Start: 0, End: dataEnd}}}
	for _, label := range []string{"__name__", "pod", "cluster", "code", "absent"} {
		all = append(
			all, question{name: "values of " + label,
				values: &storepb.LabelValuesRequest{Label: label, Start: 0, End: dataEnd}})
	}
	sels := selectors()
	for i := 0; len(all) < n; i++ {
		sel := sels[i%len(sels)]
		if sel.heavy && i >= len(sels) && r.IntN(4) > 0 {
			continue
		}
		if i >= len(sels) && r.IntN(6) == 0 {
			all = append(all, labelQuestion(r, sel))
			continue
		}
		all = append(all, seriesQuestion(r, sel))
	}
	return all
}

func labelQuestion(r *rand.Rand, sel selector) question {
	start, end := timeRange(r)
	if r.IntN(2) == 0 {
		return question{name: "names of " + sel.name,
			names: &storepb.LabelNamesRequest{Start: start, End: end, Matchers: sel.matchers}}
	}
	label := []string{"pod", "instance", "node", "handler", "cluster"}[r.IntN(5)]
	return question{
		name: fmt.Sprintf("values of %s of %s", label, sel.name),
		values: &storepb.LabelValuesRequest{Label: label, Start: start, End: end,
			Matchers: sel.matchers},
	}
}

// timeRange returns a range of mostly the last hours, and sometimes days.
func timeRange(r *rand.Rand) (start, end int64) {
	end = dataEnd - int64(r.IntN(3))*hour
	start = end - []int64{30 * minute, 2 * hour, 2 * hour, 6 * hour, 100 * hour}[r.IntN(5)]
	return start, end
}

func seriesQuestion(r *rand.Rand, sel selector) question {
	req := &storepb.SeriesRequest{Matchers: sel.matchers,
		PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT}
	req.MinTime, req.MaxTime = timeRange(r)
	name := sel.name
	if far := dataEnd - req.MinTime; far > 6*hour {
		req.MaxResolutionWindow = []int64{5 * minute, hour}[r.IntN(2)]
		// Histograms have these aggregates too.
		req.Aggregates = [][]storepb.Aggr{{storepb.Aggr_COUNT, storepb.Aggr_SUM},
			{storepb.Aggr_COUNTER}}[r.IntN(2)]
		name += ", downsampled"
	}
	if r.IntN(2) == 0 {
		req.WithoutReplicaLabels = []string{"replica"}
		name += ", without replica"
	}
	switch r.IntN(8) {
	case 0, 1:
		req.SkipChunks = true
		name += ", labels only"
	case 2:
		req.Limit = int64(1 + r.IntN(200))
		name += ", limited"
	case 3:
		total := int64(2 + r.IntN(3))
		req.ShardInfo = &storepb.ShardInfo{ShardIndex: r.Int64N(total), TotalShards: total,
			By: r.IntN(2) == 0, Labels: []string{"pod", "le"}}
		name += ", a shard"
	}
	if r.IntN(3) > 0 {
		req.ResponseBatchSize = int64(1) << r.IntN(8)
	}
	return question{name: name, series: req}
}
