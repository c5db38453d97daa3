package storepb

import (
	"github.com/cespare/xxhash/v2"
)

// ShardMatcher selects the series of the shard that a request asks for. It has scratch memory and
// is not safe for concurrent use. A nil ShardMatcher matches every series.
type ShardMatcher struct {
	names        map[string]struct{}
	by           bool
	total, index uint64
	buf          []byte
}

// Matcher returns the matcher of a request's shard_info. It is nil without total_shards, because
// such a request is not sharded.
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

// Matches reports whether the series with these finished labels belongs to the shard. The labels
// must be those that the client gets, because all stores must assign a series to the same shard.
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
