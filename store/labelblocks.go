package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"larder/indexcache"
	"larder/internal/pagecache"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// errOutsiders ends an attempt that took the answer of a whole block for that of the request's time
// range, though the block has series without a chunk in its own time range. The server has noted
// all such blocks. The next attempt asks them by the time range of the request.
var errOutsiders = errors.New("blocks have series outside of their time range: repeat the request")

// maxOutsiderAttempts bounds the attempts of a request that end with errOutsiders. One is enough
// unless the view changes meanwhile.
const maxOutsiderAttempts = 4

// outsiders notes which blocks have series without a chunk in the block's own time range. It is
// safe for concurrent use. The zero value is empty.
type outsiders struct {
	n      atomic.Int64 // blocks; 0 spares the look-up
	blocks sync.Map     // *catalog.Block -> struct{}
}

func (o *outsiders) has(b *catalog.Block) bool {
	if o.n.Load() == 0 {
		return false
	}
	_, ok := o.blocks.Load(b)
	return ok
}

func (o *outsiders) note(b *catalog.Block) {
	if _, known := o.blocks.LoadOrStore(b, struct{}{}); !known {
		o.n.Add(1)
	}
}

// retain forgets blocks that are not in view.
func (o *outsiders) retain(view *catalog.View) {
	o.blocks.Range(func(key, _ any) bool {
		if b := key.(*catalog.Block); view.ByID(b.ID) != b {
			if _, known := o.blocks.LoadAndDelete(b); known {
				o.n.Add(-1)
			}
		}
		return true
	})
}

// labelChoice is a block that a label request looks at.
type labelChoice struct {
	meta     *catalog.Block
	question *setQuestion
	// whole reports that the request gets the answer of the whole block, whatever its time range.
	whole bool
}

// chooseLabels returns the blocks of a label request.
func (s *Server) chooseLabels(q *labelQuery, keys *labelKeys) []labelChoice {
	var out []labelChoice
	for b, set := range s.opts.Catalog.View().Overlapping(q.minT, q.maxT) {
		sq := keys.of(set)
		if !sq.matches || !blockMatches(b, q.blockMatchers) {
			continue
		}
		// A series counts only if it has a chunk in the time range. If the range covers the block,
		// every series has.
		whole := len(sq.matchers) == 0 || q.minT <= b.MinTime && q.maxT >= b.MaxTime-1 &&
			!s.outsiders.has(b)
		out = append(out, labelChoice{meta: b, question: sq, whole: whole})
	}
	return out
}

// listsOfHeader is how many lists the answer of a header takes at most: of the block, of the union,
// and what they become.
const listsOfHeader = 3

// labelBlock is a block that is asked. It has a plan if matchers remain for its series. Otherwise
// it has a header, which is nil until it is opened.
type labelBlock struct {
	meta     *catalog.Block
	matchers []*labels.Matcher
	whole    bool
	key      indexcache.AnswerKey // if whole

	plan    *block.Plan
	header  *indexheader.Header
	release func()
	// size estimates what the answer takes: listsOfHeader for a header, a set for a plan. The cost
	// of a set includes the list that it becomes.
	size int64

	// What the block takes of the limits, and what was read of it.
	series, postingBytes, entryBytes atomic.Int64
	postings, entries                pagecache.Account
}

// charged returns acct, which charges the account of the request and adds to bytes.
func charged(acct, of *pagecache.Account, bytes *atomic.Int64) *pagecache.Account {
	spend := of.Spend
	acct.Spend = func(touched, fetched int64) error {
		bytes.Add(touched)
		return spend(touched, fetched)
	}
	return acct
}

// onSeries returns a function that charges series to the limits of the request.
func (a *labelBlock) onSeries(r *request) func(int) error {
	limit := r.series
	return func(n int) error {
		a.series.Add(int64(n))
		return limit.Reserve(uint64(n))
	}
}

// answer returns the answer of the block.
func (a *labelBlock) answer(list stringList) indexcache.LabelAnswer {
	return indexcache.LabelAnswer{
		Strings: list, Series: int(a.series.Load()),
		PostingBytes: a.postingBytes.Load(), EntryBytes: a.entryBytes.Load(),
	}
}

