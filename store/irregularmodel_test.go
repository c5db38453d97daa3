package store_test

import (
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"larder/benchmarks/rawindex"
	"larder/store/storepb"
)

// holds reports whether the pairs of a stored series pass the matchers of one name, according to
// the posting lists: a matcher selects among the values that the block stores under the name. The
// final value of the series does not matter.
func (b *storedBlock) holds(s storedSeries, ms []*labels.Matcher) bool {
	var mine []string
	for _, l := range s.labels {
		if l.Name == ms[0].Name {
			mine = append(mine, l.Value)
		}
	}
	must := false
	for _, m := range ms {
		must = must || adds(m)
	}
	if !must {
		return !slices.ContainsFunc(mine, func(v string) bool {
			return slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return chooses(m, v) })
		})
	}
	return slices.ContainsFunc(mine, func(v string) bool {
		for _, m := range ms {
			if chooses(m, v) != adds(m) {
				return false
			}
		}
		return true
	})
}

// adds reports whether a series must have one of the values that the matcher selects. Otherwise it
// must have none of them.
func adds(m *labels.Matcher) bool { return !m.Matches("") }

// chooses reports whether the matcher selects a stored value. For an empty value the form of the
// matcher decides, same as in Prometheus.
func chooses(m *labels.Matcher, v string) bool {
	pattern := m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp
	switch {
	case pattern && m.Value == ".*":
		return false // all series pass or none does; adds decides
	case pattern && m.Value == ".+", m.Value == "":
		return true
	default:
		return m.Matches(v) == adds(m)
	}
}

// matching returns the series of the block that match a request, each with the chunks in the
// request's time range: in stored order, up to the first that begins after it. none says that no
// matcher is left to select series.
func (b *storedBlock) matching(
	ms []*labels.Matcher, from, to int64,
) (found []storedSeries, none bool) {
	byName := map[string][]*labels.Matcher{}
	for _, m := range ms {
		switch v := b.external.Get(m.Name); {
		case v == "":
			byName[m.Name] = append(byName[m.Name], m)
		case !m.Matches(v):
			return nil, false
		}
	}
	if b.to <= from || b.from > to {
		return nil, false
	}
	for _, s := range b.series {
		x := storedSeries{labels: s.labels}
		for _, c := range s.chunks {
			if c.from > to {
				break
			}
			if c.to >= from {
				x.chunks = append(x.chunks, c)
			}
		}
		passes := len(x.chunks) > 0
		for _, group := range byName {
			passes = passes && b.holds(s, group)
		}
		if passes {
			found = append(found, x)
		}
	}
	return found, len(byName) == 0
}

// final returns the labels in an answer for stored labels.
func (b *storedBlock) final(stored []rawindex.Label, without []string) labels.Labels {
	lb := labels.NewBuilder(normal(stored))
	b.external.Range(func(l labels.Label) { lb.Set(l.Name, l.Value) })
	return lb.Del(without...).Labels()
}

// inShard reports whether a series belongs to the shard of a request.
func inShard(s *storepb.ShardInfo, ls labels.Labels) bool {
	if s == nil {
		return true
	}
	var text []byte
	ls.Range(func(l labels.Label) {
		if slices.Contains(s.Labels, l.Name) == s.By {
			text = append(append(append(append(text, l.Name...), 0xff), l.Value...), 0xff)
		}
	})
	return xxhash.Sum64(text)%uint64(s.TotalShards) == uint64(s.ShardIndex)
}

// expect returns the right answer to a Series request, from a plain model that finds, sorts and
// merges everything.
func expect(blocks []*storedBlock, req *storepb.SeriesRequest) *answer {
	ms := promMatchers(req.Matchers)
	sets := map[string]labels.Labels{}
	merged := map[string][]storedChunk{}
	for _, b := range blocks {
		found, none := b.matching(ms, req.MinTime, req.MaxTime)
		if none {
			continue
		}
		for _, s := range found {
			ls := b.final(s.labels, req.WithoutReplicaLabels)
			if inShard(req.ShardInfo, ls) {
				sets[ls.String()] = ls
				merged[ls.String()] = append(merged[ls.String()], s.chunks...)
			}
		}
	}
	a := &answer{}
	for _, ls := range slices.SortedFunc(maps.Values(sets), labels.Compare) {
		s := &storepb.Series{}
		ls.Range(
			func(l labels.Label) {
				s.Labels = append(s.Labels, &storepb.Label{Name: l.Name, Value: l.Value})
			},
		)
		cs := merged[ls.String()]
		slices.SortFunc(cs, chunkOrder)
		for i, c := range cs {
			if i > 0 && chunkOrder(cs[i-1], c) == 0 || req.SkipChunks {
				continue
			}
			s.Chunks = append(s.Chunks, &storepb.AggrChunk{
				MinTime: c.from, MaxTime: c.to,
				Raw: &storepb.Chunk{Data: c.data, Hash: xxhash.Sum64(c.data)},
			})
		}
		if a.series = append(a.series, s); len(a.series) == int(req.Limit) {
			break
		}
	}
	return a
}

func promMatchers(in []*storepb.LabelMatcher) []*labels.Matcher {
	var out []*labels.Matcher
	for _, m := range in {
		out = append(out, labels.MustNewMatcher(labels.MatchType(m.Type), m.Name, m.Value))
	}
	return out
}

// expectNames returns the right answer to a LabelNames request.
func expectNames(blocks []*storedBlock, req *storepb.LabelNamesRequest) []string {
	ms, names := promMatchers(req.Matchers), map[string]bool{}
	for _, b := range blocks {
		found, none := b.matching(ms, req.Start, req.End)
		if none {
			for _, s := range b.series {
				for _, l := range s.labels {
					names[l.Name] = true
				}
			}
			b.external.Range(func(l labels.Label) {
				if !slices.Contains(req.WithoutReplicaLabels, l.Name) {
					names[l.Name] = true
				}
			})
			continue
		}
		for _, s := range found {
			b.final(s.labels, req.WithoutReplicaLabels).
				Range(func(l labels.Label) { names[l.Name] = true })
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// expectValues returns the right answer to a LabelValues request.
func expectValues(blocks []*storedBlock, req *storepb.LabelValuesRequest) []string {
	values := map[string]bool{}
	if slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return nil
	}
	for _, b := range blocks {
		ms := promMatchers(req.Matchers)
		_, none := b.matching(ms, req.Start, req.End)
		if none {
			for _, s := range b.series {
				for _, l := range s.labels {
					values[l.Value] = values[l.Value] || l.Name == req.Label
				}
			}
			values[b.external.Get(req.Label)] = values[b.external.Get(req.Label)] ||
				b.external.Has(req.Label)
			continue
		}
		if !b.external.Has(req.Label) {
			ms = append(ms, labels.MustNewMatcher(labels.MatchNotEqual, req.Label, ""))
		}
		found, _ := b.matching(ms, req.Start, req.End)
		for _, s := range found {
			v := b.final(s.labels, nil).Get(req.Label)
			values[v] = values[v] || v != ""
		}
	}
	maps.DeleteFunc(values, func(_ string, has bool) bool { return !has })
	return slices.Sorted(maps.Keys(values))
}
