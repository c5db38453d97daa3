package catalog

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// minMarkBudget is the minimum number of known blocks whose deletion marks a sync looks up. The
// budget is the maximum of this and an eighth of the blocks. A sync therefore looks up all marks of
// a small bucket, and eight syncs look up any, long before the compactor's delete delay ends.
const minMarkBudget = 256

// mark is what is known of a block's deletion-mark.json.
type mark struct {
	known        bool // it was read, or is absent
	marked       bool
	broken       bool      // the object read last is not a mark
	deletionTime int64     // seconds since 1970
	modified     time.Time // of the object, zero if the listing does not state it
	lookedUpBy   uint64    // number of the sync that last looked it up, 0 for none
}

// expired reports whether a block was marked longer than delay ago.
func (m mark) expired(now time.Time, delay time.Duration) bool {
	return m.marked && now.Sub(time.Unix(m.deletionTime, 0)) > delay
}

// marksToRead returns the records whose deletion mark this sync reads, and records the marks that a
// recursive listing shows to be absent.
func (c *Catalog) marksToRead(records []*record, l listing, rotate bool) []*record {
	var read, rotation []*record
	for _, r := range records {
		seen, ok := l.blocks[r.id()]
		switch {
		case !ok:
			// The block is gone, or the listing ended early. A bucket that cannot list is not sent
			// hundreds of further requests.
		case l.recursive && seen.marked:
			// Read it once, and again after a change. A broken mark whose changes the listing does
			// not show is read every time.
			same := r.mark.known && r.mark.modified.Equal(seen.markModified)
			if !same || !r.mark.marked && seen.markModified.IsZero() {
				read = append(read, r)
			}
		case l.recursive && !l.partial:
			r.mark = mark{known: true}
		case r.mark.lookedUpBy == 0 && !r.mark.known:
			read = append(read, r)
		case rotate && !l.recursive && !l.partial:
			rotation = append(rotation, r)
		}
	}
	if budget := max(minMarkBudget, len(records)/8); len(rotation) > budget {
		slices.SortFunc(rotation, func(a, b *record) int {
			if a.mark.known != b.mark.known { // an earlier lookup failed
				if b.mark.known {
					return -1
				}
				return 1
			}
			return cmp.Or(
				cmp.Compare(a.mark.lookedUpBy, b.mark.lookedUpBy), a.id().Compare(b.id()),
			)
		})
		rotation = rotation[:budget]
	}
	return append(read, rotation...)
}

// markResult is the result of one lookup.
type markResult struct {
	outcome      readOutcome
	deletionTime int64
	err          error
	// gone means that a known mark and the block's meta.json are both missing. The block was
	// deleted during this sync, because Thanos deletes a block's mark last.
	gone bool
}

// readMarks looks up the marks of the given records and updates the records. A lookup that fails
// does not change its record. It returns the records of deleted blocks.
func (c *Catalog) readMarks(
	ctx context.Context, records []*record, l listing, sync uint64,
) (gone []*record) {
	results := make([]markResult, len(records))
	c.parallel(len(records), func(i int) error {
		results[i] = c.readMark(ctx, records[i])
		return results[i].err
	}, func(i int, err error) { results[i] = markResult{outcome: readFailed, err: err} })

	var firstErr error
	failed := 0
	for i, r := range records {
		res := results[i]
		c.metrics.markReads.WithLabelValues(string(res.outcome)).Inc()
		r.mark.lookedUpBy = sync
		modified := l.blocks[r.id()].markModified
		switch res.outcome {
		case readOK:
			if !r.mark.marked {
				c.log.Info("block is marked for deletion", "block", r.id(),
					"since", time.Unix(res.deletionTime, 0).UTC())
			}
			r.mark = mark{
				known:        true,
				marked:       true,
				deletionTime: res.deletionTime,
				modified:     modified,
				lookedUpBy:   sync,
			}
		case readMissing:
			r.mark = mark{known: true, lookedUpBy: sync}
			if res.gone {
				gone = append(gone, r)
			}
		case readBroken:
			// An incomplete upload or no mark at all. The state of an earlier mark stays.
			if !r.mark.broken { // logged once, not at every sync
				c.log.Warn("deletion mark is not usable", "block", r.id(), "err", res.err)
			}
			r.mark.known, r.mark.broken, r.mark.modified = true, true, modified
		case readFailed:
			if failed++; firstErr == nil {
				firstErr = res.err
			}
		}
	}
	if failed > 0 && ctx.Err() == nil {
		c.log.Warn("cannot read deletion marks, keeping their last state",
			"blocks", failed, "err", firstErr)
	}
	return gone
}

func (c *Catalog) readMark(ctx context.Context, r *record) markResult {
	id := r.id()
	var res markResult
	res.outcome, res.err = c.readObject(ctx, id.String()+"/"+markFile, maxMarkSize,
		func(data []byte) (err error) {
			res.deletionTime, err = parseMark(id, data)
			return err
		})
	if res.outcome == readMissing {
		res.err = nil
		if r.mark.marked {
			outcome, _ := c.readObject(ctx, id.String()+"/"+metaFile, maxMetaSize,
				func([]byte) error { return nil })
			res.gone = outcome == readMissing
		}
	}
	return res
}
