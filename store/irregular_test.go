package store_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"

	"larder/benchmarks/rawindex"
	"larder/store"
	"larder/store/storepb"
)

// irregularRequest returns a request for some series of an irregularBucket, mostly by stored
// values.
func irregularRequest(r *rand.Rand) *storepb.SeriesRequest {
	req := &storepb.SeriesRequest{
		MinTime: r.Int64N(
			8000,
		), ResponseBatchSize: []int64{0, 1, 7, 64}[r.IntN(4)], SkipChunks: r.IntN(4) == 0,
		Matchers: irregularMatchers(r),
	}
	req.MaxTime = req.MinTime + r.Int64N(4000)
	if r.IntN(2) == 0 {
		req.MinTime, req.MaxTime = math.MinInt64, math.MaxInt64
	}
	switch r.IntN(5) {
	case 0:
		req.WithoutReplicaLabels = []string{"replica"}
	case 1:
		req.WithoutReplicaLabels = []string{"replica", storedNames[r.IntN(len(storedNames))]}
	case 2:
		req.WithoutReplicaLabels = []string{"cluster", "void", "A"}
	}
	return req
}

func irregularMatchers(r *rand.Rand) []*storepb.LabelMatcher {
	var out []*storepb.LabelMatcher
	for range 1 + r.IntN(3) {
		m := &storepb.LabelMatcher{
			Type: storepb.LabelMatcher_Type(r.IntN(4)),
			Name: storedNames[r.IntN(len(storedNames))],
		}
		switch r.IntN(8) {
		case 0, 1, 2:
			m.Name = "__name__"
		case 3:
			m.Name = []string{"void", "cluster", "no_such_label"}[r.IntN(3)]
		case 4:
			if len(out) > 0 {
				m.Name = out[0].Name // two matchers of one name select among its values together
			}
		}
		v := storedValue(r, m.Name)
		m.Value = v
		switch {
		case r.IntN(6) == 0:
			m.Value = ""
		case m.Type == storepb.LabelMatcher_RE || m.Type == storepb.LabelMatcher_NRE:
			m.Value = []string{v + "|" + storedValue(r, m.Name), "|" + v, v[:1] + ".*", ".+", ".*",
				"(" + v + ")?", "(?i)" + v}[r.IntN(7)]
		}
		out = append(out, m)
	}
	return out
}

// TestIrregularBlocks queries blocks whose indexes are out of order, in ways that must not change
// the answer. It compares each answer with a plain model that reads, sorts and merges everything.
func TestIrregularBlocks(t *testing.T) {
	buckets, requests := 3, 25
	if testing.Short() {
		buckets, requests = 2, 10
	}
	series := 0
	for seed := range buckets {
		r := rand.New(rand.NewPCG(uint64(seed), 77))
		dir, blocks := irregularBucket(t, r, 40+seed*100)
		kept := t.TempDir()
		g := startGateway(t, dir, gatewayOptions{dataDir: kept})
		uncached := startGateway(t, dir, gatewayOptions{
			indexBytes:    -1,
			setBytes:      -1,
			chunkBytes:    -1,
			postingsBytes: -1,
			pageSize:      512,
		})
		small := startGateway(t, dir, gatewayOptions{
			indexBytes:    64 << 10,
			setBytes:      64 << 10,
			postingsBytes: 4 << 10,
			pageSize:      1 << 10,
		})
		for n := range requests {
			req := irregularRequest(r)
			want := expect(blocks, req)
			series += len(want.series)
			texts := want.texts()
			for _, x := range []struct {
				name string
				g    *gateway
			}{{"cold", g}, {"warm", g}, {"kept", g}, {"without caches", uncached},
				{"small caches", small}, {"small caches again", small}} {
				sameAnswer(t, x.g, req, texts, seed, n, x.name)
			}
			other := proto.Clone(req).(*storepb.SeriesRequest)
			other.ResponseBatchSize = 3
			sameAnswer(t, g, other, texts, seed, n, "other batches")
			other.Limit = int64(1 + r.IntN(max(len(texts), 1)))
			sameAnswer(t, g, other, texts[:min(int(other.Limit), len(texts))], seed, n, "limit")
			if n%3 == 0 {
				sameShards(t, g, blocks, req, texts, seed, n)
			}
			sameLabels(t, g, blocks, req, storedNames[r.IntN(len(storedNames))])
		}
		// Irregular blocks are remembered over restarts. Close waits until they are written.
		g.Irregular.Close()
		restarted := startGateway(t, dir, gatewayOptions{dataDir: kept})
		if known, found := restarted.metric(t, "larder_blocks_irregular"),
			g.metric(t, "larder_blocks_irregular"); known != found ||
			known < 2 {
			t.Errorf("bucket %d: %v blocks are known as irregular after a restart, %v were found",
				seed, known, found)
		}
		for n := range 5 {
			req := irregularRequest(r)
			sameAnswer(t, restarted, req, expect(blocks, req).texts(), seed, n, "after a restart")
		}
	}
	if series < 20*buckets*requests {
		t.Errorf("the test compares only %d series", series)
	}
}

