package main

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"larder/benchmarks/tour"
	"larder/store"
	"larder/store/storepb"
)

// panel is a query of a dashboard, without its time range.
type panel struct {
	matchers   []*storepb.LabelMatcher
	resolution int64
	aggregates []storepb.Aggr
}

// dashboard is a set of panels that users open together.
type dashboard struct {
	name   string
	panels []panel
	// ranges are the time ranges of the dashboard, the usual one first.
	ranges []int64
}

// metric is a panel of one metric.
func metric(name string, more ...*storepb.LabelMatcher) panel {
	m := tour.Eq("__name__", name)
	if strings.ContainsAny(name, "|.*") {
		m = tour.Re("__name__", name)
	}
	return panel{matchers: append([]*storepb.LabelMatcher{m}, more...)}
}

// dashboards returns the dashboards of a cluster or tenant, given by one of its external labels: of
// the whole, and of each service, pod and node.
func dashboards(
	ctx context.Context, server *store.Server, label, value string,
) ([]dashboard, error) {
	var (
		scope = tour.Eq(label, value)
		usual = []int64{hour, 3 * hour, 6 * hour, 12 * hour, 24 * hour}
		all   []dashboard
		add   = func(name string, ranges []int64, panels ...panel) {
			all = append(all, dashboard{name: value + " " + name, panels: panels, ranges: ranges})
		}
		each = func(name string, f func(value string), matchers ...*storepb.LabelMatcher) error {
			resp, err := server.LabelValues(ctx, &storepb.LabelValuesRequest{
				Label: name, Start: 0, End: math.MaxInt64, Matchers: append(matchers, scope),
			})
			if err != nil {
				return err
			}
			slices.Sort(resp.Values)
			for _, v := range resp.Values {
				f(v)
			}
			return nil
		}
	)
	add("overview", usual,
		metric("up", scope),
		metric("node_cpu_seconds_total", scope, tour.Neq("mode", "idle")),
		metric("http_requests_total", scope, tour.Re("code", "5..")),
		metric("container_memory_working_set_bytes", scope))
	weeks := func(p panel, resolution int64, aggregates ...storepb.Aggr) panel {
		p.resolution, p.aggregates = resolution, aggregates
		return p
	}
	add("weeks", []int64{48 * hour, 168 * hour},
		weeks(metric("container_memory_working_set_bytes", scope), hour, storepb.Aggr_SUM,
			storepb.Aggr_COUNT),
		weeks(metric("http_requests_total", scope, tour.Eq("code", "500")), hour,
			storepb.Aggr_COUNTER),
		weeks(metric("node_load1", scope), 5*minute, storepb.Aggr_MAX))
	if err := each("service", func(v string) {
		s := tour.Eq("service", v)
		add("service "+v, usual,
			metric("http_requests_total", scope, s),
			metric("http_request_duration_seconds_bucket", scope, s),
			metric("http_request_duration_seconds", scope, s),
			metric("process_resident_memory_bytes|go_memstats_heap_inuse_bytes", scope, s),
			metric("container_cpu_usage_seconds_total", scope, tour.Eq("container", v)),
			metric("up", scope, s))
	}, tour.Re("__name__", "http_requests_total")); err != nil {
		return nil, err
	}
	if err := each("pod", func(v string) {
		p := tour.Eq("pod", v)
		add("pod "+v, usual,
			metric("http_requests_total", scope, p),
			metric("http_request_duration_seconds_(bucket|count|sum)", scope, p),
			metric("container_.*", scope, p),
			metric("go_.*", scope, p))
	}); err != nil {
		return nil, err
	}
	if err := each("node", func(v string) {
		n := tour.Eq("node", v)
		add("node "+v, usual,
			metric("node_cpu_seconds_total", scope, n),
			metric("node_memory_.*", scope, n),
			metric("node_load1|node_load5|node_load15", scope, n),
			metric("node_filesystem_avail_bytes", scope, n),
			metric("container_memory_working_set_bytes", scope, n))
	}); err != nil {
		return nil, err
	}
	return all, nil
}

// request returns the panel's query the way a Querier sends it.
func (p panel) request(minT, maxT int64) *storepb.SeriesRequest {
	return &storepb.SeriesRequest{
		MinTime: minT, MaxTime: maxT, Matchers: p.matchers, MaxResolutionWindow: p.resolution,
		Aggregates:           p.aggregates,
		WithoutReplicaLabels: []string{"replica"}, ResponseBatchSize: 64,
		PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT,
	}
}

// view is one opening or refresh of a dashboard, for a time range.
type view struct {
	at        int64
	dashboard int
	back      int64
}

// visits returns the views of users during a period, in order. Dashboards follow a Zipf
// distribution over a random order, mostly with their usual range, and are refreshed every minute
// or five. A tenth of the order is shuffled every hour, so that the popular ones change.
func visits(rng *rand.Rand, all []dashboard, n int, from, to int64) []view {
	order := rng.Perm(len(all))
	zipf := newZipf(len(all), 1.0)
	var views []view
	opened := make([]int64, n)
	for i := range opened {
		opened[i] = from + rng.Int64N(to-from)
	}
	slices.Sort(opened)
	for i, at := range opened {
		if i > 0 && (at-from)/hour != (opened[i-1]-from)/hour {
			for range len(order) / 20 {
				a, b := rng.IntN(len(order)), rng.IntN(len(order))
				order[a], order[b] = order[b], order[a]
			}
		}
		d := order[zipf.draw(rng)]
		back := all[d].ranges[0]
		if rng.IntN(2) == 0 {
			back = all[d].ranges[rng.IntN(len(all[d].ranges))]
		}
		every := minute
		if back > 6*hour || rng.IntN(3) == 0 {
			every = 5 * minute
		}
		for refreshes := rng.ExpFloat64() * 4; refreshes >= 0 && at < to; refreshes-- {
			views = append(views, view{at: at, dashboard: d, back: back})
			at += every
		}
	}
	slices.SortStableFunc(views, func(a, b view) int { return int(a.at - b.at) })
	return views
}

// zipf draws ranks from 0 on with probabilities proportional to 1/(rank+1)^s.
type zipf struct{ cumulated []float64 }

func newZipf(n int, s float64) zipf {
	z := zipf{make([]float64, n)}
	sum := 0.0
	for i := range n {
		sum += math.Pow(float64(i+1), -s)
		z.cumulated[i] = sum
	}
	return z
}

func (z zipf) draw(rng *rand.Rand) int {
	i, _ := slices.BinarySearch(z.cumulated, rng.Float64()*z.cumulated[len(z.cumulated)-1])
	return min(i, len(z.cumulated)-1)
}
