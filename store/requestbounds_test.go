package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/internal/intake"
	"larder/store"
	"larder/store/storepb"
)

// TestListsOfARequestAreBounded checks the bounds of matchers and label names, because each is
// looked up in every block.
func TestListsOfARequestAreBounded(t *testing.T) {
	dir, _ := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{})
	names := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprint("replica_", i)
		}
		return out
	}
	ctx := context.Background()
	for _, tc := range []struct {
		n    int
		want codes.Code
	}{{1000, codes.OK}, {1001, codes.InvalidArgument}} {
		req := wholeMetric(0)
		req.WithoutReplicaLabels = names(tc.n)
		_, series := g.query(ctx, req)
		req = wholeMetric(0)
		req.ShardInfo = &storepb.ShardInfo{TotalShards: 2, Labels: names(tc.n)}
		_, shard := g.query(ctx, req)
		_, labelNames := g.client.LabelNames(ctx,
			&storepb.LabelNamesRequest{End: 1 << 50, WithoutReplicaLabels: names(tc.n)})
		_, values := g.client.LabelValues(ctx, &storepb.LabelValuesRequest{
			Label:                "pod",
			End:                  1 << 50,
			WithoutReplicaLabels: names(tc.n),
		})
		for what, err := range map[string]error{"Series": series, "shard": shard,
			"LabelNames": labelNames, "LabelValues": values} {
			if status.Code(err) != tc.want {
				t.Errorf("%s with %d names: got %v, want %s", what, tc.n, err, tc.want)
			}
		}
	}
	req := wholeMetric(0)
	for range 10_001 {
		req.Matchers = append(req.Matchers, &storepb.LabelMatcher{Name: "pod", Value: "a"})
	}
	if _, err := g.query(ctx, req); status.Code(err) != codes.InvalidArgument {
		t.Errorf("10,002 matchers: got %v, want InvalidArgument", err)
	}
}

// TestBadMatchersAreInvalidArguments checks that errors repeat only a short part of a long request.
func TestBadMatchersAreInvalidArguments(t *testing.T) {
	long := strings.Repeat("ä", 400_000)
	s := store.New(store.Options{Messages: intake.NewAccount(4<<30, nil)})
	const re = storepb.LabelMatcher_RE
	for _, m := range []*storepb.LabelMatcher{
		{Type: 99, Name: long},
		{Type: re, Name: long, Value: "("},
		{Type: re, Name: "pod", Value: "(" + long},
		{Type: re, Name: "pod", Value: "[" + long},
		{Type: re, Name: "pod", Value: "[z-a" + long},
	} {
		req := &storepb.LabelNamesRequest{Matchers: []*storepb.LabelMatcher{m}}
		_, err := s.LabelNames(t.Context(), req)
		if status.Code(err) != codes.InvalidArgument || len(err.Error()) > 2000 {
			t.Errorf("%.20s: got %.100v in %d bytes, want InvalidArgument in at most 2000",
				m.Value, err, len(fmt.Sprint(err)))
		}
	}
}

// TestAnExpressionThatNeedsTooMuchMemory checks that such an expression gets ResourceExhausted,
// because a process with more memory may accept it.
func TestAnExpressionThatNeedsTooMuchMemory(t *testing.T) {
	s := store.New(store.Options{Messages: intake.NewAccount(1<<20, nil)})
	m := &storepb.LabelMatcher{
		Type: storepb.LabelMatcher_RE, Name: "pod", Value: strings.Repeat("a.", 10_000),
	}
	hints, err := anypb.New(&storepb.LabelNamesRequestHints{
		BlockMatchers: []*storepb.LabelMatcher{m},
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, req := range map[string]*storepb.LabelNamesRequest{
		"matchers": {Matchers: []*storepb.LabelMatcher{m}}, "hints": {Hints: hints},
	} {
		_, err := s.LabelNames(t.Context(), req)
		if status.Code(err) != codes.ResourceExhausted ||
			!strings.Contains(err.Error(), "a quarter of --store.request-bytes") {
			t.Errorf("%s: got %v, want ResourceExhausted that names the flag", what, err)
		}
	}
}
