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
	// A missing or damaged meta.json may be an upload in progress, whose block will replace others.
	// It is read again at every sync for uploadTime, and then every lastRetry. Compactors regard an
	// upload as aborted after the same time.
	uploadTime = 48 * time.Hour
	// A meta.json that cannot be read is read again after firstRetry. The wait doubles each time,
	// up to lastRetry.
	firstRetry = time.Minute
	lastRetry  = time.Hour
	// A block counts as broken after maxMetaFailures failed reads in a row over unreadableTime. If
	// a bucket lists but fails to read for some minutes, the blocks that the unreadable ones
	// replaced must stay in the view.
	maxMetaFailures = 5
	unreadableTime  = 10 * time.Minute
	// finalTime replaces unreadableTime at a first start, for final errors (such as denied access)
	// of few objects. Nothing is served yet that the block could have replaced.
	finalTime = 20 * time.Second
)

// brokenBlock is a block of the bucket whose meta.json is missing or invalid.
type brokenBlock struct {
	state    string
	err      error
	attempts int       // to read it, in stateFailed
	since    time.Time // when this state began
	next     time.Time // when it is read again
	modified time.Time // of the meta.json, zero if the listing does not state it
}

// Sync lists the bucket, reads new blocks and publishes a view. It returns nil only if it read all
// of the bucket and of the Parquet bucket. After an error all served blocks stay, and new blocks
// that could be read are added. If only the Parquet bucket failed, blocks are removed as usual,
// with the last known state of that bucket. One sync or refresh runs at a time; others wait.
func (c *Catalog) Sync(ctx context.Context) error {
	c.metrics.syncs.Inc()
	began := time.Now()
	// Before the turn, because a refresh does not read the Parquet bucket and must not wait for it.
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

// sync does the work of Sync or Refresh. It returns the result to save, nil for none. The caller
// saves it after the turn, so that the next sync does not wait for the disk.
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

	known := maps.Clone(c.records)
	l, err := c.look(ctx, discovery, tombstones, refreshing, now)
	if ctx.Err() != nil {
		// The failures of a cancelled sync say nothing about the bucket.
		return context.Cause(ctx)
	}
	var removed []*record
	if err == nil {
		removed, err = c.removeUnlisted(ctx, l, tombstones, known, now)
		err = errors.Join(err, c.confirmHeadless(l, now))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	complete := err == nil
	if complete {
		maps.DeleteFunc(c.broken, func(id ulid.ULID, _ *brokenBlock) bool {
			_, ok := l.blocks[id]
			return !ok
		})
		c.logEmpty(l)
	}

	ch := c.candidates(now)
	for _, r := range c.readMarks(ctx, c.marksToRead(ch.candidates, l, !refreshing), l, c.syncs) {
		c.setBroken(r.id(), stateNoMeta, errors.New("deleted"), time.Time{}, now)
		ch.candidates = slices.DeleteFunc(ch.candidates, func(o *record) bool { return o == r })
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var lost []*Block
	c.mu.Lock()
	for id := range tombstones {
		if known := c.numbers.assigned[id]; known != nil {
			lost = append(lost, known.block)
		}
	}
	c.mu.Unlock()
	c.choose(ctx, &ch, lost, now, complete)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	old := c.View()
	var lifted map[ulid.ULID]time.Time
	if complete {
		lifted = tombstones
	} else {
		ch.blocks = union(ch.blocks, c.selected(without(old.Blocks, removed), ch.ownership))
	}
	fromDisk := !complete && (old.FromDisk || !old.Ready && c.fallback != nil)
	if fromDisk && !old.FromDisk {
		c.log.Warn("first sync is incomplete, also serving the blocks of an earlier process",
			"blocks", len(c.fallback))
	}
	v := c.publishChoice(ctx, &ch, old.Ready || complete || c.fallback != nil, fromDisk, lifted)
	c.incomplete = !complete
	c.metrics.complete.Set(oneIf(complete))
	if c.countNumbers() {
		c.log.Error("all block numbers are used, new blocks are not cached until a restart")
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
	c.setStatus(l, ch.states, now, errors.Join(err, c.parquet.Load().err))
	c.logSync(old, v, len(l.blocks), ch.states, refreshing, complete, time.Since(now))
	if !complete {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return nil
}

// selectByState drops the candidates whose deletion mark has expired, then duplicates, and numbers
// the others. lost are blocks with a missing object. waiting is that of dropDuplicates.
func (c *Catalog) selectByState(
	candidates []*record, lost []*Block, now time.Time, states stateCounts,
) (blocks []*Block, waiting int) {
	unmarked := make([]*record, 0, len(candidates))
	for _, r := range candidates {
		if r.mark.expired(now, c.opts.IgnoreDeletionMarksDelay) {
			c.exclude(states, stateMarked, r, ulid.ULID{})
			continue
		}
		unmarked = append(unmarked, r)
	}
	remaining, waiting := c.dropDuplicates(unmarked, c.View(), lost, states)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range remaining {
		b := &r.meta.block
		if e := c.extents[b.ID]; e != nil && e.Meta == b.Meta {
			blocks = append(blocks, c.numbers.block(e.applyTo(*b)))
		} else {
			blocks = append(blocks, c.numbers.block(*b))
		}
	}
	return blocks, waiting
}

// countNumbers exports the number of used block numbers, and reports whether none is left.
func (c *Catalog) countNumbers() (exhausted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.numbers.Set(float64(c.numbers.next - 1))
	return c.numbers.exhausted()
}

// selected returns the blocks that the relabel rules select and that are owned.
func (c *Catalog) selected(blocks []*Block, owned ownership) []*Block {
	s := c.rules.Load().selector(time.Now())
	if len(s.rules) == 0 && owned.owns == nil {
		return blocks
	}
	return slices.DeleteFunc(slices.Clone(blocks), func(b *Block) bool {
		return !s.keeps(b) || owned.owns != nil && !owned.owns(b.ID)
	})
}

// without returns blocks without those of the records.
func without(blocks []*Block, records []*record) []*Block {
	if len(records) == 0 {
		return blocks
	}
	ids := make(map[ulid.ULID]struct{}, len(records))
	for _, r := range records {
		ids[r.id()] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(blocks), func(b *Block) bool {
		_, ok := ids[b.ID]
		return ok
	})
}

// union returns blocks and the blocks of served that are not among them.
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
	fresh    bool // do not use the local copy, because the block may have changed
}

// readMetas reads the meta.json of every listed block that is new, changed or tombstoned, and
// updates records and broken. An error means that the sync is incomplete.
func (c *Catalog) readMetas(
	ctx context.Context, l listing, tombstones map[ulid.ULID]time.Time, refreshing bool,
	now time.Time,
) error {
	reads := c.metasToRead(l, tombstones, refreshing, now)
	results := make([]metaResult, len(reads))
	retain, dropped := c.retainRecords(reads)
	c.local.writeLate(len(reads) > manyMetas)
	c.parallel(len(reads), func(i int) error {
		res := c.readMeta(ctx, reads[i].id, reads[i].fresh)
		if results[i] = res; res.outcome == readOK {
			retain.add(retained{res.meta.bytes, reads[i].id.String(), func(why error) {
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

// retainRecords returns a retention with the known blocks that are not read again. If one of these
// is dropped, it is added to the map. The map belongs to the readers until they have ended.
func (c *Catalog) retainRecords(reads []metaRead) (*retention, map[ulid.ULID]error) {
	again := make(map[ulid.ULID]struct{}, len(reads))
	for _, r := range reads {
		again[r.id] = struct{}{}
	}
	retain, dropped := &retention{limit: c.opts.DocumentBytes}, map[ulid.ULID]error{}
	for id, r := range c.records {
		if _, ok := again[id]; !ok {
			drop := func(why error) { dropped[id] = why }
			retain.add(retained{r.meta.bytes, id.String(), drop})
		}
	}
	return retain, dropped
}

// unreadable records that the read of a meta.json failed, and reports whether that makes the sync
// incomplete. It does not after maxMetaFailures attempts in a row over the given time, if other
// blocks are known. Then a served block stays as known, and any other counts as broken.
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
		b.attempts = min(b.attempts, maxMetaFailures-1) // the next failure may exceed the limit
		return true
	}
	b.next = now.Add(retryAfter(b.attempts - maxMetaFailures + 1))
	c.log.Error("cannot read the meta.json of a block, skipping the block",
		"block", read.id, "attempts", b.attempts, "next", b.next, "err", err)
	return false
}

// joinSome joins the first few errors and counts the others, because a failing bucket causes
// thousands of equal errors.
func joinSome(errs []error) error {
	const some = 3
	if len(errs) <= some {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs[:some:some], fmt.Errorf("and %d more", len(errs)-some))...)
}

// metasToRead returns the reads of a sync, newest block first. It also updates records and broken
// by what a recursive listing shows.
func (c *Catalog) metasToRead(
	l listing, tombstones map[ulid.ULID]time.Time, refreshing bool, now time.Time,
) []metaRead {
	var reads []metaRead
	for id, seen := range l.blocks {
		if l.recursive && !seen.hasMeta {
			if l.partial || c.records[id] != nil {
				continue // the listing ended before it, or removeUnlisted checks it
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
			// A recursive listing has just shown that the meta.json exists.
			if changed || doubtful && !l.recursive {
				reads = append(reads, metaRead{id, seen.metaModified, true})
			} else if !seen.metaModified.IsZero() {
				r.metaModified = seen.metaModified
			}
			continue
		}
		b := c.broken[id]
		// A meta.json that the listing shows to be new is read at once.
		changed := b != nil && l.recursive &&
			(b.state == stateNoMeta || !b.modified.Equal(seen.metaModified))
		// A refresh reads all: the replacement of a lost block may have been an incomplete upload
		// when it was last read.
		if b == nil || changed || refreshing || !now.Before(b.next) {
			reads = append(reads, metaRead{id, seen.metaModified, b != nil})
		}
	}
	slices.SortFunc(reads, func(a, b metaRead) int { return b.id.Compare(a.id) })
	return reads
}

// setMeta updates the record of a block by its meta.json.
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

// setBroken records that a block cannot be served, and schedules the next read of its meta.json.
func (c *Catalog) setBroken(id ulid.ULID, state string, err error, modified, now time.Time) {
	c.dropRecord(id)
	b := c.broken[id]
	if b == nil || b.state != state {
		b = &brokenBlock{state: state, since: now}
		c.broken[id] = b
		c.log.Warn("skipping a block", "block", id, "state", state, "err", err)
	}
	b.err, b.modified, b.next = err, modified, now
	if now.Sub(b.since) >= uploadTime {
		b.next = now.Add(lastRetry)
	}
}

// dropRecord forgets a block. It also removes the local copy of its meta.json, which would restore
// the block at the next sync.
func (c *Catalog) dropRecord(id ulid.ULID) {
	delete(c.records, id)
	if err := c.local.removeMeta(id); err != nil {
		c.diskFailed("cannot remove a copy of meta.json", err, "block", id)
	}
}

// retryAfter returns the wait before the next read of a meta.json that cannot be read, after the
// given number of attempts beyond maxMetaFailures.
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
		Excluded:     c.excluded,
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
		"listed", listed, "serving", len(v.Blocks), "added", added, "removed",
		len(old.Blocks) + added - len(v.Blocks),
		"complete", complete, "refresh", refreshing, "took", took.Round(time.Millisecond),
	}
	for _, s := range append(allStates[:], stateShard) {
		if n := states[s]; n > 0 && s != stateLoaded {
			args = append(args, s, n)
		}
	}
	log("synced", args...)
}
