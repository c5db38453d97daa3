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
	// agreeAfter is how long after a doubtful listing another one must still say the same. It is
	// longer than most maintenance pages last, and shorter than the default interval of syncs.
	agreeAfter = 5 * time.Minute
	// minGoneBudget is how many meta.json of blocks that a listing left out are looked up in a sync
	// at least. The budget is this or an eighth of the known blocks, whichever is more.
	minGoneBudget = 256
)

// unlistedBlocks is what complete listings left out though it was known, under Catalog.turn.
type unlistedBlocks struct {
	since map[ulid.ULID]time.Time // the first of the listings in a row without the block
	// doubted are those of since that a listing in doubt left out. They stay in doubt until a
	// listing shows some of them, or agrees.
	doubted map[ulid.ULID]struct{}
	// pending is when the doubted part of the last listing is believed if it does not change, zero
	// if none is doubted.
	pending time.Time
}

// shows reports whether the listing has a block's meta.json, or where it does not tell, its folder.
func (l *listing) shows(id ulid.ULID) bool {
	b, ok := l.blocks[id]
	return ok && (!l.recursive || b.hasMeta)
}

// leaveUnlisted judges what a whole listing left out, and forgets the blocks that have left the
// bucket. It returns them.
//
// The listing is compared with the blocks known before it, whatever filters make of these. A block
// that was seen marked for deletion leaves. Any other leaves only if its meta.json is missing too.
// If more than half of the blocks are left out without a mark and without a block that replaces
// them, the listing is doubted: nothing leaves until a listing agreeAfter later agrees.
//
// An error means that the listing contradicts the bucket, or is doubted: the view is incomplete.
func (c *Catalog) leaveUnlisted(
	ctx context.Context, l listing, tombstones map[ulid.ULID]time.Time,
	before map[ulid.ULID]*record, now time.Time,
) (left []*record, err error) {
	u := &c.unlisted
	var gone []*record
	for _, r := range sortedRecords(c.records) {
		if !l.shows(r.id()) {
			gone = append(gone, r)
		}
	}
	// What an earlier process knew and no copy is left of counts too. It is not served, and not
	// looked for.
	known, uncopied := len(before), []ulid.ULID(nil)
	for id := range c.saved {
		if c.records[id] == nil && c.broken[id] == nil {
			if known++; !l.shows(id) {
				uncopied = append(uncopied, id)
			}
		}
	}
	missing := uncopied
	for _, r := range gone {
		missing = append(missing, r.id())
	}
	since := make(map[ulid.ULID]time.Time, len(missing))
	for _, id := range missing {
		if since[id] = now; !u.since[id].IsZero() {
			since[id] = u.since[id]
		}
	}
	replaced := c.replacedBy(gone, l)
	lost := len(uncopied) // without a mark and without a replacement
	for _, r := range gone {
		if before[r.id()] != nil && !r.mark.marked && !replaced[r] {
			lost++
		}
	}
	refuted := false // the listing in doubt was wrong
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
	leaving := slices.DeleteFunc(
		slices.Clone(gone), func(r *record) bool { _, ok := doubted[r.id()]; return ok },
	)
	if !u.pending.IsZero() {
		c.metrics.contradictions.WithLabelValues(contradictionShrunk).Inc()
		c.log.Warn(
			"the listing lacks more than half of the known blocks: they stay until another listing agrees",
			"known", known, "in_doubt", len(doubted), "listed", len(l.blocks), "missing",
			len(missing), "without_mark_or_replacement", lost, "listed_again_by", u.pending,
			"bucket", c.opts.BucketName, "prefix", c.opts.Prefix,
		)
		err = fmt.Errorf(
			"a listing lacks more than half of the known blocks, which were neither marked for deletion nor replaced: "+
				"%d stay until another listing agrees, at %s",
			len(doubted),
			u.pending.UTC().Format(time.RFC3339),
		)
	}
	left, lookErr := c.lookForUnlisted(ctx, leaving, tombstones, known, now)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, r := range left {
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
	return left, errors.Join(err, lookErr)
}

// replacedBy returns which of the records a listed block replaces: it has their resolution and all
// their sources. Its external labels may be others, because a rewrite can change them.
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
				if b, other := &r.meta.block, &o.meta.block; b.Resolution == other.Resolution &&
					b.HasSourcesOf(other) {
					replaced[o] = true
				}
			}
		}
	}
	return replaced
}

