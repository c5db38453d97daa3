package cost

import (
	"math"
	"sync/atomic"
	"time"

	"larder/internal/quantile"
)

const (
	// minSamples is the number of reads before a measured figure replaces the default.
	minSamples = 32
	// minBody is the shortest body whose bandwidth is measured. The time of a shorter one says more
	// about the scheduler than about the bucket.
	minBody = 256 << 10
	// The measured figures are the defaults times two to the power of a step within these bounds:
	// 40 us to 320 ms, and 5 MB/s to 1.28 GB/s.
	minFirstByteStep, maxFirstByteStep = -9, 4
	minBandwidthStep, maxBandwidthStep = -4, 4
	// stay is how far a measured figure may be from the one in use before that changes.
	stay = 1.75
)

// Meter measures a bucket. It is safe for concurrent use. A nil Meter measures nothing and returns
// the default Model.
type Meter struct {
	fixed *Model // nil if the bucket is measured
	base  Model
	// firstByte has the times to the first byte, mebibyte the times that bodies need for each MiB.
	firstByte, mebibyte *quantile.Decaying
	// The steps of the figures in use.
	firstByteStep, bandwidthStep atomic.Int64
}

// Fixed returns a meter that measures nothing, and whose Model is m.
func Fixed(m Model) *Meter { return &Meter{fixed: &m} }

// NewMeter returns a meter that has seen nothing. Its Models have the first byte and the bandwidth
// of one read as measured, and the other figures of base.
func NewMeter(base Model) *Meter {
	return &Meter{
		base:      base,
		firstByte: quantile.New(0.5, minSamples),
		mebibyte:  quantile.New(0.5, minSamples),
	}
}

// Observe counts one read: the time from its request to its first byte, without waiting for a slot,
// the time from there to its last byte, and its bytes.
func (m *Meter) Observe(firstByte, body time.Duration, bytes int64) {
	if m == nil || m.fixed != nil {
		return
	}
	m.firstByte.Observe(firstByte)
	if bytes >= minBody {
		m.mebibyte.Observe(time.Duration(float64(body) * (1 << 20) / float64(bytes)))
	}
}

// Model returns the model of the bucket as it was measured. It has the defaults before enough reads
// were seen. A request is priced at most as its first byte, because one that a local disk answers
// at once neither costs as much CPU time nor money.
func (m *Meter) Model() Model {
	if m == nil {
		return Model{}
	}
	if m.fixed != nil {
		return *m.fixed
	}
	first, band := float64(defaultFirstByte), float64(defaultBytesPerSecond)
	first *= step(
		&m.firstByteStep, float64(m.firstByte.Value())/first, minFirstByteStep, maxFirstByteStep,
	)
	measured := float64(0)
	if v := m.mebibyte.Value(); v > 0 {
		measured = (1 << 20) / v.Seconds()
	}
	band *= step(&m.bandwidthStep, measured/band, minBandwidthStep, maxBandwidthStep)
	model := m.base
	model.FirstByte, model.BytesPerSecond = time.Duration(first), band
	model.PerRequest = min(model.PerRequest, model.FirstByte)
	return model
}

// step returns the power of two in use, and replaces it if ratio, which was measured, is far from
// it. A ratio of 0 was not measured.
func step(current *atomic.Int64, ratio float64, low, high int64) float64 {
	n := current.Load()
	used := math.Ldexp(1, int(n))
	if ratio <= 0 || (ratio < used*stay && ratio > used/stay) {
		return used
	}
	if next := min(max(int64(math.Round(math.Log2(ratio))), low), high); next != n {
		current.Store(next)
		return math.Ldexp(1, int(next))
	}
	return used
}
