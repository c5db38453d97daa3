package storepb

import (
	"github.com/cespare/xxhash/v2"
)

// ShardMatcher decides which series belong to the shard that a request asks for. It holds scratch
// memory, so every goroutine has one of its own. The nil ShardMatcher matches every series.
type ShardMatcher struct {
	names        map[string]struct{}
	by           bool
	total, index uint64
	buf          []byte
}

// Matcher is the matcher of a request's shard_info, nil when the request is not sharded: without
// total_shards, everything matches.
func (m *ShardInfo) Matcher() *ShardMatcher {
	if m.GetTotalShards() < 1 {
		return nil
	}
	s := &ShardMatcher{
		names: make(map[string]struct{}, len(m.Labels)),
		by:    m.By,
		total: uint64(m.TotalShards),
		index: uint64(m.ShardIndex),
	}
	for _, name := range m.Labels {
		s.names[name] = struct{}{}
	}
	return s
}

// Matches says whether the series with these finished labels belongs to the shard. They must be the
// final labels, as the client will see them: every store has to put a series into the same shard.
func (s *ShardMatcher) Matches(labels []byte) bool {
	if s == nil {
		return true
	}
	s.buf = s.buf[:0]
	for {
		name, value, rest, ok := NextLabel(labels)
		if !ok {
			break
		}
		if _, named := s.names[string(name)]; named == s.by {
			s.buf = append(s.buf, name...)
			s.buf = append(s.buf, 0xff)
			s.buf = append(s.buf, value...)
			s.buf = append(s.buf, 0xff)
		}
		labels = rest
	}
	return xxhash.Sum64(s.buf)%s.total == s.index
}