// lookForUnlisted looks for the meta.json of the records that were not seen marked, and returns
// those that have left the bucket. Those of which an object was found missing come first. A few
// are looked for in each sync, and the others stay until the next one, which follows at once.
func (c *Catalog) lookForUnlisted(
	ctx context.Context, records []*record, tombstones map[ulid.ULID]time.Time, known int,
	now time.Time,
) (left []*record, err error) {
	var looks []*record
	for _, r := range records {
		if r.mark.marked {
			left = append(left, r)
		} else {
			looks = append(looks, r)
		}
	}
	turn := func(r *record) int {
		if _, lost := tombstones[r.id()]; lost {
			return -1
		}
		return r.failures
	}
	slices.SortStableFunc(looks, func(a, b *record) int { return cmp.Compare(turn(a), turn(b)) })
	rest := 0
	if budget := max(minGoneBudget, known/8); len(looks) > budget {
		rest, looks = len(looks)-budget, looks[:budget]
	}
	results := make([]metaResult, len(looks))
	c.parallel(len(looks), func(i int) error {
		results[i] = c.fetchMeta(ctx, looks[i].id())
		results[i].meta = nil // that it is there is all that is asked
		return results[i].err
	}, func(i int, err error) { results[i] = metaResult{outcome: readFailed, err: err} })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var errs []error
	for i, r := range looks {
		id := r.id()
		switch res := results[i]; res.outcome {
		case readMissing:
			left = append(left, r)
		case readOK, readBroken:
			// A listing that hides a block for ever must not keep the others from leaving for ever.
			if r.failures++; r.failures >= maxMetaFailures &&
				now.Sub(c.unlisted.since[id]) >= unreadableTime {
				r.failures = maxMetaFailures
				continue
			}
			errs = append(
				errs, fmt.Errorf("the listing leaves out block %s, and its meta.json is there", id),
			)
		case readFailed:
			_, doubtful := tombstones[id]
			if c.unreadable(metaRead{id: id}, res.err, doubtful, unreadableTime, now) {
				errs = append(errs, res.err)
			}
		}
	}
	if rest > 0 {
		c.log.Info(
			"blocks that left the listing stay until their meta.json was looked for", "blocks",
			rest,
		)
		if len(left) > 0 {
			c.syncAgain()
		}
	}
	if len(errs) > 0 {
		c.metrics.contradictions.WithLabelValues(contradictionUnlisted).Inc()
		c.log.Warn(
			"the listing lacks blocks that are not known to be gone: they stay", "blocks",
			len(errs), "err", errs[0],
		)
	}
	return left, joinSome(errs)
}

// confirmHeadless doubts a first listing that shows blocks none of which has a meta.json: more
// likely than a bucket of unfinished uploads is one that cannot be read. It is believed if a
// listing agreeAfter later says the same.
func (c *Catalog) confirmHeadless(l listing, now time.Time) error {
	headless := 0
	for id, seen := range l.blocks {
		if l.recursive && !seen.hasMeta {
			continue // the listing itself says so
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
	c.log.Error(
		"the bucket lists blocks and has the meta.json of none: not ready until one is there, or another listing agrees",
		"blocks", headless, "listed_again_by", at, "bucket", c.opts.BucketName, "prefix",
		c.opts.Prefix,
	)
	return fmt.Errorf(
		"the bucket lists %d blocks and has the meta.json of none (unfinished uploads, or objects that cannot be read): "+
			"believed if it is still so at %s",
		headless,
		at.UTC().Format(time.RFC3339),
	)
}

// sayEmpty warns of a bucket without blocks, once until it has some.
func (c *Catalog) sayEmpty(l listing) {
	if len(l.blocks) > 0 {
		c.saidEmpty = false
		return
	}
	if c.saidEmpty {
		return
	}
	c.saidEmpty = true
	c.log.Warn(
		"no blocks in the bucket: check its name, the prefix and who uploads", "bucket",
		c.opts.BucketName, "prefix", c.opts.Prefix, "other_names", l.others, "for_example",
		l.examples,
	)
}
