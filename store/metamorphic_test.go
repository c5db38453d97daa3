package store_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"larder/store/storepb"
)

// changes are edits of one field of a request. Each returns false if it changes nothing.
var changes = []struct {
	name   string
	change func(r *rand.Rand, x *storepb.SeriesRequest, metrics []string) bool
}{
	{"min time", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.MinTime += (x.MaxTime - x.MinTime) / int64(2+r.IntN(3))
		return true
	}},
	{"max time", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.MaxTime -= (x.MaxTime - x.MinTime) / int64(2+r.IntN(3))
		return true
	}},
	{"resolution", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		old := x.MaxResolutionWindow
		x.MaxResolutionWindow = []int64{0, 300_000, 3_600_000}[r.IntN(3)]
		return x.MaxResolutionWindow != old
	}},
	{"aggregates", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.Aggregates = append(x.Aggregates, storepb.Aggr(r.IntN(6)))
		return true
	}},
	{"skip chunks", func(_ *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.SkipChunks = !x.SkipChunks
		return true
	}},
	{"removed labels", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		if len(x.WithoutReplicaLabels) > 0 && r.IntN(2) == 0 {
			x.WithoutReplicaLabels = nil
			return true
		}
		x.WithoutReplicaLabels = append(x.WithoutReplicaLabels,
			[]string{"replica", "cluster", "pod", "nosuchlabel"}[r.IntN(4)])
		return true
	}},
	{"shard", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.ShardInfo = &storepb.ShardInfo{
			ShardIndex:  int64(r.IntN(2)),
			TotalShards: 2,
			By:          r.IntN(2) == 0,
			Labels:      []string{"pod"},
		}
		return true
	}},
	{"limit", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.Limit = int64(1 + r.IntN(4))
		return true
	}},
	{"matcher type", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		m := x.Matchers[r.IntN(len(x.Matchers))]
		old := m.Type
		m.Type = storepb.LabelMatcher_Type(r.IntN(4))
		return m.Type != old
	}},
	{"matcher value", func(r *rand.Rand, x *storepb.SeriesRequest, metrics []string) bool {
		m := x.Matchers[0]
		old := m.Value
		m.Value = metrics[r.IntN(len(metrics))]
		return m.Value != old
	}},
	{"matcher name", func(_ *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.Matchers[len(x.Matchers)-1].Name = "namespace"
		return true
	}},
	{"one matcher more", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		x.Matchers = append(x.Matchers, &storepb.LabelMatcher{
			Type: storepb.LabelMatcher_Type(
				r.IntN(4),
			), Name: []string{"pod", "instance", "cluster", "code"}[r.IntN(4)],
			Value: []string{"", ".+", "eu-west-1", "200"}[r.IntN(4)],
		})
		return true
	}},
	{"one matcher less", func(_ *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		n := len(x.Matchers)
		if n < 2 {
			return false
		}
		x.Matchers = x.Matchers[:n-1]
		return true
	}},
	{"order of matchers", func(r *rand.Rand, x *storepb.SeriesRequest, _ []string) bool {
		r.Shuffle(len(x.Matchers),
			func(i, j int) { x.Matchers[i], x.Matchers[j] = x.Matchers[j], x.Matchers[i] })
		x.Matchers = append(x.Matchers, x.Matchers[0])
		return true
	}},
}

// TestRequestsThatDifferInOneField sends pairs of requests that differ in one field to gateways
// with all caches and without caches. No request may get the cached data of the other one.
func TestRequestsThatDifferInOneField(t *testing.T) {
	dir, minT, maxT := demoBucket(t, 9)
	ctx := context.Background()
	cached := startGateway(t, dir, gatewayOptions{})
	plain := startGateway(t, dir, gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1})
	names, err := cached.client.LabelValues(ctx,
		&storepb.LabelValuesRequest{Label: "__name__", Start: math.MinInt64, End: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(g *gateway, req *storepb.SeriesRequest) []string {
		t.Helper()
		if req == nil {
			return nil
		}
		a, err := g.query(ctx, req)
		if err != nil {
			return append(a.texts(), fmt.Sprint(err))
		}
		return a.texts()
	}
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	r := rand.New(rand.NewPCG(31, 32))
	apart, same := 0, 0
	for range rounds {
		for _, c := range changes {
			var one *storepb.SeriesRequest
			for len(ask(plain, one)) == 0 {
				one = randomRequest(r, names.Values, minT, maxT)
				one.MinTime, one.MaxTime = max(one.MinTime, minT), min(one.MaxTime, maxT)
			}
			other := proto.Clone(one).(*storepb.SeriesRequest)
			if !c.change(r, other, names.Values) {
				continue
			}
			want := [2][]string{ask(plain, one), ask(plain, other)}
			if gocmp.Equal(want[0], want[1]) {
				same++
			} else {
				apart++
			}
			for turn, i := range []int{0, 1, 0, 1, 1, 0} {
				req := []*storepb.SeriesRequest{one, other}[i]
				if diff := gocmp.Diff(want[i], ask(cached, req)); diff != "" {
					t.Fatalf("%s, turn %d of %v and %v (-without caches +with):\n%s",
						c.name, turn, one, other, diff)
				}
			}
		}
	}
	t.Logf("%d pairs have different answers, %d the same", apart, same)
	if apart < 7*rounds {
		t.Error("too few pairs have different answers")
	}
}
