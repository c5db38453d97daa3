package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// fleet is the set of targets that the servers watch: a few services that contain every case PromQL
// treats specially, and many pods.
type fleet struct {
	seed    uint64
	replica int
	pods    int
}

type sample struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

const (
	interval = 30_000
	minute   = 60_000
	hour     = 60 * minute
)

// source makes the samples of a series. It is called for each moment in order and returns the value
// that the target exposes then. ok is false if the target exposes nothing.
type source func(t int64) (s sample, ok bool)

func (f fleet) series(from, to int64) []series {
	b := &builder{f: f, from: from, to: to}
	for _, job := range []string{"api", "größe", "db"} {
		for i := range 3 {
			b.instance(job, fmt.Sprintf("10.0.0.%d:80", i))
		}
	}
	for i := range f.pods {
		pod := fmt.Sprintf("pod-%04d", i)
		b.add(
			2*minute, gauge(b.rand(), 0, 3), "__name__", "pod_ready", "pod", pod, "zone",
			[]string{"a", "b", ""}[i%3],
		)
	}
	return b.out
}

type builder struct {
	f        fleet
	from, to int64
	out      []series
}

// rand returns the same value for a series whatever the replica: replicas watch the same world.
func (b *builder) rand() *rand.Rand { return rand.New(rand.NewPCG(b.f.seed, uint64(len(b.out)))) }

func (b *builder) instance(job, instance string) {
	base := []string{"job", job, "instance", instance}
	add := func(every int64, s source, pairs ...string) {
		b.add(every, s, append(append([]string{}, base...), pairs...)...)
	}
	up := 1.0
	r := b.rand()
	add(interval, func(t int64) (sample, bool) {
		if r.IntN(40) == 0 {
			up = 1 - up
		}
		return sample{t: t, v: up}, true
	}, "__name__", "up")
	for _, code := range []string{"200", "404", "500"} {
		for _, method := range []string{"GET", "POST"} {
			add(
				interval, counter(b.rand(), 200), "__name__", "http_requests_total", "code", code,
				"method", method,
			)
		}
	}
	bounds := []string{"0.1", "0.5", "1", "5", "+Inf"}
	for i, le := range bounds {
		// All buckets of one histogram walk together, so that they are cumulative.
		add(
			interval, scaled(counter(rand.New(rand.NewPCG(b.f.seed, 77)), 120), float64(i+1)),
			"__name__", "http_request_duration_seconds_bucket", "le", le,
		)
	}
	add(interval, counter(b.rand(), 120), "__name__", "http_request_duration_seconds_sum")
	add(interval, gauge(b.rand(), 1e9, 1e7), "__name__", "memory_bytes")
	add(interval, odd(gauge(b.rand(), -10, 20)), "__name__", "temperature_celsius")
	add(interval, native(b.rand(), 3, true), "__name__", "rpc_duration_seconds")
	add(interval, native(b.rand(), 1, false), "__name__", "rpc_wait_seconds")
	add(interval, custom(b.rand()), "__name__", "batch_seconds")
	add(
		interval, mixed(gauge(b.rand(), 5, 5), native(b.rand(), 2, true), b.from+(b.to-b.from)/3),
		"__name__", "mixed",
	)
	// A rollout replaces one version by the next: series end with a staleness marker, others begin.
	half := b.from + (b.to-b.from)/2 + int64(len(b.out))*minute/8
	add(
		interval, during(gauge(b.rand(), 1, 0), b.from, half), "__name__", "build_info", "version",
		"1.9",
	)
	add(
		interval, during(gauge(b.rand(), 1, 0), half, b.to), "__name__", "build_info", "version",
		"1.10",
	)
	// Series that are rarely present.
	add(
		5*minute, during(gauge(b.rand(), 3, 1), b.from+40*minute, b.from+90*minute), "__name__",
		"backup_size_bytes",
	)
}

