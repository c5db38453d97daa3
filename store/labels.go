package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
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

// LabelNames implements storepb.StoreServer.
func (s *Server) LabelNames(ctx context.Context, req *storepb.LabelNamesRequest) (resp *storepb.LabelNamesResponse, err error) {
	defer s.recovered(&err)
	q := labelQuery{minT: req.Start, maxT: req.End, without: req.WithoutReplicaLabels, limit: int(req.Limit)}
	if q.matchers, err = promMatchers(req.Matchers); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "translate request labels matchers: %v", err)
	}
	if req.Hints != nil {
		var h storepb.LabelNamesRequestHints
		if err := req.Hints.UnmarshalTo(&h); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "unmarshal label names request hints: %v", err)
		}
		if q.blockMatchers, err = promMatchers(h.BlockMatchers); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "translate request hints labels matchers: %v", err)
		}
	}
	r := s.newRequest(ctx, "LabelNames")
	defer func() { r.finish(err) }()

	names, err := s.labelSets(r, &q, func(ctx context.Context, c chosen) ([]string, error) {
		if len(c.matchers) == 0 {
			return s.headerNames(ctx, c.meta, q.without)
		}
		return s.seriesNames(ctx, r, &q, c)
	})
	if err != nil {
		return nil, err
	}
	hints := &storepb.LabelNamesResponseHints{QueriedBlocks: queriedBlocks(r.queried)}
	resp = &storepb.LabelNamesResponse{Names: names}
	if resp.Hints, err = anypb.New(hints); err != nil {
		return nil, status.Errorf(codes.Internal, "marshal label names response hints: %v", err)
	}
	return resp, nil
}

// LabelValues implements storepb.StoreServer.
func (s *Server) LabelValues(ctx context.Context, req *storepb.LabelValuesRequest) (resp *storepb.LabelValuesResponse, err error) {
	defer s.recovered(&err)
	q := labelQuery{minT: req.Start, maxT: req.End, without: req.WithoutReplicaLabels, limit: int(req.Limit)}
	if q.matchers, err = promMatchers(req.Matchers); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "translate request labels matchers: %v", err)
	}
	if slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return &storepb.LabelValuesResponse{}, nil
	}
	if req.Hints != nil {
		var h storepb.LabelValuesRequestHints
		if err := req.Hints.UnmarshalTo(&h); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "unmarshal label values request hints: %v", err)
		}
		if q.blockMatchers, err = promMatchers(h.BlockMatchers); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "translate request hints labels matchers: %v", err)
		}
	}
	r := s.newRequest(ctx, "LabelValues")
	defer func() { r.finish(err) }()

	values, err := s.labelSets(r, &q, func(ctx context.Context, c chosen) ([]string, error) {
		if len(c.matchers) == 0 {
			return s.headerValues(ctx, r, c.meta, req.Label)
		}
		return s.seriesValues(ctx, r, &q, c, req.Label)
	})
	if err != nil {
		return nil, err
	}
	hints := &storepb.LabelValuesResponseHints{QueriedBlocks: queriedBlocks(r.queried)}
	resp = &storepb.LabelValuesResponse{Values: values}
	if resp.Hints, err = anypb.New(hints); err != nil {
		return nil, status.Errorf(codes.Internal, "marshal label values response hints: %v", err)
	}
	return resp, nil
}

func queriedBlocks(ids []ulid.ULID) []*storepb.Block {
	var out []*storepb.Block
	for _, id := range ids {
		out = append(out, &storepb.Block{Id: id.String()})
	}
	return out
}

// labelSets asks every block that a label request has to look at, side by side, and merges what they say: sorted, each string once, at
// most limit of them. Label requests look at the blocks of all resolutions.
func (s *Server) labelSets(r *request, q *labelQuery, ask func(context.Context, chosen) ([]string, error)) ([]string, error) {
	out, err := s.askBlocks(r, q, ask)
	if s.replaced(r.ctx, err) {
		r.replan()
		out, err = s.askBlocks(r, q, ask)
	}
	return out, statusOf(err, codes.Internal)
}

func (s *Server) askBlocks(r *request, q *labelQuery, ask func(context.Context, chosen) ([]string, error)) ([]string, error) {
	var (
		mu    sync.Mutex
		union = map[string]struct{}{}
	)
	g, ctx := errgroup.WithContext(r.ctx)
	g.SetLimit(blockConcurrency)
	for _, b := range s.opts.Catalog.View().Blocks {
		if b.MinTime > q.maxT || q.minT >= b.MaxTime || !blockMatches(b, q.blockMatchers) {
			continue
		}
		ms, ok := withoutExternal(q.matchers, b.Labels)
		if !ok {
			continue
		}
		r.queried = append(r.queried, b.ID)
		g.Go(contained(func() error {
			set, err := ask(ctx, chosen{meta: b, matchers: ms})
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range set {
				union[v] = struct{}{}
			}
			return nil
		}))
	}
	r.blocksQueried = len(r.queried)
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(union))
	for v := range union {
		out = append(out, v)
	}
	slices.Sort(out)
	if q.limit > 0 && len(out) > q.limit {
		out = out[:q.limit:q.limit]
	}
	return out, nil
}

