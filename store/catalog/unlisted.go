package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	// agreeAfter is the time after a doubtful listing at which another listing must agree. It is
	// longer than most maintenance pages last, and shorter than the default interval of syncs.
	agreeAfter = 5 * time.Minute
	// minGoneBudget is the minimum number of unlisted blocks whose meta.json a sync looks up. The
	// budget is the maximum of this and an eighth of the known blocks.
	minGoneBudget = 256
)

// unlistedBlocks are known blocks that the last complete listings lack. Catalog.turn guards it.
type unlistedBlocks struct {
	since map[ulid.ULID]time.Time // the first of the listings in a row without the block
	// doubted are the blocks of since whose absence is in doubt. They stay in doubt until a listing
	// shows one of them, or agrees.
	doubted map[ulid.ULID]struct{}
	// pending is when the absence of the first doubted block is believed, zero if none is doubted.
	pending time.Time
}

// shows reports whether the listing has the block: its meta.json if the listing is recursive,
// otherwise its folder.
func (l *listing) shows(id ulid.ULID) bool {
	b, ok := l.blocks[id]
	return ok && (!l.recursive || b.hasMeta)
}

// removeUnlisted forgets the blocks that have left the bucket, as a whole listing shows, and
// returns them.
//
// It compares the listing with the blocks known before it, before any filter. A block that was seen
// marked for deletion is removed. Any other is removed only if its meta.json is missing too. If the
// listing lacks more than half of the known blocks, without a mark and without a replacement, it is
// in doubt: nothing is removed until a listing agreeAfter later agrees.
//
// An error means that the listing contradicts the bucket or is in doubt. Then the sync is
// incomplete.
func (c *Catalog) removeUnlisted(
	ctx context.Context, l listing, tombstones map[ulid.ULID]time.Time,
	before map[ulid.ULID]*record, now time.Time,
) (gone []*record, err error) {
	u := &c.unlisted
	var unlisted []*record
	for _, r := range sortedRecords(c.records) {
		if !l.shows(r.id()) {
			unlisted = append(unlisted, r)
		}
	}
	// Blocks of the saved catalog without a copy of their meta.json count too. They are not served,
	// and not looked up.
	known, uncopied := len(before), []ulid.ULID(nil)
	for id := range c.saved {
		if c.records[id] == nil && c.broken[id] == nil {
			if known++; !l.shows(id) {
				uncopied = append(uncopied, id)
			}
		}
	}
	missing := uncopied
	for _, r := range unlisted {
		missing = append(missing, r.id())
	}
	since := make(map[ulid.ULID]time.Time, len(missing))
	for _, id := range missing {
		if since[id] = now; !u.since[id].IsZero() {
			since[id] = u.since[id]
		}
	}
	replaced := c.replacedBy(unlisted, l)
	lost := len(uncopied) // without a mark and without a replacement
	for _, r := range unlisted {
		if before[r.id()] != nil && !r.mark.marked && !replaced[r] {
			lost++
		}
	}
	refuted := false // a listing shows a block in doubt
	for id := range u.doubted {
		refuted = refuted || l.shows(id)
	}
	doubted := map[ulid.ULID]struct{}{}
	pending := time.Time{}
	for id, at := range since {
		if _, was := u.doubted[id]; (!was || refuted) && 2*lost <= known {
			continue
		}
		if at = at.Add(agreeAfter); now.Before(at) {
			doubted[id] = struct{}{}
			if pending.IsZero() || at.Before(pending) {
				pending = at
			}
		}
	}
	u.since, u.doubted, u.pending = since, doubted, pending
	candidates := slices.DeleteFunc(slices.Clone(unlisted), func(r *record) bool {
		_, ok := doubted[r.id()]
		return ok
	})
	if !u.pending.IsZero() {
		c.metrics.contradictions.WithLabelValues(contradictionShrunk).Inc()
		c.log.Warn(
			"listing lacks more than half of the known blocks, keeping them until another listing agrees",
			"known", known, "in_doubt", len(doubted), "listed", len(l.blocks),
			"missing", len(missing), "without_mark_or_replacement", lost,
			"listed_again_by", u.pending, "bucket", c.opts.BucketName, "prefix", c.opts.Prefix,
		)
		err = fmt.Errorf("the listing lacks more than half of the known blocks, which were neither "+
			"marked for deletion nor replaced: %d stay until another listing agrees, at %s",
			len(doubted), u.pending.UTC().Format(time.RFC3339))
	}
	gone, lookErr := c.checkUnlisted(ctx, candidates, tombstones, known, now)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, r := range gone {
		delete(u.since, r.id())
		if _, listed := l.blocks[r.id()]; listed {
			c.setBroken(
				r.id(), stateNoMeta, errors.New("no meta.json in the listing"), time.Time{}, now,
			)
		} else {
			delete(c.records, r.id())
		}
	}
	c.metrics.shrinkPending.Set(oneIf(!u.pending.IsZero()))
	c.metrics.unlisted.Set(float64(len(u.since)))
	return gone, errors.Join(err, lookErr)
}

