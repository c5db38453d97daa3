package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	gocmp "github.com/google/go-cmp/cmp"

	"larder/internal/tsdbfmt"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/storepb"
)

// testChunk is a chunk for the encoder: its source, times and record.
type testChunk struct {
	source     int
	minT, maxT int64
	record     []byte
}

// rawChunk returns a chunk of one part.
func rawChunk(source int, minT, maxT int64, data string) testChunk {
	return testChunk{source, minT, maxT, tsdbfmt.AppendChunkRecord(nil, 1, []byte(data))}
}

// aggrChunk returns a downsampled chunk; empty parts are absent.
func aggrChunk(source int, minT, maxT int64, parts ...string) testChunk {
	var sub [tsdbfmt.NumAggrs]tsdbfmt.SubChunk
	for i, p := range parts {
		sub[i] = tsdbfmt.SubChunk{Enc: 1, Data: []byte(p), Present: p != ""}
	}
	return testChunk{
		source,
		minT,
		maxT,
		tsdbfmt.AppendChunkRecord(nil, encodingAggr, tsdbfmt.AppendAggrChunk(nil, sub)),
	}
}

// testSources returns sources with the given resolutions. The tests pass the records themselves.
func testSources(resolutions ...int64) []*source {
	var out []*source
	for i, res := range resolutions {
		b := block.New(&catalog.Block{ID: [16]byte{byte(i + 1)}, Resolution: res}, &block.Deps{})
		out = append(out, &source{chunks: b.ChunkReader(nil, nil)})
	}
	return out
}

// encodeChunks encodes the chunks of one series. The first of them come from the first of the
// joined series.
func encodeChunks(e *encoder, firstPiece int, chunks []testChunk) ([]storepb.WireChunk, error) {
	w := &window{}
	w.reset(len(e.sources))
	for _, c := range chunks {
		b := &w.batches[c.source]
		w.chunks = append(w.chunks, windowChunk{
			source:  int32(c.source),
			index:   int32(len(b.Ref)),
			minTime: c.minT,
			maxTime: c.maxT,
		})
		b.Ref, b.Record = append(b.Ref, uint64(len(b.Ref))), append(b.Record, c.record)
	}
	s := &windowSeries{chunkEnd: len(chunks), firstPiece: firstPiece, sorted: ascending(w.chunks)}
	return e.series(context.Background(), w, s, w.chunks)
}

// chunkTexts returns chunks as text.
func chunkTexts(chunks []storepb.WireChunk) []string {
	out := []string{}
	for _, c := range chunks {
		s := fmt.Sprintf("[%d, %d]", c.MinTime, c.MaxTime)
		for _, p := range c.Parts {
			s += fmt.Sprintf(" %s=%s", storepb.Aggr(p.Aggr), p.Data)
			if p.Hash != xxhash.Sum64(p.Data) {
				s += " with a wrong hash"
			}
		}
		out = append(out, s)
	}
	return out
}

