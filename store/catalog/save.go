package catalog

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"
)

// diskWriters is how many copies are written or synced at once. An fsync mostly waits for others.
const diskWriters = 32

// maxRestored bounds the copies that one sync restores.
const maxRestored = 256

// tidy removes the copies of blocks that are not in the bucket. It restores missing copies of
// blocks that are, after a failure of the disk or if another program removed them. Without that, a
// start without the bucket would lack these blocks.
func (c *Catalog) tidy(ctx context.Context, l listing, refreshing bool) {
	known := func(id ulid.ULID) bool { _, ok := l.blocks[id]; return ok || c.records[id] != nil }
	c.forgetExtents(known)
	c.forgetMeasurements(known)
	left, err := c.local.removeMetas(known)
	if err != nil {
		c.diskFailed("cannot remove copies of meta.json", err)
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
	}, func(i int, err error) {
		c.log.Warn("cannot restore a copy of meta.json", "block", missing[i], "err", err)
	})
	if ctx.Err() == nil && !c.diskBad.Load() {
		c.log.Info("restored copies of meta.json", "blocks", len(missing))
	}
}

// toSave returns the result of a complete sync.
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

// save writes the copies of meta.json that a sync has read, and its result, unless that of a later
// one was written meanwhile. s is nil if there is no result.
func (c *Catalog) save(s *saved) {
	c.saveMu.Lock()
	defer c.saveMu.Unlock()
	if err := c.local.writeMetas(diskWriters); err != nil {
		c.diskFailed("cannot write a copy of meta.json", err)
	}
	if s == nil {
		return
	}
	if s.At.Before(c.lastSaved) {
		return
	}
	c.lastSaved = s.At
	if err := c.local.putSaved(*s, diskWriters); err != nil {
		c.diskFailed("cannot save the catalog", err)
		return
	}
	if c.diskBad.Swap(false) {
		c.log.Info("catalog is saved again")
	}
}

// diskFailed counts a failure of the disk. It logs only the first failure in a row as a warning,
// because a bad disk fails for every block.
func (c *Catalog) diskFailed(what string, err error, args ...any) {
	c.metrics.diskFailures.Inc()
	log := c.log.Warn
	if c.diskBad.Swap(true) {
		log = c.log.Debug
	}
	log(what, append(args, "err", err)...)
}
