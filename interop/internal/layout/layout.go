// Package layout makes random buckets of TSDB blocks, the same ones for the same seed. Blocks are
// written by Prometheus's index and chunk writers and downsampled by Thanos's own library, so
// whatever a gateway meets in production it meets here, only denser: every layout crowds
// overlapping, nested, gapped, compacted, downsampled, marked and damaged blocks of a few label
// sets together.
//
// A Layout also remembers what it wrote (label sets, chunk edges), because requests aim at edges,
// and a difference between two gateways is judged by what lies in the bucket.
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
	// MinTime and MaxTime are the --min-time and --max-time both gateways run with; zero times mean
	// no bound.
	MinTime, MaxTime time.Time
	// ReplicaLabel is the label that tells replicas apart, inside blocks or outside.
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
	// MarkAge is how long ago the block was marked for deletion; 0 means it was not.
	MarkAge time.Duration
	Damage  Damage
	// Irregular says what is wrong with the order or shape of the block's index.
	Irregular []Irregularity
	Series    []Series
}

// Series is one series of a block as its index holds it, without external labels.
type Series struct {
	Labels labels.Labels
	// Stored are the pairs as they stand in an irregular block's index; nil where they are Labels.
	Stored []labels.Label
	Chunks []Range
}

// Pairs are the label pairs of the index: those that posting lists exist for.
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

// Damage says what was broken in a block after it was written.
type Damage string

const (
	Sound           Damage = ""
	MissingChunks   Damage = "chunk file removed"
	TruncatedChunks Damage = "chunk file cut short"
	FlippedChunk    Damage = "chunk bytes changed"
)

// Served returns the blocks that a store gateway is to serve with the default filters (deletion
// marks count after 24 h; a block whose sources are contained in another's of its group is left
// out) and the layout's time bounds, by minimum time.
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

// coveredByAnother reports whether another block of b's group holds everything that b was made
// from. Of blocks made from the same sources one must stay: the generator never writes two such
// blocks into one group.
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

// Damaged returns the broken blocks by id.
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