func TestEncoderOrdersAndRemovesRepeats(t *testing.T) {
	all := []storepb.Aggr{
		storepb.Aggr_COUNT,
		storepb.Aggr_SUM,
		storepb.Aggr_MIN,
		storepb.Aggr_MAX,
		storepb.Aggr_COUNTER,
	}
	for _, tc := range []struct {
		name        string
		resolutions []int64
		aggrs       []storepb.Aggr
		first       int
		chunks      []testChunk
		want        []string
	}{
		{"one block", []int64{0}, nil, 2,
			[]testChunk{rawChunk(0, 0, 9, "a"), rawChunk(0, 10, 19, "b")},
			[]string{"[0, 9] RAW=a", "[10, 19] RAW=b"}},
		{"overlapping chunks in one series", []int64{0}, nil, 3,
			[]testChunk{rawChunk(0, 5, 9, "b"), rawChunk(0, 0, 20, "a"), rawChunk(0, 0, 9, "c")},
			[]string{"[0, 9] RAW=c", "[0, 20] RAW=a", "[5, 9] RAW=b"}},
		{"replicas", []int64{0, 0}, nil, 2,
			[]testChunk{rawChunk(0, 0, 9, "a"), rawChunk(0, 10, 19, "b"), rawChunk(1, 0, 9, "a"),
				rawChunk(1, 10, 19, "B")},
			[]string{"[0, 9] RAW=a", "[10, 19] RAW=b", "[10, 19] RAW=B"}},
		{"equal data at other times stays", []int64{0, 0}, nil, 1,
			[]testChunk{rawChunk(0, 0, 9, "a"), rawChunk(1, 0, 8, "a")},
			[]string{"[0, 8] RAW=a", "[0, 9] RAW=a"}},
		{"three times in one block", []int64{0}, nil, 1,
			[]testChunk{rawChunk(0, 0, 9, "a"), rawChunk(0, 0, 9, "a"), rawChunk(0, 0, 9, "a")},
			[]string{"[0, 9] RAW=a"}},
		{"repeats in other blocks, whatever their resolution", []int64{0, 300_000, 300_000, 0}, nil,
			1,
			[]testChunk{rawChunk(0, 0, 9, "a"), rawChunk(1, 0, 9, "a"), rawChunk(2, 0, 9, "a"),
				rawChunk(3, 0, 9, "a")},
			[]string{"[0, 9] RAW=a"}},
		{"identical aggregates once", []int64{300_000, 300_000}, all, 1,
			[]testChunk{aggrChunk(0, 0, 9, "n", "s", "l", "h", "c"),
				aggrChunk(1, 0, 9, "n", "s", "l", "h", "c")},
			[]string{"[0, 9] COUNT=n SUM=s MIN=l MAX=h COUNTER=c"}},
		{"aggregates that differ in one part", []int64{300_000, 300_000}, all, 1,
			[]testChunk{aggrChunk(0, 0, 9, "n", "s", "l", "h", "c"),
				aggrChunk(1, 0, 9, "n", "s", "l", "h", "d")},
			[]string{"[0, 9] COUNT=n SUM=s MIN=l MAX=h COUNTER=d",
				"[0, 9] COUNT=n SUM=s MIN=l MAX=h COUNTER=c"}},
		{"only what is asked for is compared", []int64{300_000, 300_000},
			[]storepb.Aggr{storepb.Aggr_SUM}, 1,
			[]testChunk{aggrChunk(0, 0, 9, "n", "s", "l", "h", "c"),
				aggrChunk(1, 0, 9, "m", "s", "l", "h", "d")},
			[]string{"[0, 9] SUM=s"}},
		{"raw beside chunks without parts, ascending", []int64{300_000, 0}, nil, 1,
			[]testChunk{aggrChunk(0, 0, 9, "n", "s", "l", "h", "c"), rawChunk(1, 10, 19, "r")},
			[]string{"[10, 19] RAW=r"}},
		{"none has parts: the first series stands", []int64{300_000, 300_000},
			[]storepb.Aggr{storepb.Aggr_RAW}, 2,
			[]testChunk{aggrChunk(0, 0, 9, "n", "s"), aggrChunk(0, 10, 19, "n", "s"),
				aggrChunk(1, 20, 29, "n", "s")},
			[]string{"[0, 9]", "[10, 19]"}},
		{"blocks one after the other", []int64{0, 0}, nil, 1,
			[]testChunk{rawChunk(0, 0, 9, "a"), rawChunk(1, 10, 19, "b")},
			[]string{"[0, 9] RAW=a", "[10, 19] RAW=b"}},
		{"no chunks", []int64{0}, nil, 0, nil, []string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := newEncoder(testSources(tc.resolutions...), tc.aggrs,
				func(err error) { t.Error(err) })
			for range 2 { // the second time reuses buffers
				got, err := encodeChunks(e, tc.first, tc.chunks)
				if err != nil {
					t.Fatal(err)
				}
				if diff := gocmp.Diff(tc.want, chunkTexts(got)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestEncoderAgainstThePlainRule compares the encoding of random chunks with a plain
// implementation: sort, then drop each chunk that equals its predecessor.
func TestEncoderAgainstThePlainRule(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	e := newEncoder(testSources(0, 0, 300_000, 300_000),
		[]storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_COUNTER}, func(err error) { t.Error(err) })
	repeats := 0
	for range 5000 {
		var chunks []testChunk
		for range 1 + r.IntN(7) {
			minT := int64(r.IntN(3))
			data := fmt.Sprint(r.IntN(3))
			if source := r.IntN(4); source < 2 || r.IntN(3) == 0 {
				chunks = append(chunks, rawChunk(source, minT, minT+1, data))
			} else {
				chunks = append(chunks, aggrChunk(source, minT, minT+1, data, "", "", "",
					fmt.Sprint(r.IntN(2)+7)))
			}
		}
		type plain struct {
			text       string
			minT, maxT int64
			parts      [][]byte // raw, count, counter
		}
		var sorted []plain
		for _, c := range chunks {
			enc, data, err := tsdbfmt.ChunkRecord(c.record)
			if err != nil {
				t.Fatal(err)
			}
			p := plain{minT: c.minT, maxT: c.maxT, parts: make([][]byte, 3)}
			if enc == encodingAggr {
				subs, err := tsdbfmt.AggrChunk(data)
				if err != nil {
					t.Fatal(err)
				}
				p.parts[1], p.parts[2] = subs[tsdbfmt.AggrCount].Data,
					subs[tsdbfmt.AggrCounter].Data
				p.text = fmt.Sprintf("[%d, %d] COUNT=%s COUNTER=%s",
					c.minT, c.maxT, p.parts[1], p.parts[2])
			} else {
				p.parts[0] = data
				p.text = fmt.Sprintf("[%d, %d] RAW=%s", c.minT, c.maxT, data)
			}
			sorted = append(sorted, p)
		}
		slices.SortStableFunc(sorted, func(a, b plain) int {
			c := cmp.Or(cmp.Compare(a.minT, b.minT), cmp.Compare(a.maxT, b.maxT))
			for i := range a.parts {
				// a chunk with the part comes first, and data sorts descending
				c = cmp.Or(c, bytes.Compare(b.parts[i], a.parts[i]))
			}
			return c
		})
		want, seen := []string{}, map[string]bool{}
		for _, p := range sorted {
			if seen[p.text] {
				repeats++
				continue
			}
			seen[p.text] = true
			want = append(want, p.text)
		}
		got, err := encodeChunks(e, len(chunks), chunks)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, chunkTexts(got)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	if repeats < 250 {
		t.Errorf("the test has only %d duplicates", repeats)
	}
}

// TestEncoderAllocatesNothing checks that encoding a series does not allocate.
func TestEncoderAllocatesNothing(t *testing.T) {
	e := newEncoder(testSources(0, 0), nil, func(err error) { t.Error(err) })
	w := &window{}
	w.reset(2)
	for i, c := range []testChunk{rawChunk(0, 0, 9, "a"), rawChunk(0, 10, 19, "b"),
		rawChunk(1, 0, 9, "a"), rawChunk(1, 10, 19, "c")} {
		b := &w.batches[c.source]
		w.chunks = append(w.chunks, windowChunk{
			source:  int32(c.source),
			index:   int32(i % 2),
			minTime: c.minT,
			maxTime: c.maxT,
		})
		b.Ref, b.Record = append(b.Ref, uint64(i)), append(b.Record, c.record)
	}
	s := &windowSeries{chunkEnd: 4, firstPiece: 2}
	run := func() {
		if _, err := e.series(context.Background(), w, s, w.chunks); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations for a series of two blocks", n)
	}
}

func TestEncoderErrors(t *testing.T) {
	var noted error
	e := newEncoder(testSources(300_000), []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_COUNTER},
		func(err error) { noted = err })
	_, err := encodeChunks(e, 1, []testChunk{aggrChunk(0, 0, 9, "n")})
	if err == nil ||
		!bytes.Contains([]byte(err.Error()), []byte("aggregate counter does not exist")) {
		t.Errorf("absent aggregate: %v", err)
	}
	_, err = encodeChunks(e, 1,
		[]testChunk{{0, 0, 9, tsdbfmt.AppendChunkRecord(nil, 77, []byte("x"))}})
	var unknown *tsdbfmt.UnknownEncodingError
	if !errors.As(err, &unknown) || unknown.Enc != 77 || !errors.As(noted, &unknown) {
		t.Errorf("unknown encoding: %v, noted %v", err, noted)
	}
	_, err = encodeChunks(e, 1,
		[]testChunk{{0, 0, 9, tsdbfmt.AppendChunkRecord(nil, encodingAggr, []byte{9, 1})}})
	if !errors.Is(err, tsdbfmt.ErrCorrupt) {
		t.Errorf("damaged aggregates under a right checksum: %v", err)
	}
}
