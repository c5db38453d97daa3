package allowed

import (
	"context"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc/codes"

	"larder/interop/internal/answer"
	"larder/interop/internal/layout"
	"larder/interop/internal/query"
)

// rules are the predicates by the names that allowed_differences.yaml uses.
var rules = map[string]rule{
	"blocks-once":        {request: onlyRightBlocks},
	"limit-after-filter": {request: withoutLimit, answer: firstN},
	"identical-once":     {answer: identicalOnce},
	"timeless-choice":    {answer: anyBlocksTimes},
	"continued-series":   {accept: continuedSeries},
	"hints-unasked":      {answer: dropUnaskedHints},
	"own-stats":          {accept: statsOfOwnAnswer},
	"fault-is-aborted":   {answer: faultIsAborted},
	"damage-is-an-error": {answer: damageIsAnError},
	"shard-exists":       {answer: shardExists},
	"joined-tsdb-infos":  {answer: joinedTSDBInfos},
	"label-sets-sorted":  {answer: labelSetsSorted},
}

// onlyRightBlocks restricts the request to the needed blocks where Thanos would read more: a nested
// coarse block moves Thanos's cursor backward, and Thanos then adds finer blocks for time that is
// already covered.
func onlyRightBlocks(c *Case, q *query.Query) bool {
	if q.Series == nil {
		return false
	}
	right, ok := rightBlocks(c)
	if !ok {
		return false
	}
	return restrict(q, right)
}

// rightBlocks returns the needed blocks; false if Thanos reads the same ones.
func rightBlocks(c *Case) ([]*layout.Block, bool) {
	s := c.Query.Series
	ms, ok := c.Query.Matchers()
	if !ok {
		return nil, false
	}
	choice := c.Layout.Choose(s.MinTime, s.MaxTime, s.MaxResolutionWindow, ms)
	return choice.Right, !choice.Same()
}

// restrict adds a block matcher for the blocks to a Series request.
func restrict(q *query.Query, blocks []*layout.Block) bool {
	bms, ok := q.BlockMatchers()
	if !ok {
		return false
	}
	ids := make([]string, len(blocks))
	for i, b := range blocks {
		ids[i] = b.ID.String()
	}
	bms = append(slices.Clone(bms), storepb.LabelMatcher{
		Type: storepb.LabelMatcher_RE, Name: "__block_id", Value: "none|" + strings.Join(ids, "|"),
	})
	return q.SetHints(bms, q.WantsStats()) == nil
}

// withoutLimit and firstN: the limit counts series that passed every filter, in the order of the
// whole answer. Thanos instead truncates each block's postings first.
func withoutLimit(_ *Case, q *query.Query) bool {
	if q.Series == nil || q.Series.Limit <= 0 {
		return false
	}
	q.Series.Limit = 0
	return true
}

func firstN(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	if n := c.Query.Series.Limit; int64(len(want.Series)) > n {
		want.Series = want.Series[:n]
	}
	return true, nil
}

// identicalOnce drops chunks that equal the previous one. If several blocks contain the same
// aggregate chunk, Thanos sends it as often as it has aggregates.
func identicalOnce(_ context.Context, _ *Case, want *answer.Answer) (bool, error) {
	changed := false
	for i, s := range want.Series {
		cs := slices.CompactFunc(slices.Clone(s.Chunks), answer.Chunk.Equal)
		if len(cs) != len(s.Chunks) {
			want.Series[i].Chunks, changed = cs, true
		}
	}
	return changed, nil
}

