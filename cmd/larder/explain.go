package main

import (
	"context"

	"google.golang.org/grpc/metadata"

	"larder/internal/explanation"
	"larder/internal/web"
	"larder/store"
	"larder/store/storepb"
)

// explainer implements web.Explainer.
type explainer struct{ server *store.Server }

func (e explainer) Explain(
	ctx context.Context, in web.ExplainRequest,
) (*explanation.Explanation, error) {
	if in.Tenant != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("thanos-tenant", in.Tenant))
	}
	req := &storepb.SeriesRequest{
		MinTime: in.MinTime, MaxTime: in.MaxTime, MaxResolutionWindow: in.MaxResolution,
		SkipChunks: in.SkipChunks,
	}
	for _, m := range in.Matchers {
		req.Matchers = append(req.Matchers, &storepb.LabelMatcher{
			Type: matcherType(m.Op), Name: m.Name, Value: m.Value,
		})
	}
	if in.Run {
		return e.server.ExplainRun(ctx, req)
	}
	return e.server.Explain(ctx, req)
}

func matcherType(op string) storepb.LabelMatcher_Type {
	switch op {
	case "!=":
		return storepb.LabelMatcher_NEQ
	case "=~":
		return storepb.LabelMatcher_RE
	case "!~":
		return storepb.LabelMatcher_NRE
	}
	return storepb.LabelMatcher_EQ
}
