package tsdbfmt_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"larder/internal/tsdbfmt"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// sample is one sample. Values are bit patterns where NaNs matter.
type sample struct {
	T    int64
	Bits uint64
	H    *histogram.Histogram
	FH   *histogram.FloatHistogram
	// FHSum is the bit pattern of the sum, because NaNs never compare equal.
	FHSum uint64
}

// decode reads a chunk with Prometheus's own iterators.
func decode(t *testing.T, enc byte, data []byte) []sample {
	t.Helper()
	c, err := chunkenc.FromData(chunkenc.Encoding(enc), data)
	if err != nil {
		t.Fatal(err)
	}
	var out []sample
	it := c.Iterator(nil)
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		s := sample{T: it.AtT()}
		switch vt {
		case chunkenc.ValFloat:
			_, v := it.At()
			s.Bits = math.Float64bits(v)
		case chunkenc.ValHistogram:
			_, s.H = it.AtHistogram(nil)
			s.FHSum, s.H.Sum = math.Float64bits(s.H.Sum), 0
		case chunkenc.ValFloatHistogram:
			_, s.FH = it.AtFloatHistogram(nil)
			s.FHSum, s.FH.Sum = math.Float64bits(s.FH.Sum), 0
		case chunkenc.ValNone:
		}
		out = append(out, s)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkReencoded re-encodes a chunk and compares it with the original, decoded, and with the data
// that Prometheus writes for the same samples in the plain encoding.
func checkReencoded(t *testing.T, in, plain chunkenc.Chunk) {
	t.Helper()
	data := bytes.Clone(in.Bytes())
	wire, out, err := tsdbfmt.Reencode([]byte("before"), byte(in.Encoding()), data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, in.Bytes()) {
		t.Fatal("the input was written to")
	}
	out, ok := bytes.CutPrefix(out, []byte("before"))
	if !ok {
		t.Fatal("the former contents of dst are lost")
	}
	if wire != byte(plain.Encoding()) {
		t.Errorf("sent as encoding %d, want %d", wire, plain.Encoding())
	}
	// A comparison is fast; finding the difference is slow.
	want, got := decode(t, byte(in.Encoding()), in.Bytes()), decode(t, wire, out)
	if !reflect.DeepEqual(want, got) {
		t.Errorf("samples (-stored +sent): %s", cmp.Diff(want, got))
	}
	if !bytes.Equal(out, plain.Bytes()) {
		t.Errorf("%d bytes, Prometheus writes %d for the same samples:\n%x\n%x", len(out),
			len(plain.Bytes()), out, plain.Bytes())
	}
	_, again, err := tsdbfmt.Reencode(nil, byte(in.Encoding()), in.Bytes())
	if err != nil || !bytes.Equal(again, out) {
		t.Errorf("a second call returns another result (%v)", err)
	}
}

// floats are values whose bit patterns must survive.
var floats = []float64{
	0, math.Copysign(0, -1), 1, -1, math.Pi, math.Inf(1), math.Inf(-1), math.MaxFloat64,
	math.SmallestNonzeroFloat64,
	math.Float64frombits(value.StaleNaN), math.Float64frombits(value.NormalNaN),
	math.Float64frombits(0x7ff8dead0000beef),
}

func randomFloat(rnd *rand.Rand, last float64) float64 {
	switch rnd.IntN(10) {
	case 0, 1, 2:
		return floats[rnd.IntN(len(floats))]
	case 3, 4:
		return last
	case 5:
		return math.Float64frombits(rnd.Uint64())
	}
	if math.IsNaN(last) || math.IsInf(last, 0) {
		last = 0
	}
	return last + float64(rnd.IntN(100))
}

// randomTimes returns n ascending timestamps, and start timestamps in one of the patterns that
// writers produce.
func randomTimes(rnd *rand.Rand, n int) (ts, sts []int64) {
	t := rnd.Int64N(1 << 41)
	interval := []int64{1, 15_000, 60_000, 1 << 30}[rnd.IntN(4)]
	jitter := []int64{1, 10, 5000, 1 << 25}[rnd.IntN(4)]
	pattern := rnd.IntN(6)
	start := t - 1000
	changeAt := rnd.IntN(n + 10)
	for i := range n {
		t += interval + rnd.Int64N(jitter)
		ts = append(ts, t)
		switch pattern {
		case 0: // none
			start = 0
		case 1: // one for the whole chunk
		case 2: // one reset in the middle
			if i == changeAt {
				start = t - 1
			}
		case 3: // delta temporality: every sample starts where the last one ended
			start = t - interval
		case 4: // known only from a later sample on
			if i < changeAt {
				start = 0
			} else if start == 0 {
				start = t - rnd.Int64N(1<<20)
			}
		case 5:
			start = t - rnd.Int64N(1<<40)
		}
		sts = append(sts, start)
	}
	return ts, sts
}

func TestReencodeXOR2(t *testing.T) {
	for seed := range uint64(400) {
		rnd := newRand(seed)
		n := 1 + rnd.IntN(250)
		ts, sts := randomTimes(rnd, n)
		in, plain := chunkenc.NewXOR2Chunk(), chunkenc.NewXORChunk()
		inApp, _ := in.Appender()
		plainApp, _ := plain.Appender()
		v := 0.0
		for i := range n {
			v = randomFloat(rnd, v)
			inApp.Append(sts[i], ts[i], v)
			plainApp.Append(0, ts[i], v)
		}
		checkReencoded(t, in, plain)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// histogramWriter appends to a chunk. Prometheus's appender may replace the chunk by a recoded one.
type histogramWriter struct {
	c   chunkenc.Chunk
	app chunkenc.Appender
}

func newHistogramWriter(t *testing.T, c chunkenc.Chunk) *histogramWriter {
	t.Helper()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	return &histogramWriter{c, app}
}

// append appends one of h and fh. It returns false, and leaves the chunk unchanged, if the sample
// needs a new chunk.
func (w *histogramWriter) append(
	t *testing.T, st, ts int64, h *histogram.Histogram, fh *histogram.FloatHistogram,
) bool {
	t.Helper()
	var (
		next    chunkenc.Chunk
		recoded bool
		app     chunkenc.Appender
		err     error
	)
	if h != nil {
		next, recoded, app, err = w.app.AppendHistogram(nil, st, ts, h.Copy(), false)
	} else {
		next, recoded, app, err = w.app.AppendFloatHistogram(nil, st, ts, fh.Copy(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	if next != nil && !recoded {
		return false
	}
	if next != nil {
		w.c = next
	}
	w.app = app
	return true
}

// growHistogram grows h like a counter, sometimes by new buckets, which makes Prometheus recode the
// chunk.
func growHistogram(rnd *rand.Rand, h *histogram.Histogram) {
	counts := make([]int64, 0, 16)
	at := int64(0)
	for _, d := range h.PositiveBuckets {
		at += d
		counts = append(counts, at)
	}
	if rnd.IntN(8) == 0 {
		counts = append(counts, 0)
		h.PositiveSpans[len(h.PositiveSpans)-1].Length++
	}
	h.Count = h.ZeroCount
	prev := int64(0)
	h.PositiveBuckets = h.PositiveBuckets[:0]
	for _, c := range counts {
		c += rnd.Int64N(20)
		h.PositiveBuckets = append(h.PositiveBuckets, c-prev)
		h.Count += uint64(c)
		prev = c
	}
	prev = 0
	for i := range h.NegativeBuckets {
		prev += h.NegativeBuckets[i]
		h.Count += uint64(prev)
	}
	h.Sum += rnd.Float64() * 100
}

func TestReencodeHistograms(t *testing.T) {
	seen := map[chunkenc.CounterResetHeader]int{}
	stale, custom := 0, 0
	for seed := range uint64(600) {
		rnd := newRand(seed)
		n := 1 + rnd.IntN(70)
		if seed%20 == 0 {
			n += 128 // more samples than the start timestamp header can number
		}
		ts, sts := randomTimes(rnd, n)
		h := &histogram.Histogram{
			Schema:        int32(rnd.IntN(13) - 4),
			ZeroThreshold: []float64{0, 0x1p-128, 0.001, 3}[rnd.IntN(4)],
			ZeroCount:     uint64(rnd.IntN(5)),
			PositiveSpans: []histogram.Span{{Offset: int32(rnd.IntN(20) - 10), Length: 2},
				{Offset: int32(1 + rnd.IntN(1000)), Length: 1}},
			PositiveBuckets: []int64{1, 2, -1},
			NegativeSpans:   []histogram.Span{{Offset: 3, Length: 2}},
			NegativeBuckets: []int64{2, 0},
			CounterResetHint: []histogram.CounterResetHint{
				histogram.UnknownCounterReset, histogram.CounterReset, histogram.NotCounterReset,
				histogram.GaugeType,
			}[rnd.IntN(4)],
		}
		if rnd.IntN(4) == 0 {
			custom++
			h.Schema, h.ZeroThreshold, h.ZeroCount = histogram.CustomBucketsSchema, 0, 0
			h.PositiveSpans, h.PositiveBuckets = []histogram.Span{{Length: 2}}, []int64{1, 1}
			h.NegativeSpans, h.NegativeBuckets = nil, nil
			h.CustomValues = make([]float64, 200)
			for i := range h.CustomValues {
				h.CustomValues[i] = []float64{0.005, 1, 1e9}[i%3]*float64(i/3+1) + float64(i)*1e10
			}
		}
		float := seed%2 == 1
		in, plain := newHistogramWriter(t, chunkenc.NewHistogramSTChunk()),
			newHistogramWriter(t, chunkenc.NewHistogramChunk())
		if float {
			in, plain = newHistogramWriter(t, chunkenc.NewFloatHistogramSTChunk()),
				newHistogramWriter(t, chunkenc.NewFloatHistogramChunk())
		}
		for i := range n {
			growHistogram(rnd, h)
			if i > 0 && h.CounterResetHint == histogram.CounterReset {
				h.CounterResetHint = histogram.NotCounterReset
			}
			a, fa := h.Copy(), (*histogram.FloatHistogram)(nil)
			if i > 0 && rnd.IntN(100) == 0 || i == 0 && rnd.IntN(20) == 0 {
				stale++
				a = &histogram.Histogram{CounterResetHint: h.CounterResetHint,
					Sum: math.Float64frombits(value.StaleNaN)}
			} else if rnd.IntN(20) == 0 {
				a.Sum = randomFloat(rnd, 1)
			}
			if float {
				fa = a.ToFloat(nil)
				fa.Sum = a.Sum
				a = nil
			}
			ok, plainOK := in.append(t, sts[i], ts[i], a, fa), plain.append(t, 0, ts[i], a, fa)
			if ok != plainOK {
				t.Fatalf("seed %d: sample %d: one of the appenders wants a new chunk", seed, i)
			}
			if !ok { // the chunk is complete
				break
			}
		}
		// These headers do not result from appending: a chunk that continues another has them.
		header := chunkenc.CounterResetHeader(in.c.Bytes()[0] & chunkenc.CounterResetHeaderMask)
		if header != chunkenc.GaugeType && rnd.IntN(2) == 0 {
			header = []chunkenc.CounterResetHeader{chunkenc.CounterReset, chunkenc.NotCounterReset,
				chunkenc.UnknownCounterReset}[rnd.IntN(3)]
			in.c.Bytes()[0] = in.c.Bytes()[0]&^chunkenc.CounterResetHeaderMask | byte(header)
			plain.c.Bytes()[2] = byte(header)
		}
		seen[header]++
		checkReencoded(t, in.c, plain.c)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if len(seen) != 4 || stale == 0 || custom == 0 {
		t.Errorf("covered: headers %v, %d stale samples, %d with custom buckets", seen, stale,
			custom)
	}
}

// TestReencodeStaleInsideGauge: an appender would refuse these samples in one chunk, because the
// iterator does not report that a staleness marker belongs to a gauge.
func TestReencodeStaleInsideGauge(t *testing.T) {
	gauge := histogram.Histogram{
		CounterResetHint: histogram.GaugeType, Schema: 1, Count: 3, Sum: 2,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1},
	}
	staleGauge := histogram.Histogram{CounterResetHint: histogram.GaugeType,
		Sum: math.Float64frombits(value.StaleNaN)}
	in, plain := newHistogramWriter(t, chunkenc.NewHistogramSTChunk()),
		newHistogramWriter(t, chunkenc.NewHistogramChunk())
	for i, h := range []*histogram.Histogram{&gauge, &gauge, &staleGauge} {
		if !in.append(t, 500, int64(i)*1000, h, nil) || !plain.append(t, 0, int64(i)*1000, h, nil) {
			t.Fatalf("sample %d started a new chunk", i)
		}
	}
	checkReencoded(t, in.c, plain.c)
}

func TestReencodePassesOn(t *testing.T) {
	plain := []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram}
	for _, enc := range plain {
		wire, out, err := tsdbfmt.Reencode([]byte("a"), byte(enc), []byte("bc"))
		if wire != byte(enc) || string(out) != "abc" || err != nil {
			t.Errorf("%s: %d, %q, %v", enc, wire, out, err)
		}
	}
	var unknown *tsdbfmt.UnknownEncodingError
	for _, enc := range []byte{0, 7, tsdbfmt.EncAggr} {
		_, out, err := tsdbfmt.Reencode([]byte("a"), enc, []byte("bc"))
		if !errors.As(err, &unknown) || string(out) != "a" {
			t.Errorf("encoding %d: %q, %v", enc, out, err)
		}
	}
}

// TestReencodeCut cuts chunks at every byte: always an error, never fewer samples.
func TestReencodeCut(t *testing.T) {
	for enc, data := range fuzzChunks(t) {
		for n := range data {
			_, out, err := tsdbfmt.Reencode(nil, enc, data[:n])
			if err == nil {
				t.Errorf("%s cut to %d of %d bytes gave %d bytes", chunkenc.Encoding(enc), n,
					len(data), len(out))
			} else if !errors.Is(err, tsdbfmt.ErrCorrupt) {
				t.Errorf("%s cut to %d of %d bytes: %v", chunkenc.Encoding(enc), n, len(data), err)
			}
		}
	}
}

// fuzzChunks returns a small chunk of each encoding that is re-encoded.
func fuzzChunks(t testing.TB) map[byte][]byte {
	xor2 := chunkenc.NewXOR2Chunk()
	app, err := xor2.Appender()
	if err != nil {
		t.Fatal(err)
	}
	var hist, float chunkenc.Chunk = chunkenc.NewHistogramSTChunk(),
		chunkenc.NewFloatHistogramSTChunk()
	h := &histogram.Histogram{
		Schema: 2, ZeroThreshold: 0.1,
		PositiveSpans:   []histogram.Span{{Offset: 1, Length: 2}, {Offset: 3, Length: 1}},
		PositiveBuckets: []int64{1, 1, 1},
	}
	rnd := newRand(7)
	for i := range int64(20) {
		app.Append(i, 1000*i, float64(i))
		growHistogram(rnd, h)
		for _, c := range []*chunkenc.Chunk{&hist, &float} {
			app, err := (*c).Appender()
			if err != nil {
				t.Fatal(err)
			}
			var next chunkenc.Chunk
			if c == &hist {
				next, _, _, err = app.AppendHistogram(nil, 1000*i-5, 1000*i, h.Copy(), false)
			} else {
				next, _, _, err = app.AppendFloatHistogram(nil, 1000*i-5, 1000*i, h.ToFloat(nil),
					false)
			}
			if err != nil {
				t.Fatal(err)
			}
			if next != nil {
				*c = next
			}
		}
	}
	return map[byte][]byte{
		byte(chunkenc.EncXOR2):             xor2.Bytes(),
		byte(chunkenc.EncHistogramST):      hist.Bytes(),
		byte(chunkenc.EncFloatHistogramST): float.Bytes(),
	}
}

func FuzzReencode(f *testing.F) {
	for enc, data := range fuzzChunks(f) {
		f.Add(enc, data)
	}
	f.Fuzz(func(t *testing.T, enc byte, data []byte) {
		data = data[:len(data):len(data)]
		in := bytes.Clone(data)
		_, out, err := tsdbfmt.Reencode(nil, enc, data)
		if !bytes.Equal(in, data) {
			t.Fatal("the input was written to")
		}
		var unknown *tsdbfmt.UnknownEncodingError
		if err != nil {
			if !errors.Is(err, tsdbfmt.ErrCorrupt) && !errors.As(err, &unknown) {
				t.Fatal(err)
			}
			return
		}
		// Cut start timestamps make a histogram smaller. XOR spends more bits than XOR2, at most
		// 4+64+2+11+64 on a sample that took 1.
		if enc != byte(chunkenc.EncXOR2) && len(out) > len(data) || len(out) > 20*8*len(data)+32 {
			t.Fatalf("%d bytes became %d", len(data), len(out))
		}
	})
}