// replacedBy returns the records that a listed block replaces. Such a block has their resolution
// and all their sources. Its external labels may differ, because a rewrite can change them.
func (c *Catalog) replacedBy(records []*record, l listing) map[*record]bool {
	bySource := map[ulid.ULID][]*record{}
	for _, r := range records {
		first := r.meta.block.Sources[0]
		bySource[first] = append(bySource[first], r)
	}
	replaced := map[*record]bool{}
	if len(records) == 0 {
		return replaced
	}
	for id, r := range c.records {
		if !l.shows(id) {
			continue
		}
		for _, s := range r.meta.block.Sources {
			for _, o := range bySource[s] {
				b, other := &r.meta.block, &o.meta.block
				if b.Resolution == other.Resolution && b.HasSourcesOf(other) {
					replaced[o] = true
				}
			}
		}
	}
	return replaced
}

// checkUnlisted looks up the meta.json of the records without a deletion mark, and returns the
// records that have left the bucket. Blocks with tombstones come first. A sync looks up a limited
// number. If there are more, the others stay until the next sync, which follows at once.
func (c *Catalog) checkUnlisted(
	ctx context.Context, records []*record, tombstones map[ulid.ULID]time.Time, known int,
	now time.Time,
) (gone []*record, err error) {
	var lookups []*record
	for _, r := range records {
		if r.mark.marked {
			gone = append(gone, r)
		} else {
			lookups = append(lookups, r)
		}
	}
	order := func(r *record) int {
		if _, lost := tombstones[r.id()]; lost {
			return -1
		}
		return r.failures
	}
	slices.SortStableFunc(lookups, func(a, b *record) int {
		return cmp.Compare(order(a), order(b))
	})
	rest := 0
	if budget := max(minGoneBudget, known/8); len(lookups) > budget {
		rest, lookups = len(lookups)-budget, lookups[:budget]
	}
	results := make([]metaResult, len(lookups))
	c.parallel(len(lookups), func(i int) error {
		results[i] = c.fetchMeta(ctx, lookups[i].id())
		results[i].meta = nil // only its existence matters
		return results[i].err
	}, func(i int, err error) { results[i] = metaResult{outcome: readFailed, err: err} })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var errs []error
	for i, r := range lookups {
		id := r.id()
		switch res := results[i]; res.outcome {
		case readMissing:
			gone = append(gone, r)
		case readOK, readBroken:
			// A listing that always omits a block must not prevent removals for ever.
			if r.failures++; r.failures >= maxMetaFailures &&
				now.Sub(c.unlisted.since[id]) >= unreadableTime {
				r.failures = maxMetaFailures
				continue
			}
			errs = append(
				errs, fmt.Errorf("the listing lacks block %s, but its meta.json exists", id),
			)
		case readFailed:
			_, doubtful := tombstones[id]
			if c.unreadable(metaRead{id: id}, res.err, doubtful, unreadableTime, now) {
				errs = append(errs, res.err)
			}
		}
	}
	if rest > 0 {
		c.log.Info("unlisted blocks stay until a later sync looks up their meta.json", "blocks", rest)
		if len(gone) > 0 {
			c.syncAgain()
		}
	}
	if len(errs) > 0 {
		c.metrics.contradictions.WithLabelValues(contradictionUnlisted).Inc()
		c.log.Warn("listing lacks blocks that may exist, keeping them",
			"blocks", len(errs), "err", errs[0])
	}
	return gone, joinSome(errs)
}

// confirmHeadless returns an error for a first listing that shows blocks but not a single
// meta.json. Such a bucket more likely cannot be read than has nothing but unfinished uploads. The
// listing is believed if another one agreeAfter later agrees.
func (c *Catalog) confirmHeadless(l listing, now time.Time) error {
	headless := 0
	for id, seen := range l.blocks {
		if l.recursive && !seen.hasMeta {
			continue // a recursive listing shows that
		}
		if b := c.broken[id]; b == nil || b.state != stateNoMeta {
			headless = 0
			break
		}
		headless++
	}
	if headless == 0 || len(c.records) > 0 || c.View().Ready {
		c.headlessSince = time.Time{}
		return nil
	}
	if c.headlessSince.IsZero() {
		c.headlessSince = now
	}
	at := c.headlessSince.Add(agreeAfter)
	if !now.Before(at) {
		return nil
	}
	c.metrics.contradictions.WithLabelValues(contradictionHeadless).Inc()
	c.log.Error("bucket has blocks but no meta.json, not ready until another listing agrees",
		"blocks", headless, "listed_again_by", at,
		"bucket", c.opts.BucketName, "prefix", c.opts.Prefix)
	return fmt.Errorf("the bucket lists %d blocks but has no meta.json (unfinished uploads, or "+
		"objects that cannot be read): believed if another listing agrees at %s",
		headless, at.UTC().Format(time.RFC3339))
}

// logEmpty logs that the bucket has no blocks, once until it has some.
func (c *Catalog) logEmpty(l listing) {
	if len(l.blocks) > 0 {
		c.loggedEmpty = false
		return
	}
	if c.loggedEmpty {
		return
	}
	c.loggedEmpty = true
	c.log.Warn("no blocks in the bucket, check its name and prefix and that a sidecar uploads",
		"bucket", c.opts.BucketName, "prefix", c.opts.Prefix,
		"other_names", l.others, "for_example", l.examples)
}
