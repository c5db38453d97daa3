package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/matcher"
	"larder/store/storepb"
)

// labelQuery is what LabelNames and LabelValues have in common.
type labelQuery struct {
	minT, maxT    int64
	matchers      []*labels.Matcher
	blockMatchers []*labels.Matcher
	without       []string
	limit         int
}

// labelsMessage is what a LabelNamesRequest and a LabelValuesRequest have in common.
type labelsMessage interface {
	proto.Message
	GetStart() int64
	GetEnd() int64
	GetLimit() int64
	GetMatchers() []*storepb.LabelMatcher
	GetWithoutReplicaLabels() []string
}

// parseLabels checks a request but for its hints. The budget holds what it needs.
func (s *Server) parseLabels(req labelsMessage, budget *matcher.Budget) (*labelQuery, error) {
	q := &labelQuery{
		minT:    req.GetStart(),
		maxT:    req.GetEnd(),
		without: req.GetWithoutReplicaLabels(),
		limit:   int(req.GetLimit()),
	}
	err := budget.ReserveMessage(req, req.GetMatchers(), q.without)
	if err != nil {
		return nil, requestError("", err)
	}
	if q.matchers, err = matcher.Parse(s.matchers, budget, req.GetMatchers()); err != nil {
		return nil, requestError("translate request labels matchers: ", err)
	}
	if err := checkNames("without_replica_labels", q.without); err != nil {
		return nil, err
	}
	return q, nil
}

// LabelNames implements storepb.StoreServer.
func (s *Server) LabelNames(
	ctx context.Context, req *storepb.LabelNamesRequest,
) (resp *storepb.LabelNamesResponse, err error) {
	defer s.recovered(&err)
	budget := s.compiler.Open(ctx)
	defer budget.Close()
	q, err := s.parseLabels(req, budget)
	if err != nil {
		return nil, err
	}
	q.blockMatchers, err = parseHints(
		budget, req.Hints, &storepb.LabelNamesRequestHints{}, "label names")
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	r := s.newRequest(ctx, "LabelNames")
	defer r.finish()

	names, err := s.labelSets(r, q, &namesQuestion{query: q})
	if err != nil {
		return nil, err
	}
	hints := &storepb.LabelNamesResponseHints{QueriedBlocks: queriedBlocks(r.attempt.queried)}
	resp = &storepb.LabelNamesResponse{Names: names}
	if resp.Hints, err = anypb.New(hints); err != nil {
		return nil, status.Errorf(codes.Internal, "marshal label names response hints: %v", err)
	}
	r.holdUntilSent(budget, resp)
	return resp, nil
}

// LabelValues implements storepb.StoreServer.
func (s *Server) LabelValues(
	ctx context.Context, req *storepb.LabelValuesRequest,
) (resp *storepb.LabelValuesResponse, err error) {
	defer s.recovered(&err)
	budget := s.compiler.Open(ctx)
	defer budget.Close()
	q, err := s.parseLabels(req, budget)
	if err != nil {
		return nil, err
	}
	if slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return &storepb.LabelValuesResponse{}, nil
	}
	q.blockMatchers, err = parseHints(
		budget, req.Hints, &storepb.LabelValuesRequestHints{}, "label values")
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	r := s.newRequest(ctx, "LabelValues")
	defer r.finish()

	values, err := s.labelSets(r, q, &valuesQuestion{query: q, label: req.Label})
	if err != nil {
		return nil, err
	}
	hints := &storepb.LabelValuesResponseHints{QueriedBlocks: queriedBlocks(r.attempt.queried)}
	resp = &storepb.LabelValuesResponse{Values: values}
	if resp.Hints, err = anypb.New(hints); err != nil {
		return nil, status.Errorf(codes.Internal, "marshal label values response hints: %v", err)
	}
	r.holdUntilSent(budget, resp)
	return resp, nil
}

// smallAnswer is the size from which an answer stays reserved until it was sent. Smaller answers in
// transit are bounded by the number of requests.
const smallAnswer = 16 << 10

// holdUntilSent keeps the bytes of an answer reserved until its client has read it: those of its
// strings, and those of its encoded form.
func (r *request) holdUntilSent(budget *matcher.Budget, answer proto.Message) {
	n := int64(proto.Size(answer))
	if n < smallAnswer {
		return
	}
	turn := r.turn
	if budget.UntilSent(turn.Close) {
		turn.Release(turn.Bytes() - 2*n)
		r.turn = nil
	}
}

