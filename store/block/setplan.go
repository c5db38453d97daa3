package block

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/store/postings"
)

// SetUse says what a plan does with series sets.
type SetUse int

const (
	// UseNoSets reads the postings.
	UseNoSets SetUse = iota
	// UseKeptSets answers from a kept set if there is one.
	UseKeptSets
	// BuildSets also builds a set that is not kept, if that pays.
	BuildSets
)

// maxSetMatchers bounds the bytes of the matchers of a set. They are kept with it and compared, and
// clients choose them.
const maxSetMatchers = 64 << 10

// setKey returns the key of the set for matchers. It has the block, the matchers, and all that
// bears on the final labels. Each part follows its length or count, so that different sets never
// have the same key. It includes removed labels that the block does not have, because only the
// header tells which those are.
func (b *Block) setKey(matchers *postings.MatcherSet, opts *PlanOptions) indexcache.SetKey {
	what := postings.AppendLabels(postings.AppendNames(nil, opts.Dropped), opts.External)
	return indexcache.NewSetKey(b.meta.Number, b.meta.ID, append(what, matchers.Identity()...))
}

// planSet is Plan with series sets: one that is kept, one under construction, or a new one if that
// pays.
func (b *Block) planSet(
	ctx context.Context, matchers *postings.MatcherSet, opts *PlanOptions,
) (*Plan, error) {
	if len(matchers.Identity()) > maxSetMatchers {
		return b.planByPostings(ctx, matchers, opts)
	}
	key := b.setKey(matchers, opts)
	build := opts.Sets == BuildSets
	var p *Plan
	if build {
		p = b.joinBuild(key)
	}
	if p == nil {
		// INVARIANT: a set is kept before it leaves b.builds, therefore looking there first finds
		// it in one of the two.
		if set, release, ok := b.deps.Sets.Get(key); ok {
			p = b.planOf(set, release, opts)
		}
	}
	if p != nil {
		if err := p.chargePostings(opts); err != nil {
			p.Close()
			return nil, err
		}
		return p, nil
	}
	p, err := b.planByPostings(ctx, matchers, opts)
	if err != nil || !build {
		return p, err
	}
	if p.Postings() == 0 {
		b.keepEmpty(p, key, opts)
		return p, nil
	}
	// Meanwhile other requests may have had the same plan.
	if running := b.joinBuild(key); running != nil {
		return p.replacedBy(running), nil
	}
	if set, release, ok := b.deps.Sets.GetAgain(key); ok {
		return p.replacedBy(b.planOf(set, release, opts)), nil
	}
	pays, wanted := b.deps.Sets.Pays(key, b.candidate(p, opts))
	if !pays {
		return p, nil
	}
	building, fresh := b.startBuild(ctx, p, key, wanted)
	if fresh {
		// Another request may have begun and completed the set since the last look. It is kept
		// then.
		if set, release, ok := b.deps.Sets.GetAgain(key); ok {
			return building.replacedBy(b.planOf(set, release, opts)), nil
		}
	}
	return building, nil
}

// replacedBy closes p and returns other as the plan of the request, with the figures of p.
func (p *Plan) replacedBy(other *Plan) *Plan {
	other.stats, other.headerWait = p.stats, p.headerWait
	p.Close()
	return other
}

// candidate describes the set of a plan's series.
func (b *Block) candidate(p *Plan, opts *PlanOptions) indexcache.Candidate {
	return indexcache.Candidate{
		Bytes: p.setBytes(), AtMost: p.Lazy(), Empty: p.Postings() == 0,
		Whole: opts.MinTime <= b.meta.MinTime && opts.MaxTime >= b.meta.MaxTime-1,
		Known: opts.Known, Repeated: opts.Repeated,
	}
}

// keepEmpty keeps the empty set of a plan without postings, if that pays. Requests that find it do
// not need the header.
func (b *Block) keepEmpty(p *Plan, key indexcache.SetKey, opts *PlanOptions) {
	pays, wanted := b.deps.Sets.Pays(key, b.candidate(p, opts))
	if !pays {
		return
	}
	set := &seriesSet{postingsBytes: p.postingsBytes}
	release := b.deps.Sets.Put(key, set, setOverhead+int64(len(key.Identity)), wanted)
	release()
}

// planOf returns a plan with a kept set. Its Close calls release.
func (b *Block) planOf(set *seriesSet, release func(), opts *PlanOptions) *Plan {
	return &Plan{
		block: b, set: set, release: release, external: opts.External, dropped: opts.Dropped,
	}
}

// chargePostings charges for the postings of a set, as if the request had read them.
func (p *Plan) chargePostings(opts *PlanOptions) error {
	bytes, n, lazy := p.postingsBytes, p.Postings(), p.Lazy()
	if p.set != nil {
		bytes, lazy = p.set.postingsBytes, p.set.lazy
	}
	if n := p.PostingsBytes(); n > 0 && opts.Reserve != nil {
		if err := opts.Reserve(n); err != nil {
			return p.block.wrap(err)
		}
	}
	if err := postings.Charge(opts.Account, bytes); err != nil {
		return p.block.wrap(fmt.Errorf("postings of a series set: %w", err))
	}
	if !lazy && opts.OnSeries != nil {
		if err := opts.OnSeries(n); err != nil {
			return p.block.wrap(err)
		}
	}
	return nil
}

// setBytes estimates the size of the set of a plan's series. With pending matchers it is an upper
// bound, because many series may not match.
func (p *Plan) setBytes() int64 {
	const labelBytes = 4 // bytes of final labels for each byte of an entry's label references
	n, _ := p.block.ChunksPerSeries(p.block.meta.MinTime, p.block.meta.MaxTime)
	refs := p.block.labelRefsBytes(p.header)
	external := int64(0)
	p.external.Range(func(l labels.Label) { external += int64(len(l.Name) + len(l.Value) + 6) })
	series := labelBytes*refs + external + segmentChunkBytes*n + segmentSeriesBytes
	return int64(len(p.refs)) * series
}
