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

// record is what the catalog knows of a block that is in the bucket and has a valid meta.json. It
// belongs to the sync that has Catalog.turn.
type record struct {
	meta         *meta
	metaModified time.Time // zero if the listing does not state it
	failures     int       // failed reads of the meta.json in a row
	mark         mark
}

func (r *record) id() ulid.ULID { return r.meta.block.ID }

// sortedRecords returns the records by ID, so that logs, lookups and numbers have the same order in
// every process.
func sortedRecords(records map[ulid.ULID]*record) []*record {
	return slices.SortedFunc(
		maps.Values(records), func(a, b *record) int { return a.id().Compare(b.id()) },
	)
}

// selectByMeta returns the records that pass the filters: conversion to Parquet, time partition,
// relabel rules, ownership and consistency delay, in this order. It counts the others by Thanos's
// state names.
func (c *Catalog) selectByMeta(
	records []*record, now time.Time, owned ownership, states stateCounts,
) []*record {
	minTime := c.opts.MinTime.Millis(now, math.MinInt64)
	maxTime := c.opts.MaxTime.Millis(now, math.MaxInt64)
	selected := c.rules.Load().selector(now)
	c.metrics.formerRules.Set(float64(len(selected.former)))
	converted := c.parquet.Load().periods(now)
	var kept []*record
	for _, r := range records {
		b := &r.meta.block
		switch {
		case covers(converted[b.ID], b.MinTime, b.MaxTime):
			c.exclude(states, stateConverted, r, ulid.ULID{})
		case b.MaxTime < minTime || b.MinTime > maxTime:
			c.exclude(states, stateTimeExcluded, r, ulid.ULID{})
		case !selected.keeps(b):
			c.exclude(states, stateLabelExcluded, r, ulid.ULID{})
		case owned.owns != nil && !owned.owns(b.ID):
			c.exclude(states, stateShard, r, ulid.ULID{})
		case tooFresh(r.meta, now, c.opts.ConsistencyDelay):
			c.exclude(states, stateTooFresh, r, ulid.ULID{})
		default:
			kept = append(kept, r)
		}
	}
	return kept
}

// maxExcluded bounds the excluded blocks that a Status lists, in about 1 MB.
const maxExcluded = 20_000

// exclude counts a block that is not served, and lists it for the status. by replaces it, if any
// block does.
func (c *Catalog) exclude(states stateCounts, state string, r *record, by ulid.ULID) {
	states[state]++
	if len(c.excluded) < maxExcluded {
		c.excluded = append(c.excluded, ExcludedBlock{Block: &r.meta.block, State: state, By: by})
	}
}

// tooFresh reports whether a block may be only partly visible in the bucket yet. Its age counts
// from its upload, or from its ULID if meta.json does not state the upload.
func tooFresh(m *meta, now time.Time, delay time.Duration) bool {
	if delay == 0 {
		return false // even if the writer's clock runs ahead of ours
	}
	switch m.source {
	case sourceCompactor, sourceCompactorRepair, sourceBucketRepair:
		return false
	}
	from := m.uploadTime
	if from.IsZero() {
		// A ULID in the future shows that the writer's clock is ahead, and says nothing about the
		// upload. Same as Thanos.
		if from = m.block.ID.Timestamp(); from.After(now) {
			return false
		}
	}
	return now.Sub(from) < delay
}

// groupSource is a source of the blocks of a group.
type groupSource struct {
	group unique.Handle[string]
	id    ulid.ULID
}

// dropDuplicates drops every record whose sources are all among those of another record in its
// group. Of two records with equal sources, the older ULID stays. A record that is served now is
// dropped only if a block that covers it has opened, or also covers a lost block: then the replaced
// blocks are being deleted. waiting counts the covered records that stay.
func (c *Catalog) dropDuplicates(
	records []*record, served *View, lost []*Block, states stateCounts,
) (remaining []*record, waiting int) {
	ordered := slices.SortedFunc(slices.Values(records), func(a, b *record) int {
		return cmp.Or(
			cmp.Compare(len(b.meta.block.Sources), len(a.meta.block.Sources)),
			a.id().Compare(b.id()),
		)
	})
	bySource := map[groupSource][]*record{} // of remaining
	for _, r := range ordered {
		b := &r.meta.block
		// A block that covers this one has its first source too.
		covered, replaceable, by := false, false, ulid.ULID{}
		for _, o := range bySource[groupSource{r.meta.group, b.Sources[0]}] {
			if !containsAll(o.meta.block.Sources, b.Sources) {
				continue
			}
			covered, by = true, o.id()
			replaceable = c.opts.Opened(o.id()) ||
				slices.ContainsFunc(lost, o.meta.block.Replaces)
			if replaceable {
				break
			}
		}
		if covered && (replaceable || served.ByID(b.ID) == nil) {
			c.exclude(states, stateDuplicate, r, by)
			continue
		}
		if covered {
			waiting++
		}
		remaining = append(remaining, r)
		for _, id := range b.Sources {
			s := groupSource{r.meta.group, id}
			bySource[s] = append(bySource[s], r)
		}
	}
	return remaining, waiting
}

// containsAll reports whether all contains every element of some. Both are sorted and distinct.
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