func (a *labelBlock) open(ctx context.Context, s *Server, what question) (err error) {
	if a.header, a.release, err = s.block(a.meta).Header(ctx); err != nil {
		return what.fault(a.meta, err)
	}
	count, length := what.expect(ctx, a.header, math.MaxInt)
	a.size = listsOfHeader * int64(storepb.StringSize(length)) * int64(count)
	return nil
}

func (a *labelBlock) close() {
	if a.plan != nil {
		a.plan.Close()
	}
	if a.release != nil {
		a.release()
		a.release = nil
	}
}

// askBlocks answers a label request from what is kept, or by asking the blocks. Requests that ask
// the same at the same time share the work.
func (s *Server) askBlocks(
	r *request, q *labelQuery, what question,
) (*indexcache.LabelAnswer, error) {
	keys := newLabelKeys(q, what)
	blocks := s.chooseLabels(q, keys)
	r.blocksQueried = len(blocks)
	key := keys.all(blocks)
	if a, ok := s.opts.LabelAnswers.Get(key); ok {
		if err := r.chargeLabels(a); err != nil {
			return nil, fmt.Errorf("labels of %d blocks: %w", len(blocks), err)
		}
		return a, r.settle(a.Bytes())
	}
	a, joined, err := s.labelFlights.Do(r.ctx, key, func() (*indexcache.LabelAnswer, error) {
		a, err := s.askAll(r, q, what, keys, blocks)
		if err == nil {
			s.keepLabels(key, *a)
		}
		return a, err
	})
	if err != nil || !joined {
		return a, err
	}
	// The answer is in memory already. This request uses it only if it can reserve its bytes.
	if err := r.chargeLabels(a); err != nil {
		return nil, fmt.Errorf("labels of %d blocks: %w", len(blocks), err)
	}
	return a, r.settle(a.Bytes())
}

// askAll makes the answer of blocks from the answers of single blocks that are kept, and by asking
// the other blocks.
func (s *Server) askAll(
	r *request, q *labelQuery, what question, keys *labelKeys, blocks []labelChoice,
) (*indexcache.LabelAnswer, error) {
	out := indexcache.LabelAnswer{Hints: keys.hints(blocks)}
	kept, asked, err := s.keptLabels(r, keys, blocks)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, a := range asked {
			a.close()
			a.postings.MoveTo(&r.postings)
			a.entries.MoveTo(&r.seriesPages)
		}
	}()
	if err := s.openBlocks(r, q, what, asked); err != nil {
		return nil, err
	}
	run := streamBytes(max(min(len(asked), minBlocks), 1))
	first := answerBytes(kept, asked)
	streams, running := streamsBytes(what, asked, run)
	if err := r.settle(first + streams + sumOf(running, 0, minBlocks)); err != nil {
		return nil, err
	}
	all := newUnion(&labelBytes{grow: r.Reserve, free: first})
	for _, a := range kept {
		if err := all.addKept(a.Strings); err != nil {
			return nil, err
		}
		out.Series += a.Series
		out.PostingBytes += a.PostingBytes
		out.EntryBytes += a.EntryBytes
	}
	if err := s.askEach(r, q, what, asked, run, running, all); err != nil {
		return nil, err
	}
	if out.Strings, err = all.all(); err != nil {
		return nil, err
	}
	for _, b := range asked {
		a := b.answer(nil)
		out.Series += a.Series
		out.PostingBytes += a.PostingBytes
		out.EntryBytes += a.EntryBytes
	}
	return &out, nil
}

// keptLabels returns the answers of whole blocks that are kept, for which it charges the request,
// and the other blocks, the newest first.
func (s *Server) keptLabels(
	r *request, keys *labelKeys, blocks []labelChoice,
) (kept []*indexcache.LabelAnswer, asked []*labelBlock, err error) {
	for i := range blocks {
		c := &blocks[len(blocks)-1-i]
		b := &labelBlock{meta: c.meta, matchers: c.question.matchers, whole: c.whole}
		if c.whole {
			b.key = keys.one(c)
			if a, ok := s.opts.LabelAnswers.Get(b.key); ok {
				if err := r.chargeLabels(a); err != nil {
					return nil, nil, fmt.Errorf("labels of block %s: %w", c.meta.ID, err)
				}
				kept = append(kept, a)
				continue
			}
		}
		asked = append(asked, b)
	}
	return kept, asked, nil
}