func queriedBlocks(blocks []*catalog.Block) []*storepb.Block {
	var out []*storepb.Block
	for _, b := range blocks {
		out = append(out, &storepb.Block{Id: b.ID.String()})
	}
	return out
}

// question is what a label request wants to know of each block.
type question interface {
	// matchers returns the matchers for the series of a block. If there are none, its header
	// answers.
	matchers(c chosen) []*labels.Matcher
	// expect estimates the bytes of the answer of a block, given its header and an upper bound of
	// its matching series.
	expect(ctx context.Context, h *indexheader.Header, series int) int64
	header(ctx context.Context, meta *catalog.Block, h *indexheader.Header, out *stringSet) error
	// segment adds the strings of the series of a segment. The caller holds the set's lock. more
	// says whether further series may add strings.
	segment(meta *catalog.Block, seg *block.Segment, out *stringSet) (more bool, err error)
	// fault words an error of a header.
	fault(meta *catalog.Block, err error) error
}

// labelBlock is a block of a label request. It has a plan if matchers remain for its series.
// Otherwise it has a header, which is nil until it is opened.
type labelBlock struct {
	meta    *catalog.Block
	plan    *block.Plan
	header  *indexheader.Header
	release func()
}

func (a *labelBlock) open(ctx context.Context, s *Server, what question) (err error) {
	if a.header, a.release, err = s.block(a.meta).Header(ctx); err != nil {
		return what.fault(a.meta, err)
	}
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

// labelSets puts a question to all blocks of a label request concurrently and merges the answers:
// sorted, each string once, at most limit of them. Label requests read the blocks of all
// resolutions.
func (s *Server) labelSets(r *request, q *labelQuery, what question) (out []string, _ error) {
	if err := r.enter(admission.LabelRequest); err != nil {
		return nil, statusOf(r.ctx, err, codes.Internal)
	}
	try := func() (err error) {
		out, err = s.askBlocks(r, q, what)
		return err
	}
	err := r.answer(try)
	for n, reshapes := 0, 0; n < maxReplans; n++ {
		if reshapes < maxReshapes && irregular(err) {
			reshapes, n = reshapes+1, n-1
		} else if !s.replaced(r.ctx, err) {
			break
		}
		r.nextAttempt()
		err = r.answer(try)
	}
	return out, statusOf(r.ctx, err, codes.Internal)
}

func (s *Server) askBlocks(r *request, q *labelQuery, what question) ([]string, error) {
	blocks, err := s.openBlocks(r, q, what)
	defer func() {
		for i := range blocks {
			blocks[i].close()
		}
	}()
	if err != nil || len(blocks) == 0 {
		return nil, err
	}
	run := streamBytes(min(len(blocks), blockConcurrency))
	streams := streamsBytes(blocks, run)
	first := labelBytes(r.ctx, blocks, what)
	if err := r.settle(first + streams); err != nil {
		return nil, err
	}
	set := newStringSet(first, r.Reserve)
	g, ctx := errgroup.WithContext(r.ctx)
	g.SetLimit(blockConcurrency)
	// found holds that a block is irregular. The other blocks continue, to find out about theirs.
	var found atomic.Pointer[error]
	for i := range blocks {
		a := &blocks[i]
		g.Go(contained(func() (err error) {
			defer a.close()
			defer func() {
				if irregular(err) {
					e := err
					found.Store(&e)
					err = nil
				}
			}()
			if a.plan == nil {
				if a.header == nil {
					if err := a.open(ctx, s, what); err != nil {
						return err
					}
				}
				return what.header(ctx, a.meta, a.header, set)
			}
			return s.askSeries(ctx, r, q, a, what, run, set)
		}))
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if e := found.Load(); e != nil {
		return nil, *e
	}
	return set.sorted(q.limit), nil
}

// openBlocks finds the postings of all blocks of a label request concurrently. Where no matchers
// remain, it opens the headers of the newest blocks only, blockConcurrency of them, because the
// headers of all may not fit in memory. The caller closes the blocks, on an error too.
func (s *Server) openBlocks(r *request, q *labelQuery, what question) ([]labelBlock, error) {
	var picked []chosen
	for _, b := range s.opts.Catalog.View().Blocks {
		if b.MinTime > q.maxT || q.minT >= b.MaxTime || !blockMatches(b, q.blockMatchers) {
			continue
		}
		ms, ok := seriesMatchers(q.matchers, b.Labels)
		if !ok {
			continue
		}
		r.attempt.queried = append(r.attempt.queried, b)
		picked = append(picked, chosen{meta: b, matchers: ms})
	}
	slices.Reverse(picked) // the newest first
	r.blocksQueried = len(picked)
	out := make([]labelBlock, len(picked))
	err := r.stage(stagePostings, "bucket_store_preload_all", func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(blockConcurrency)
		headers := 0
		for i, c := range picked {
			a := &out[i]
			a.meta = c.meta
			if len(c.matchers) == 0 {
				if headers++; headers > blockConcurrency {
					continue
				}
			}
			g.Go(contained(func() (err error) {
				if len(c.matchers) == 0 {
					return a.open(ctx, s, what)
				}
				a.plan, err = s.block(c.meta).Plan(ctx, what.matchers(c), block.PlanOptions{
					External:  dropLabels(c.meta.Labels, q.without),
					Dropped:   q.without,
					Sets:      block.SetsFound,
					Unordered: true,
					Account:   &r.postings,
					OnSeries:  func(n int) error { return r.series.Reserve(uint64(n)) },
					Reserve:   r.plan,
				})
				if err != nil {
					return fmt.Errorf("fetch postings for block %s: %w", c.meta.ID, err)
				}
				return nil
			}))
		}
		return g.Wait()
	})
	for i := range out {
		if p := out[i].plan; p != nil {
			r.notePlan(p)
		}
	}
	return out, err
}

// labelBytes returns how many bytes to reserve for the answer at first: the largest estimate among
// the opened blocks. Blocks mostly have the same strings. Others are reserved when they are added.
func labelBytes(ctx context.Context, blocks []labelBlock, what question) int64 {
	most := int64(stringSetStep)
	for i := range blocks {
		a := &blocks[i]
		switch {
		case a.header != nil:
			most = max(most, what.expect(ctx, a.header, math.MaxInt))
		case a.plan != nil && a.plan.Header() != nil:
			most = max(most, what.expect(ctx, a.plan.Header(), a.plan.Postings()))
		}
	}
	return most
}

// streamsBytes estimates what the streams of blocks hold: all postings, and the rest of those that
// run concurrently.
func streamsBytes(blocks []labelBlock, run int64) int64 {
	postings, rest := int64(0), []int64(nil)
	for i := range blocks {
		if p := blocks[i].plan; p != nil && p.Postings() > 0 {
			refs := p.PostingsBytes()
			postings += refs
			rest = append(rest, p.StreamBytes(run)-refs)
		}
	}
	slices.Sort(rest)
	for _, n := range rest[max(len(rest)-blockConcurrency, 0):] {
		postings += n
	}
	return postings
}

// askSeries puts a question to the series of a block that match and have a chunk in range.
func (s *Server) askSeries(
	ctx context.Context, r *request, q *labelQuery, a *labelBlock,
	what question, run int64, set *stringSet,
) error {
	if a.plan.Postings() == 0 {
		return nil
	}
	stream := a.plan.Stream(ctx, block.StreamOptions{
		MinTime: q.minT, MaxTime: q.maxT,
		SkipChunks: true,
		RunBytes:   run,
		Account:    &r.seriesPages,
		OnSeries:   func(n int) error { return r.series.Reserve(uint64(n)) },
		Reserver:   r,
	})
	defer stream.Close()
	for {
		seg, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("iterate series for block %s: %w", a.meta.ID, err)
		}
		set.mu.Lock()
		more, err := what.segment(a.meta, seg, set)
		set.mu.Unlock()
		if err != nil || !more {
			return err
		}
	}
}

