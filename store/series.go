package store

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/admission"
	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

// seriesQuery is a Series request, checked.
type seriesQuery struct {
	req           *storepb.SeriesRequest
	minT, maxT    int64
	matchers      []*labels.Matcher
	blockMatchers []*labels.Matcher
	without       []string
	queryStats    bool
	hints         bool
	limit         int64
}

// parseSeries checks a request. The budget holds what it needs.
func (s *Server) parseSeries(
	req *storepb.SeriesRequest, budget *matcher.Budget,
) (*seriesQuery, error) {
	q := &seriesQuery{req: req, without: req.WithoutReplicaLabels, limit: math.MaxInt64}
	if req.Limit > 0 {
		q.limit = req.Limit
	}
	q.minT, q.maxT = s.clamp(req.MinTime, req.MaxTime)
	err := budget.ReserveMessage(
		req, req.Matchers, req.WithoutReplicaLabels, req.ShardInfo.GetLabels())
	if err != nil {
		return nil, requestError("", err)
	}
	if q.matchers, err = matcher.Parse(s.matchers, budget, req.Matchers); err != nil {
		return nil, requestError("", err)
	}
	var h storepb.SeriesRequestHints
	if q.blockMatchers, err = parseHints(budget, req.Hints, &h, "series"); err != nil {
		return nil, err
	}
	q.hints, q.queryStats = req.Hints != nil, h.EnableQueryStats
	// After what Thanos refuses too: a request with both faults hears of the same one.
	if err := checkNames("without_replica_labels", q.without); err != nil {
		return nil, err
	}
	if err := checkNames("shard_info.labels", req.ShardInfo.GetLabels()); err != nil {
		return nil, err
	}
	if sh := req.ShardInfo; sh.GetTotalShards() >= 1 && (sh.ShardIndex < 0 || sh.ShardIndex >= sh.TotalShards) {
		// Nothing belongs to such a shard. To say so would hide that some shard is not asked for.
		return nil, status.Errorf(codes.InvalidArgument, "shard_index %d is not one of %d shards", sh.ShardIndex, sh.TotalShards)
	}
	return q, nil
}

// Series implements storepb.StoreServer.
func (s *Server) Series(req *storepb.SeriesRequest, stream storepb.Store_SeriesServer) (err error) {
	defer s.recovered(&err)
	budget := s.compiler.Open(stream.Context())
	defer budget.Close()
	q, err := s.parseSeries(req, budget)
	if err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	r := s.newRequest(stream.Context(), methodSeries)
	s.metrics.pending.Inc()
	defer s.metrics.pending.Dec()
	defer r.finish()

	if err := r.enter(admission.SeriesRequest); err != nil {
		return statusOf(r.ctx, err, codes.Unavailable)
	}

	sending := s.stalls.watch(r.ctx)
	defer sending.stop()
	send := func(f *storepb.Frame) error {
		start := time.Now()
		if r.firstFrame == 0 {
			r.firstFrame = start.Sub(r.start)
		}
		err := sending.send(stream, f)
		r.addStage(stageSend, time.Since(start))
		return err
	}
	w := storepb.NewFrameWriter(s.opts.Frames, req.ResponseBatchSize, send)
	defer func() { r.sent = w.Stats(); w.Discard() }()
	view := s.opts.Catalog.View()
	attempt := func() error { return s.series(r, q, view, w) }
	beginAgain := func() {
		w.Discard()
		w = storepb.NewFrameWriter(s.opts.Frames, req.ResponseBatchSize, send)
		r.sentSizes = sizeCounts{}
	}
	err = r.answer(attempt)
	for n, reshapes := 0, 0; n < maxReplans; n++ {
		if reshapes < maxReshapes && w.Stats().Frames == 0 && irregular(err) {
			reshapes, n = reshapes+1, n-1
			beginAgain()
			r.forget()
			err = r.answer(attempt)
			continue
		}
		if !s.replaced(r.ctx, err) {
			break
		}
		view = s.opts.Catalog.View()
		again, ok := r.resumed(q, view)
		if !ok {
			if w.Stats().Frames > 0 {
				break
			}
			beginAgain()
		}
		if r.goesOnWith = nil; w.Stats().Series > 0 {
			r.goesOnWith = again
		}
		r.forget()
		err = r.answer(attempt)
	}
	r.succeeded = err == nil
	return statusOf(r.ctx, err, codes.Aborted)
}

// series answers q from view into w: all of it, or what comes after the series that w has.
func (s *Server) series(r *request, q *seriesQuery, view *catalog.View, w *storepb.FrameWriter) error {
	plans, err := s.planSeries(r, q, view)
	defer func() {
		for _, p := range plans {
			p.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := r.sameShape(w); err != nil {
		return err
	}
	if len(plans) > 0 {
		if err := s.sendSeries(r, q, plans, w); err != nil {
			r.noteShape(plans, w)
			return err
		}
	}
	if q.hints {
		h := &storepb.SeriesResponseHints{QueriedBlocks: queriedBlocks(r.queried)}
		if q.queryStats {
			r.sent = w.Stats()
			h.QueryStats = r.queryStats()
		}
		a, err := anypb.New(h)
		if err != nil {
			return status.Errorf(codes.Internal, "marshal series response hints: %v", err)
		}
		return w.WriteHints(a)
	}
	return w.Flush()
}