// askEach asks blocks concurrently. running has the bytes of their streams, the largest first.
func (s *Server) askEach(
	r *request, q *labelQuery, what question, asked []*labelBlock, run int64, running []int64,
	all *union,
) error {
	extra := int64(0)
	widen := func(n int) int {
		if len(running) < len(asked) {
			return 0 // the headers of more blocks may not fit in memory
		}
		n, extra = r.tryWorkers(n, func(n int) int64 {
			return workersBytes(n) + sumOf(running, minBlocks, minBlocks+n)
		})
		return n
	}
	defer func() { r.turn.Release(extra) }()
	beside := 0 // blocks whose series are read
	for _, a := range asked {
		if a.plan != nil && a.plan.Postings() > 0 {
			beside++
		}
	}
	for _, a := range asked {
		a.entries.Beside = beside
	}
	// found holds that a block is irregular, or has outsiders. The other blocks continue, to find
	// out about theirs.
	var found atomic.Pointer[error]
	ask := func(ctx context.Context, times *blockTimes) error {
		return concurrently(ctx, len(asked), widen, func(ctx context.Context, i int) error {
			a := asked[i]
			defer a.close()
			err := r.timedBlock(times, stageSeries, a.meta.ID, func() error {
				return s.askBlock(ctx, r, q, what, a, run, all)
			})
			if irregular(err) || errors.Is(err, errOutsiders) {
				found.Store(&err)
				return nil
			}
			return err
		})
	}
	err := r.stage(stageSeries, "bucket_store_labels", "block_labels", ask)
	if e := found.Load(); err == nil && e != nil {
		return *e
	}
	return err
}

// minHeaderAnswer is the size from which the answer of a header is kept. To read a smaller one
// again costs about as much as to keep it.
const minHeaderAnswer = 2 << 10

// largeList is the size from which the lists of headers are made one at a time, so that a label
// with a million values needs memory for one block besides the answer.
const largeList = 1 << 20

// askBlock asks one block, adds its answer to all, and keeps it if it is that of the whole block.
func (s *Server) askBlock(
	ctx context.Context, r *request, q *labelQuery, what question, a *labelBlock, run int64,
	all *union,
) error {
	if a.plan != nil {
		return s.askSeries(ctx, r, q, what, a, run, all)
	}
	if a.header == nil {
		if err := a.open(ctx, s, what); err != nil {
			return err
		}
	}
	if a.size > listsOfHeader*largeList {
		if err := all.enter(ctx); err != nil {
			return err
		}
		defer all.exit()
	}
	list, err := what.header(ctx, a, all.bytes)
	if err != nil {
		return err
	}
	if len(list) >= minHeaderAnswer {
		s.keepLabels(a.key, a.answer(list))
	}
	return all.add(list)
}

// openBlocks finds the postings of blocks concurrently. Where no matchers remain, it opens the
// headers of the first minBlocks blocks only, because the headers of all may not fit in memory. The
// caller closes the blocks, on an error too.
func (s *Server) openBlocks(r *request, q *labelQuery, what question, asked []*labelBlock) error {
	open := func(ctx context.Context, times *blockTimes) error {
		var headers atomic.Int64
		// Settle releases what the workers do not need any more.
		widen := func(n int) int { n, _ = r.tryWorkers(n, workersBytes); return n }
		return concurrently(ctx, len(asked), widen, func(ctx context.Context, i int) error {
			a := asked[i]
			if len(a.matchers) == 0 && headers.Add(1) > minBlocks {
				return nil
			}
			return r.timedBlock(times, stagePostings, a.meta.ID, func() error {
				if len(a.matchers) == 0 {
					return a.open(ctx, s, what)
				}
				return s.planLabels(ctx, r, q, what, a)
			})
		})
	}
	err := r.stage(stagePostings, "bucket_store_preload_all", "block_postings", open)
	for _, a := range asked {
		if a.plan != nil {
			r.notePlan(a.plan)
		}
	}
	return err
}

