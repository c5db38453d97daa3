package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/store"
	"larder/store/storepb"
)

// TestListsOfARequestAreBounded: each of their entries is looked at for every block.
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
		_, labelNames := g.client.LabelNames(ctx, &storepb.LabelNamesRequest{End: 1 << 50, WithoutReplicaLabels: names(tc.n)})
		_, values := g.client.LabelValues(ctx, &storepb.LabelValuesRequest{Label: "pod", End: 1 << 50, WithoutReplicaLabels: names(tc.n)})
		for what, err := range map[string]error{"Series": series, "shard": shard, "LabelNames": labelNames, "LabelValues": values} {
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

// TestErrorsRepeatLittleOfARequest.
func TestErrorsRepeatLittleOfARequest(t *testing.T) {
	long := strings.Repeat("ä", 1_000_000)
	s := store.New(store.Options{})
	for _, m := range []*storepb.LabelMatcher{
		{Type: 99, Name: long}, {Type: storepb.LabelMatcher_RE, Name: long, Value: "("}, {Type: storepb.LabelMatcher_RE, Name: "pod", Value: "(" + long},
		{Type: storepb.LabelMatcher_RE, Name: "pod", Value: "[" + long}, {Type: storepb.LabelMatcher_RE, Name: "pod", Value: "[z-a" + long},
	} {
		if _, err := s.LabelNames(context.Background(), &storepb.LabelNamesRequest{Matchers: []*storepb.LabelMatcher{m}}); err == nil || len(err.Error()) > 2000 {
			t.Errorf("got an error of %d bytes", len(fmt.Sprint(err)))
		}
	}
}
