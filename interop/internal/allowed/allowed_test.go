package allowed

import (
	"context"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"

	"larder/interop/internal/answer"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"

	"github.com/thanos-io/thanos/pkg/store/storepb"
)

func load(t *testing.T) *List {
	t.Helper()
	l, err := Load("../../allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func chunk(min, max int64, data string) answer.Chunk {
	c := answer.Chunk{MinTime: min, MaxTime: max, Size: len(data)}
	c.Parts[0] = &answer.Part{Data: []byte(data), Hash: hashOf(data)}
	return c
}

func series(name string, frame int, cs ...answer.Chunk) answer.Series {
	return answer.Series{Labels: labels.FromStrings("a", name), Chunks: cs, Frame: frame}
}

// explain runs one case and returns the fields that still differ.
func explain(
	t *testing.T, want, got, other *answer.Answer, req *storepb.SeriesRequest,
) []answer.Difference {
	t.Helper()
	left, err := load(t).Explain(context.Background(), &Case{
		Layout: &layout.Layout{}, Query: &query.Query{Series: req}, Thanos: want, Larder: got,
		AskThanos: func(context.Context, *query.Query) (*answer.Answer, error) {
			return other, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestLimitIsTheFirstOfEverything(t *testing.T) {
	a, b, c := series("1", 0), series("2", 0), series("3", 0)
	all := &answer.Answer{Series: []answer.Series{a, b, c}}
	cut := &answer.Answer{Series: []answer.Series{b}}
	for _, tc := range []struct {
		name string
		got  []answer.Series
		ok   bool
	}{
		{"the first two", []answer.Series{a, b}, true},
		{"two others", []answer.Series{b, c}, false},
		{"too few", []answer.Series{a}, false},
		{"too many", []answer.Series{a, b, c}, false},
	} {
		left := explain(
			t, cut, &answer.Answer{Series: tc.got}, all, &storepb.SeriesRequest{Limit: 2},
		)
		if got := len(left) == 0; got != tc.ok {
			t.Errorf("%s: allowed %v, want %v: %v", tc.name, got, tc.ok, left)
		}
	}
	both := &answer.Answer{Series: []answer.Series{a, b}}
	if left := explain(t, cut, both, all, &storepb.SeriesRequest{}); len(left) == 0 {
		t.Error("an entry about limits excused a request without a limit")
	}
}

func TestAContinuedSeriesFilledItsFrame(t *testing.T) {
	big := chunk(1, 2, "x")
	big.Size = 600 << 10
	whole := &answer.Answer{Series: []answer.Series{series("1", 0, big, chunk(3, 4, "y"))}}
	for _, tc := range []struct {
		name  string
		frame int
		at    int
		ok    bool
	}{
		{"frame is full", 1 << 20, 1, true},
		{"there was room", 600 << 10, 1, false},
		{"in the same frame", 1 << 20, 0, false},
	} {
		got := &answer.Answer{
			Series: []answer.Series{series("1", 0, big), series("1", tc.at, chunk(3, 4, "y"))},
			Frames: []answer.Frame{
				{Size: tc.frame, Kind: "series", Series: 1},
				{Size: 10, Kind: "series", Series: 1},
			},
		}
		left := explain(t, whole, got, nil, &storepb.SeriesRequest{})
		if ok := len(left) == 0; ok != tc.ok {
			t.Errorf("%s: allowed %v, want %v: %v", tc.name, ok, tc.ok, left)
		}
	}
}

func TestRepeatsOfThanosOnly(t *testing.T) {
	c, d := chunk(1, 2, "x"), chunk(3, 4, "y")
	thanos := &answer.Answer{Series: []answer.Series{series("1", 0, c, c, d)}}
	for _, tc := range []struct {
		name string
		got  []answer.Chunk
		ok   bool
	}{
		{"each once", []answer.Chunk{c, d}, true},
		{"one left out", []answer.Chunk{c}, false},
		{"the other one twice", []answer.Chunk{c, d, d}, false},
		{"other bytes", []answer.Chunk{c, chunk(3, 4, "z")}, false},
	} {
		left := explain(
			t, thanos, &answer.Answer{Series: []answer.Series{series("1", 0, tc.got...)}}, nil,
			&storepb.SeriesRequest{},
		)
		if ok := len(left) == 0; ok != tc.ok {
			t.Errorf("%s: allowed %v, want %v: %v", tc.name, ok, tc.ok, left)
		}
	}
}

func TestFaultsNameTheirBlock(t *testing.T) {
	const id = "01H5XXM35R30RVDR8ZN4RBCVKC"
	thanos := &answer.Answer{
		Code:    codes.Unknown,
		Message: "receive series from " + id + ": load chunks: broken",
	}
	for _, tc := range []struct {
		name string
		got  answer.Answer
		ok   bool
	}{
		{"Aborted, the same block",
			answer.Answer{Code: codes.Aborted, Message: "receive series from " + id + ": checksum"},
			true},
		{"Aborted, no block", answer.Answer{Code: codes.Aborted, Message: "broken"}, false},
		{"another code", answer.Answer{Code: codes.Internal, Message: "receive series from " + id},
			false},
		{"nothing wrong", answer.Answer{}, false},
	} {
		left := explain(t, thanos, &tc.got, nil, &storepb.SeriesRequest{})
		if ok := len(left) == 0; ok != tc.ok {
			t.Errorf("%s: allowed %v, want %v: %v", tc.name, ok, tc.ok, left)
		}
	}
}

func TestShardThatDoesNotExist(t *testing.T) {
	f := func(index, total int64, message string, ok bool) {
		t.Helper()
		req := &storepb.SeriesRequest{
			ShardInfo: &storepb.ShardInfo{ShardIndex: index, TotalShards: total},
		}
		got := &answer.Answer{Code: codes.InvalidArgument, Message: message}
		if left := explain(t, &answer.Answer{}, got, &answer.Answer{},
			req); (len(left) == 0) != ok {
			t.Errorf("shard %d of %d, %q: left %v", index, total, message, left)
		}
	}
	f(3, 3, "shard_index 3 is not one of 3 shards", true)
	f(-1, 3, "shard_index -1 is not one of 3 shards", true)
	f(2, 3, "shard_index 2 is not one of 3 shards", false)
	f(5, 0, "shard_index 5 is not one of 0 shards", false)
	f(3, 3, "no", false)
}
