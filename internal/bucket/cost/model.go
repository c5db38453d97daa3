package cost

import (
	"cmp"
	"math"
	"time"
)

const (
	defaultFirstByte      = 20 * time.Millisecond
	defaultBytesPerSecond = 80e6
	defaultPerRequest     = time.Millisecond
	defaultTotal          = 640e6
	defaultMaxRead        = 8 << 20
	defaultMaxGap         = 512 << 10
	defaultMaxAlong       = 10 << 20
	// slotsAtStart is how many reads internal/bucket/slots lets run at once at the start.
	slotsAtStart = 96
)

// USDPerRequest is the list price of one read request in US dollars: S3 Standard in us-east-1 and
// Google Cloud Storage Standard, November 2026. Azure's is a quarter higher.
const USDPerRequest = 0.0004 / 1000

// Model has the figures of a bucket. The zero value has defaults.
type Model struct {
	// FirstByte is the time until the bucket sends the first byte of a read. Default 20 ms.
	FirstByte time.Duration
	// BytesPerSecond is the bandwidth of one read. Default 80,000,000.
	BytesPerSecond float64
	// TotalBytesPerSecond is the bandwidth of all reads that are sent together. Default
	// 640,000,000: half of a network of 10 Gbit/s, because others read as well. A larger value
	// reads larger gaps along.
	TotalBytesPerSecond float64
	// PerRequest is the price of one request, whatever its size: what one request less may cost in
	// time. Default 1 ms. Negative: requests are free, and a plan is the fastest one.
	PerRequest time.Duration
	// MaxRead bounds one read in bytes. Default 8 MiB.
	MaxRead int64
	// MaxGap bounds the bytes between two needed stretches of one read. Default 512 KiB. Negative:
	// no gaps are read.
	MaxGap int64
	// MaxAlong bounds the bytes of all gaps that a plan reads. Default 10 MiB: where many ranges
	// lie a little less than MaxGap apart, only some are joined. Negative: no bound.
	MaxAlong int64

	beside int   // see Beside
	last   int64 // see Last; 0: other reads follow
}

// withDefaults returns the model with its defaults filled in.
func (m Model) withDefaults() Model {
	m.FirstByte = cmp.Or(m.FirstByte, defaultFirstByte)
	if m.BytesPerSecond <= 0 {
		m.BytesPerSecond = defaultBytesPerSecond
	}
	if m.TotalBytesPerSecond <= 0 {
		m.TotalBytesPerSecond = defaultTotal
	}
	m.TotalBytesPerSecond = max(m.TotalBytesPerSecond, m.BytesPerSecond)
	m.PerRequest = max(cmp.Or(m.PerRequest, defaultPerRequest), 0)
	m.MaxRead = cmp.Or(max(m.MaxRead, 0), defaultMaxRead)
	m.MaxGap = max(cmp.Or(m.MaxGap, defaultMaxGap), 0)
	m.MaxAlong = cmp.Or(m.MaxAlong, defaultMaxAlong)
	return m
}

// Beside returns the model of one of n sets of reads that are sent and waited for together. The
// longest read counts once for all sets, while each has requests and bytes of its own. Many
// requests also queue: each takes its part of a round of slotsAtStart. More gaps are therefore read
// along, and less is split.
func (m Model) Beside(n int) Model {
	if n <= 1 {
		return m
	}
	m = m.withDefaults()
	m.PerRequest += m.FirstByte / slotsAtStart
	m.beside = n
	return m
}

// minLastPart is the shortest part into which a range of last reads is split: less than 2 ms of a
// read with 80 MB/s, which a request should not cost.
const minLastPart = 128 << 10

// LastPart returns how long the reads of sets should be that are sent together and that no other
// reads follow, given the bytes of each set: the longest read ends the answer. It is 0 if splitting
// does not pay.
func (m Model) LastPart(sets []int64) int64 {
	m = m.withDefaults()
	longest := int64(0)
	for _, n := range sets {
		longest = max(longest, n)
	}
	part, least := int64(0), time.Duration(math.MaxInt64)
	for parts := int64(1); parts <= max(longest/minLastPart, 1) && parts <= maxPasses; parts++ {
		bound := max((longest+parts-1)/parts, 1)
		requests := int64(0)
		for _, n := range sets {
			requests += (n + bound - 1) / bound
		}
		cost := time.Duration(m.transfer(bound)) + time.Duration(requests)*m.PerRequest
		if cost >= least {
			continue
		}
		if least = cost; parts > 1 {
			part = longest / parts * 7 / 8 // the bytes of a set are estimated
		}
	}
	return part
}

// Last returns the model of reads that no other reads follow. A plan may then split a range into
// parts shorter than InFlight, of at least the given bytes.
func (m Model) Last(part int64) Model {
	m.last = part
	return m
}

// Extent is the byte range [Off, End) of an object.
type Extent struct {
	Off, End int64
}

// Len returns the number of bytes of the range.
func (e Extent) Len() int64 { return e.End - e.Off }

// Reads returns the cost of requests that are sent in trips rounds, each of which waits for the
// former. longest is the sum of the longest reads of the rounds, and total the sum of all reads, in
// bytes.
func (m Model) Reads(trips, requests int, longest, total int64) time.Duration {
	m = m.withDefaults()
	return time.Duration(trips)*m.FirstByte +
		time.Duration(m.transfer(longest)+float64(total)*m.perByte()) +
		time.Duration(requests)*m.PerRequest
}

// Cost returns the cost of reads that are sent together. It is 0 for no reads.
func (m Model) Cost(reads []Extent) time.Duration {
	if len(reads) == 0 {
		return 0
	}
	longest, total := int64(0), int64(0)
	for _, r := range reads {
		longest = max(longest, r.Len())
		total += r.Len()
	}
	return m.Reads(1, len(reads), longest, total)
}

// InFlight returns the bandwidth-delay product in bytes: what one connection transfers in the time
// to the first byte. A sequence of reads keeps a connection busy if it is read ahead by that. A
// read that is shorter waits longer than it transfers.
func (m Model) InFlight() int64 {
	m = m.withDefaults()
	return int64(m.FirstByte.Seconds() * m.BytesPerSecond)
}

// transfer returns the time in nanoseconds that one read needs for its bytes, as far as this set of
// reads has to answer for it.
func (m Model) transfer(bytes int64) float64 {
	return float64(bytes) * 1e9 / m.BytesPerSecond / float64(max(m.beside, 1))
}

// perByte returns the nanoseconds by which each byte occupies the network.
func (m Model) perByte() float64 { return 1e9 / m.TotalBytesPerSecond }
