package catalog

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
)

// maxRestored bounds the copies that one sync reads again because they are not on disk.
const maxRestored = 256

// tidy removes the copies of blocks that are not in the bucket. After a failure of the disk, or if
// copies were removed from outside, it restores those of blocks that are in the bucket. Otherwise a
// start without the bucket would lack these blocks.
func (c *Catalog) tidy(ctx context.Context, l listing, refreshing bool) {
	known := func(id ulid.ULID) bool { _, ok := l.blocks[id]; return ok || c.records[id] != nil }
	c.forgetExtents(known)
	c.forgetMeasurements(known)
	left, err := c.local.removeMetas(known)
	if err != nil {
		c.diskFailed("copies of meta.json could not be removed", err)
		return
	}
	if c.local.dir.IsZero() || refreshing || c.diskBad.Load() {
		return
	}
	var missing []ulid.ULID
	for _, r := range sortedRecords(c.records) {
		if _, ok := left[r.id()]; !ok && len(missing) < maxRestored {
			missing = append(missing, r.id())
		}
	}
	if len(missing) == 0 {
		return
	}
	c.parallel(len(missing), func(i int) error {
		return c.readMeta(ctx, missing[i], true).err
	}, func(i int, err error) { c.log.Warn("copy of meta.json is missing", "block", missing[i], "err", err) })
	if ctx.Err() == nil && !c.diskBad.Load() {
		c.log.Info("copies of meta.json are restored", "blocks", len(missing))
	}
}

// toSave returns what a complete sync knows.
func (c *Catalog) toSave(now time.Time) *saved {
	s := &saved{At: now.UTC(), Blocks: make([]savedBlock, 0, len(c.records))}
	for _, r := range sortedRecords(c.records) {
		s.Blocks = append(s.Blocks, savedBlock{
			ID:           r.id(),
			Checked:      r.mark.known,
			Marked:       r.mark.marked,
			DeletionTime: r.mark.deletionTime,
			MetaModified: r.metaModified,
			MarkModified: r.mark.modified,
		})
	}
	return s
}

// save writes what a sync has found, unless a later one's was written meanwhile.
func (c *Catalog) save(s *saved) {
	if s == nil {
		return
	}
	c.saveMu.Lock()
	defer c.saveMu.Unlock()
	if s.At.Before(c.lastSaved) {
		return
	}
	c.lastSaved = s.At
	if err := c.local.putSaved(*s, c.opts.Concurrency); err != nil {
		c.diskFailed(
			"the catalog could not be saved: a start without the bucket would serve an older one",
			err,
		)
		return
	}
	if c.diskBad.Swap(false) {
		c.log.Info("the catalog is saved again")
	}
}

// diskFailed counts a failure of the disk, and logs it if the one before was none: each block would
// have one.
func (c *Catalog) diskFailed(what string, err error, args ...any) {
	c.metrics.diskFailures.Inc()
	log := c.log.Warn
	if c.diskBad.Swap(true) {
		log = c.log.Debug
	}
	log(what, append(args, "err", err)...)
}
