package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

// maxLooks is how often one sync lists the bucket at most.
const maxLooks = 3

// look lists the bucket and reads the meta.json of the blocks that it shows. Its error means that
// the view is not complete.
//
// A compactor may replace a block after the listing and delete it before its meta.json is read. The
// listing shows neither the replacement nor that there is one: a view that is made from it lacks
// the data, and answers from it would be wrong and look right. Therefore look lists again if a
// block that is listed for the first time has no meta.json, unless all blocks that are served stay.
// A block whose upload is not over costs one listing that way, once.
func (c *Catalog) look(
	ctx context.Context, d Discovery, tombstones map[ulid.ULID]time.Time, refreshing bool,
	now time.Time,
) (listing, error) {
	for n := 1; ; n++ {
		c.metrics.baseSyncs.Inc()
		l, listErr := c.list(ctx, d)
		fresh := c.unknown(l)
		metaErr := c.readMetas(ctx, l, tombstones, refreshing, now)
		err := errors.Join(listErr, metaErr)
		if err != nil || ctx.Err() != nil {
			return l, err
		}
		id, gone := c.withoutMeta(fresh)
		switch {
		case !gone || c.keepsAll(l):
			return l, nil
		case n == maxLooks:
			return l, fmt.Errorf(
				"list blocks: in each of %d listings a block was gone before its meta.json was read, %s the last time",
				maxLooks, id,
			)
		}
		c.log.Info("a listed block has no meta.json: the bucket is listed again", "block", id)
	}
}

// keepsAll reports whether all blocks that are served are still there. Before the first view there
// are none, which says nothing.
func (c *Catalog) keepsAll(l listing) bool {
	v := c.View()
	for _, b := range v.Blocks {
		if _, listed := l.blocks[b.ID]; !listed || c.records[b.ID] == nil {
			return false
		}
	}
	return v.Ready
}

// unknown returns the blocks of a listing of which nothing is known but that they are listed. A
// listing that shows that a block has no meta.json tells enough of it.
func (c *Catalog) unknown(l listing) (ids []ulid.ULID) {
	for id, seen := range l.blocks {
		if c.records[id] == nil && c.broken[id] == nil && (seen.hasMeta || !l.recursive) {
			ids = append(ids, id)
		}
	}
	return ids
}

// withoutMeta returns one of the blocks whose meta.json was found missing.
func (c *Catalog) withoutMeta(ids []ulid.ULID) (id ulid.ULID, ok bool) {
	for _, id := range ids {
		if b := c.broken[id]; b != nil && b.state == stateNoMeta {
			return id, true
		}
	}
	return ulid.ULID{}, false
}
