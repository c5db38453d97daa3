package query

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"sort"

	"github.com/gogo/protobuf/proto"
	"github.com/gogo/protobuf/types"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/hintspb"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/layout"
)

// Generator makes requests for one layout. It is not safe for concurrent use.
type Generator struct {
	r      *rand.Rand
	l      *layout.Layout
	blocks []*layout.Block
	names  []string
	ext    []string
	edges  []int64
	lo, hi int64
	// giants reports whether the layout has series that are larger than a frame.
	giants bool
}

// NewGenerator returns a generator whose requests depend on the seed and the layout only.
func NewGenerator(seed uint64, l *layout.Layout) *Generator {
	g := &Generator{r: rand.New(rand.NewPCG(seed, 0x71756572)), l: l, blocks: l.Served()}
	names, ext := map[string]bool{}, map[string]bool{}
	g.lo, g.hi = g.blocks[0].MinTime, g.blocks[0].MaxTime
	for _, b := range g.blocks {
		g.lo, g.hi = min(g.lo, b.MinTime), max(g.hi, b.MaxTime)
		g.edges = append(g.edges, b.MinTime, b.MaxTime)
		b.Labels.Range(func(x labels.Label) { ext[x.Name] = true })
		for _, s := range b.Series {
			g.giants = g.giants || s.Labels.Get("__name__") == "giant"
			for _, x := range s.Pairs() {
				names[x.Name] = true
			}
		}
		for range 4 {
			if len(b.Series) > 0 {
				s := pick(g.r, b.Series)
				c := pick(g.r, s.Chunks)
				g.edges = append(g.edges, c.Min, c.Max)
			}
		}
	}
	g.names, g.ext = keys(names), keys(ext)
	return g
}

func keys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func (g *Generator) chance(percent int) bool { return g.r.IntN(100) < percent }

// Next returns the next request.
func (g *Generator) Next() *Query {
	var q *Query
	switch n := g.r.IntN(100); {
	case n < 64:
		q = &Query{Series: g.series()}
	case n < 79:
		q = &Query{Names: g.labelNames()}
	case n < 97:
		q = &Query{Values: g.labelValues()}
	default:
		return &Query{Info: true}
	}
	if g.chance(4) {
		g.spoil(q)
	}
	return q
}

func (g *Generator) series() *storepb.SeriesRequest {
	req := &storepb.SeriesRequest{
		PartialResponseStrategy: storepb.PartialResponseStrategy(g.r.IntN(2)),
	}
	req.MinTime, req.MaxTime = g.timeRange(25)
	req.Matchers = g.matchers(97)
	if g.chance(50) {
		// The window is never negative: Thanos panics with its lock held, and then answers nothing.
		// TestWhatThanosCannotAnswer asks larder.
		req.MaxResolutionWindow = pick(
			g.r,
			[]int64{
				1,
				299_999,
				300_000,
				300_000,
				300_001,
				3_599_999,
				3_600_000,
				3_600_000,
				1 << 40,
			},
		)
	}
	req.Aggregates = g.aggregates()
	req.SkipChunks = g.chance(15)
	if g.chance(40) {
		req.WithoutReplicaLabels = g.without()
	}
	if g.chance(35) {
		req.ShardInfo = g.shard()
	}
	if g.chance(20) {
		req.Limit = pick(g.r, []int64{1, 1, 2, 3, 5, 10, 100, -1})
	}
	req.ResponseBatchSize = pick(g.r, []int64{0, 0, 1, 2, 7, 64, 64, 64})
	if g.chance(35) {
		h := &hintspb.SeriesRequestHints{EnableQueryStats: g.chance(50)}
		if g.chance(60) {
			h.BlockMatchers = g.blockMatchers()
		}
		req.Hints = pack(h)
	}
	if g.chance(15) {
		req.QueryHints = &storepb.QueryHints{
			StepMillis: 30_000,
			Func:       &storepb.Func{Name: "rate"},
			Range:      &storepb.Range{Millis: 300_000},
		}
		req.Step, req.Range = 30_000, 300_000
	}
	return req
}