// sameShards compares the answer in shards, which go by the final labels.
func sameShards(
	t *testing.T, g *gateway, blocks []*storedBlock, req *storepb.SeriesRequest, want []string,
	seed, n int,
) {
	t.Helper()
	x := proto.Clone(req).(*storepb.SeriesRequest)
	x.ShardInfo = &storepb.ShardInfo{
		TotalShards: int64(2 + n%2),
		By:          n%4 == 0,
		Labels:      []string{"a", "pod", "replica"},
	}
	var union []string
	for i := range x.ShardInfo.TotalShards {
		x.ShardInfo.ShardIndex = i
		shard := expect(blocks, x).texts()
		sameAnswer(t, g, x, shard, seed, n, "shard")
		union = append(union, shard...)
	}
	if diff := gocmp.Diff(sortedTexts(want), sortedTexts(union)); diff != "" {
		t.Fatalf("bucket %d, request %d: the reference's shards are not the whole:\n%s",
			seed, n, diff)
	}
}

func sameAnswer(
	t *testing.T, g *gateway, req *storepb.SeriesRequest, want []string, seed, n int, what string,
) {
	t.Helper()
	a, err := g.query(context.Background(), req)
	if err != nil {
		t.Fatalf("bucket %d, request %d, %s: %v: %v", seed, n, what, req, err)
	}
	if got := a.texts(); !slices.Equal(want, got) {
		t.Fatalf("bucket %d, request %d, %s: %v (-want +got):\n%s",
			seed, n, what, req, gocmp.Diff(want, got))
	}
	if n := g.inUse(t); n != 0 {
		t.Fatalf("%v bytes of the allowance are still reserved", n)
	}
}

// sameLabels compares label names and the values of one label, for the selection of a Series
// request and for all series.
func sameLabels(
	t *testing.T, g *gateway, blocks []*storedBlock, req *storepb.SeriesRequest, label string,
) {
	t.Helper()
	for _, ms := range [][]*storepb.LabelMatcher{req.Matchers, nil} {
		names := &storepb.LabelNamesRequest{
			Start:                req.MinTime,
			End:                  req.MaxTime,
			Matchers:             ms,
			WithoutReplicaLabels: req.WithoutReplicaLabels,
		}
		gotNames, err := g.client.LabelNames(context.Background(), names)
		if err != nil {
			t.Fatalf("%v: %v", names, err)
		}
		if want := expectNames(blocks, names); !slices.Equal(want, gotNames.Names) {
			t.Fatalf("%v: got %q, want %q", names, gotNames.Names, want)
		}
		values := &storepb.LabelValuesRequest{
			Label: label, Start: req.MinTime, End: req.MaxTime, Matchers: ms,
			WithoutReplicaLabels: req.WithoutReplicaLabels,
		}
		gotValues, err := g.client.LabelValues(context.Background(), values)
		if err != nil {
			t.Fatalf("%v: %v", values, err)
		}
		if want := expectValues(blocks, values); !slices.Equal(want, gotValues.Values) {
			t.Fatalf("%v: got %q, want %q", values, gotValues.Values, want)
		}
	}
}

// TestIrregularBlocksInLittleMemory queries an irregular block whose labels exceed the memory of
// one request. The block is sorted in several passes, and the answer must be the same as with much
// memory.
func TestIrregularBlocksInLittleMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 78))
	dir := t.TempDir()
	var blocks []*storedBlock
	for i, odd := range []irregularity{allIrregularities, {}} {
		b := makeBlock(r, i, labels.FromStrings("replica", string(rune('a'+i))), 2500,
			irregularity{})
		for j := range b.series {
			long := rawindex.Label{
				Name:  "text",
				Value: strings.Repeat(string(rune('a'+j%3)), 4<<10),
			}
			b.series[j].labels = append(b.series[j].labels, long)
			slices.SortFunc(b.series[j].labels,
				func(x, y rawindex.Label) int { return strings.Compare(x.Name, y.Name) })
		}
		slices.SortFunc(
			b.series,
			func(x, y storedSeries) int {
				return labels.Compare(normal(x.labels), normal(y.labels))
			},
		)
		b.spoil(r, odd)
		b.write(t, r, dir, false)
		blocks = append(blocks, b)
	}
	read := map[string]int64{}
	for _, x := range []struct {
		name  string
		bytes int64
	}{{"much", 256 << 20}, {"little", 25 << 20}} {
		g := startGateway(t, dir, gatewayOptions{
			indexBytes: -1, setBytes: -1, postingsBytes: -1, chunkBytes: -1, pageSize: 4 << 10,
			server: func(o *store.Options) { o.Allowance.Bytes = x.bytes },
		})
		requests := []*storepb.SeriesRequest{
			{
				Matchers: []*storepb.LabelMatcher{
					{Type: storepb.LabelMatcher_NEQ, Name: "__name__", Value: "m1"},
				},
				SkipChunks: true,
			},
			{
				Matchers: []*storepb.LabelMatcher{
					{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".+"},
				},
				WithoutReplicaLabels: []string{"replica"},
			},
		}
		if testing.Short() {
			requests = requests[:1]
		}
		for n, req := range requests {
			req.MinTime, req.MaxTime, req.ResponseBatchSize = math.MinInt64, math.MaxInt64, 64
			want := expect(blocks, req).texts()
			if len(want) < 1000 {
				t.Fatalf("request %d: only %d series", n, len(want))
			}
			// The first request finds that the block is irregular.
			sameAnswer(t, g, req, want, 0, n, x.name+" memory")
			g.bucket.take()
			sameAnswer(t, g, req, want, 0, n, x.name+" memory, again")
			_, bytes := g.bucket.take()
			read[x.name] += bytes["index"]
		}
	}
	if read["little"] < 2*read["much"] {
		t.Errorf(
			"with little memory %d bytes of index were read, with much %d: there were no further passes",
			read["little"], read["much"],
		)
	}
}