// namesQuestion asks for label names.
type namesQuestion struct{ query *labelQuery }

func (n *namesQuestion) matchers(c chosen) []*labels.Matcher { return c.matchers }

func (n *namesQuestion) expect(_ context.Context, h *indexheader.Header, _ int) int64 {
	return stringSetCost(guessedLabel) * int64(len(h.LabelNames()))
}

func (n *namesQuestion) fault(meta *catalog.Block, err error) error {
	return fmt.Errorf("label names for block %s: %w", meta.ID, err)
}

// header adds the label names of a block and its external labels. Removed replica labels are left
// out of the external ones only: so does Thanos.
func (n *namesQuestion) header(
	_ context.Context, meta *catalog.Block, h *indexheader.Header, out *stringSet,
) error {
	out.mu.Lock()
	defer out.mu.Unlock()
	names := slices.Clone(h.LabelNames())
	dropLabels(meta.Labels, n.query.without).Range(func(l labels.Label) {
		names = append(names, l.Name)
	})
	for _, name := range names {
		if err := out.add([]byte(name)); err != nil {
			return n.fault(meta, err)
		}
	}
	return nil
}

func (n *namesQuestion) segment(
	meta *catalog.Block, seg *block.Segment, out *stringSet,
) (bool, error) {
	for i := range seg.Len() {
		for b := seg.Labels(i); ; {
			name, _, rest, ok := storepb.NextLabel(b)
			if !ok {
				break
			}
			if err := out.add(name); err != nil {
				return false, n.fault(meta, err)
			}
			b = rest
		}
	}
	return true, nil
}