func (g *Generator) labelNames() *storepb.LabelNamesRequest {
	req := &storepb.LabelNamesRequest{}
	req.Start, req.End = g.timeRange(25)
	if g.chance(60) {
		req.Matchers = g.matchers(100)
	}
	if g.chance(30) {
		req.WithoutReplicaLabels = g.without()
	}
	if g.chance(25) {
		req.Limit = pick(g.r, []int64{1, 2, 5, 1000, -1})
	}
	if g.chance(25) {
		req.Hints = pack(&hintspb.LabelNamesRequestHints{BlockMatchers: g.blockMatchers()})
	}
	return req
}

func (g *Generator) labelValues() *storepb.LabelValuesRequest {
	req := &storepb.LabelValuesRequest{Label: g.name()}
	if g.chance(4) {
		req.Label = ""
	}
	req.Start, req.End = g.timeRange(25)
	if g.chance(60) {
		req.Matchers = g.matchers(100)
	}
	if g.chance(30) {
		req.WithoutReplicaLabels = g.without()
	}
	if g.chance(25) {
		req.Limit = pick(g.r, []int64{1, 2, 5, 1000, -1})
	}
	if g.chance(25) {
		req.Hints = pack(&hintspb.LabelValuesRequestHints{BlockMatchers: g.blockMatchers()})
	}
	return req
}

func pack(m proto.Message) *types.Any {
	a, err := types.MarshalAny(m)
	if err != nil {
		panic(err)
	}
	return a
}

// name returns a label name: of series, of external labels, or of neither.
func (g *Generator) name() string {
	switch n := g.r.IntN(10); {
	case n < 2 && len(g.ext) > 0:
		return pick(g.r, g.ext)
	case n < 9:
		return pick(g.r, g.names)
	default:
		return "no_such_label"
	}
}

func (g *Generator) aggregates() []storepb.Aggr {
	all := []storepb.Aggr{
		storepb.Aggr_COUNT,
		storepb.Aggr_SUM,
		storepb.Aggr_MIN,
		storepb.Aggr_MAX,
		storepb.Aggr_COUNTER,
	}
	switch g.r.IntN(7) {
	case 0:
		return nil
	case 1:
		return all
	case 2:
		return append([]storepb.Aggr{storepb.Aggr_RAW}, all...)
	case 3:
		return []storepb.Aggr{storepb.Aggr_RAW}
	case 4:
		// What a Querier asks for avg and for rate.
		return []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_SUM}
	case 5:
		return []storepb.Aggr{storepb.Aggr_COUNTER}
	default:
		g.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all[:1+g.r.IntN(len(all))]
	}
}

// without returns labels to remove: the replica label most of the time, or any other.
func (g *Generator) without() []string {
	switch g.r.IntN(8) {
	case 0:
		return []string{g.name()}
	case 1:
		return []string{g.l.ReplicaLabel, g.name()}
	case 2:
		return []string{"no_such_label"}
	default:
		return []string{g.l.ReplicaLabel}
	}
}

func (g *Generator) shard() *storepb.ShardInfo {
	s := &storepb.ShardInfo{TotalShards: pick(g.r, []int64{1, 2, 2, 2, 3, 4}), By: g.chance(50)}
	s.ShardIndex = g.r.Int64N(s.TotalShards)
	if g.chance(5) {
		s.TotalShards = 0
	} else if g.chance(3) {
		s.ShardIndex = s.TotalShards + 1
	}
	for range g.r.IntN(3) {
		s.Labels = append(s.Labels, g.name())
	}
	if s.By && g.chance(70) {
		s.Labels = append(s.Labels, "__name__", "job")
	}
	return s
}

func (g *Generator) blockMatchers() []storepb.LabelMatcher {
	var out []storepb.LabelMatcher
	b := pick(g.r, g.blocks)
	switch g.r.IntN(4) {
	case 0:
		out = append(out, matcher(storepb.LabelMatcher_NEQ, "__block_id", b.ID.String()))
	case 1:
		ids := b.ID.String()
		for _, o := range g.blocks {
			if g.chance(60) {
				ids += "|" + o.ID.String()
			}
		}
		out = append(out, matcher(storepb.LabelMatcher_RE, "__block_id", ids))
	case 2:
		b.Labels.Range(func(l labels.Label) {
			if g.chance(40) {
				out = append(out, matcher(storepb.LabelMatcher_EQ, l.Name, l.Value))
			}
		})
	default:
		out = append(out, matcher(storepb.LabelMatcher_RE, g.l.ReplicaLabel, "|a"))
	}
	return out
}