// headerNames returns the label names of a block and its external labels. Removed replica labels are left out of the external ones
// only: so does Thanos.
func (s *Server) headerNames(ctx context.Context, meta *catalog.Block, without []string) ([]string, error) {
	h, release, err := s.block(meta).Header(ctx)
	if err != nil {
		return nil, fmt.Errorf("label names for block %s: %w", meta.ID, err)
	}
	defer release()
	names := slices.Clone(h.LabelNames())
	externalWithout(meta.Labels, without).Range(func(l labels.Label) { names = append(names, l.Name) })
	return names, nil
}

// headerValues returns the values of a label in a block, its external value included. Their bytes are reserved as they add up: a label
// may have millions.
func (s *Server) headerValues(ctx context.Context, r *request, meta *catalog.Block, name string) ([]string, error) {
	h, release, err := s.block(meta).Header(ctx)
	if err != nil {
		return nil, fmt.Errorf("index header label values for block %s: %w", meta.ID, err)
	}
	defer release()
	if name == "" {
		// The index lists all postings under the empty name: Thanos answers with its one value.
		return []string{""}, nil
	}
	var out []string
	if err := r.reserveValues(valuesBytes(h, name)); err != nil {
		return nil, err
	}
	err = h.Values(ctx, name, "", func(v []byte, _ indexheader.List) (bool, error) {
		out = append(out, string(v))
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("index header label values for block %s: %w", meta.ID, err)
	}
	if v := meta.Labels.Get(name); v != "" {
		out = append(out, v)
	}
	return out, nil
}

// valuesBytes estimates the memory of a block's values of a label: a string header and place in a set each, and the text.
func valuesBytes(h *indexheader.Header, name string) int64 { return 96 * int64(h.ValueCount(name)) }

// reserveValues reserves n more bytes, waiting if these are the request's first. Only the first may wait: a request that held bytes while it
// waited for more could wait for another one that does the same.
func (r *request) reserveValues(n int64) error {
	r.first.Lock()
	defer r.first.Unlock()
	r.mu.Lock()
	held := r.reservation != nil
	r.mu.Unlock()
	if held {
		return r.grow(n)
	}
	return r.reserve(n)
}

// seriesOf calls f with the final labels of every series of a block that matches and has a chunk in range, until f returns false.
func (s *Server) seriesOf(ctx context.Context, r *request, q *labelQuery, c chosen, f func(labels []byte) bool) error {
	plan, err := s.block(c.meta).Plan(ctx, c.matchers, block.PlanOptions{
		Account:  &r.postings,
		OnSeries: func(n int) error { return r.series.Reserve(uint64(n)) },
	})
	if err != nil {
		return fmt.Errorf("fetch postings for block %s: %w", c.meta.ID, err)
	}
	defer plan.Close()
	if plan.Postings() == 0 {
		return nil
	}
	if err := r.reserveValues(planBytes([]planned{{plan: plan}})); err != nil {
		return err
	}
	stream := plan.Stream(ctx, block.StreamOptions{
		MinTime: q.minT, MaxTime: q.maxT,
		External:   externalWithout(c.meta.Labels, q.without),
		Dropped:    q.without,
		SkipChunks: true,
		Account:    &r.seriesPages,
		OnSeries:   func(n int) error { return r.series.Reserve(uint64(n)) },
		Unordered:  true,
	})
	defer stream.Close()
	for {
		seg, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("iterate series for block %s: %w", c.meta.ID, err)
		}
		for i := range seg.Len() {
			if !f(seg.Labels(i)) {
				return nil
			}
		}
	}
}

// seriesNames returns the label names of a block's matching series.
func (s *Server) seriesNames(ctx context.Context, r *request, q *labelQuery, c chosen) ([]string, error) {
	seen := map[string]struct{}{}
	err := s.seriesOf(ctx, r, q, c, func(b []byte) bool {
		for {
			name, _, rest, ok := storepb.NextLabel(b)
			if !ok {
				return true
			}
			if _, known := seen[string(name)]; !known {
				seen[string(name)] = struct{}{}
			}
			b = rest
		}
	})
	return keys(seen), err
}

// seriesValues returns the values that a label has in a block's matching series.
func (s *Server) seriesValues(ctx context.Context, r *request, q *labelQuery, c chosen, label string) ([]string, error) {
	external := c.meta.Labels.Has(label)
	named := slices.ContainsFunc(q.matchers, func(m *labels.Matcher) bool {
		return m.Name == labels.MetricName && m.Type == labels.MatchEqual
	})
	if !named && !external {
		// Only series that have the label matter. With a metric's name given this excludes too little to be worth its postings.
		c.matchers = append(slices.Clone(c.matchers), labels.MustNewMatcher(labels.MatchNotEqual, label, ""))
	}
	seen := map[string]struct{}{}
	err := s.seriesOf(ctx, r, q, c, func(b []byte) bool {
		for {
			name, value, rest, ok := storepb.NextLabel(b)
			if !ok {
				return true
			}
			if string(name) == label {
				if _, known := seen[string(value)]; !known && len(value) > 0 {
					seen[string(value)] = struct{}{}
				}
				// An external label has one value: one series says it all.
				return !external
			}
			b = rest
		}
	})
	return keys(seen), err
}

func keys(set map[string]struct{}) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	return out
}
