package storepb

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

// collect returns a send function that decodes each frame at once and compares it with
// proto.Marshal.
func collect(t *testing.T, out *[]*SeriesResponse) func(*Frame) error {
	return func(f *Frame) error {
		t.Helper()
		m := &SeriesResponse{}
		if err := proto.Unmarshal(f.Bytes(), m); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(marshal(t, m), f.Bytes()) {
			t.Errorf("frame is not what proto.Marshal makes of it: %x", f.Bytes())
		}
		*out = append(*out, m)
		return nil
	}
}

// join reverses FrameWriter: it splits batches and joins the parts of continued series.
func join(frames []*SeriesResponse) []*Series {
	var out []*Series
	for _, f := range frames {
		ss := f.GetBatch().GetSeries()
		if s := f.GetSeries(); s != nil {
			ss = []*Series{s}
		}
		for _, s := range ss {
			if n := len(out); n > 0 &&
				proto.Equal(&Series{Labels: out[n-1].Labels}, &Series{Labels: s.Labels}) {
				out[n-1].Chunks = append(out[n-1].Chunks, s.Chunks...)
				continue
			}
			out = append(out, proto.CloneOf(s))
		}
	}
	return out
}

// wantSeries compares series. It does not use go-cmp, which would take minutes for megabytes of
// chunks.
func wantSeries(t *testing.T, want, got []*Series) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("got %d series, want %d", len(got), len(want))
	}
	for i := range want {
		if !proto.Equal(want[i], got[i]) {
			t.Fatalf("series %d of %d: got labels %v and %d chunks, want labels %v and %d chunks",
				i, len(want), got[i].Labels, len(got[i].Chunks), want[i].Labels,
				len(want[i].Chunks))
		}
	}
}

// sized returns a series, named by id, with chunks of the given lengths.
func sized(id int, lens ...int) sample {
	r := rand.New(rand.NewPCG(uint64(id), 0))
	var cs []WireChunk
	for i, n := range lens {
		at := int64(i) * 100
		parts := []WirePart{randomPart(r, Aggr_RAW, n)}
		cs = append(cs, WireChunk{MinTime: at, MaxTime: at + 99, Parts: parts})
	}
	return newSample(labels.FromStrings("id", fmt.Sprintf("%06d", id)), cs...)
}

func TestFrameWriter(t *testing.T) {
	repeat := func(n, length int) []int {
		var out []int
		for range n {
			out = append(out, length)
		}
		return out
	}
	many := func(n int, lens ...int) []sample {
		var out []sample
		for i := range n {
			out = append(out, sized(i, lens...))
		}
		return out
	}
	for _, c := range []struct {
		name   string
		batch  int64
		series []sample
		want   []int // series in each frame
		over   bool  // a frame may be longer than MaxFrameBytes
	}{
		{"batch 0 sends each alone", 0, many(3, 100), []int{1, 1, 1}, false},
		{"batch 1 too", 1, many(3, 100), []int{1, 1, 1}, false},
		{"negative too", -5, many(2, 100), []int{1, 1}, false},
		{"full batches and a rest", 4, many(10, 100), []int{4, 4, 2}, false},
		{"no rest", 5, many(10, 100), []int{5, 5}, false},
		{"without chunks", 3, many(4), []int{3, 1}, false},
		{"a batch ends at the frame's size", 1000, many(5, 300<<10), []int{3, 2}, false},
		{"a long series goes on in batches", 64,
			[]sample{sized(0, 10), sized(1, repeat(25, 100<<10)...), sized(2, 10)},
			[]int{1, 1, 1, 2}, false},
		{"a long series goes on alone", 0, []sample{sized(0, repeat(25, 100<<10)...)},
			[]int{1, 1, 1}, false},
		{"a long chunk has a frame of its own", 64, []sample{sized(0, 10), sized(1, 10, 3<<20, 10),
			sized(2, 10)}, []int{1, 1, 1, 2}, true},
		{"a single long chunk", 0, []sample{sized(0, 2<<20)}, []int{1}, true},
		{"a batch that outgrows its guess", 64, append(many(8, 10), sized(9, 50<<10),
			sized(10, 200<<10), sized(11, 20)), []int{11}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool := newTestPool(t)
			var frames []*SeriesResponse
			decode := collect(t, &frames)
			over := 0
			w := NewFrameWriter(pool, c.batch, func(f *Frame) error {
				if f.Size() > MaxFrameBytes {
					over++
				}
				return decode(f)
			})
			var want []*Series
			var chunks int64
			for _, s := range c.series {
				if err := w.WriteSeries(s.labels, s.chunks); err != nil {
					t.Fatal(err)
				}
				want = append(want, s.msg)
				chunks += int64(len(s.chunks))
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if w.Pending() {
				t.Error("something is pending after Flush")
			}
			wantSeries(t, want, join(frames))
			var sizes []int
			var bytesSent int64
			for _, f := range frames {
				n := len(f.GetBatch().GetSeries())
				if f.GetSeries() != nil {
					n = 1
				}
				if (c.batch > 1) != (f.GetBatch() != nil) {
					t.Errorf("batch %d, but the frame is %T", c.batch, f.Result)
				}
				sizes = append(sizes, n)
				bytesSent += int64(proto.Size(f))
			}
			if diff := cmp.Diff(c.want, sizes); diff != "" {
				t.Errorf("series in each frame (-want +got):\n%s", diff)
			}
			if (over > 0) != c.over {
				t.Errorf("%d frames are longer than %d bytes", over, MaxFrameBytes)
			}
			wantStats := FrameStats{
				Frames: int64(len(frames)),
				Series: int64(len(want)),
				Chunks: chunks,
				Bytes:  bytesSent,
			}
			if diff := cmp.Diff(wantStats, w.Stats()); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
			pool.wantNoneOut()
		})
	}
}

