package bench

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"

	"larder/benchmarks/bench/report"
	"larder/benchmarks/objectstore"
	"larder/store"
)

// usage is what the gateway has used: since its start, or within measured parts of a scenario.
type usage struct {
	cpu                 time.Duration
	allocBytes, allocs  float64
	bucket              objectstore.Counts
	counters            map[string]float64 // by the names of counterNames
	stages              map[string][]bucketCount
	hasCPU, hasCounters bool
}

// bucketCount is a bucket of a histogram: its upper bound in seconds, and its count alone.
type bucketCount struct{ bound, count float64 }

// counter is a sum of samples of a metric.
type counter struct {
	metric string
	labels map[string]string
}

// counters are the counters that a report is made of.
func counters() map[string]counter {
	hits := func(tier string) map[string]string { return map[string]string{"tier": tier} }
	sets := map[string]string{"cache": "series_sets"}
	answers := map[string]string{"cache": "label_answers"}
	return map[string]counter{
		"reads":          {"larder_bucket_reads_total", nil},
		"bytes":          {"larder_pages_fetched_bytes_total", nil},
		"pages":          {"larder_pages_touched_total", nil},
		"page memory":    {"larder_pages_hits_total", hits("memory")},
		"page disk":      {"larder_pages_hits_total", hits("disk")},
		"page memcached": {"larder_pages_hits_total", hits("memcached")},
		"page joined":    {"larder_pages_coalesced_total", nil},
		"lists":          {"larder_expanded_postings_requests_total", nil},
		"list memory":    {"larder_expanded_postings_hits_total", hits("memory")},
		"list memcached": {"larder_expanded_postings_hits_total", hits("memcached")},
		"sets":           {"larder_cache_requests_total", sets},
		"set memory":     {"larder_cache_hits_total", sets},
		"answers":        {"larder_cache_requests_total", answers},
		"answer memory":  {"larder_cache_hits_total", answers},
	}
}

// used reads what the gateway has used so far. It reads cheap figures last before the measured
// part and first after it, so that it does not measure itself.
func used(ctx context.Context, t *Target, before bool) (u usage, err error) {
	read := []func() error{
		func() error { return u.readMetrics(ctx, t) },
		func() error { u.readProcess(t); return nil },
	}
	if !before {
		slices.Reverse(read)
	}
	for _, f := range read {
		if err := f(); err != nil {
			return u, err
		}
	}
	return u, nil
}

// readProcess reads what the process of a gateway in this process has used.
func (u *usage) readProcess(t *Target) {
	if t.Bucket == nil {
		return
	}
	u.bucket = t.Bucket.Counts()
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"},
	}
	metrics.Read(samples)
	u.allocBytes = float64(samples[0].Value.Uint64())
	u.allocs = float64(samples[1].Value.Uint64())
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		u.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		u.hasCPU = true
	}
}

func (u *usage) readMetrics(ctx context.Context, t *Target) error {
	if t.Gather == nil {
		return nil
	}
	got, err := t.Gather(ctx)
	if err != nil {
		return err
	}
	f := families(got)
	u.counters = map[string]float64{}
	for name, c := range counters() {
		if v, ok := f.sum(c.metric, c.labels); ok {
			u.counters[name], u.hasCounters = v, true
		}
	}
	if t.Bucket != nil {
		return nil
	}
	u.stages = map[string][]bucketCount{}
	for _, name := range store.StageNames() {
		u.stages[name] = f.histogram(
			"larder_stage_duration_seconds", map[string]string{"stage": name})
	}
	if seconds, ok := f.sum("process_cpu_seconds_total", nil); ok {
		u.cpu, u.hasCPU = time.Duration(seconds*float64(time.Second)), true
		u.allocBytes, _ = f.sum("go_memstats_alloc_bytes_total", nil)
		u.allocs, _ = f.sum("go_memstats_mallocs_total", nil)
	}
	return nil
}

