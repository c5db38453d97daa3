package store

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/indexcache"
	"larder/store/admission"
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

// asked returns what the request asks for. label is that of a LabelValues request.
func (q *labelQuery) asked(label string) asked {
	return asked{
		matchers: q.matchers, minT: q.minT, maxT: q.maxT, label: label, limit: int64(q.limit),
	}
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
	r := s.newRequest(ctx, methodLabelNames, q.asked(""))
	defer r.finish(&err)
	defer s.recovered(&err) // before finish, which tells of a panic

	answer, err := s.answerLabels(r, q, &namesQuestion{query: q})
	if err != nil {
		return nil, err
	}
	resp = &storepb.LabelNamesResponse{}
	return resp, r.sendLabels(budget, answer, q.limit, resp)
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
	r := s.newRequest(ctx, methodLabelValues, q.asked(req.Label))
	defer r.finish(&err)
	defer s.recovered(&err) // before finish, which tells of a panic

	answer, err := s.answerLabels(r, q, &valuesQuestion{query: q, label: req.Label})
	if err != nil {
		return nil, err
	}
	resp = &storepb.LabelValuesResponse{}
	return resp, r.sendLabels(budget, answer, q.limit, resp)
}

// reservedAnswerBytes is the size from which an answer stays reserved until it was sent. Smaller
// answers in transit are bounded by the number of requests.
const reservedAnswerBytes = 16 << 10

// sendLabels sends at most limit strings of an answer, all if it is 0, as they are encoded. They
// stay reserved until the client has read them. If the request did not come from a client,
// sendLabels decodes them into resp.
func (r *request) sendLabels(
	budget *matcher.Budget, a *indexcache.LabelAnswer, limit int, resp proto.Message,
) error {
	strings := stringList(a.Strings)
	if limit > 0 {
		// What is cut off must not stay in memory until the client has read the rest.
		strings = clip(strings.first(limit), cap(a.Strings))
	}
	if n := int64(len(strings) + len(a.Hints)); n >= reservedAnswerBytes {
		turn := r.turn
		if budget.UntilSent(turn.Close) {
			turn.Release(turn.Bytes() - n)
			r.turn = nil
		}
	}
	if budget.Encoded(strings, a.Hints) {
		return nil
	}
	if err := proto.Unmarshal(slices.Concat(strings, a.Hints), resp); err != nil {
		return status.Errorf(codes.Internal, "decode a label answer: %v", err)
	}
	return nil
}

// answerLabels answers a label request: the strings of all blocks, sorted, each once. Label
// requests read the blocks of all resolutions.
func (s *Server) answerLabels(
	r *request, q *labelQuery, what question,
) (out *indexcache.LabelAnswer, _ error) {
	if err := r.enter(admission.LabelRequest); err != nil {
		return nil, statusOf(r.ctx, err, codes.Internal)
	}
	try := func() (err error) {
		out, err = s.askBlocks(r, q, what)
		return err
	}
	for outsiders := 0; ; {
		err := r.answer(try)
		if errors.Is(err, errOutsiders) && outsiders < maxOutsiderAttempts {
			outsiders++
		} else if r.mayRepeat(err) == noCause {
			return out, statusOf(r.ctx, err, codes.Internal)
		}
		r.nextAttempt()
	}
}
