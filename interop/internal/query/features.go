package query

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/layout"
)

// SeriesFeatures are the features of Series requests that Features reports. A run must have each of
// them in a tenth of its requests.
var SeriesFeatures = []string{
	"matcher =", "matcher !=", "matcher =~", "matcher !~", "empty-matching",
	"external label matcher", "time edge", "max_resolution_window",
	"aggregates subset", "skip_chunks", "without_replica_labels", "shard by", "shard without",
	"limit", "response_batch_size",
	"block matchers", "query stats",
}

// Features returns the names of the features that a Series request uses.
func (q *Query) Features(l *layout.Layout) []string {
	req := q.Series
	var out []string
	has := map[string]bool{}
	add := func(f string, ok bool) {
		if ok && !has[f] {
			has[f] = true
			out = append(out, f)
		}
	}
	ms, _ := q.Matchers()
	for _, m := range ms {
		add("matcher "+m.Type.String(), true)
		add("external label matcher", external(l, m.Name))
		add("empty-matching", m.Matches("") && !external(l, m.Name))
	}
	lo, hi := bounds(l)
	add(
		"time edge",
		req.MinTime > lo+1 && onEdge(l, req.MinTime) ||
			req.MaxTime < hi-1 && onEdge(l, req.MaxTime),
	)
	add("max_resolution_window", req.MaxResolutionWindow >= layout.FiveMinutes)
	add("aggregates subset", len(req.Aggregates) > 0 && len(req.Aggregates) < 5)
	add("skip_chunks", req.SkipChunks)
	add("without_replica_labels", len(req.WithoutReplicaLabels) > 0)
	if s := req.ShardInfo; s != nil && s.TotalShards > 1 {
		add("shard by", s.By)
		add("shard without", !s.By)
	}
	add("limit", req.Limit > 0)
	add("response_batch_size", req.ResponseBatchSize > 1)
	bms, _ := q.BlockMatchers()
	add("block matchers", len(bms) > 0)
	add("query stats", q.WantsStats())
	return out
}

func external(l *layout.Layout, name string) bool {
	for _, b := range l.Blocks {
		if b.Labels.Has(name) {
			return true
		}
	}
	return false
}

// bounds are the first and the last millisecond of the served blocks. Every wide request has these
// edges.
func bounds(l *layout.Layout) (lo, hi int64) {
	for i, b := range l.Served() {
		if i == 0 {
			lo, hi = b.MinTime, b.MaxTime
		}
		lo, hi = min(lo, b.MinTime), max(hi, b.MaxTime)
	}
	return lo, hi
}

// onEdge reports whether t is the first or last millisecond of a block or chunk, or next to one.
func onEdge(l *layout.Layout, t int64) bool {
	near := func(e int64) bool { return t >= e-1 && t <= e+1 }
	for _, b := range l.Blocks {
		if near(b.MinTime) || near(b.MaxTime) {
			return true
		}
		for _, s := range b.Series {
			for _, c := range s.Chunks {
				if near(c.Min) || near(c.Max) {
					return true
				}
			}
		}
	}
	return false
}

// Simpler returns requests that each ask for less than q in one way. A failure is reported with the
// simplest request that still fails.
func (q *Query) Simpler() []*Query {
	var out []*Query
	edit := func(f func(c *Query) bool) {
		c := q.Clone()
		if f(c) {
			out = append(out, c)
		}
	}
	dropMatchers := func(ms func(*Query) *[]storepb.LabelMatcher) {
		for i := range *ms(q) {
			edit(func(c *Query) bool {
				in := *ms(c)
				if len(in) < 2 {
					return false
				}
				*ms(c) = append(append([]storepb.LabelMatcher(nil), in[:i]...), in[i+1:]...)
				return true
			})
		}
	}
	switch {
	case q.Series != nil:
		r := q.Series
		edit(func(c *Query) bool { c.Series.Hints = nil; return r.Hints != nil })
		edit(func(c *Query) bool { c.Series.ShardInfo = nil; return r.ShardInfo != nil })
		edit(func(c *Query) bool { c.Series.Limit = 0; return r.Limit != 0 })
		edit(
			func(c *Query) bool {
				c.Series.WithoutReplicaLabels = nil
				return len(r.WithoutReplicaLabels) > 0
			},
		)
		edit(
			func(c *Query) bool { c.Series.ResponseBatchSize = 0; return r.ResponseBatchSize != 0 },
		)
		edit(
			func(c *Query) bool {
				c.Series.MaxResolutionWindow = 0
				return r.MaxResolutionWindow != 0
			},
		)
		edit(func(c *Query) bool {
			c.Series.QueryHints, c.Series.Step, c.Series.Range = nil, 0, 0
			return r.QueryHints != nil
		})
		edit(func(c *Query) bool {
			if len(r.Aggregates) < 2 {
				return false
			}
			c.Series.Aggregates = c.Series.Aggregates[:len(r.Aggregates)/2]
			return true
		})
		edit(func(c *Query) bool { c.Series.SkipChunks = true; return !r.SkipChunks })
		dropMatchers(func(c *Query) *[]storepb.LabelMatcher { return &c.Series.Matchers })
	case q.Names != nil:
		r := q.Names
		edit(func(c *Query) bool { c.Names.Hints = nil; return r.Hints != nil })
		edit(func(c *Query) bool { c.Names.Limit = 0; return r.Limit != 0 })
		edit(
			func(c *Query) bool {
				c.Names.WithoutReplicaLabels = nil
				return len(r.WithoutReplicaLabels) > 0
			},
		)
		dropMatchers(func(c *Query) *[]storepb.LabelMatcher { return &c.Names.Matchers })
	case q.Values != nil:
		r := q.Values
		edit(func(c *Query) bool { c.Values.Hints = nil; return r.Hints != nil })
		edit(func(c *Query) bool { c.Values.Limit = 0; return r.Limit != 0 })
		edit(
			func(c *Query) bool {
				c.Values.WithoutReplicaLabels = nil
				return len(r.WithoutReplicaLabels) > 0
			},
		)
		dropMatchers(func(c *Query) *[]storepb.LabelMatcher { return &c.Values.Matchers })
	}
	return out
}

// ParsedBlockMatchers returns BlockMatchers, compiled.
func (q *Query) ParsedBlockMatchers() []*labels.Matcher {
	in, ok := q.BlockMatchers()
	if !ok {
		return nil
	}
	ms, err := storepb.MatchersToPromMatchers(in...)
	if err != nil {
		return nil
	}
	return ms
}
