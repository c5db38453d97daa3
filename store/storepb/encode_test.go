package storepb

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// sample is a series in two forms: the input of the encoder and the expected message.
type sample struct {
	labels []byte
	chunks []WireChunk
	msg    *Series
}

func newSample(ls labels.Labels, chunks ...WireChunk) sample {
	s := sample{labels: finished(ls), chunks: chunks, msg: &Series{Labels: messages(ls)}}
	for _, c := range chunks {
		m := &AggrChunk{MinTime: c.MinTime, MaxTime: c.MaxTime}
		for _, p := range c.Parts {
			part := &Chunk{Type: Chunk_Encoding(p.Type), Data: p.Data, Hash: p.Hash}
			switch Aggr(p.Aggr) {
			case Aggr_RAW:
				m.Raw = part
			case Aggr_COUNT:
				m.Count = part
			case Aggr_SUM:
				m.Sum = part
			case Aggr_MIN:
				m.Min = part
			case Aggr_MAX:
				m.Max = part
			case Aggr_COUNTER:
				m.Counter = part
			}
		}
		s.msg.Chunks = append(s.msg.Chunks, m)
	}
	return s
}

func randomTime(r *rand.Rand) int64 {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return -r.Int64N(1 << 40)
	case 2:
		return math.MinInt64
	case 3:
		return math.MaxInt64
	}
	return 1_700_000_000_000 + r.Int64N(1<<30)
}

func randomPart(r *rand.Rand, aggr Aggr, dataLen int) WirePart {
	data := make([]byte, dataLen)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	p := WirePart{Data: data, Hash: xxhash.Sum64(data), Type: byte(r.IntN(3)), Aggr: byte(aggr)}
	switch r.IntN(8) {
	case 0:
		p.Hash = 0
	case 1:
		p.Hash = math.MaxUint64
	case 2:
		p.Hash = uint64(r.IntN(300))
	}
	return p
}

func randomChunk(r *rand.Rand) WireChunk {
	c := WireChunk{MinTime: randomTime(r), MaxTime: randomTime(r)}
	length := func() int {
		switch r.IntN(20) {
		case 0:
			return 0
		case 1:
			return 10_000 + r.IntN(30_000)
		}
		return r.IntN(300)
	}
	switch r.IntN(4) {
	case 0: // times only, same as for a request without aggregates
	case 1:
		for a := Aggr_COUNT; a <= Aggr_COUNTER; a++ {
			if r.IntN(3) > 0 {
				c.Parts = append(c.Parts, randomPart(r, a, length()))
			}
		}
	default:
		c.Parts = append(c.Parts, randomPart(r, Aggr_RAW, length()))
	}
	return c
}

