package catalog

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
	"unique"

	"github.com/oklog/ulid/v2"
)

// record is what the catalog knows of a block that is in the bucket and has a usable meta.json. It
// belongs to the holder of Catalog.turn.
type record struct {
	meta         *meta
	metaModified time.Time // zero where the bucket's listing does not tell
	failures     int       // reads of the meta.json in a row that failed since it was known
	mark         mark
}

func (r *record) id() ulid.ULID { return r.meta.block.ID }

// sortedRecords returns the records by ID, so that logs, look-ups and numbers come in the same
// order in every process.
func sortedRecords(records map[ulid.ULID]*record) []*record {
	return slices.SortedFunc(
		maps.Values(records), func(a, b *record) int { return a.id().Compare(b.id()) },
	)
}

// selectByMeta keeps the records that the Parquet bucket, the time partition, the relabel rules and
// the consistency delay let through, in this order, and counts the others by Thanos's names.
func (c *Catalog) selectByMeta(records []*record, now time.Time, states stateCounts) []*record {
	minTime := c.opts.MinTime.Millis(now, math.MinInt64)
	maxTime := c.opts.MaxTime.Millis(now, math.MaxInt64)
	selected := newSelector(*c.rules.Load())
	converted := c.parquet.Load().periods(now)
	var kept []*record
	for _, r := range records {
		b := &r.meta.block
		switch {
		case covers(converted[b.ID], b.MinTime, b.MaxTime):
			states[stateConverted]++
		case b.MaxTime < minTime || b.MinTime > maxTime:
			states[stateTimeExcluded]++
		case !selected.keeps(b):
			states[stateLabelExcluded]++
		case tooFresh(r.meta, now, c.opts.ConsistencyDelay):
			states[stateTooFresh]++
		default:
			kept = append(kept, r)
		}
	}
	return kept
}

// tooFresh reports whether a block may still be only partly visible in the bucket. Its age counts
// from its upload, or from its ULID where meta.json does not say.
func tooFresh(m *meta, now time.Time, delay time.Duration) bool {
	if delay == 0 {
		return false // also when a clock elsewhere runs ahead of ours
	}
	switch m.source {
	case sourceCompactor, sourceCompactorRepair, sourceBucketRepair:
		return false
	}
	from := m.uploadTime
	if from.IsZero() {
		// A ULID of the future says that the writer's clock is ahead, and nothing about the upload.
		// Same as Thanos.
		if from = m.block.ID.Timestamp(); from.After(now) {
			return false
		}
	}
	return now.Sub(from) < delay
}

// dropDuplicates keeps the records whose data no other block of their group holds: a record goes if
// all its sources are among another's. Of two with equal sources the older ULID stays. A record
// that is served now goes only when a block that covers it has opened, or covers a lost block too:
// then what it replaces is being deleted. held counts those that wait.
func (c *Catalog) dropDuplicates(
	records []*record, served *View, lost []*Block, states stateCounts,
) (kept []*record, held int) {
	ordered := slices.SortedFunc(slices.Values(records), func(a, b *record) int {
		return cmp.Or(
			cmp.Compare(len(b.meta.block.Sources), len(a.meta.block.Sources)),
			a.id().Compare(b.id()),
		)
	})
	type source struct {
		group unique.Handle[string]
		id    ulid.ULID
	}
	holders := map[source][]*record{} // kept records by each of their sources
	for _, r := range ordered {
		b := &r.meta.block
		// A block that covers this one holds its first source too.
		covered, coveredByOpened := false, false
		for _, h := range holders[source{r.meta.group, b.Sources[0]}] {
			if !containsAll(h.meta.block.Sources, b.Sources) {
				continue
			}
			covered = true
			if coveredByOpened = c.opts.Opened(h.id()) || slices.ContainsFunc(lost, h.meta.block.Replaces); coveredByOpened {
				break
			}
		}
		if covered && (coveredByOpened || served.ByID(b.ID) == nil) {
			states[stateDuplicate]++
			continue
		}
		if covered {
			held++
		}
		kept = append(kept, r)
		for _, s := range b.Sources {
			holders[source{r.meta.group, s}] = append(holders[source{r.meta.group, s}], r)
		}
	}
	return kept, held
}

// containsAll reports whether every one of some is in all; both are sorted and distinct.
func containsAll(all, some []ulid.ULID) bool {
	if len(some) > len(all) {
		return false
	}
	i := 0
	for _, s := range some {
		for i < len(all) && all[i].Compare(s) < 0 {
			i++
		}
		if i == len(all) || all[i] != s {
			return false
		}
	}
	return true
}
