package web

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// sampleEvery is the time between two samples of History, and maxSamples how many it keeps: an
	// hour.
	sampleEvery = 15 * time.Second
	maxSamples  = 240
	// lately is the time that the overview compares: long enough for a rate, and short enough that
	// a fault that has passed leaves the page soon.
	lately = 5 * time.Minute
)

// History samples a few counters of the process, so that pages can show rates without a server for
// metrics. It has about 100 KB. It is safe for concurrent use.
type History struct {
	gatherer prometheus.Gatherer
	began    time.Time // with the process

	mu      sync.Mutex // guards what follows; nothing is gathered under it
	keys    map[string]int
	samples []sample // oldest first
}

// sample has the values of counters by their number in History.keys.
type sample struct {
	at     time.Time
	values []float64
}

// NewHistory returns an empty history of the metrics of g, which begin now.
func NewHistory(g prometheus.Gatherer) *History {
	return &History{gatherer: g, began: time.Now(), keys: map[string]int{}}
}

// Run takes samples until ctx ends.
func (h *History) Run(ctx context.Context) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		h.Sample(time.Now())
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sample takes a sample.
func (h *History) Sample(now time.Time) {
	values := counters(h.gatherer)
	h.mu.Lock()
	defer h.mu.Unlock()
	s := sample{at: now}
	for key, v := range values {
		i, ok := h.keys[key]
		if !ok {
			i = len(h.keys)
			h.keys[key] = i
		}
		for len(s.values) <= i {
			s.values = append(s.values, 0)
		}
		s.values[i] = v
	}
	if len(h.samples) == maxSamples {
		h.samples = append(h.samples[:0], h.samples[1:]...)
	}
	h.samples = append(h.samples, s)
}

// Keys of counters.
const (
	keyReads     = "bucket reads"
	keyFailures  = "bucket failures"
	keyThrottles = "bucket throttles"
	keySeconds   = "bucket seconds"
	keyTimed     = "bucket timed"
	keyOverruns  = "overruns of " // and the method, a zero byte and the stage
	keyRefused   = "refused"
	keyCorrupt   = "corrupt"
	keyLookups   = "lookups of " // and the name of a cache
	keyHits      = "hits of "
)

// counters returns the values of the counters of a history now.
func counters(g prometheus.Gatherer) map[string]float64 {
	families, _ := g.Gather() // with an error it still returns what it could gather
	out := map[string]float64{}
	for _, f := range families {
		name := f.GetName()
		for _, m := range f.GetMetric() {
			switch {
			case strings.HasSuffix(name, "objstore_bucket_operations_total"):
				out[keyReads] += value(m)
			case strings.HasSuffix(name, "objstore_bucket_operation_failures_total"):
				out[keyFailures] += value(m)
			case strings.HasSuffix(name, "objstore_bucket_operation_duration_seconds"):
				out[keySeconds] += m.GetHistogram().GetSampleSum()
				out[keyTimed] += float64(m.GetHistogram().GetSampleCount())
			case name == "larder_bucket_throttles_total":
				out[keyThrottles] += value(m)
			case name == "larder_budget_overruns_total":
				out[keyOverruns+label(m, "method")+"\x00"+label(m, "stage")] += value(m)
			case name == "larder_corruptions_total" && label(m, "outcome") == "failed" &&
				label(m, "kind") != "meta": // its block is shown as damaged
				out[keyCorrupt] += value(m)
			case label(m, "reason") == "gave_up": // the client did
			case name == "larder_series_gate_rejected_total",
				name == "larder_request_allowance_refused_total":
				out[keyRefused] += value(m)
			case name == "larder_cache_requests_total":
				out[keyLookups+cacheName(m)] += value(m)
			case name == "larder_cache_hits_total":
				out[keyHits+cacheName(m)] += value(m)
			}
		}
	}
	return out
}

// cacheName returns the name of a cache as pages show it.
func cacheName(m *dto.Metric) string {
	name := strings.ReplaceAll(nameInLog(label(m, "cache")), "_", " ")
	switch tier := label(m, "tier"); tier {
	case "", "memory":
		return name
	case "disk":
		return name + " on disk"
	default:
		return name + " in " + tier
	}
}

// rates are the growths of counters over a time.
type rates struct {
	over   time.Duration
	values map[string]float64
}

// lately returns by how much the counters have grown in the last minutes, or since the start.
func (h *History) lately(now time.Time) rates {
	r := rates{values: counters(h.gatherer), over: now.Sub(h.began)}
	if r.over <= lately {
		return r
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.samples {
		s := &h.samples[i]
		if now.Sub(s.at) > lately {
			continue
		}
		r.over = now.Sub(s.at)
		for key, at := range h.keys {
			if at < len(s.values) {
				r.values[key] = max(r.values[key]-s.values[at], 0)
			}
		}
		return r
	}
	return r
}

// point is a hit ratio of a time: between 0 and 1, or below 0 if there were no look-ups.
type point float64

// hitRatios returns the hit ratio of a cache over time, in at most n parts, oldest first.
func (h *History) hitRatios(cache string, n int) (out []point) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lookups, ok := h.keys[keyLookups+cache]
	hits, also := h.keys[keyHits+cache]
	if !ok || !also || len(h.samples) < 2 {
		return nil
	}
	at := func(s *sample, key int) float64 {
		if key < len(s.values) {
			return s.values[key]
		}
		return 0
	}
	step := max((len(h.samples)+n-1)/n, 1)
	for i := step; i < len(h.samples); i += step {
		a, b := &h.samples[i-step], &h.samples[i]
		p := point(-1)
		if d := at(b, lookups) - at(a, lookups); d > 0 {
			p = point(min(max((at(b, hits)-at(a, hits))/d, 0), 1))
		}
		out = append(out, p)
	}
	return out
}
