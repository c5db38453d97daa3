package store_test

import (
	"context"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// collector is a server stream that decodes frames, like a client.
type collector struct {
	grpc.ServerStream
	ctx    context.Context
	t      *testing.T
	series []labels.Labels
}

func (c *collector) Context() context.Context           { return c.ctx }
func (c *collector) Send(*storepb.SeriesResponse) error { panic("frames only") }

func (c *collector) SendMsg(m any) error {
	b, err := storepb.Codec().Marshal(m)
	if err != nil {
		return err
	}
	defer b.Free()
	var resp storepb.SeriesResponse
	if err := proto.Unmarshal(b.Materialize(), &resp); err != nil {
		c.t.Fatalf("a frame is not a SeriesResponse: %v", err)
	}
	all := []*storepb.Series{resp.GetSeries()}
	if resp.GetBatch() != nil {
		all = resp.GetBatch().Series
	}
	for _, s := range all {
		if s == nil {
			continue
		}
		// A series may continue in the next frame.
		if l := seriesLabels(s); len(c.series) == 0 || !labels.Equal(c.series[len(c.series)-1], l) {
			c.series = append(c.series, l)
		}
	}
	return nil
}

// FuzzRequest sends arbitrary bytes as requests of the three calls. Each request is answered or
// rejected as invalid, in bounded time and memory. A complete Series answer has exactly the series
// that the matchers select.
func FuzzRequest(f *testing.F) {
	l := dataset.WholeMetric("fuzz", 5, 60, 600_000)
	l.Blocks[0].Labels = labels.FromStrings("cluster", "c")
	dir := f.TempDir()
	if _, err := l.Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		f.Fatal(err)
	}
	g := startGateway(f, dir, gatewayOptions{})
	whole, err := g.query(context.Background(), wholeMetric(0))
	if err != nil {
		f.Fatal(err)
	}
	var stored []labels.Labels
	for _, s := range whole.series {
		stored = append(stored, seriesLabels(s))
	}

	seed := func(method byte, m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(method, b)
	}
	hints := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		if err != nil {
			f.Fatal(err)
		}
		return a
	}
	matchers := []*storepb.LabelMatcher{
		{
			Name:  "__name__",
			Value: dataset.WholeMetricName,
		}, {Type: storepb.LabelMatcher_RE, Name: "code", Value: "2..|500"},
		{
			Type:  storepb.LabelMatcher_NRE,
			Name:  "pod",
			Value: ".*a.*",
		}, {Type: storepb.LabelMatcher_NEQ, Name: "method", Value: "GET"},
	}
	seed(0, wholeMetric(4))
	seed(0, &storepb.SeriesRequest{MaxTime: math.MaxInt64, Matchers: matchers})
	seed(0, &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64, Matchers: matchers[1:], Limit: 3,
		SkipChunks: true, WithoutReplicaLabels: []string{"cluster", "pod"},
		ShardInfo: &storepb.ShardInfo{
			ShardIndex:  1,
			TotalShards: 2,
			By:          true,
			Labels:      []string{"pod"},
		},
		Hints: hints(
			&storepb.SeriesRequestHints{EnableQueryStats: true, BlockMatchers: matchers[1:2]},
		),
	})
	seed(0, &storepb.SeriesRequest{
		MaxTime: math.MaxInt64,
		Matchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_RE, Name: "pod", Value: "(a{1000}){1000}"},
		},
	})
	for _, expensive := range []string{strings.Repeat(`\pL`, 15_000),
		"(?i)" + strings.Repeat(`[\x{42}-\x{1e943}]`, 3000),
		strings.Repeat("[ab]", 8) + strings.Repeat("(c)", 10_000)} {
		seed(0, &storepb.SeriesRequest{
			MaxTime: math.MaxInt64,
			Matchers: []*storepb.LabelMatcher{
				{Type: storepb.LabelMatcher_RE, Name: "pod", Value: expensive},
			},
		})
	}
	seed(1, &storepb.LabelNamesRequest{
		End:      math.MaxInt64,
		Matchers: matchers,
		Limit:    2,
		Hints:    hints(&storepb.LabelNamesRequestHints{BlockMatchers: matchers}),
	})
	seed(2, &storepb.LabelValuesRequest{
		End:      math.MaxInt64,
		Label:    "pod",
		Matchers: matchers,
		Hints:    hints(&storepb.LabelValuesRequestHints{}),
	})
	f.Add(byte(0), []byte("\x1a\xff\xff\xff\xff\x0f"))

	f.Fuzz(func(t *testing.T, method byte, wire []byte) {
		if len(wire) > 64<<10 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var err error
		var req proto.Message
		decode := func(m proto.Message) bool {
			req = m
			return storepb.Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, m) == nil
		}
		out := &collector{ctx: ctx, t: t}
		series, names, values := &storepb.SeriesRequest{}, &storepb.LabelNamesRequest{},
			&storepb.LabelValuesRequest{}
		switch {
		case method%3 == 0 && decode(series):
			err = g.Server.Series(series, out)
		case method%3 == 1 && decode(names):
			_, err = g.Server.LabelNames(ctx, names)
		case method%3 == 2 && decode(values):
			_, err = g.Server.LabelValues(ctx, values)
		default:
			return
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
			t.Errorf("the answer to a request of %d bytes allocated %d: %v", len(wire), n, req)
		}
		switch status.Code(err) {
		case codes.OK, codes.InvalidArgument:
		default:
			t.Fatalf("%v: code %s: %v", req, status.Code(err), err)
		}
		if err != nil || method%3 != 0 || series.ShardInfo != nil || series.Limit > 0 ||
			series.Hints != nil ||
			len(series.WithoutReplicaLabels) > 0 ||
			series.MinTime > 0 ||
			series.MaxTime < 1<<50 {
			return
		}
		var want []labels.Labels
		for _, l := range stored {
			if matchesAll(t, series.Matchers, l) {
				want = append(want, l)
			}
		}
		if !slices.EqualFunc(want, out.series, labels.Equal) {
			t.Fatalf("%v: %d series, want %d:\n%v", req, len(out.series), len(want), out.series)
		}
	})
}

// matchesAll reports whether a series of the only block belongs to the answer: all matchers match
// it, and at least one is not for an external label.
func matchesAll(t *testing.T, ms []*storepb.LabelMatcher, l labels.Labels) bool {
	inner := false
	for _, m := range ms {
		pm, err := labels.NewMatcher(map[storepb.LabelMatcher_Type]labels.MatchType{
			storepb.LabelMatcher_EQ:  labels.MatchEqual,
			storepb.LabelMatcher_NEQ: labels.MatchNotEqual,
			storepb.LabelMatcher_RE:  labels.MatchRegexp,
			storepb.LabelMatcher_NRE: labels.MatchNotRegexp,
		}[m.Type], m.Name, m.Value)
		if err != nil {
			t.Fatalf("%v was accepted: %v", m, err)
		}
		inner = inner || m.Name != "cluster"
		if !pm.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return inner
}
