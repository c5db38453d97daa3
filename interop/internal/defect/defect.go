// Package defect makes a correct gateway return one kind of wrong answer. Each defect is a mistake
// that the differential test must catch in larder: a test that misses it here would miss it there.
package defect

import (
	"slices"
	"sort"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/labelpb"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc"

	"larder/interop/internal/answer"
)

// Defect is one mistake of a gateway.
type Defect struct {
	Name string
	// Field is where the mistake must show.
	Field answer.Field
	// request changes the request to the correct gateway.
	request func(*storepb.SeriesRequest)
	// series changes the answer. r is the request as the client sent it.
	series func(r *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series
}

// All are the defects.
var All = []Defect{
	{Name: "no de-duplication", Field: answer.SeriesChunks, series: repeatChunks},
	{Name: "series sent once per block", Field: answer.Pieces, series: splitSeries},
	{Name: "wrong chunk order", Field: answer.SeriesChunks, series: reverseEqualTimes},
	{Name: "order of encoded bytes", Field: answer.SeriesLabels, series: sortByBytes},
	{
		Name:    "block edge off by one",
		Field:   answer.Blocks,
		request: func(r *storepb.SeriesRequest) { r.MaxTime-- },
	},
	{Name: "chunk edge off by one", Field: answer.SeriesChunks, series: trimOneTooMany},
	{
		Name:    "wrong shard hash",
		Field:   answer.SeriesLabels,
		request: func(r *storepb.SeriesRequest) { r.ShardInfo = nil },
		series:  shardWithoutSeparators,
	},
	{
		Name:    "limit applied before the shard",
		Field:   answer.SeriesLabels,
		request: func(r *storepb.SeriesRequest) { r.Limit, r.ShardInfo = 0, nil },
		series:  limitThenShard,
	},
	{Name: "hash of something else", Field: answer.SeriesChunks, series: hashEncoding},
	{Name: "aggregate in the wrong field", Field: answer.SeriesChunks, series: swapMinMax},
	{Name: "one byte of one chunk", Field: answer.SeriesChunks, series: flipByte},
	{
		Name:    "replica label kept",
		Field:   answer.SeriesLabels,
		request: func(r *storepb.SeriesRequest) { r.WithoutReplicaLabels = nil },
	},
}

// Wrap applies the defect to a correct store.
func (d Defect) Wrap(s storepb.StoreServer) storepb.StoreServer {
	return &store{StoreServer: s, d: d}
}

type store struct {
	storepb.StoreServer
	d Defect
}

func (s *store) Series(req *storepb.SeriesRequest, out storepb.Store_SeriesServer) error {
	asked := *req
	inner := *req
	inner.ResponseBatchSize = 0
	if s.d.request != nil {
		s.d.request(&inner)
	}
	c := &collector{ServerStream: out}
	if err := s.StoreServer.Series(&inner, c); err != nil {
		return err
	}
	ss := c.series
	if s.d.series != nil {
		ss = s.d.series(&asked, ss)
	}
	if n := int(asked.ResponseBatchSize); n > 1 {
		for b := range slices.Chunk(ss, n) {
			if err := out.Send(storepb.NewBatchResponse(b)); err != nil {
				return err
			}
		}
	} else {
		for _, x := range ss {
			if err := out.Send(storepb.NewSeriesResponse(x)); err != nil {
				return err
			}
		}
	}
	for _, o := range c.others {
		if err := out.Send(o); err != nil {
			return err
		}
	}
	return nil
}

// collector collects an answer instead of sending it.
type collector struct {
	grpc.ServerStream
	series []*storepb.Series
	others []*storepb.SeriesResponse
}

func (c *collector) Send(m *storepb.SeriesResponse) error {
	if s := m.GetSeries(); s != nil {
		c.series = append(c.series, s)
	} else {
		c.others = append(c.others, m)
	}
	return nil
}

func lset(s *storepb.Series) labels.Labels { return labelpb.ZLabelsToPromLabels(s.Labels) }

func repeatChunks(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	for _, s := range ss {
		for i := 1; i < len(s.Chunks); i++ {
			if s.Chunks[i].MinTime == s.Chunks[i-1].MaxTime+1 || i == 1 {
				s.Chunks = slices.Insert(s.Chunks, i, s.Chunks[i-1])
				break
			}
		}
	}
	return ss
}

func splitSeries(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	var out []*storepb.Series
	for _, s := range ss {
		if n := len(s.Chunks); n > 1 {
			out = append(
				out, &storepb.Series{Labels: s.Labels, Chunks: s.Chunks[:n/2]},
				&storepb.Series{Labels: s.Labels, Chunks: s.Chunks[n/2:]},
			)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// reverseEqualTimes orders chunks of equal times by ascending data. The contract demands descending
// data.
func reverseEqualTimes(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	for _, s := range ss {
		for i := 1; i < len(s.Chunks); i++ {
			a, b := &s.Chunks[i-1], &s.Chunks[i]
			if a.MinTime == b.MinTime && a.MaxTime == b.MaxTime {
				*a, *b = *b, *a
			}
		}
	}
	return ss
}

// sortByBytes sorts by length-prefixed encodings.
func sortByBytes(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	key := func(s *storepb.Series) string {
		b, err := (&storepb.Series{Labels: s.Labels}).Marshal()
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	sort.SliceStable(ss, func(i, j int) bool { return key(ss[i]) < key(ss[j]) })
	return ss
}

// trimOneTooMany drops a chunk whose last sample is the first millisecond of the request.
func trimOneTooMany(r *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	for _, s := range ss {
		s.Chunks = slices.DeleteFunc(
			s.Chunks,
			func(c storepb.AggrChunk) bool {
				return c.MaxTime == r.MinTime || c.MinTime == r.MaxTime
			},
		)
	}
	return ss
}

func shardWithoutSeparators(r *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	s := r.ShardInfo
	if s == nil || s.TotalShards < 1 {
		return ss
	}
	return slices.DeleteFunc(ss, func(x *storepb.Series) bool {
		var b []byte
		for _, l := range x.Labels {
			if slices.Contains(s.Labels, l.Name) == s.By {
				b = append(append(b, l.Name...), l.Value...)
			}
		}
		return xxhash.Sum64(b)%uint64(s.TotalShards) != uint64(s.ShardIndex)
	})
}

func limitThenShard(r *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	if n := int(r.Limit); n > 0 && len(ss) > n {
		ss = ss[:n]
	}
	if s := r.ShardInfo; s != nil && s.TotalShards > 0 {
		m := s.Matcher(&sync.Pool{New: func() any { return new([]byte) }})
		ss = slices.DeleteFunc(
			ss, func(x *storepb.Series) bool { return !m.MatchesLabels(lset(x)) },
		)
	}
	return ss
}

func parts(c *storepb.AggrChunk) []*storepb.Chunk {
	return slices.DeleteFunc(
		[]*storepb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter},
		func(p *storepb.Chunk) bool { return p == nil },
	)
}

// hashEncoding hashes the encoding byte too.
func hashEncoding(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	for _, s := range ss {
		for i := range s.Chunks {
			for _, p := range parts(&s.Chunks[i]) {
				p.Hash = xxhash.Sum64(append([]byte{byte(p.Type + 1)}, p.Data...))
			}
		}
	}
	return ss
}

func swapMinMax(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	for _, s := range ss {
		for i := range s.Chunks {
			s.Chunks[i].Min, s.Chunks[i].Max = s.Chunks[i].Max, s.Chunks[i].Min
		}
	}
	return ss
}

func flipByte(_ *storepb.SeriesRequest, ss []*storepb.Series) []*storepb.Series {
	for _, s := range ss {
		for i := range s.Chunks {
			for _, p := range parts(&s.Chunks[i]) {
				if n := len(p.Data); n > 0 {
					// Of a copy: the data may be a cache's.
					p.Data = slices.Clone(p.Data)
					p.Data[n-1] ^= 1
					p.Hash = xxhash.Sum64(p.Data)
					return ss
				}
			}
		}
	}
	return ss
}