// valuesQuestion asks for the values of a label.
type valuesQuestion struct {
	query *labelQuery
	label string
}

func (v *valuesQuestion) matchers(c chosen) []*labels.Matcher {
	named := slices.ContainsFunc(v.query.matchers, func(m *labels.Matcher) bool {
		return m.Name == labels.MetricName && m.Type == labels.MatchEqual
	})
	if named || c.meta.Labels.Has(v.label) {
		return c.matchers
	}
	// Only series that have the label matter. With a metric's name given this excludes too little
	// to be worth its postings.
	return append(
		slices.Clone(c.matchers), labels.MustNewMatcher(labels.MatchNotEqual, v.label, ""),
	)
}

// guessedLabel is how long a label name or value is expected to be, where none is looked at.
const guessedLabel = 32

// sampledValues is how many values tell how long the others are.
const sampledValues = 512

func (v *valuesQuestion) expect(ctx context.Context, h *indexheader.Header, series int) int64 {
	count := min(h.ValueCount(v.label), series)
	if count <= sampledValues {
		return stringSetCost(guessedLabel) * int64(count)
	}
	n, bytes := 0, 0
	err := h.Values(ctx, v.label, "", func(value []byte, _ indexheader.List) (bool, error) {
		n++
		bytes += len(value)
		return n < sampledValues, nil
	})
	if err != nil || n == 0 {
		// The caller that reads the values gets the same error.
		return stringSetCost(guessedLabel) * int64(count)
	}
	mean := bytes/n + 1
	return stringSetCost(mean+mean/8) * int64(count)
}

func (v *valuesQuestion) fault(meta *catalog.Block, err error) error {
	return fmt.Errorf("index header label values for block %s: %w", meta.ID, err)
}

// header adds the values of the label in a block, its external value included.
func (v *valuesQuestion) header(
	ctx context.Context, meta *catalog.Block, h *indexheader.Header, out *stringSet,
) error {
	if v.label == "" {
		// The index lists all postings under the empty name: Thanos answers with its one value.
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.add(nil)
	}
	// Values come from the local header, some at a time under the set's lock.
	const batch = 1024
	var arena []byte
	var ends []int
	flush := func() error {
		out.mu.Lock()
		defer out.mu.Unlock()
		from := 0
		for _, end := range ends {
			if err := out.add(arena[from:end]); err != nil {
				return err
			}
			from = end
		}
		arena, ends = arena[:0], ends[:0]
		return nil
	}
	err := h.Values(ctx, v.label, "", func(value []byte, _ indexheader.List) (bool, error) {
		arena = append(arena, value...)
		if ends = append(ends, len(arena)); len(ends) < batch {
			return true, nil
		}
		return true, flush()
	})
	if value := meta.Labels.Get(v.label); err == nil && value != "" {
		arena = append(arena, value...)
		ends = append(ends, len(arena))
	}
	if err == nil {
		err = flush()
	}
	if err != nil {
		return v.fault(meta, err)
	}
	return nil
}

func (v *valuesQuestion) segment(
	meta *catalog.Block, seg *block.Segment, out *stringSet,
) (bool, error) {
	external := meta.Labels.Has(v.label)
	for i := range seg.Len() {
		for b := seg.Labels(i); ; {
			name, value, rest, ok := storepb.NextLabel(b)
			if !ok {
				break
			}
			if string(name) == v.label {
				if len(value) > 0 {
					if err := out.add(value); err != nil {
						return false, v.fault(meta, err)
					}
				}
				break
			}
			b = rest
		}
		if external {
			// An external label has one value: one series says it all.
			return false, nil
		}
	}
	return true, nil
}
