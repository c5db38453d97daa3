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

// seriesQuery is a checked Series request.
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

// parseSeries checks a request and compiles its matchers. The bytes it needs are reserved in
// budget.
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
	// These checks come after those of Thanos, so that a request with both faults gets the same
	// error as from Thanos.
	if err := checkNames("without_replica_labels", q.without); err != nil {
		return nil, err
	}
	if err := checkNames("shard_info.labels", req.ShardInfo.GetLabels()); err != nil {
		return nil, err
	}
	sh := req.ShardInfo
	if sh.GetTotalShards() >= 1 && (sh.ShardIndex < 0 || sh.ShardIndex >= sh.TotalShards) {
		// No series belongs to such a shard. An empty answer would hide the caller's mistake.
		return nil, status.Errorf(codes.InvalidArgument,
			"shard_index %d is not one of %d shards", sh.ShardIndex, sh.TotalShards)
	}
	return q, nil
}

// asked returns what the request asks for.
func (q *seriesQuery) asked() asked {
	return asked{
		matchers: q.matchers, minT: q.minT, maxT: q.maxT, resolution: q.req.MaxResolutionWindow,
		skipChunks: q.req.SkipChunks, limit: q.req.Limit,
	}
}

// Series implements storepb.StoreServer.
func (s *Server) Series(req *storepb.SeriesRequest, stream storepb.Store_SeriesServer) error {
	return s.serveSeries(req, stream, nil)
}

// serveSeries is Series, observed by hooks.
func (s *Server) serveSeries(
	req *storepb.SeriesRequest, stream storepb.Store_SeriesServer, hooks *seriesHooks,
) (err error) {
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
	r := s.newRequest(stream.Context(), methodSeries, q.asked())
	hooks.began(r)
	defer hooks.ended(r, q)
	s.metrics.pending.Inc()
	defer s.metrics.pending.Dec()
	defer r.finish(&err)
	defer s.recovered(&err) // before finish, which tells of a panic

	if err := r.enter(admission.SeriesRequest); err != nil {
		return statusOf(r.ctx, err, codes.Unavailable)
	}

	sending := s.stalls.watch(r.ctx)
	defer sending.stop()
	send := func(f *storepb.Frame) error {
		start := time.Now()
		if r.firstFrame == 0 {
			r.firstFrame = max(start.Sub(r.start), 1)
		}
		r.progress.now.Store(int32(stageFlowControl))
		err := sending.send(stream, f)
		// grpc copies nothing and waits only until the client has room for the frame. Without
		// compression, that is all the time that it takes.
		d := time.Since(start)
		r.addStage(stageFlowControl, d)
		r.late(r.ctx, "send_frame", start, start.Add(d), stageFlowControl)
		return err
	}
	w := storepb.NewFrameWriter(s.opts.Frames, req.ResponseBatchSize, send)
	defer func() { r.sent = w.Stats(); w.Discard() }()
	view := s.opts.Catalog.View()
	try := func() error { return s.series(r, q, view, w) }
	restart := func() {
		r.attempt.restart()
		w.Discard()
		w = storepb.NewFrameWriter(s.opts.Frames, req.ResponseBatchSize, send)
		r.sentSizes = sizeCounts{}
	}
	// again prepares another attempt, and reports false if err is final.
	again := func(err error) bool {
		switch r.mayRepeat(err) {
		case foundIrregular:
			if w.Stats().Frames > 0 {
				return false // the frames may be out of order with the rest
			}
			restart()
		case blockReplaced:
			view = s.opts.Catalog.View()
			blocks, ok := r.resumed(q, view)
			if !ok {
				if w.Stats().Frames > 0 {
					return false
				}
				restart()
			}
			r.attempt.resume(blocks)
		case noCause:
			return false
		}
		r.nextAttempt()
		return true
	}
	for {
		if err = r.answer(try); !again(err) {
			break
		}
	}
	r.succeeded = err == nil
	return statusOf(r.ctx, err, codes.Aborted)
}

// series makes one attempt to answer q from view. It writes all series to w. If w already has
// series, it writes those that follow.
func (s *Server) series(
	r *request, q *seriesQuery, view *catalog.View, w *storepb.FrameWriter,
) error {
	plans, err := s.planSeries(r, q, view)
	defer func() {
		for _, p := range plans {
			p.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := r.attempt.checkOrder(); err != nil {
		return err
	}
	if len(plans) > 0 {
		if err := s.sendSeries(r, q, plans, w); err != nil {
			r.attempt.noteOrder(plans)
			return err
		}
	}
	if q.hints {
		h := &storepb.SeriesResponseHints{QueriedBlocks: queriedBlocks(r.attempt.queried)}
		if q.queryStats {
			r.sent = w.Stats()
			h.QueryStats = r.queryStats()
		}
		a, err := anypb.New(h)
		if err != nil {
			return status.Errorf(codes.Internal, "marshal series response hints: %v", err)
		}
		return r.encode(func() error { return w.WriteHints(a) })
	}
	return r.encode(w.Flush)
}