// anyBlocksTimes: if no aggregate of downsampled blocks was requested (or RAW, which they lack),
// chunks contain only times. Thanos then sends the chunks of whichever equal series came first. The
// chunks of any series that ends up with the same labels are right.
func anyBlocksTimes(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	s := c.Query.Series
	ms, ok := c.Query.Matchers()
	if s == nil || s.SkipChunks || !ok {
		return false, nil
	}
	mint, maxt := c.Layout.Clamp(s.MinTime, s.MaxTime)
	got := map[string][]answer.Chunk{}
	joined, _ := answer.Join(c.Larder.Series, func(a, b answer.Series) bool { return true })
	for _, x := range joined {
		got[x.Labels.String()] = x.Chunks
	}
	blocks := c.Layout.Choose(s.MinTime, s.MaxTime, s.MaxResolutionWindow, ms).Right
	changed := false
	for i, x := range want.Series {
		mine := got[x.Labels.String()]
		if hasParts(x.Chunks) || slices.EqualFunc(mine, x.Chunks, answer.Chunk.Equal) {
			continue
		}
		for _, b := range blocks {
			for _, o := range b.Series {
				if !labels.Equal(final(o.Labels, b.Labels, s.WithoutReplicaLabels), x.Labels) {
					continue
				}
				if cs := timesOf(o, mint, maxt); slices.EqualFunc(cs, mine, answer.Chunk.Equal) {
					want.Series[i].Chunks, changed = cs, true
				}
			}
		}
	}
	return changed, nil
}

// final returns the labels that a series has in an answer.
func final(ls, ext labels.Labels, without []string) labels.Labels {
	b := labels.NewBuilder(ls)
	ext.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Del(without...).Labels()
}

// timesOf returns the series' chunks that overlap the range, without data.
func timesOf(s layout.Series, mint, maxt int64) []answer.Chunk {
	var out []answer.Chunk
	for _, c := range s.Chunks {
		if c.Min > maxt {
			break // Neither gateway looks further, whatever follows in an irregular block.
		}
		if c.Max >= mint {
			out = append(out, answer.Chunk{MinTime: c.Min, MaxTime: c.Max})
		}
	}
	return out
}

func hasParts(cs []answer.Chunk) bool {
	for _, c := range cs {
		for _, p := range c.Parts {
			if p != nil {
				return true
			}
		}
	}
	return false
}

// maxFrame is the size at which larder ends a frame.
const maxFrame = 1 << 20

// continuedSeries accepts a series in pieces if each piece but the last filled its frame: the first
// chunk of the next piece would not have fit, and that piece begins the next frame.
func continuedSeries(c *Case) bool {
	a := c.Larder
	for i := 1; i < len(a.Series); i++ {
		prev, next := a.Series[i-1], a.Series[i]
		if !labels.Equal(prev.Labels, next.Labels) {
			continue
		}
		if next.Frame != prev.Frame+1 || len(next.Chunks) == 0 {
			return false
		}
		// 16 bytes for the tags and lengths that one more chunk needs.
		if a.Frames[prev.Frame].Size+next.Chunks[0].Size+16 <= maxFrame {
			return false
		}
	}
	return true
}

// dropUnaskedHints: the Thanos of this test sends hints in Series answers so that they can be
// compared. `thanos store` sends none. larder sends hints to clients that send some.
func dropUnaskedHints(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	if c.Query.Series == nil || c.Options.AskedHints || want.Hints == nil {
		return false, nil
	}
	want.Hints = nil
	return true, nil
}

// statsOfOwnAnswer: Thanos counts a block once for each time it queried it, and counts chunks that
// it repeats. larder's counts must match its own answer. Other fields compare the series, chunks
// and blocks of that answer.
func statsOfOwnAnswer(c *Case) bool {
	h := c.Larder.Hints
	if h == nil || h.Stats == nil || c.Thanos.Hints == nil || c.Thanos.Hints.Stats == nil {
		return false
	}
	ss, _ := answer.Join(c.Larder.Series, func(a, b answer.Series) bool { return true })
	want := answer.Stats{Blocks: int64(len(h.BlockSet())), Series: int64(len(ss))}
	for _, s := range ss {
		want.Chunks += int64(len(s.Chunks))
	}
	return *h.Stats == want
}

var receiveFrom = regexp.MustCompile(`receive series from ([0-9A-Z]{26})`)

