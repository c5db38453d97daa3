package store

import (
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/store/catalog"
	"larder/store/matcher"
	"larder/store/storepb"
)

// requestHints are the hints of a request.
type requestHints interface {
	proto.Message
	GetBlockMatchers() []*storepb.LabelMatcher
}

// parseHints decodes the hints of a request into h and returns their block matchers. Without hints
// h stays empty. kind names the request in errors. The bytes of the hints are reserved in budget.
func parseHints(
	budget *matcher.Budget, raw *anypb.Any, h requestHints, kind string,
) (ms []*labels.Matcher, err error) {
	if raw == nil {
		return nil, nil
	}
	if err := storepb.UnmarshalHints(raw, h); err != nil {
		return nil, status.Errorf(codes.InvalidArgument,
			"unmarshal %s request hints: %s", kind, matcher.Clip(err.Error()))
	}
	if err = budget.ReserveHints(h, h.GetBlockMatchers()); err == nil {
		ms, err = matcher.Parse(nil, budget, h.GetBlockMatchers())
	}
	if err != nil {
		return nil, requestError("translate request hints labels matchers: ", err)
	}
	return ms, nil
}

// maxNames bounds the lists of label names in a request, because each name is looked up in every
// block. Queries have far fewer replica labels and grouping labels.
const maxNames = 1000

// checkNames rejects a list of too many label names.
func checkNames(field string, names []string) error {
	if len(names) > maxNames {
		return status.Errorf(codes.InvalidArgument,
			"%d names in %s, more than %d", len(names), field, maxNames)
	}
	return nil
}

// requestError returns the error for a request that could not be parsed. prefix is put before its
// text. The code is that of err, or else InvalidArgument.
func requestError(prefix string, err error) error {
	code := codes.InvalidArgument
	var coded interface{ GRPCStatus() *status.Status }
	if errors.As(err, &coded) {
		code = coded.GRPCStatus().Code()
	}
	return status.Error(code, prefix+err.Error())
}

// queriedBlocks returns the blocks for the hints of an answer.
func queriedBlocks(blocks []*catalog.Block) []*storepb.Block {
	var out []*storepb.Block
	for _, b := range blocks {
		out = append(out, &storepb.Block{Id: b.ID.String()})
	}
	return out
}
