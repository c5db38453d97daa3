package dataset

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

// Kind is the behaviour of the values of a series over time.
type Kind uint8

const (
	// Counter counts events: whole numbers that grow and are sometimes reset to 0.
	Counter Kind = iota
	// Seconds is a counter of time spent, in fractions of a second.
	Seconds
	// Bytes is a gauge of a size, in whole pages.
	Bytes
	// Ratio is a gauge with all the digits of a division.
	Ratio
	// Up is 1, and rarely 0.
	Up
	// Histogram, FloatHistogram and GaugeHistogram are native histograms: of integer counts, of
	// float counts, and of a gauge.
	Histogram
	FloatHistogram
	GaugeHistogram
)

// native reports whether the samples are native histograms.
func (k Kind) native() bool { return k >= Histogram }

// tick is the step in which values change, in milliseconds.
const tick = 10_000

// mix is the finalizer of splitmix64: a bijection in which all output bits depend on all input
// bits.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// model computes the values of one series.
type model struct {
	kind   Kind
	seed   uint64
	share  float64
	period uint64 // ticks from one reset of a counter to the next
	rate   uint64 // mean growth of a counter in one tick
	step   uint64 // ticks from one change of a counter to the next

	bounds []float64 // of a native histogram's buckets, lowest first
	spans  []histogram.Span
}

// histogramSchema is the resolution of native histograms: 8 buckets per power of two.
const histogramSchema = 3

func newModel(s Series) model {
	m := model{kind: s.Kind, seed: mix(s.Seed), share: s.Share}
	if m.share == 0 {
		m.share = 1
	}
	h := mix(m.seed + 1)
	m.period = 8640 + h%500_000 // a day to two months
	// Rates are spread evenly over their order of magnitude: most events are rare, a few are
	// frequent.
	m.rate = 1 + uint64(math.Exp2(float64(h>>40&0xfff)/0x1000*maxRateBits))
	m.step = 1
	if h>>56%5 == 0 { // some counters are almost idle
		m.step = 32
	}
	if m.kind.native() {
		// Two groups of buckets with a gap, like two code paths of different speed.
		offset := int32(h>>8&31) - 40
		m.spans = []histogram.Span{
			{Offset: offset, Length: 4 + uint32(h>>16&7)},
			{Offset: 3 + int32(h>>20&7), Length: 2 + uint32(h>>24&3)},
		}
		at := offset
		for i, sp := range m.spans {
			if i > 0 {
				at += sp.Offset
			}
			for range sp.Length {
				m.bounds = append(m.bounds, math.Exp2(float64(at)/(1<<histogramSchema)))
				at++
			}
		}
		m.rate = 1 + m.rate%50
	}
	return m
}

// maxRateBits is the binary logarithm of the growth of the busiest counter in one tick. With it,
// and a fifth of the counters idle, 120 samples of a counter take about 220 bytes as an XOR chunk,
// the same as for real services.
const maxRateBits = 7

// count returns a counter's value at tick k. It grows by 0 to 2*rate per tick, restarts every
// period ticks, and depends only on k.
func (m *model) count(k, rate, salt uint64) uint64 {
	k = (k + m.seed>>16) % m.period
	k -= k % m.step
	return k*rate + mix(m.seed^k*0x9e3779b97f4a7c15^salt)%rate
}

// float returns the value at time t in milliseconds.
func (m *model) float(t int64) float64 {
	k := uint64(t / tick)
	switch m.kind {
	case Seconds:
		return float64(m.count(k, m.rate, 0)) * m.share / 1000
	case Bytes:
		base := 1 + m.seed>>20&0xffff
		return float64((base*4 + mix(m.seed^k)%base) * 4096)
	case Ratio:
		wave := math.Sin(float64(k%8640) / 8640 * 2 * math.Pi)
		return (1+wave)*float64(1+m.seed&7) + float64(mix(m.seed^k)>>40)/(1<<24)
	case Up:
		if mix(m.seed^k/6)%4096 == 0 { // down for a minute
			return 0
		}
		return 1
	}
	return math.Floor(float64(m.count(k, m.rate, 0)) * m.share)
}

// histogram returns the native histogram at time t in milliseconds, with integer counts.
func (m *model) histogram(t int64) *histogram.Histogram {
	k := uint64(t / tick)
	h := &histogram.Histogram{
		Schema:          histogramSchema,
		ZeroThreshold:   0x1p-128,
		PositiveSpans:   append([]histogram.Span(nil), m.spans...),
		PositiveBuckets: make([]int64, len(m.bounds)),
	}
	gauge := m.kind == GaugeHistogram
	if gauge {
		h.CounterResetHint = histogram.GaugeType
	}
	var last int64
	for i, bound := range m.bounds {
		rate := 1 + m.rate*uint64(i+1)/uint64(len(m.bounds))
		var c int64
		if gauge {
			c = int64(mix(m.seed^k^uint64(i)<<48) % (4 * rate))
		} else {
			c = int64(m.count(k, rate, uint64(i)<<48))
		}
		h.PositiveBuckets[i] = c - last
		last = c
		h.Count += uint64(c)
		h.Sum += float64(c) * bound
	}
	return h
}

// floatHistogram returns the native histogram at time t in milliseconds, with float counts, like a
// recording rule's.
func (m *model) floatHistogram(t int64) *histogram.FloatHistogram {
	h := m.histogram(t).ToFloat(nil)
	if m.kind == FloatHistogram {
		h.Mul(0.125)
	}
	return h
}