// faultIsAborted: if a block fails after its postings were read, Thanos returns Unknown. larder
// returns Aborted, which Thanos returns before that point, and names the same block.
func faultIsAborted(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	m := receiveFrom.FindStringSubmatch(want.Message)
	if want.Code != codes.Unknown || m == nil {
		return false, nil
	}
	// Which of several faulty blocks is met first is not determined; the message must name one of
	// those that the request reads.
	if !strings.Contains(c.Larder.Message, m[1]) && !namesChosen(c) {
		return false, nil
	}
	want.Code = codes.Aborted
	return true, nil
}

// damageIsAnError: Thanos verifies no chunk checksum. larder returns an error that names the block.
func damageIsAnError(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	if want.Code != codes.OK || !namesDamaged(c) {
		return false, nil
	}
	want.Code = codes.Internal
	if c.Query.Series != nil {
		want.Code = codes.Aborted
	}
	return true, nil
}

// shardExists: no series belongs to a shard beyond the last one. Thanos returns an empty answer;
// larder rejects the request with a reason.
func shardExists(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	if c.Query.Series == nil || !strings.Contains(c.Larder.Message, "shard_index") {
		return false, nil
	}
	s := c.Query.Series.ShardInfo
	if s == nil || s.TotalShards < 1 || (0 <= s.ShardIndex && s.ShardIndex < s.TotalShards) {
		return false, nil
	}
	want.Code = codes.InvalidArgument
	return true, nil
}

// namesChosen reports whether larder's message names a block that the request reads.
func namesChosen(c *Case) bool {
	s := c.Query.Series
	ms, ok := c.Query.Matchers()
	if s == nil || !ok {
		return false
	}
	for _, b := range c.Layout.Choose(s.MinTime, s.MaxTime, s.MaxResolutionWindow, ms).Right {
		if strings.Contains(c.Larder.Message, b.ID.String()) {
			return true
		}
	}
	return false
}

// namesDamaged reports whether larder's message names a damaged block that the request reads.
func namesDamaged(c *Case) bool {
	for id, b := range c.Layout.Damaged() {
		if !strings.Contains(c.Larder.Message, id) {
			continue
		}
		lo, hi := span(c.Query)
		if b.MinTime <= hi && b.MaxTime > lo {
			return true
		}
	}
	return false
}

func span(q *query.Query) (int64, int64) {
	switch {
	case q.Series != nil:
		return q.Series.MinTime, q.Series.MaxTime
	case q.Names != nil:
		return q.Names.Start, q.Names.End
	case q.Values != nil:
		return q.Values.Start, q.Values.End
	}
	return 0, -1
}

// joinedTSDBInfos computes the time ranges of each external label set: the union of its blocks. In
// Thanos a block that lies within another one shortens the range.
func joinedTSDBInfos(_ context.Context, c *Case, want *answer.Answer) (bool, error) {
	if want.Info == nil {
		return false, nil
	}
	sets := map[string][]*layout.Block{}
	for _, b := range c.Layout.Served() {
		sets[b.Labels.String()] = append(sets[b.Labels.String()], b)
	}
	var out []answer.TSDB
	for ls, bs := range sets {
		cur := answer.TSDB{Labels: ls, MinTime: bs[0].MinTime, MaxTime: bs[0].MaxTime}
		for _, b := range bs {
			if b.MinTime > cur.MaxTime {
				out = append(out, cur)
				cur.MinTime, cur.MaxTime = b.MinTime, b.MaxTime
			}
			cur.MaxTime = max(cur.MaxTime, b.MaxTime)
		}
		out = append(out, cur)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Labels != out[j].Labels {
			return out[i].Labels < out[j].Labels
		}
		return out[i].MinTime < out[j].MinTime
	})
	want.Info.TSDBs = out
	return true, nil
}

// labelSetsSorted: Thanos sorts label sets by their protobuf text, larder by their Prometheus text.
func labelSetsSorted(_ context.Context, _ *Case, want *answer.Answer) (bool, error) {
	if want.Info == nil {
		return false, nil
	}
	sorted := slices.Sorted(slices.Values(want.Info.LabelSets))
	changed := !slices.Equal(sorted, want.Info.LabelSets)
	want.Info.LabelSets = sorted
	return changed, nil
}
