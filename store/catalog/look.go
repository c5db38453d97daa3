package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

// maxLooks bounds how often one sync lists the bucket.
const maxLooks = 3

// look lists the bucket and reads the meta.json of the listed blocks. An error means that the sync
// is incomplete.
//
// A compactor may replace a block after the listing and delete it before its meta.json is read. The
// listing does not show the replacement: a view from it would lack the data, and answers would be
// wrong and look right. look therefore lists again if a newly listed block has no meta.json, unless
// all served blocks are still there. A block that is being uploaded costs one extra listing, once.
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
				"list blocks: in each of %d listings a block was deleted before its meta.json was read, last block %s",
				maxLooks, id,
			)
		}
		c.log.Info("listed block has no meta.json, listing the bucket again", "block", id)
	}
}

// keepsAll reports whether all served blocks are in the listing and known. It is false before the
// first view, which has no blocks to compare.
func (c *Catalog) keepsAll(l listing) bool {
	v := c.View()
	for _, b := range v.Blocks {
		if _, listed := l.blocks[b.ID]; !listed || c.records[b.ID] == nil {
			return false
		}
	}
	return v.Ready
}

// unknown returns the listed blocks that the catalog knows nothing else about. It omits blocks of
// which a recursive listing shows that they have no meta.json.
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