func randomSample(r *rand.Rand) sample {
	var chunks []WireChunk
	for range r.IntN(5) {
		chunks = append(chunks, randomChunk(r))
	}
	return newSample(randomLabels(r, r.IntN(8)), chunks...)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppendSeries(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 3000 {
		s := randomSample(r)
		want := marshal(t, s.msg)
		got := AppendSeries([]byte("x"), s.labels, s.chunks)[1:]
		if !bytes.Equal(got, want) {
			t.Fatalf("case %d, series %v: got %x, want %x", i, s.msg, got, want)
		}
		if n := SeriesSize(s.labels, s.chunks); n != len(want) {
			t.Fatalf("case %d: SeriesSize says %d, the message has %d bytes", i, n, len(want))
		}
	}
}

func TestFrames(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	pool := newTestPool(t)
	check := func(what string, f *Frame, want *SeriesResponse) {
		t.Helper()
		defer f.Release()
		if b := marshal(t, want); !bytes.Equal(f.Bytes(), b) {
			t.Fatalf("%s: got %x, want %x", what, f.Bytes(), b)
		}
		if f.Size() != len(f.Bytes()) {
			t.Fatalf("%s: Size says %d, the frame has %d bytes", what, f.Size(), len(f.Bytes()))
		}
	}
	for range 500 {
		s := randomSample(r)
		check("series", NewSeriesFrame(pool, s.labels, s.chunks),
			&SeriesResponse{Result: &SeriesResponse_Series{Series: s.msg}})
		check("lone batch", newLoneBatchFrame(pool, s.labels, s.chunks), &SeriesResponse{
			Result: &SeriesResponse_Batch{Batch: &SeriesBatch{Series: []*Series{s.msg}}},
		})
		w := text(r, 0)
		check("warning", NewWarningFrame(pool, w),
			&SeriesResponse{Result: &SeriesResponse_Warning{Warning: w}})
	}
	for _, hints := range []proto.Message{
		&SeriesResponseHints{},
		&SeriesResponseHints{
			QueriedBlocks: []*Block{{Id: "01HTH0Q4NB00000000000000"}, {}},
			QueryStats: &QueryStats{BlocksQueried: 3, MergeDuration: durationpb.New(1500),
				GetAllDuration: durationpb.New(0)},
		},
	} {
		a, err := anypb.New(hints)
		if err != nil {
			t.Fatal(err)
		}
		f, err := NewHintsFrame(pool, a)
		if err != nil {
			t.Fatal(err)
		}
		check("hints", f, &SeriesResponse{Result: &SeriesResponse_Hints{Hints: a}})
	}
	if _, err := NewHintsFrame(pool, &anypb.Any{TypeUrl: "not UTF-8: \xff"}); err == nil {
		t.Error("hints that cannot be encoded must be an error")
	}
	pool.wantNoneOut()
}

// batchMessage is the message that FrameWriter sends for one batch.
func batchMessage(ss ...sample) *SeriesResponse {
	b := &SeriesBatch{}
	for _, s := range ss {
		b.Series = append(b.Series, s.msg)
	}
	return &SeriesResponse{Result: &SeriesResponse_Batch{Batch: b}}
}

// TestFrameAllocations checks that encoding allocates nothing except the frame itself.
func TestFrameAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("pools forget at random under the race detector")
	}
	pool := NewFramePool()
	s := typicalSeries(2)
	send := func(f *Frame) error {
		b, err := f.take()
		b.Free()
		return err
	}
	single := NewFrameWriter(pool, 0, send)
	batch := NewFrameWriter(pool, 64, send)
	for _, c := range []struct {
		name string
		w    *FrameWriter
		per  int
		want float64
	}{{"single", single, 1, 1}, {"batch", batch, 64, 1}} {
		got := testing.AllocsPerRun(200, func() {
			for range c.per {
				if err := c.w.WriteSeries(s.labels, s.chunks); err != nil {
					t.Fatal(err)
				}
			}
		})
		if got > c.want {
			t.Errorf("%s: %v allocations per frame, want at most %v", c.name, got, c.want)
		}
	}
}

// typicalSeries returns a typical series of a scraped metric: 12 labels, chunks of 120 samples.
func typicalSeries(chunks int) sample { return typicalSeriesN(chunks, 0) }

// typicalSeriesN returns the n-th such series. Chunks are random, so that they hardly compress.
func typicalSeriesN(chunks, n int) sample {
	r := rand.New(rand.NewPCG(11, uint64(n)))
	ls := labels.FromStrings("__name__", "http_request_duration_seconds_bucket", "cluster",
		"eu-west-1", "code", "200", "container", "frontend", "handler", "/api/v1/query_range",
		"instance", "10.0.12.7:9090", "job", "default/frontend", "le", "0.25", "method", "GET",
		"namespace", "default", "pod", "frontend-5d7f9c6b8-x2x9z", "replica", "prometheus-0")
	var cs []WireChunk
	for i := range chunks {
		c := WireChunk{MinTime: 1_700_000_000_000 + int64(i)*3_600_000}
		c.MaxTime = c.MinTime + 3_570_000
		c.Parts = []WirePart{randomPart(r, Aggr_RAW, 300)}
		c.Parts[0].Hash = xxhash.Sum64(c.Parts[0].Data)
		cs = append(cs, c)
	}
	return newSample(ls, cs...)
}

var _ mem.BufferPool = (*testPool)(nil)
