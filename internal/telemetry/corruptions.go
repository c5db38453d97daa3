package telemetry

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Corrupt is a kind of data that failed its verification.
type Corrupt string

// The kinds of data that larder verifies.
const (
	CorruptIndex    Corrupt = "index"    // tables of an index, read to build its header
	CorruptPostings Corrupt = "postings" // posting lists of an index
	CorruptSeries   Corrupt = "series"   // series entries of an index
	CorruptChunk    Corrupt = "chunk"    // chunk records
	CorruptMeta     Corrupt = "meta"     // meta.json and deletion marks
	CorruptHeader   Corrupt = "header"   // local index headers
	// other local files: the saved catalog, copies of meta.json, the warm snapshot
	CorruptLocal Corrupt = "local"
	CorruptCache Corrupt = "cache" // values of memcached
)

// Corruptions counts data that failed its verification. All packages with the same registerer share
// one counter. The zero value counts nothing.
type Corruptions struct{ total *prometheus.CounterVec }

const (
	corruptMended = "mended"
	corruptFailed = "failed"
)

// NewCorruptions returns the counter of a registerer, or an unregistered one for nil.
func NewCorruptions(reg prometheus.Registerer) Corruptions {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_corruptions_total",
		Help: "Pieces of data that failed their verification, by kind. Outcome mended: a second " +
			"read, or rebuilding, gave correct data. Outcome failed: that was wrong too.",
	}, []string{"kind", "outcome"})
	if reg != nil {
		if err := reg.Register(total); err != nil {
			var there prometheus.AlreadyRegisteredError
			if !errors.As(err, &there) {
				panic(err) // another metric has the name, which is a bug; same as promauto
			}
			total = there.ExistingCollector.(*prometheus.CounterVec)
		}
	}
	for _, k := range []Corrupt{
		CorruptIndex, CorruptPostings, CorruptSeries, CorruptChunk, CorruptMeta, CorruptHeader,
		CorruptLocal, CorruptCache,
	} {
		total.WithLabelValues(string(k), corruptMended)
		total.WithLabelValues(string(k), corruptFailed)
	}
	return Corruptions{total}
}

// Mended counts n corruptions that a second read or rebuilding has repaired.
func (c Corruptions) Mended(kind Corrupt, n int) {
	if c.total != nil && n > 0 {
		c.total.WithLabelValues(string(kind), corruptMended).Add(float64(n))
	}
}

// Failed counts a corruption that remained, so that a request failed.
func (c Corruptions) Failed(kind Corrupt) {
	if c.total != nil {
		c.total.WithLabelValues(string(kind), corruptFailed).Inc()
	}
}
