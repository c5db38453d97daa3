// Package query makes random requests to a store gateway: requests of a Querier, odd requests, and
// invalid ones. Requests aim at a layout's labels and at the edges of its blocks and chunks,
// because an empty answer compares nothing.
package query

import (
	"fmt"
	"strings"

	"github.com/gogo/protobuf/proto"
	"github.com/gogo/protobuf/types"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/hintspb"
	"github.com/thanos-io/thanos/pkg/store/storepb"
)

// Query is one request: exactly one of the first four is set.
type Query struct {
	Series *storepb.SeriesRequest
	Names  *storepb.LabelNamesRequest
	Values *storepb.LabelValuesRequest
	Info   bool

	// Bad says what is wrong with the request; empty for a valid request.
	Bad string
	// Mention is text that an error message must contain, so that the client finds its mistake.
	Mention string
}

// Kind returns the RPC's name.
func (q *Query) Kind() string {
	switch {
	case q.Series != nil:
		return "Series"
	case q.Names != nil:
		return "LabelNames"
	case q.Values != nil:
		return "LabelValues"
	default:
		return "Info"
	}
}

func (q *Query) String() string {
	var m proto.Message
	switch {
	case q.Series != nil:
		m = q.Series
	case q.Names != nil:
		m = q.Names
	case q.Values != nil:
		m = q.Values
	default:
		return "Info{}"
	}
	s := proto.CompactTextString(m)
	if any := q.hints(); any != nil {
		s += " # hints: " + hintsString(any)
	}
	return q.Kind() + "{" + s + "}"
}

// Clone returns a deep copy.
func (q *Query) Clone() *Query {
	c := *q
	switch {
	case q.Series != nil:
		c.Series = proto.Clone(q.Series).(*storepb.SeriesRequest)
	case q.Names != nil:
		c.Names = proto.Clone(q.Names).(*storepb.LabelNamesRequest)
	case q.Values != nil:
		c.Values = proto.Clone(q.Values).(*storepb.LabelValuesRequest)
	}
	return &c
}

func (q *Query) hints() *types.Any {
	switch {
	case q.Series != nil:
		return q.Series.Hints
	case q.Names != nil:
		return q.Names.Hints
	case q.Values != nil:
		return q.Values.Hints
	}
	return nil
}

// Matchers returns the request's label matchers; false if one of them cannot be parsed.
func (q *Query) Matchers() ([]*labels.Matcher, bool) {
	var in []storepb.LabelMatcher
	switch {
	case q.Series != nil:
		in = q.Series.Matchers
	case q.Names != nil:
		in = q.Names.Matchers
	case q.Values != nil:
		in = q.Values.Matchers
	}
	ms, err := storepb.MatchersToPromMatchers(in...)
	return ms, err == nil
}

// BlockMatchers returns the matchers of the request's hints; false if the hints or a matcher cannot
// be parsed.
func (q *Query) BlockMatchers() ([]storepb.LabelMatcher, bool) {
	any := q.hints()
	if any == nil {
		return nil, true
	}
	var in []storepb.LabelMatcher
	switch {
	case q.Series != nil:
		var h hintspb.SeriesRequestHints
		if types.UnmarshalAny(any, &h) != nil {
			return nil, false
		}
		in = h.BlockMatchers
	case q.Names != nil:
		var h hintspb.LabelNamesRequestHints
		if types.UnmarshalAny(any, &h) != nil {
			return nil, false
		}
		in = h.BlockMatchers
	case q.Values != nil:
		var h hintspb.LabelValuesRequestHints
		if types.UnmarshalAny(any, &h) != nil {
			return nil, false
		}
		in = h.BlockMatchers
	}
	_, err := storepb.MatchersToPromMatchers(in...)
	return in, err == nil
}

// WantsStats reports whether a Series request asks for query stats.
func (q *Query) WantsStats() bool {
	var h hintspb.SeriesRequestHints
	return q.Series != nil && q.Series.Hints != nil &&
		types.UnmarshalAny(q.Series.Hints, &h) == nil &&
		h.EnableQueryStats
}

// SetHints packs hints for a Series request.
func (q *Query) SetHints(ms []storepb.LabelMatcher, stats bool) error {
	any, err := types.MarshalAny(
		&hintspb.SeriesRequestHints{BlockMatchers: ms, EnableQueryStats: stats},
	)
	q.Series.Hints = any
	return err
}

func hintsString(any *types.Any) string {
	var d types.DynamicAny
	if err := types.UnmarshalAny(any, &d); err != nil {
		return fmt.Sprintf("%s %q", any.TypeUrl, any.Value)
	}
	return strings.TrimSpace(proto.CompactTextString(d.Message))
}