// TestFrameWriterOrder checks that warnings and hints come after the series that were written
// before.
func TestFrameWriterOrder(t *testing.T) {
	pool := newTestPool(t)
	var frames []*SeriesResponse
	w := NewFrameWriter(pool, 64, collect(t, &frames))
	a, b := sized(1, 10), sized(2, 10)
	hints, err := anypb.New(&SeriesResponseHints{QueriedBlocks: []*Block{{Id: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		w.WriteSeries(a.labels, a.chunks), w.WriteWarning("careful"),
		w.WriteSeries(b.labels, b.chunks), w.WriteHints(hints), w.Flush(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []*SeriesResponse{
		batchMessage(a),
		{Result: &SeriesResponse_Warning{Warning: "careful"}},
		batchMessage(b),
		{Result: &SeriesResponse_Hints{Hints: hints}},
	}
	if diff := cmp.Diff(want, frames, protocmp.Transform()); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	pool.wantNoneOut()
}

// TestFrameWriterRandom writes many random series. Buffers are overwritten as soon as they are
// released.
func TestFrameWriterRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for range 100 {
		pool := newTestPool(t)
		var frames []*SeriesResponse
		w := NewFrameWriter(pool, int64(r.IntN(20)), collect(t, &frames))
		var want []*SeriesResponse
		for range r.IntN(100) {
			s := randomSample(r)
			// so that neighbours differ
			s.labels = AppendLabel(s.labels, "~", fmt.Sprint(len(want)))
			s.msg.Labels = append(s.msg.Labels, &Label{Name: "~", Value: fmt.Sprint(len(want))})
			if err := w.WriteSeries(s.labels, s.chunks); err != nil {
				t.Fatal(err)
			}
			want = append(want, &SeriesResponse{Result: &SeriesResponse_Series{Series: s.msg}})
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		wantSeries(t, join(want), join(frames))
		pool.wantNoneOut()
	}
}

func TestFrameWriterSendFails(t *testing.T) {
	gone := errors.New("the client is gone")
	for _, batch := range []int64{0, 2} {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprintf("batch %d, taken %v", batch, taken), func(t *testing.T) {
				pool := newTestPool(t)
				calls := 0
				w := NewFrameWriter(pool, batch, func(f *Frame) error {
					calls++
					if taken {
						// grpc owns the buffer and frees it before SendMsg returns the error.
						b, err := f.take()
						if err != nil {
							t.Fatal(err)
						}
						b.Free()
					}
					return gone
				})
				s := sized(1, 100)
				var err error
				for range 10 {
					if err = w.WriteSeries(s.labels, s.chunks); err != nil {
						break
					}
				}
				for _, err := range []error{err, w.WriteSeries(s.labels, s.chunks), w.Flush(),
					w.WriteWarning("x"), w.WriteHints(&anypb.Any{})} {
					if !errors.Is(err, gone) {
						t.Errorf("got %v, want the error of send", err)
					}
				}
				if calls != 1 {
					t.Errorf("send was called %d times, want once", calls)
				}
				w.Discard()
				pool.wantNoneOut()
			})
		}
	}
}

func TestFrameWriterDiscard(t *testing.T) {
	pool := newTestPool(t)
	w := NewFrameWriter(pool, 64, func(*Frame) error {
		t.Error("Discard sent a frame")
		return nil
	})
	s := sized(1, 100)
	if err := w.WriteSeries(s.labels, s.chunks); err != nil {
		t.Fatal(err)
	}
	if !w.Pending() {
		t.Error("nothing is pending")
	}
	w.Discard()
	w.Discard()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	pool.wantNoneOut()
}

// TestFrameWriterExpect checks that buffers are sized by the expected number of series, even if the
// batch size is far larger, and that series beyond the expected number are written too.
func TestFrameWriterExpect(t *testing.T) {
	for _, c := range []struct {
		batch, expected int64
		come            int
	}{{1e6, 3, 3}, {64, 3, 3}, {1e6, 3, 40}, {4, 9, 9}} {
		var frames []*SeriesResponse
		pool := &sizedPool{testPool: newTestPool(t)}
		w := NewFrameWriter(pool, c.batch, collect(t, &frames))
		w.Expect(c.expected)
		var want []*Series
		for i := range c.come {
			s := sized(i, 100)
			if err := w.WriteSeries(s.labels, s.chunks); err != nil {
				t.Fatal(err)
			}
			want = append(want, s.msg)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		wantSeries(t, want, join(frames))
		if pool.largest > 16<<10 {
			t.Errorf("batches of %d, %d of %d expected series came: a buffer of %d bytes",
				c.batch, c.come, c.expected, pool.largest)
		}
	}
}

// sizedPool records the largest buffer that Get returned.
type sizedPool struct {
	*testPool
	largest int
}

func (p *sizedPool) Get(n int) *[]byte {
	p.largest = max(p.largest, n)
	return p.testPool.Get(n)
}
