// Package layout makes random buckets of TSDB blocks, the same bucket for the same seed.
// Prometheus's index and chunk writers write the blocks, and Thanos's own library downsamples them.
// Every layout contains what a gateway meets in production, only denser: overlapping, nested,
// gapped, compacted, downsampled, marked and damaged blocks of a few label sets.
//
// A Layout also remembers what it wrote (label sets, chunk edges). Requests aim at those edges, and
// a difference between two gateways is judged by what is in the bucket.
package layout

import (
	"sort"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/block/metadata"
)

const (
	Raw         = int64(0)
	FiveMinutes = int64(5 * 60 * 1000)
	OneHour     = int64(60 * 60 * 1000)
)

// Layout is one bucket on disk.
type Layout struct {
	Seed uint64
	// Dir is the bucket's folder.
	Dir string
	// MinTime and MaxTime are the --min-time and --max-time of both gateways; zero times mean no
	// bound.
	MinTime, MaxTime time.Time
	// ReplicaLabel is the label that distinguishes replicas, inside blocks or outside.
	ReplicaLabel string
	Blocks       []*Block
}

// Block is one block as written.
type Block struct {
	ID               ulid.ULID
	Labels           labels.Labels
	MinTime, MaxTime int64
	Resolution       int64
	Sources          []ulid.ULID
	Source           metadata.SourceType
	// MarkAge is the age of the block's deletion mark; 0 means no mark.
	MarkAge time.Duration
	Damage  Damage
	// Irregular names the irregularities of the block's index.
	Irregular []Irregularity
	Series    []Series
}

// Series is one series of a block as in its index, without external labels.
type Series struct {
	Labels labels.Labels
	// Stored are the pairs as stored in an irregular block's index; nil if they equal Labels.
	Stored []labels.Label
	Chunks []Range
}

// Pairs returns the label pairs of the index, for which posting lists exist.
func (s *Series) Pairs() []labels.Label {
	if s.Stored != nil {
		return s.Stored
	}
	var out []labels.Label
	s.Labels.Range(func(l labels.Label) { out = append(out, l) })
	return out
}

// Range is a closed interval of milliseconds.
type Range struct{ Min, Max int64 }

// Damage is what was broken in a block after it was written.
type Damage string

const (
	Sound           Damage = ""
	MissingChunks   Damage = "chunk file removed"
	TruncatedChunks Damage = "chunk file cut short"
	FlippedChunk    Damage = "chunk bytes changed"
)

// Served returns, by minimum time, the blocks that a store gateway must serve with the default
// filters and the layout's time bounds. Deletion marks count after 24 h; a block whose sources are
// contained in another block of its group is not served.
func (l *Layout) Served() []*Block {
	var in []*Block
	for _, b := range l.Blocks {
		if !l.MinTime.IsZero() && b.MaxTime < l.MinTime.UnixMilli() {
			continue
		}
		if !l.MaxTime.IsZero() && b.MinTime > l.MaxTime.UnixMilli() {
			continue
		}
		if b.MarkAge > 24*time.Hour {
			continue
		}
		in = append(in, b)
	}
	var out []*Block
	for _, b := range in {
		if !coveredByAnother(b, in) {
			out = append(out, b)
		}
	}
	sort.Slice(out, func(i, j int) bool { return before(out[i], out[j]) })
	return out
}

// coveredByAnother reports whether another block of b's group contains all sources of b. The
// generator never writes two blocks with the same sources into one group, because one of them would
// have to be served.
func coveredByAnother(b *Block, all []*Block) bool {
	for _, o := range all {
		if o == b || o.Resolution != b.Resolution || !labels.Equal(o.Labels, b.Labels) ||
			len(o.Sources) <= len(b.Sources) {
			continue
		}
		have := map[ulid.ULID]bool{}
		for _, s := range o.Sources {
			have[s] = true
		}
		all := true
		for _, s := range b.Sources {
			all = all && have[s]
		}
		if all {
			return true
		}
	}
	return false
}

func before(a, b *Block) bool {
	if a.MinTime != b.MinTime {
		return a.MinTime < b.MinTime
	}
	if a.MaxTime != b.MaxTime {
		return a.MaxTime < b.MaxTime
	}
	return a.ID.Compare(b.ID) < 0
}

// Damaged returns the damaged blocks by id.
func (l *Layout) Damaged() map[string]*Block {
	out := map[string]*Block{}
	for _, b := range l.Blocks {
		if b.Damage != Sound {
			out[b.ID.String()] = b
		}
	}
	return out
}

// Clamp narrows a request's range to the layout's time bounds, as a gateway does before it chooses
// blocks.
func (l *Layout) Clamp(mint, maxt int64) (int64, int64) {
	if !l.MinTime.IsZero() {
		mint = max(mint, l.MinTime.UnixMilli())
	}
	if !l.MaxTime.IsZero() {
		maxt = min(maxt, l.MaxTime.UnixMilli())
	}
	return mint, maxt
}