// planLabels finds the postings of a block.
func (s *Server) planLabels(
	ctx context.Context, r *request, q *labelQuery, what question, a *labelBlock,
) (err error) {
	a.plan, err = s.block(a.meta).Plan(ctx, what.matchers(a), block.PlanOptions{
		External:  dropLabels(a.meta.Labels, q.without),
		Dropped:   q.without,
		Sets:      block.UseKeptSets,
		Unordered: true,
		Account:   charged(&a.postings, &r.postings, &a.postingBytes),
		OnSeries:  a.onSeries(r),
		Reserve:   r.reserveForPlan,
	})
	if err != nil {
		return fmt.Errorf("fetch postings for block %s: %w", a.meta.ID, err)
	}
	if h := a.plan.Header(); h != nil {
		count, length := what.expect(ctx, h, a.plan.Postings())
		a.size = stringSetCost(length) * int64(count)
	}
	return nil
}

// answerBytes estimates what to reserve for the answers at first: what the largest of them takes.
// Blocks mostly have the same strings. The bytes of others are reserved when they are added.
func answerBytes(kept []*indexcache.LabelAnswer, asked []*labelBlock) int64 {
	largest := int64(labelBytesStep)
	for _, a := range kept {
		largest = max(largest, 3*int64(len(a.Strings)))
	}
	for _, a := range asked {
		largest = max(largest, a.size)
	}
	return largest
}

// streamsBytes estimates the bytes of the postings of blocks, and those of the running stream of
// each block that has a plan, the largest first.
func streamsBytes(
	what question, asked []*labelBlock, run int64,
) (postings int64, running []int64) {
	for _, a := range asked {
		switch p := a.plan; {
		case p == nil:
		case p.Postings() == 0:
			running = append(running, 0)
		default:
			refs := p.PostingsBytes()
			postings += refs
			bytes := p.StreamBytes(block.StreamOptions{
				RunBytes: run, SkipChunks: true, Collect: what.collect(a.meta),
			})
			running = append(running, bytes-refs)
		}
	}
	slices.SortFunc(running, func(a, b int64) int { return cmp.Compare(b, a) })
	return postings, running
}

// maxBlockStrings is how many bytes the strings of one block may reserve. With more, it shares a
// set with other such blocks, and its answer is not kept by itself.
const maxBlockStrings = 256 << 10

// askSeries asks the series of a block that match and have a chunk in range.
func (s *Server) askSeries(
	ctx context.Context, r *request, q *labelQuery, what question, a *labelBlock, run int64,
	all *union,
) error {
	if a.plan.Postings() == 0 {
		if a.whole {
			s.keepLabels(a.key, a.answer(nil))
		}
		return nil
	}
	opts := block.StreamOptions{
		MinTime: q.minT, MaxTime: q.maxT,
		SkipChunks: true,
		Collect:    what.collect(a.meta),
		RunBytes:   run,
		Account:    charged(&a.entries, &r.seriesPages, &a.entryBytes),
		OnSeries:   a.onSeries(r),
		Reserver:   r,
	}
	if a.whole {
		opts.MinTime, opts.MaxTime = a.meta.MinTime, a.meta.MaxTime-1
	}
	stream := a.plan.Stream(ctx, opts)
	defer stream.Close()
	set, shared, more := newStringSet(all.bytes), false, true
	for more {
		seg, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("iterate series for block %s: %w", a.meta.ID, err)
		}
		add := func(set *stringSet) (err error) {
			more, err = what.segment(a.meta, seg, set)
			return err
		}
		if shared {
			err = all.share(add)
		} else if err = add(set); err == nil && set.reserved > maxBlockStrings {
			shared, err = true, all.share(set.moveTo)
		}
		if err != nil {
			return err
		}
	}
	if a.whole && more && stream.Stats().OutOfRange > 0 {
		s.outsiders.note(a.meta)
		return errOutsiders
	}
	list := set.finish()
	if a.whole && !shared {
		s.keepLabels(a.key, a.answer(list))
	}
	return all.add(list)
}