// timeRange returns bounds: mostly wide ones, often bounds that begin or end on, just before, or
// just after an edge. narrow is the percentage of short ranges.
func (g *Generator) timeRange(narrow int) (int64, int64) {
	edge := func() int64 { return pick(g.r, g.edges) + pick(g.r, []int64{-1, 0, 0, 1}) }
	switch n := g.r.IntN(100); {
	case n < 40:
		return g.lo, g.hi
	case n < 42:
		return g.lo - 1_000_000, g.lo - 1
	case n < 44:
		return g.hi, g.hi + 1000
	case n < 44+narrow:
		a := edge()
		return a, a + pick(g.r, []int64{0, 0, 1, 60_000, 1_200_000})
	case n < 80:
		a := edge()
		return a, g.hi
	default:
		a, b := edge(), edge()
		return min(a, b), max(a, b)
	}
}

func matcher(t storepb.LabelMatcher_Type, name, value string) storepb.LabelMatcher {
	return storepb.LabelMatcher{Type: t, Name: name, Value: value}
}

// matchers returns matchers that mostly select one real series and similar ones. sound is the
// percentage of requests with at least one matcher that is not about external labels.
func (g *Generator) matchers(sound int) []storepb.LabelMatcher {
	b := pick(g.r, g.blocks)
	if !g.chance(sound) || len(b.Series) == 0 {
		var out []storepb.LabelMatcher
		b.Labels.Range(func(l labels.Label) {
			if g.chance(50) {
				out = append(out, matcher(storepb.LabelMatcher_EQ, l.Name, l.Value))
			}
		})
		return out
	}
	s := pick(g.r, b.Series)
	var out []storepb.LabelMatcher
	if g.giants && g.chance(15) {
		return []storepb.LabelMatcher{matcher(storepb.LabelMatcher_EQ, "__name__", "giant")}
	}
	if g.chance(20) {
		// A whole job.
		out = append(out, pick(g.r, []storepb.LabelMatcher{
			matcher(
				storepb.LabelMatcher_RE, "__name__", ".+",
			), matcher(storepb.LabelMatcher_RE, "__name__", ".*"),
			matcher(
				storepb.LabelMatcher_NEQ, "__name__", "",
			), matcher(storepb.LabelMatcher_NEQ, "__name__", "nothing"),
			matcher(
				storepb.LabelMatcher_RE, "__name__", "chain_.*|up|inner_replica",
			), matcher(storepb.LabelMatcher_NRE, "__name__", "http.*"),
		}))
	} else {
		own := slices.Clone(s.Pairs())
		g.r.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
		n := 1 + g.r.IntN(2)
		for i, l := range own {
			if i >= n {
				break
			}
			out = append(out, g.about(l))
		}
	}
	if g.chance(30) {
		out = append(out, g.absent(s.Labels, b.Labels))
	}
	if g.chance(30) {
		b.Labels.Range(func(l labels.Label) {
			if g.chance(50) {
				out = append(out, g.about(l))
			}
		})
	}
	if g.chance(6) {
		out = append(out, matcher(storepb.LabelMatcher_EQ, g.name(), "no such value"))
	}
	g.r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// about returns a matcher that the label satisfies.
func (g *Generator) about(l labels.Label) storepb.LabelMatcher {
	q := regexp.QuoteMeta(l.Value)
	head := q
	if rs := []rune(l.Value); len(rs) > 1 {
		head = regexp.QuoteMeta(string(rs[:1+g.r.IntN(len(rs)-1)]))
	}
	return pick(g.r, []storepb.LabelMatcher{
		matcher(storepb.LabelMatcher_EQ, l.Name, l.Value),
		matcher(storepb.LabelMatcher_EQ, l.Name, l.Value),
		matcher(storepb.LabelMatcher_EQ, l.Name, l.Value),
		matcher(storepb.LabelMatcher_RE, l.Name, q),
		matcher(storepb.LabelMatcher_RE, l.Name, q+"|other|up"),
		matcher(storepb.LabelMatcher_RE, l.Name, "up||"+q),
		matcher(storepb.LabelMatcher_RE, l.Name, head+"(?s:.*)"),
		matcher(storepb.LabelMatcher_RE, l.Name, "(?s).+"),
		matcher(storepb.LabelMatcher_RE, l.Name, "(?i:"+q+")"),
		matcher(storepb.LabelMatcher_RE, l.Name, ".*"),
		matcher(storepb.LabelMatcher_RE, l.Name, ".+"),
		matcher(storepb.LabelMatcher_NEQ, l.Name, "other"),
		matcher(storepb.LabelMatcher_NEQ, l.Name, ""),
		matcher(storepb.LabelMatcher_NRE, l.Name, "other|job-.*x"),
		matcher(storepb.LabelMatcher_NRE, l.Name, "(?i)OTHER"),
	})
}

// absent returns a matcher for series without some label that this one lacks.
func (g *Generator) absent(of, ext labels.Labels) storepb.LabelMatcher {
	name := "no_such_label"
	for range 5 {
		if n := pick(g.r, g.names); !of.Has(n) && !ext.Has(n) {
			name = n
			break
		}
	}
	return pick(g.r, []storepb.LabelMatcher{
		matcher(storepb.LabelMatcher_EQ, name, ""),
		matcher(storepb.LabelMatcher_NEQ, name, "x"),
		matcher(storepb.LabelMatcher_RE, name, "a|"),
		matcher(storepb.LabelMatcher_RE, name, ".*"),
		matcher(storepb.LabelMatcher_RE, name, "(1)?"),
		matcher(storepb.LabelMatcher_NRE, name, ".+"),
		matcher(storepb.LabelMatcher_NRE, name, "1"),
	})
}

// spoil changes the request into one that must be rejected, or answered with nothing.
func (g *Generator) spoil(q *Query) {
	expr := pick(g.r, []string{"[a", "a(", "(?P<x", "*"})
	bad := matcher(
		pick(g.r, []storepb.LabelMatcher_Type{storepb.LabelMatcher_RE, storepb.LabelMatcher_NRE}),
		"job", expr,
	)
	anything := func(m proto.Message) *types.Any {
		switch g.r.IntN(3) {
		case 0:
			return &types.Any{TypeUrl: "type.googleapis.com/thanos.NoSuchHints", Value: []byte{1}}
		case 1:
			a := pack(m)
			a.Value = []byte{0x0a, 0xff}
			return a
		default:
			return &types.Any{}
		}
	}
	what := g.r.IntN(4)
	q.Bad = []string{"regex", "hints", "range", "block matcher"}[what]
	switch {
	case q.Series != nil:
		switch what {
		case 0:
			q.Series.Matchers, q.Mention = append(q.Series.Matchers, bad), expr
		case 1:
			q.Series.Hints = anything(&hintspb.SeriesRequestHints{})
		case 2:
			q.Series.MinTime, q.Series.MaxTime = g.hi, g.lo
		default:
			q.Series.Hints, q.Mention = pack(
				&hintspb.SeriesRequestHints{BlockMatchers: []storepb.LabelMatcher{bad}},
			), expr
		}
	case q.Names != nil:
		switch what {
		case 0:
			q.Names.Matchers, q.Mention = append(q.Names.Matchers, bad), expr
		case 1:
			q.Names.Hints = anything(&hintspb.LabelNamesRequestHints{})
		case 2:
			q.Names.Start, q.Names.End = g.hi, g.lo
		default:
			q.Names.Hints, q.Mention = pack(
				&hintspb.LabelNamesRequestHints{BlockMatchers: []storepb.LabelMatcher{bad}},
			), expr
		}
	case q.Values != nil:
		switch what {
		case 0:
			q.Values.Matchers, q.Mention = append(q.Values.Matchers, bad), expr
		case 1:
			q.Values.Hints = anything(&hintspb.LabelValuesRequestHints{})
		case 2:
			q.Values.Start, q.Values.End = g.hi, g.lo
		default:
			q.Values.Hints, q.Mention = pack(
				&hintspb.LabelValuesRequestHints{BlockMatchers: []storepb.LabelMatcher{bad}},
			), expr
		}
	}
}

// String makes the generator's aim readable in failures.
func (g *Generator) String() string {
	return fmt.Sprintf("%d blocks, %d label names, external %v", len(g.blocks), len(g.names), g.ext)
}
