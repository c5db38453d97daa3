package catalog

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// minMarkBudget is how many known blocks' deletion marks are looked up in a sync at least; the
// budget is this or an eighth of the blocks, whichever is more. So every mark is seen within eight
// syncs, long before the compactor's delete delay ends, and a small bucket's within one.
const minMarkBudget = 256

// mark is what is known of a block's deletion-mark.json.
type mark struct {
	known        bool // read, or seen to be absent
	marked       bool
	broken       bool      // what was read last is not a mark
	deletionTime int64     // seconds since 1970
	modified     time.Time // of the object, zero where the bucket's listing does not tell
	asked        uint64    // the sync that last looked it up, 0 for none
}

// expired reports whether a block was marked longer than delay ago.
func (m mark) expired(now time.Time, delay time.Duration) bool {
	return m.marked && now.Sub(time.Unix(m.deletionTime, 0)) > delay
}

// marksToRead returns the records whose deletion mark is to be read in this sync, and takes in what
// the listing says.
func (c *Catalog) marksToRead(records []*record, l listing, rotate bool) []*record {
	var read, rotation []*record
	for _, r := range records {
		seen, ok := l.blocks[r.id()]
		switch {
		case !ok:
			// Gone, or the listing ended early. A bucket that cannot even list is not asked
			// hundreds of times more.
		case l.recursive && seen.marked:
			// Read once, and again when it changes. A broken one of which nobody can tell is read
			// every time.
			same := r.mark.known && r.mark.modified.Equal(seen.markModified)
			if !same || !r.mark.marked && seen.markModified.IsZero() {
				read = append(read, r)
			}
		case l.recursive && !l.partial:
			r.mark = mark{known: true}
		case r.mark.asked == 0 && !r.mark.known:
			read = append(read, r)
		case rotate && !l.recursive && !l.partial:
			rotation = append(rotation, r)
		}
	}
	if budget := max(minMarkBudget, len(records)/8); len(rotation) > budget {
		slices.SortFunc(rotation, func(a, b *record) int {
			if a.mark.known != b.mark.known { // an earlier look-up failed
				if b.mark.known {
					return -1
				}
				return 1
			}
			return cmp.Or(cmp.Compare(a.mark.asked, b.mark.asked), a.id().Compare(b.id()))
		})
		rotation = rotation[:budget]
	}
	return append(read, rotation...)
}

// markResult is the outcome of one look-up.
type markResult struct {
	outcome      readOutcome
	deletionTime int64
	err          error
	// gone is set when a mark that was there is not, and the block's meta.json neither: Thanos
	// deletes a block's mark last, so the block was deleted while this sync ran.
	gone bool
}

// readMarks looks up the marks of the given records and takes in what it finds; a look-up that
// fails leaves the record as it was. It returns the records found to be deleted.
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
		r.mark.asked = sync
		modified := l.blocks[r.id()].markModified
		switch res.outcome {
		case readOK:
			if !r.mark.marked {
				c.log.Info(
					"block is marked for deletion", "block", r.id(), "since",
					time.Unix(res.deletionTime, 0).UTC(),
				)
			}
			r.mark = mark{
				known:        true,
				marked:       true,
				deletionTime: res.deletionTime,
				modified:     modified,
				asked:        sync,
			}
		case readMissing:
			r.mark = mark{known: true, asked: sync}
			if res.gone {
				gone = append(gone, r)
			}
		case readBroken:
			// Half an upload or nonsense: it says nothing, and what an earlier one said stays.
			if !r.mark.broken { // said once, not at every sync
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
		c.log.Warn(
			"deletion marks could not be read: these blocks keep their last state", "blocks",
			failed, "err", firstErr,
		)
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
