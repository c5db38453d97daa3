package telemetry

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Corrupt says what bytes were that did not verify.
type Corrupt string

// What bytes are that larder verifies.
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

// Corruptions counts bytes that did not verify. All packages of a process that have the same
// registerer share one counter. Its zero value counts nothing.
type Corruptions struct{ total *prometheus.CounterVec }

const (
	corruptMended = "mended"
	corruptFailed = "failed"
)

// NewCorruptions returns the counter of a registerer; nil: one of its own.
func NewCorruptions(reg prometheus.Registerer) Corruptions {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_corruptions_total",
		Help: "Bytes that did not verify, by what they were: mended where reading or making them again helped, failed where that, too, was wrong.",
	}, []string{"kind", "outcome"})
	if reg != nil {
		if err := reg.Register(total); err != nil {
			var there prometheus.AlreadyRegisteredError
			if !errors.As(err, &there) {
				panic(err) // another metric has the name: a mistake in the program, as for promauto
			}
			total = there.ExistingCollector.(*prometheus.CounterVec)
		}
	}
	for _, k := range []Corrupt{CorruptIndex, CorruptPostings, CorruptSeries, CorruptChunk, CorruptMeta, CorruptHeader, CorruptLocal, CorruptCache} {
		total.WithLabelValues(string(k), corruptMended)
		total.WithLabelValues(string(k), corruptFailed)
	}
	return Corruptions{total}
}

// Mended counts n that were right when they were read or made again.
func (c Corruptions) Mended(kind Corrupt, n int) {
	if c.total != nil && n > 0 {
		c.total.WithLabelValues(string(kind), corruptMended).Add(float64(n))
	}
}

// Failed counts one that stayed wrong, so that something could not be answered.
func (c Corruptions) Failed(kind Corrupt) {
	if c.total != nil {
		c.total.WithLabelValues(string(kind), corruptFailed).Inc()
	}
}