// add adds what was used between two readings.
func (u *usage) add(before, after *usage) {
	u.cpu += after.cpu - before.cpu
	u.allocBytes += after.allocBytes - before.allocBytes
	u.allocs += after.allocs - before.allocs
	u.bucket.Add(after.bucket.Minus(before.bucket))
	u.hasCPU = u.hasCPU || after.hasCPU
	u.hasCounters = u.hasCounters || after.hasCounters
	if u.counters == nil {
		u.counters, u.stages = map[string]float64{}, map[string][]bucketCount{}
	}
	for name, v := range after.counters {
		u.counters[name] += v - before.counters[name]
	}
	for name, bs := range after.stages {
		for i := range bs {
			if old := before.stages[name]; i < len(old) {
				bs[i].count -= old[i].count
			}
		}
		u.stages[name] = bs
	}
}

// histogram adds the classic buckets of the histograms whose labels contain want.
func (f families) histogram(name string, want map[string]string) []bucketCount {
	total := map[float64]float64{}
	for _, m := range f[name].GetMetric() {
		if !matches(m, want) {
			continue
		}
		for _, b := range cumulative(m.GetHistogram()) {
			total[b.bound] += b.count
		}
	}
	var out []bucketCount
	for _, bound := range slices.Sorted(maps.Keys(total)) {
		out = append(out, bucketCount{bound, total[bound]})
	}
	for i := len(out) - 1; i > 0; i-- {
		out[i].count -= out[i-1].count
	}
	return out
}

// cumulative returns the cumulative buckets of a histogram, the last with bound +Inf.
func cumulative(h *dto.Histogram) []bucketCount {
	var out []bucketCount
	for _, b := range h.GetBucket() {
		if !math.IsInf(b.GetUpperBound(), 1) {
			out = append(out, bucketCount{b.GetUpperBound(), float64(b.GetCumulativeCount())})
		}
	}
	return append(out, bucketCount{math.Inf(1), float64(h.GetSampleCount())})
}

// stageRows are the rows of a gateway elsewhere: upper bounds from the buckets of its histograms.
func (u *usage) stageRows(quantile float64) []report.Row {
	var out []report.Row
	for _, name := range store.StageNames() {
		bs := u.stages[name]
		total := 0.0
		for _, b := range bs {
			total += b.count
		}
		if total == 0 {
			continue
		}
		at := func(q float64) float64 {
			n, last := 0.0, 0.0
			for _, b := range bs {
				if n += b.count; !math.IsInf(b.bound, 1) {
					last = b.bound
				}
				if n >= q*total {
					break
				}
			}
			return 1e3 * last
		}
		out = append(out, report.Row{
			Name: name, Source: byMetrics, P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1),
			At: at(quantile),
		})
	}
	return out
}

// hits says where pages, expanded postings, series sets and label answers came from.
func (u *usage) hits(requests int) []report.Hits {
	var out []report.Hits
	add := func(cache, tier string, n, of float64) {
		if of > 0 && n > 0 {
			out = append(out, report.Hits{
				Cache: cache, Tier: tier, Mean: n / float64(requests), Share: n / of,
			})
		}
	}
	c := u.counters
	add("label answers", "memory", c["answer memory"], c["answers"])
	add("series sets", "memory", c["set memory"], c["sets"])
	add("expanded postings", "memory", c["list memory"], c["lists"])
	add("expanded postings", "memcached", c["list memcached"], c["lists"])
	add("pages", "memory", c["page memory"], c["pages"])
	add("pages", "disk", c["page disk"], c["pages"])
	add("pages", "memcached", c["page memcached"], c["pages"])
	add("pages", "reads of other requests", c["page joined"], c["pages"])
	missed := c["pages"] - c["page memory"] - c["page disk"] - c["page memcached"] -
		c["page joined"]
	add("pages", "the bucket", missed, c["pages"])
	return out
}

// resetPeak forgets the largest resident set of this process. It reports whether that is possible.
func resetPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }

// peak returns the largest resident set of this process since resetPeak, in bytes.
func peak() (float64, bool) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			var kb float64
			_, err := fmt.Sscan(rest, &kb)
			return kb * 1024, err == nil
		}
	}
	return 0, false
}

// sampler looks at the resident set of a gateway elsewhere, once a second.
type sampler struct {
	mu   sync.Mutex
	most float64
}

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context, t *Target) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if got, err := t.Gather(ctx); err == nil {
			v, _ := families(got).sum("process_resident_memory_bytes", nil)
			s.mu.Lock()
			s.most = max(s.most, v)
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *sampler) peak() (float64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most, s.most > 0
}
