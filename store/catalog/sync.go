package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
)

const (
	// A meta.json that is missing or damaged may be on its way, and its block may be what replaces
	// others soon: for uploadTime it is read again at every sync. After two days a compactor takes
	// an upload for aborted; then it is read every lastRetry.
	uploadTime = 48 * time.Hour
	// One that cannot be read is read again after firstRetry, then twice as long each time, up to
	// lastRetry.
	firstRetry = time.Minute
	lastRetry  = time.Hour
	// maxMetaFailures is how many attempts in a row may fail to read a meta.json before its block
	// counts as broken, and unreadableTime for how long they must have failed: a bucket that lists
	// and does not read for some minutes must not take away what was replaced by blocks that it
	// does not let us know.
	maxMetaFailures = 5
	unreadableTime  = 10 * time.Minute
	// finalTime is the same for final answers about few objects, such as denied access, at a first
	// start: nothing is served yet that the block could have replaced, and the others wait for it.
	finalTime = 20 * time.Second
)

// brokenBlock is a block of the bucket whose meta.json is missing or cannot be used.
type brokenBlock struct {
	state    string
	err      error
	attempts int       // to read it, in stateFailed
	since    time.Time // when it was first seen in this state
	next     time.Time
	// of the meta.json that was read, zero where the bucket's listing does not tell
	modified time.Time
}

// Sync lists the bucket, takes in what is new, and publishes what it found. It returns nil only if
// it saw the bucket whole, and the Parquet bucket too; after any error the blocks that were served
// still are, and new ones that could be read are too. If it is the Parquet bucket alone that
// failed, blocks are removed all the same, but none that its last state does not name. One sync or
// refresh runs at a time; others wait.
func (c *Catalog) Sync(ctx context.Context) error {
	c.metrics.syncs.Inc()
	began := time.Now()
	// Before the sync's turn: a refresh does not need the Parquet bucket and must not wait for it.
	parquetErr := c.readParquet(ctx)
	found, err := c.sync(ctx, false)
	saveErr := c.panics.Do(func() error {
		c.save(found)
		return nil
	})
	err = errors.Join(err, saveErr, parquetErr)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return err
	}
	c.metrics.syncDuration.Observe(time.Since(began).Seconds())
	if err != nil {
		c.metrics.syncFailures.Inc()
	}
	return err
}

// sync is Sync, or the work of a Refresh. It returns what is to be saved, nil for nothing: that
// waits for the disk, which others who want the turn need not.
func (c *Catalog) sync(ctx context.Context, refreshing bool) (*saved, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.turn:
	}
	defer func() { c.turn <- struct{}{} }()
	c.found = nil
	err := c.panics.Do(func() error { return c.syncLocked(ctx, refreshing) })
	return c.found, err
}

