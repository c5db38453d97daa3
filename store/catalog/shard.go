package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/shard"
)

// Shard decides which of the selected blocks this process serves. *membership.Driver implements it.
// Its methods must not wait for a sync.
type Shard interface {
	// Ownership returns which blocks the process owns, and the number of that decision, which
	// changes with it.
	Ownership() (owns func(ulid.ULID) bool, number uint64)
	// HandleBlocks takes the owned blocks of a view that is about to be published, sorted by ID. It
	// returns false if the ownership is no longer that of number.
	HandleBlocks(ctx context.Context, blocks []shard.Block, number uint64) bool
	// Applied tells that a view selected by the ownership of this number is published.
	Applied(ctx context.Context, number uint64)
}

// ownership is one decision of a Shard. The zero value owns all blocks.
type ownership struct {
	owns   func(ulid.ULID) bool // nil: all
	number uint64
}

// ownership returns the current decision.
func (c *Catalog) ownership() ownership {
	if c.opts.Shard == nil {
		return ownership{}
	}
	owns, number := c.opts.Shard.Ownership()
	return ownership{owns, number}
}

// Reassign makes Run apply the current ownership to the known blocks, without a listing. A sync
// that runs applies it by itself.
func (c *Catalog) Reassign() {
	select {
	case c.reassigned <- struct{}{}:
	default: // Run has not begun with the last one
	}
}

// reassign does the work of Reassign.
func (c *Catalog) reassign(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-c.turn:
	}
	defer func() { c.turn <- struct{}{} }()
	old := c.View()
	if !old.Ready || c.assigned == c.ownership().number {
		return // the first sync applies it, or one has done so
	}
	_ = c.panics.Do(func() error {
		now := time.Now()
		ch := c.candidates(now)
		c.choose(ctx, &ch, nil, now, !c.incomplete)
		if c.incomplete {
			ch.blocks = union(ch.blocks, c.selected(old.Blocks, ch.ownership))
		}
		v := c.publishChoice(ctx, &ch, true, old.FromDisk, nil)
		c.mu.Lock()
		c.status.States, c.status.Excluded = ch.states, c.excluded
		c.mu.Unlock()
		c.log.Info("applied the shard", "serving", len(v.Blocks), "before", len(old.Blocks))
		return nil
	})
}

// choice is what a sync chooses from the records.
type choice struct {
	ownership
	candidates []*record
	blocks     []*Block
	waiting    int // as dropDuplicates returns it
	states     stateCounts
}

// candidates selects records by their meta.json and by ownership.
func (c *Catalog) candidates(now time.Time) choice {
	ch := choice{ownership: c.ownership(), states: stateCounts{}}
	if c.opts.Shard != nil {
		ch.states[stateShard] = 0
	}
	c.excluded = nil
	ch.candidates = c.selectByMeta(sortedRecords(c.records), now, ch.ownership, ch.states)
	return ch
}

// choose selects blocks from the candidates. If a Shard is set, it hands them the blocks first, and
// selects again with another ownership until that no longer changes. turn must be held.
func (c *Catalog) choose(
	ctx context.Context, ch *choice, lost []*Block, now time.Time, complete bool,
) {
	for {
		ch.blocks, ch.waiting = c.selectByState(ch.candidates, lost, now, ch.states)
		if c.opts.Shard == nil || ctx.Err() != nil || c.handBlocks(ctx, ch, now, complete) {
			return
		}
		*ch = c.candidates(now)
	}
}

// handBlocks passes the blocks of a choice to the Shard, if all blocks of the bucket are known. It
// returns false if the ownership has changed.
func (c *Catalog) handBlocks(ctx context.Context, ch *choice, now time.Time, complete bool) bool {
	if !complete && c.lastComplete.IsZero() {
		return c.ownership().number == ch.number
	}
	records := make([]*record, 0, len(ch.candidates))
	for _, r := range ch.candidates {
		if !r.mark.expired(now, c.opts.IgnoreDeletionMarksDelay) {
			records = append(records, r)
		}
	}
	blocks := shardBlocks(records)
	if !complete {
		// Blocks that the listing lacks stay in the view.
		for _, b := range c.selected(c.View().Blocks, ch.ownership) {
			blocks = append(blocks, shard.Block{ID: b.ID})
		}
		slices.SortStableFunc(blocks, func(a, b shard.Block) int { return a.ID.Compare(b.ID) })
		blocks = slices.CompactFunc(blocks, func(a, b shard.Block) bool { return a.ID == b.ID })
	}
	return c.opts.Shard.HandleBlocks(ctx, blocks, ch.number)
}

// publishChoice publishes the blocks of a choice. The other parameters are those of publish.
func (c *Catalog) publishChoice(
	ctx context.Context, ch *choice, ready, fromDisk bool, lifted map[ulid.ULID]time.Time,
) *View {
	for _, b := range c.broken {
		ch.states[b.state]++
	}
	v := c.publish(ch.blocks, ready, fromDisk, lifted)
	ch.states[stateLoaded] = len(v.Blocks)
	c.metrics.waitingSources.Set(float64(ch.waiting))
	c.metrics.setStates(ch.states)
	if c.opts.Shard != nil {
		c.assigned = ch.number
		c.opts.Shard.Applied(ctx, ch.number)
	}
	return v
}

// shardBlocks returns records, which are sorted by ID, with the blocks that each covers: the others
// of its group whose sources it has, and of raw data also the sources, which may be deleted
// already.
func shardBlocks(records []*record) []shard.Block {
	index := map[groupSource][]int{}
	blocks := make([]shard.Block, 0, len(records))
	for i, r := range records {
		b := shard.Block{ID: r.id()}
		if sources := r.meta.block.Sources; len(sources) > 1 {
			for _, id := range sources {
				key := groupSource{r.meta.group, id}
				index[key] = append(index[key], i)
			}
			if r.meta.block.Resolution == 0 {
				b.Covers = sources
			}
		}
		blocks = append(blocks, b)
	}
	for i, r := range records {
		o := &r.meta.block
		for _, j := range index[groupSource{r.meta.group, o.Sources[0]}] {
			if i != j && containsAll(records[j].meta.block.Sources, o.Sources) {
				blocks[j].Covers = append(slices.Clip(blocks[j].Covers), o.ID)
			}
		}
	}
	return blocks
}
