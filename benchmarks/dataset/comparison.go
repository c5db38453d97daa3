package dataset

import (
	"fmt"
	"iter"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// This file holds the layouts of the comparison with Thanos (docs/performance.md). Each has a size,
// so that the short form of the comparison uses the same layouts with less data in them.

// SeriesPerPod is how many series each pod has in the layouts Medium and Large.
const SeriesPerPod = 98

// Medium is one compacted block of the day before Epoch and twelve blocks of two hours of the day
// after it, each of the given number of pods with SeriesPerPod series, scraped every 30 s. 1,020
// pods are 100,000 series a block.
func Medium(seed uint64, pods int) Layout {
	b := Block{
		MinTime: Epoch - 24*hour, MaxTime: Epoch, Series: podSources(seed, 0, pods), Level: 3,
		Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
	}
	blocks := []Block{b}
	for i := range int64(12) {
		b.MinTime, b.MaxTime, b.Level = Epoch+i*2*hour, Epoch+(i+1)*2*hour, 1
		blocks = append(blocks, b)
	}
	return Layout{Name: "medium", Blocks: withIDs(seed, blocks)}
}

// Large is one block of two hours with the given number of pods with SeriesPerPod series, scraped
// every 5 minutes. 10,204 pods are 1,000,000 series.
func Large(seed uint64, pods int) Layout {
	return Layout{Name: "large", Blocks: withIDs(seed, []Block{{
		MinTime: Epoch, MaxTime: Epoch + 2*hour, Interval: 5 * minute,
		Series: podSources(seed, 0, pods),
		Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
	}})}
}

// Many is the given number of blocks of two hours, in ten streams that differ in the external label
// "cluster". Each holds 100 series: 4 of up, 38 of http_requests_total, 58 of another metric.
func Many(seed uint64, blocks int) Layout {
	const streams = 10
	var c collector
	c.seed = seed
	add := func(metric string, kind Kind, n int) {
		for i := range n {
			pod := i % 4
			c.target = uint64(pod)
			c.common = []string{
				"instance", podAddress(pod) + ":8080", "job", "billing", "namespace", "billing",
				"pod", podName("billing", 1, pod),
			}
			c.add(kind, 0, "", metric, "handler", fmt.Sprintf("/api/v1/%d", i/4))
		}
	}
	add("up", Up, 4)
	add(WholeMetricName, Counter, 38)
	add("process_open_fds", Bytes, 58)
	src := newList(c.series)
	bs := make([]Block, blocks)
	for i := range bs {
		from := Epoch + int64(i/streams)*2*hour
		bs[i] = Block{
			MinTime: from, MaxTime: from + 2*hour, Interval: minute, Series: src,
			Labels: labels.FromStrings(
				"cluster", fmt.Sprintf("cluster-%d", i%streams), "replica", "prometheus-0",
			),
			ChunkFileSize: 1 << 20,
		}
	}
	return Layout{Name: "many", Blocks: withIDs(seed, bs)}
}

// Month is the given number of blocks of two hours, one after the other, as a month that is not
// compacted has them. Each holds 20 pods with SeriesPerPod series, scraped every 5 minutes. Two
// pods are replaced every day. 360 blocks are 30 days with 78 pods in all.
func Month(seed uint64, blocks int) Layout {
	const pods, perDay, replaced = 20, 12, 2
	bs := make([]Block, blocks)
	var src Source
	for i := range bs {
		if i%perDay == 0 {
			src = podSources(seed, i/perDay*replaced, pods)
		}
		from := Epoch + int64(i)*2*hour
		bs[i] = Block{
			MinTime: from, MaxTime: from + 2*hour, Interval: 5 * minute, Series: src,
			Labels:        labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
			ChunkFileSize: 1 << 20,
		}
	}
	return Layout{Name: "month", Blocks: withIDs(seed, bs)}
}

// Crowded is the given number of blocks with 8 series of 4 samples each: what it costs to have a
// block.
func Crowded(seed uint64, blocks int) Layout {
	l := Many(seed, blocks)
	var few list
	for s := range l.Blocks[0].Series.Series() {
		if len(few) < 8 {
			few = append(few, s)
		}
	}
	for i := range l.Blocks {
		l.Blocks[i].Interval, l.Blocks[i].Series = 30*minute, few
	}
	l.Name = "crowded"
	return l
}

// Downsampled is the given number of pods, with 20 series each: a raw block of two days, a block at
// 5-minute and one at 1-hour resolution of the 14 days that end with it.
func Downsampled(seed uint64, pods int) Layout {
	var c collector
	c.seed = seed
	for i := range pods {
		c.target = uint64(i)
		c.common = []string{
			"instance", podAddress(i) + ":8080", "job", "shop-api", "namespace", "shop", "pod",
			numberedPod(i),
		}
		for h := range 10 {
			handler := fmt.Sprintf("/api/v1/%d", h)
			c.add(Counter, 0, "", WholeMetricName, "handler", handler)
			c.add(Bytes, 0, "", "http_response_size_bytes", "handler", handler)
		}
	}
	end := Epoch + 14*24*hour
	b := Block{
		MinTime: end - 48*hour, MaxTime: end, Interval: minute, Level: 3, Series: newList(c.series),
		Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
	}
	blocks := []Block{b}
	b.MinTime, b.Resolution, b.Level = Epoch, 5*minute, 4
	blocks = append(blocks, b)
	b.Resolution = hour
	blocks = append(blocks, b)
	return Layout{Name: "downsampled", Blocks: withIDs(seed, blocks)}
}

// Histograms is two blocks of two hours in which the given number of pods have one native histogram
// each.
func Histograms(seed uint64, pods int) Layout {
	var c collector
	c.seed = seed
	for i := range pods {
		c.target = uint64(i)
		c.add(
			Histogram, 0, "", "http_request_duration_seconds",
			"job", "shop-api", "namespace", "shop", "pod", numberedPod(i),
		)
	}
	b := Block{
		Series: newList(c.series),
		Labels: labels.FromStrings("cluster", "eu-west-1", "replica", "prometheus-0"),
	}
	var blocks []Block
	for i := range int64(2) {
		b.MinTime, b.MaxTime = Epoch+i*2*hour, Epoch+(i+1)*2*hour
		blocks = append(blocks, b)
	}
	return Layout{Name: "histograms", Blocks: withIDs(seed, blocks)}
}

// numberedPod is a name without leading zeros, so that pod-1.* matches a part of the pods that
// depends on their number.
func numberedPod(i int) string { return fmt.Sprintf("pod-%d", i) }

// podSources returns the series of n pods with SeriesPerPod series each, numbered from the given
// one on. It holds no series in memory.
func podSources(seed uint64, from, n int) Source {
	at := make([]string, n)
	for i := range at {
		at[i] = podAddress(from+i) + ":8080"
	}
	slices.Sort(at)
	bounds := make([]string, len(upperBounds))
	for i, b := range upperBounds {
		bounds[i] = formatBound(b)
	}
	slices.Sort(bounds)

	metric := func(kind Kind, name string, before, between []dim) Source {
		p := &product{kind: kind, seed: labelSeed(mix(seed), labels.FromStrings("", name), "")}
		p.dims = append([]dim{fixed(labels.MetricName, name)}, before...)
		p.target = len(p.dims)
		p.dims = append(p.dims, oneOf("instance", at...), fixed("job", "shop-api"))
		p.dims = append(p.dims, between...)
		p.dims = append(p.dims,
			follows("namespace", p.target, func(i int) string {
				return fmt.Sprintf("shop-%d", i%5)
			}),
			follows("pod", p.target, func(i int) string { return numberedPod(from + i) }),
		)
		return p
	}
	handlers := []dim{oneOf("handler", "/api/v1/orders", "/api/v1/search")}
	const duration = "http_request_duration_seconds"
	all := sequence{
		metric(Ratio, "go_gc_duration_seconds", nil, nil),
		metric(Bytes, "go_goroutines", nil, nil),
		metric(Counter, duration+"_bucket", handlers, []dim{oneOf("le", bounds...)}),
		metric(Counter, duration+"_count", handlers, nil),
		metric(Seconds, duration+"_sum", handlers, nil),
		metric(Counter, WholeMetricName, []dim{
			oneOf("code", "200", "201", "302", "400", "404", "500", "503"),
			oneOf(
				"handler", "/api/v1/accounts", "/api/v1/baskets", "/api/v1/catalog",
				"/api/v1/orders", "/api/v1/payments", "/api/v1/search", "/metrics",
			),
		}, nil),
	}
	for i := range 18 {
		kind := []Kind{Bytes, Counter, Ratio}[i%3]
		all = append(all, metric(kind, fmt.Sprintf("process_metric_%02d", i), nil, nil))
	}
	return append(all, metric(Up, "up", nil, nil))
}

// sequence is a Source of the series of several, in the order in which they stand.
type sequence []Source

func (s sequence) Series() iter.Seq[Series] {
	return func(yield func(Series) bool) {
		for _, src := range s {
			for x := range src.Series() {
				if !yield(x) {
					return
				}
			}
		}
	}
}
