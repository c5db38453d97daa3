package inspection

import (
	"maps"
	"math"
	"slices"
	"time"

	"larder/store/catalog"
)

// Totals are sums over blocks.
type Totals struct {
	Blocks int `json:"blocks"`
	// Bytes are those of index and chunk files.
	Bytes int64 `json:"bytes"`
	// Series counts a series once for each block that has it.
	Series uint64 `json:"series"`
}

func (t *Totals) add(b *catalog.Block) {
	t.Blocks++
	t.Bytes += b.Bytes()
	t.Series += b.NumSeries
}

// TimeRange is a range of time, with the start and without the end. Both are nil for no blocks.
type TimeRange struct {
	From *time.Time `json:"from"`
	To   *time.Time `json:"to"`
}

func newTimeRange(from, to int64) TimeRange {
	if from > to {
		return TimeRange{}
	}
	f, t := time.UnixMilli(from).UTC(), time.UnixMilli(to).UTC()
	return TimeRange{From: &f, To: &t}
}

// reach is a time range that grows, in milliseconds.
type reach struct{ from, to int64 }

func newReach() reach { return reach{math.MaxInt64, math.MinInt64} }

func (r *reach) add(b *catalog.Block) {
	r.from, r.to = min(r.from, b.MinTime), max(r.to, b.MaxTime)
}

func (r reach) timeRange() TimeRange { return newTimeRange(r.from, r.to) }

// Left are blocks that a report does not count, by the reason.
type Left struct {
	State string `json:"state"`
	Totals
}

// sortedLeft returns the sums by state, sorted by state.
func sortedLeft(byState map[string]*Totals) []Left {
	left := []Left{}
	for _, state := range slices.Sorted(maps.Keys(byState)) {
		left = append(left, Left{state, *byState[state]})
	}
	return left
}

// BadBlock is a block that cannot be read or used, or whose files are not as stated.
type BadBlock struct {
	Block  string `json:"block"`
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// badBlocks returns the entries that have an error. failed says whether the bucket caused any.
func badBlocks(entries []catalog.Entry) (bad []BadBlock, failed bool) {
	bad = []BadBlock{}
	for _, e := range entries {
		failed = failed || e.Failed
		if e.Err != nil {
			bad = append(bad, BadBlock{e.ID.String(), e.State, e.Err.Error()})
		}
		for _, m := range e.Marks {
			if m.Err != nil {
				bad = append(bad, BadBlock{e.ID.String(), m.Name, m.Err.Error()})
			}
		}
	}
	return bad, failed
}
