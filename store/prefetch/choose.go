package prefetch

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/internal/pagecache"
	"larder/store/catalog"
	"larder/store/indexheader"
)

// block is what the Prefetcher knows of a block of the view.
type block struct {
	meta    *catalog.Block
	started bool             // left is set, or the index was read before
	left    []pagecache.Span // of the index, to be looked at, in order
	done    bool
	at      time.Time // when it was done, zero if never
	retryAt time.Time // after a failure
	asked   bool      // for its header
}

// source returns the source of the block's header.
func (b *block) source() indexheader.Source {
	return indexheader.Source{
		ID: b.meta.ID, Number: b.meta.Number, Content: b.meta.Content,
		IndexObject: b.meta.ID.String() + "/index", IndexSize: b.meta.IndexSize,
		Unsized: !b.meta.Sized(), MaxTime: b.meta.MaxTime,
	}
}

// look chooses blocks again if there are new facts.
func (p *Prefetcher) look() {
	p.mu.Lock()
	view := p.view
	p.mu.Unlock()
	now := time.Now()
	changed := p.note() || view != p.chosen
	if now.Sub(p.looked) >= lookEvery {
		p.looked = now
		p.queried = p.o.Queried(now.Add(-recently))
		if n := p.o.Disk.Lost(); n != p.losses {
			p.losses = n
			for _, b := range p.blocks {
				b.done, b.started, b.left = false, false, nil
			}
		}
		p.save()
		changed = true
	}
	if changed && view != nil {
		p.choose(view, now)
	}
}

// note takes over the evictions of the disk, and reports whether there are any.
func (p *Prefetcher) note() bool {
	p.mu.Lock()
	lost := p.lost
	p.lost = nil
	p.mu.Unlock()
	now := time.Now()
	some := false
	for _, o := range lost {
		b := p.blocks[o.id]
		// Pages of an index that is not read yet may be those of requests.
		if b == nil || b.meta.Content != o.content || !b.started {
			continue
		}
		some = true
		b.done, b.started, b.left = false, false, nil
		p.evicted.add(o, now)
	}
	return some
}

// choose queues the blocks whose indexes are to be read: of those that were queried recently the
// newest, then of all others the newest, as far as they fit in MaxBytes.
func (p *Prefetcher) choose(view *catalog.View, now time.Time) {
	if view != p.chosen {
		known := make(map[ulid.ULID]*block, len(view.Blocks))
		for _, meta := range view.Blocks {
			b := p.blocks[meta.ID]
			if b == nil || b.meta.Content != meta.Content {
				b = &block{}
			}
			b.meta = meta
			known[meta.ID] = b
		}
		p.blocks, p.chosen = known, view
	}
	candidates := make([]*block, 0, len(p.blocks))
	skipped := 0
	for _, b := range p.blocks {
		if b.meta.IndexSize > 0 && b.meta.IndexSize <= p.o.MaxBytes {
			if p.mayRead(b, now) {
				candidates = append(candidates, b)
			} else {
				skipped++
			}
		}
	}
	// Not by the time of the query: every dashboard would change the choice.
	slices.SortFunc(candidates, func(a, b *block) int {
		return cmp.Or(cmp.Compare(p.rank(a), p.rank(b)), newest(a, b))
	})
	p.metrics.evicted.Set(float64(skipped))
	p.queue = p.queue[:0]
	left, over := p.o.MaxBytes, 0
	for _, b := range candidates {
		if b.meta.IndexSize > left {
			over++
			continue
		}
		left -= b.meta.IndexSize
		if !b.done {
			p.queue = append(p.queue, b)
		}
	}
	p.metrics.budget.Set(float64(over))
	slices.SortFunc(p.queue, newest)
	p.count()
}

// rank is lower for blocks that were queried recently.
func (p *Prefetcher) rank(b *block) int {
	if _, queried := p.queried[b.meta.ID]; queried {
		return 0
	}
	return 1
}

// newest orders blocks by the end of their time, the newest first.
func newest(a, b *block) int {
	return cmp.Or(cmp.Compare(b.meta.MaxTime, a.meta.MaxTime), b.meta.ID.Compare(a.meta.ID))
}

// mayRead reports whether the index of a block may be read if it lost pages: only if the block was
// queried after that, and not again soon.
func (p *Prefetcher) mayRead(b *block, now time.Time) bool {
	o := object{b.meta.ID, b.meta.Content}
	at, lost := p.evicted.at(o)
	if !lost || b.done {
		return true
	}
	if !p.queried[b.meta.ID].After(at) || now.Sub(b.at) < againAfter {
		return false
	}
	p.evicted.remove(o)
	return true
}

// count tells the metrics how many blocks wait.
func (p *Prefetcher) count() {
	now, n := time.Now(), 0
	for _, b := range p.queue {
		if !b.retryAt.After(now) {
			n++
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.view == p.chosen {
		p.pending = n
	}
}

// dequeue removes a block that is done, or counts one that failed.
func (p *Prefetcher) dequeue(b *block) {
	if b.done {
		p.queue = slices.DeleteFunc(p.queue, func(o *block) bool { return o == b })
	}
	p.count()
}

// next returns the newest waiting block whose header is there, or how long to wait for one.
func (p *Prefetcher) next(ctx context.Context) (*block, time.Duration) {
	now := time.Now()
	var first *block
	for _, b := range p.queue {
		if b.retryAt.After(now) {
			continue
		}
		if p.o.Headers.Opened(b.meta.ID) {
			return b, 0
		}
		if first == nil {
			first = b
		}
	}
	if first == nil {
		return nil, lookEvery
	}
	ctx, cancel := context.WithTimeout(ctx, headerWait)
	defer cancel()
	if p.o.Headers.Wait(ctx, []ulid.ULID{first.meta.ID}) != nil ||
		p.o.Headers.Opened(first.meta.ID) {
		return nil, time.Nanosecond // look at the others, too
	}
	if first.asked {
		p.failed(first, errNoHeader)
	} else {
		first.asked = true
		p.o.Headers.Prefetch([]indexheader.Source{first.source()})
	}
	return nil, time.Nanosecond
}