// syncLocked does the work of sync; turn must be held.
func (c *Catalog) syncLocked(ctx context.Context, refreshing bool) error {
	now := time.Now()
	c.syncs++
	discovery := c.opts.Discovery
	if refreshing {
		discovery = Concurrent
	}
	tombstones := c.tombstoned()

	states := stateCounts{}
	known := maps.Clone(c.records)
	l, err := c.look(ctx, discovery, tombstones, refreshing, now)
	if ctx.Err() != nil {
		// half a sync on the way out: what failed says nothing about the bucket
		return context.Cause(ctx)
	}
	var left []*record
	if err == nil {
		left, err = c.leaveUnlisted(ctx, l, tombstones, known, now)
		err = errors.Join(err, c.confirmHeadless(l, now))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	complete := err == nil
	if complete {
		maps.DeleteFunc(
			c.broken, func(id ulid.ULID, _ *brokenBlock) bool { _, ok := l.blocks[id]; return !ok },
		)
		c.sayEmpty(l)
	}

	candidates := c.selectByMeta(sortedRecords(c.records), now, states)
	for _, r := range c.readMarks(ctx, c.marksToRead(candidates, l, !refreshing), l, c.syncs) {
		c.setBroken(r.id(), stateNoMeta, errors.New("deleted"), time.Time{}, now)
		candidates = slices.DeleteFunc(candidates, func(o *record) bool { return o == r })
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var lost []*Block
	c.mu.Lock()
	for id := range tombstones {
		if known := c.numbers.given[id]; known != nil {
			lost = append(lost, known.block)
		}
	}
	c.mu.Unlock()
	blocks, held := c.selectByState(candidates, lost, now, states)
	for _, b := range c.broken {
		states[b.state]++
	}

	old := c.View()
	var lifted map[ulid.ULID]time.Time
	if complete {
		lifted = tombstones
	} else {
		blocks = union(blocks, c.selected(without(old.Blocks, left)))
	}
	fromDisk := !complete && (old.FromDisk || !old.Ready && c.fallback != nil)
	if fromDisk && !old.FromDisk {
		c.log.Warn(
			"the bucket was not seen whole yet: serving the blocks of an earlier process too",
			"blocks", len(c.fallback),
		)
	}
	v := c.publish(blocks, old.Ready || complete || c.fallback != nil, fromDisk, lifted)
	states[stateLoaded] = len(v.Blocks)
	c.metrics.heldSources.Set(float64(held))
	c.metrics.setStates(states)
	c.metrics.complete.Set(oneIf(complete))
	if c.countNumbers() {
		c.log.Error(
			"all block numbers are spent: pages of new blocks are not cached until this process restarts",
		)
	}
	if complete {
		c.lastComplete = now
		c.metrics.lastComplete.Set(float64(now.UnixMilli()) / 1e3)
		c.mu.Lock()
		c.numbers.completeView(v)
		c.mu.Unlock()
		c.tidy(ctx, l, refreshing)
		c.found = c.toSave(now)
		c.saved = nil
	}
	c.setStatus(l, states, now, errors.Join(err, c.parquet.Load().err))
	c.logSync(old, v, len(l.blocks), states, refreshing, complete, time.Since(now))
	if !complete {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return nil
}

// selectByState drops candidates that were marked for deletion long enough ago and then duplicates,
// and numbers the rest. lost are blocks of which an object is missing.
func (c *Catalog) selectByState(
	candidates []*record, lost []*Block, now time.Time, states stateCounts,
) (blocks []*Block, held int) {
	unmarked := make([]*record, 0, len(candidates))
	for _, r := range candidates {
		if r.mark.expired(now, c.opts.IgnoreDeletionMarksDelay) {
			states[stateMarked]++
			continue
		}
		unmarked = append(unmarked, r)
	}
	kept, held := c.dropDuplicates(unmarked, c.View(), lost, states)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range kept {
		b := &r.meta.block
		if e := c.extents[b.ID]; e != nil && e.Meta == b.Meta {
			blocks = append(blocks, c.numbers.block(e.over(*b)))
		} else {
			blocks = append(blocks, c.numbers.block(*b))
		}
	}
	return blocks, held
}

// countNumbers counts the numbers that were given, and reports whether none is left.
func (c *Catalog) countNumbers() (exhausted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.numbers.Set(float64(c.numbers.next - 1))
	return c.numbers.exhausted()
}

// selected returns those of the blocks that the relabel rules let through.
func (c *Catalog) selected(blocks []*Block) []*Block {
	s := newSelector(*c.rules.Load())
	if len(s.rules) == 0 {
		return blocks
	}
	return slices.DeleteFunc(slices.Clone(blocks), func(b *Block) bool { return !s.keeps(b) })
}

// without returns those of the blocks that are not among the records.
func without(blocks []*Block, records []*record) []*Block {
	if len(records) == 0 {
		return blocks
	}
	ids := make(map[ulid.ULID]struct{}, len(records))
	for _, r := range records {
		ids[r.id()] = struct{}{}
	}
	return slices.DeleteFunc(
		slices.Clone(blocks), func(b *Block) bool { _, ok := ids[b.ID]; return ok },
	)
}

// union returns blocks and those of served that are not among them.
func union(blocks, served []*Block) []*Block {
	have := make(map[ulid.ULID]struct{}, len(blocks))
	for _, b := range blocks {
		have[b.ID] = struct{}{}
	}
	for _, b := range served {
		if _, ok := have[b.ID]; !ok {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// metaRead is a meta.json to be read.
type metaRead struct {
	id       ulid.ULID
	modified time.Time
	// fresh forbids the local copy: there is reason to doubt that the block is as it was.
	fresh bool
}

// readMetas reads the meta.json of every listed block that is new, changed or tombstoned, and takes
// in the results. Its error means that the view is not complete.
func (c *Catalog) readMetas(
	ctx context.Context, l listing, tombstones map[ulid.ULID]time.Time, refreshing bool,
	now time.Time,
) error {
	reads := c.metasToRead(l, tombstones, refreshing, now)
	results := make([]metaResult, len(reads))
	room, dropped := c.keepRecords(reads)
	c.parallel(len(reads), func(i int) error {
		res := c.readMeta(ctx, reads[i].id, reads[i].fresh)
		if results[i] = res; res.outcome == readOK {
			room.add(kept{res.meta.kept, reads[i].id.String(), func(why error) {
				results[i] = metaResult{outcome: readBroken, err: refusedMeta(reads[i].id, why)}
			}})
		}
		return res.err
	}, func(i int, err error) { results[i] = metaResult{outcome: readFailed, err: err} })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	for id, why := range dropped {
		c.setBroken(id, stateCorrupted, refusedMeta(id, why), c.records[id].metaModified, now)
	}
	var failed []int
	for i, read := range reads {
		res := results[i]
		switch res.outcome {
		case readOK:
			c.setMeta(read, res.meta)
		case readMissing:
			c.setBroken(read.id, stateNoMeta, res.err, read.modified, now)
		case readBroken:
			c.setBroken(read.id, stateCorrupted, res.err, read.modified, now)
		case readFailed:
			failed = append(failed, i)
		}
	}
	final := 0
	for _, i := range failed {
		if c.opts.FinalError(results[i].err) {
			final++
		}
	}
	patience := unreadableTime
	if c.fallback == nil && c.lastComplete.IsZero() && final == len(failed) && len(c.records) > 0 &&
		final <= max(1, len(c.records)/2) {
		patience = finalTime
	}
	var errs []error
	for _, i := range failed {
		_, doubtful := tombstones[reads[i].id]
		if err := results[i].err; c.unreadable(reads[i], err, doubtful, patience, now) {
			errs = append(errs, err)
		}
	}
	return joinSome(errs)
}

// keepRecords returns what is kept of the known blocks, but for those that are read again, and a
// map that receives those of them that have to go. The map belongs to readers until they have
// ended.
func (c *Catalog) keepRecords(reads []metaRead) (*keeping, map[ulid.ULID]error) {
	again := make(map[ulid.ULID]struct{}, len(reads))
	for _, r := range reads {
		again[r.id] = struct{}{}
	}
	k, dropped := &keeping{limit: c.opts.DocumentBytes}, map[ulid.ULID]error{}
	for id, r := range c.records {
		if _, ok := again[id]; !ok {
			k.add(kept{r.meta.kept, id.String(), func(why error) { dropped[id] = why }})
		}
	}
	return k, dropped
}

// unreadable notes that the read of a meta.json failed. It reports whether the view is incomplete
// for it: not after maxMetaFailures attempts in a row, over the time given, while other blocks are
// known. Then a block that is served stays as it was known, and any other counts as broken.
func (c *Catalog) unreadable(
	read metaRead, err error, doubtful bool, patience time.Duration, now time.Time,
) (incomplete bool) {
	r, b := c.records[read.id], c.broken[read.id]
	if r != nil {
		if r.failures++; r.failures < maxMetaFailures {
			return true
		}
		if !doubtful {
			return false
		}
		c.dropRecord(read.id)
	}
	if b == nil || b.state != stateFailed {
		b = &brokenBlock{state: stateFailed, since: now}
		if r != nil {
			b.attempts = r.failures - 1
		}
		c.broken[read.id] = b
	}
	b.err, b.modified, b.next = err, read.modified, time.Time{}
	if b.attempts++; b.attempts < maxMetaFailures || now.Sub(b.since) < patience ||
		len(c.records) == 0 {
		b.attempts = min(b.attempts, maxMetaFailures-1) // the next one may be the one too many
		return true
	}
	b.next = now.Add(retryAfter(b.attempts - maxMetaFailures + 1))
	c.log.Error(
		"block is skipped: its meta.json cannot be read", "block", read.id, "attempts", b.attempts,
		"next", b.next, "err", err,
	)
	return false
}

// joinSome joins the first few errors and counts the rest: a bucket that fails every read has
// thousands alike.
func joinSome(errs []error) error {
	const some = 3
	if len(errs) <= some {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs[:some:some], fmt.Errorf("and %d more", len(errs)-some))...)
}

// metasToRead returns the reads of a sync, newest block first, and takes in what the listing alone
// says.
func (c *Catalog) metasToRead(
	l listing, tombstones map[ulid.ULID]time.Time, refreshing bool, now time.Time,
) []metaRead {
	var reads []metaRead
	for id, seen := range l.blocks {
		if l.recursive && !seen.hasMeta {
			if l.partial || c.records[id] != nil {
				continue // it may be in what did not come, or leaveUnlisted asks for it
			}
			if b := c.broken[id]; b == nil || b.state != stateNoMeta {
				c.setBroken(
					id, stateNoMeta, errors.New("no meta.json in the listing"), time.Time{}, now,
				)
			}
			continue
		}
		if r := c.records[id]; r != nil {
			changed := !seen.metaModified.IsZero() && !r.metaModified.IsZero() &&
				!seen.metaModified.Equal(r.metaModified)
			_, doubtful := tombstones[id]
			if changed {
				c.metrics.cacheBusts.Inc()
			}
			// a recursive listing has just shown the meta.json
			if changed || doubtful && !l.recursive {
				reads = append(reads, metaRead{id, seen.metaModified, true})
			} else if !seen.metaModified.IsZero() {
				r.metaModified = seen.metaModified
			}
			continue
		}
		b := c.broken[id]
		// What the listing shows to be new does not wait.
		changed := b != nil && l.recursive &&
			(b.state == stateNoMeta || !b.modified.Equal(seen.metaModified))
		// Nor does a refresh wait: what replaces a lost block may be what was last seen half
		// uploaded.
		if b == nil || changed || refreshing || !now.Before(b.next) {
			reads = append(reads, metaRead{id, seen.metaModified, b != nil})
		}
	}
	slices.SortFunc(reads, func(a, b metaRead) int { return b.id.Compare(a.id) })
	return reads
}

// setMeta takes in a meta.json that was read.
func (c *Catalog) setMeta(read metaRead, m *meta) {
	delete(c.broken, read.id)
	r := c.records[read.id]
	if r == nil {
		r = c.newRecord(m)
		c.records[read.id] = r
	}
	if r.meta.block.Content != m.block.Content {
		c.log.Warn("meta.json of a known block changed", "block", read.id)
		r.meta = m
	}
	r.failures = 0
	if !read.modified.IsZero() {
		r.metaModified = read.modified
	}
}

// setBroken notes that a block cannot be served; when it is tried again depends on how long this
// has been so.
func (c *Catalog) setBroken(id ulid.ULID, state string, err error, modified, now time.Time) {
	c.dropRecord(id)
	b := c.broken[id]
	if b == nil || b.state != state {
		b = &brokenBlock{state: state, since: now}
		c.broken[id] = b
		c.log.Warn("block is skipped", "block", id, "state", state, "err", err)
	}
	b.err, b.modified, b.next = err, modified, now
	if now.Sub(b.since) >= uploadTime {
		b.next = now.Add(lastRetry)
	}
}

// dropRecord forgets what is known of a block that is still listed, on disk too: the copy of its
// meta.json would bring it back.
func (c *Catalog) dropRecord(id ulid.ULID) {
	delete(c.records, id)
	if err := c.local.removeMeta(id); err != nil {
		c.diskFailed("copy of meta.json could not be removed", err, "block", id)
	}
}

// retryAfter is how long a meta.json that cannot be read is left alone after so many attempts too
// many.
func retryAfter(attempts int) time.Duration {
	return min(lastRetry, firstRetry<<min(attempts-1, 10))
}

func (c *Catalog) setStatus(l listing, states stateCounts, now time.Time, err error) {
	s := Status{
		At:           now,
		LastComplete: c.lastComplete,
		Err:          err,
		Pending:      c.unlisted.pending,
		Listed:       len(l.blocks),
		States:       states,
	}
	for id, b := range c.broken {
		s.Broken = append(s.Broken, BrokenBlock{ID: id, State: b.state, Err: b.err, Next: b.next})
	}
	slices.SortFunc(s.Broken, func(a, b BrokenBlock) int {
		return cmp.Or(cmp.Compare(a.State, b.State), a.ID.Compare(b.ID))
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = s
}

func (c *Catalog) logSync(
	old, v *View, listed int, states stateCounts, refreshing, complete bool, took time.Duration,
) {
	log := c.log.Debug
	if v != old {
		log = c.log.Info
	}
	added := 0
	for _, b := range v.Blocks {
		if old.ByID(b.ID) == nil {
			added++
		}
	}
	args := []any{
		"listed", listed, "serving", len(v.Blocks), "added", added, "removed", len(old.Blocks) + added - len(v.Blocks),
		"complete", complete, "refresh", refreshing, "took", took.Round(time.Millisecond),
	}
	for _, s := range allStates {
		if n := states[s]; n > 0 && s != stateLoaded {
			args = append(args, s, n)
		}
	}
	log("synced", args...)
}
