package store

import (
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/matcher"
	"larder/store/storepb"
)

// requestHints is the hints of a request.
type requestHints interface {
	proto.Message
	GetBlockMatchers() []*storepb.LabelMatcher
}

// blockMatchers decodes the hints of a request, which may have none, into h, and translates their matchers. of names the request.
func blockMatchers(
	raw *anypb.Any, h requestHints, of string, held *matcher.Budget,
) (ms []*labels.Matcher, err error) {
	if raw == nil {
		return nil, nil
	}
	if err := storepb.UnmarshalHints(raw, h); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "unmarshal %s request hints: %s", of, matcher.Clip(err.Error()))
	}
	if err = held.ReserveHints(h, h.GetBlockMatchers()); err == nil {
		ms, err = matcher.Parse(nil, held, h.GetBlockMatchers())
	}
	if err != nil {
		return nil, refusal("translate request hints labels matchers: ", err)
	}
	return ms, nil
}

// maxNames is far beyond the replica labels and the labels of a query's grouping that there are; each name is looked at for every block.
const maxNames = 1000

// fewNames refuses a list of label names that means harm.
func fewNames(field string, names []string) error {
	if len(names) > maxNames {
		return status.Errorf(codes.InvalidArgument, "%d names in %s, more than %d", len(names), field, maxNames)
	}
	return nil
}

// refusal is what the client gets for an error of translating its request, after what was translated.
func refusal(what string, err error) error {
	code := codes.InvalidArgument
	var r interface{ GRPCStatus() *status.Status }
	if errors.As(err, &r) {
		code = r.GRPCStatus().Code()
	}
	return status.Error(code, what+err.Error())
}