func (b *builder) add(every int64, s source, pairs ...string) {
	out := series{labels: labels.FromStrings(pairs...)}
	// A replica scrapes at its own offset, is sometimes late, and is down for a while.
	r := rand.New(rand.NewPCG(b.f.seed+uint64(b.f.replica)*1000, uint64(len(b.out))))
	at := r.Int64N(every)
	downFrom := b.from + int64(b.f.replica)*100*minute
	for t := b.from + at; t < b.to; t += every {
		x, ok := s(t)
		if !ok {
			continue
		}
		x.t += r.Int64N(50)
		if x.t >= b.to || b.f.replica > 0 && x.t >= downFrom && x.t < downFrom+20*minute {
			continue
		}
		out.all = append(out.all, x)
	}
	b.out = append(b.out, out)
}

// counter grows and resets now and then.
func counter(r *rand.Rand, restart int) source {
	v := float64(r.IntN(1000))
	return func(t int64) (sample, bool) {
		v += float64(r.IntN(50))
		if r.IntN(restart) == 0 {
			v = float64(r.IntN(5))
		}
		return sample{t: t, v: v}, true
	}
}

func gauge(r *rand.Rand, mid, spread float64) source {
	return func(t int64) (sample, bool) {
		return sample{t: t, v: mid + spread*(r.Float64()-0.5)}, true
	}
}

func scaled(s source, by float64) source {
	return func(t int64) (sample, bool) {
		x, ok := s(t)
		x.v *= by
		return x, ok
	}
}

// odd inserts values that are not ordinary numbers.
func odd(s source) source {
	n := 0
	return func(t int64) (sample, bool) {
		x, ok := s(t)
		n++
		switch n % 97 {
		case 10:
			x.v = math.NaN()
		case 20:
			x.v = math.Inf(1)
		case 21:
			x.v = math.Inf(-1)
		case 30:
			x.v = math.Copysign(0, -1)
		}
		return x, ok
	}
}

// during limits a series to a range of time. The series ends with a staleness marker.
func during(s source, from, to int64) source {
	ended := false
	return func(t int64) (sample, bool) {
		x, ok := s(t)
		if t >= to && !ended && ok {
			ended = true
			return sample{t: t, v: math.Float64frombits(value.StaleNaN)}, true
		}
		return x, ok && t >= from && t < to
	}
}

// native is a native histogram: a counter that resets now and then, or a gauge of floats.
func native(r *rand.Rand, schema int32, counter bool) source {
	counts := make([]int64, 4)
	zero := int64(0)
	return func(t int64) (sample, bool) {
		if r.IntN(150) == 0 {
			counts, zero = make([]int64, 4), 0
		}
		for i := range counts {
			counts[i] += r.Int64N(9)
		}
		zero += r.Int64N(2)
		h := &histogram.Histogram{
			Schema: schema, ZeroThreshold: 0.001, ZeroCount: uint64(zero), Count: uint64(zero),
			PositiveSpans: []histogram.Span{{Offset: -1, Length: 2}, {Offset: 3, Length: 2}},
		}
		last := int64(0)
		for i, c := range counts {
			h.PositiveBuckets = append(h.PositiveBuckets, c-last)
			last = c
			h.Count += uint64(c)
			h.Sum += float64(c) * float64(i+1) / 3
		}
		if counter {
			return sample{t: t, h: h}, true
		}
		f := h.ToFloat(nil)
		f.CounterResetHint = histogram.GaugeType
		f.NegativeSpans, f.NegativeBuckets = []histogram.Span{
			{Offset: 0, Length: 1},
		}, []float64{
			2.5,
		}
		f.Count += 2.5
		return sample{t: t, fh: f}, true
	}
}

// custom is a native histogram with custom bucket bounds.
func custom(r *rand.Rand) source {
	counts := make([]int64, 3)
	return func(t int64) (sample, bool) {
		h := &histogram.Histogram{
			Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1, 10},
			PositiveSpans: []histogram.Span{{Length: 3}},
		}
		last := int64(0)
		for i := range counts {
			counts[i] += r.Int64N(5)
			h.PositiveBuckets = append(h.PositiveBuckets, counts[i]-last)
			last = counts[i]
			h.Count += uint64(counts[i])
			h.Sum += float64(counts[i]) * float64(i)
		}
		return sample{t: t, h: h}, true
	}
}

// mixed is one source before a moment and another from that moment on.
func mixed(a, b source, at int64) source {
	return func(t int64) (sample, bool) {
		if t < at {
			return a(t)
		}
		return b(t)
	}
}
