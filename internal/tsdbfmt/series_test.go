package tsdbfmt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// seriesEntry returns a series entry with the given content.
func seriesEntry(content []byte) []byte {
	b := append(binary.AppendUvarint(nil, uint64(len(content))), content...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(content, castagnoli))
}

// seriesContentOf encodes a series the same way as Prometheus.
func seriesContentOf(symbols []uint32, metas ...chunks.Meta) []byte {
	b := binary.AppendUvarint(nil, uint64(len(symbols)/2))
	for _, s := range symbols {
		b = binary.AppendUvarint(b, uint64(s))
	}
	b = binary.AppendUvarint(b, uint64(len(metas)))
	for i, m := range metas {
		if i == 0 {
			b = binary.AppendVarint(b, m.MinTime)
			b = binary.AppendUvarint(b, uint64(m.MaxTime-m.MinTime))
			b = binary.AppendUvarint(b, uint64(m.Ref))
			continue
		}
		b = binary.AppendUvarint(b, uint64(m.MinTime-metas[i-1].MaxTime))
		b = binary.AppendUvarint(b, uint64(m.MaxTime-m.MinTime))
		b = binary.AppendVarint(b, int64(m.Ref)-int64(metas[i-1].Ref))
	}
	return b
}

// numbered returns Prometheus's decoder with symbols that are their own numbers.
func numbered() *index.Decoder {
	return &index.Decoder{LookupSymbol: func(_ context.Context, ref uint32) (string, error) {
		return strconv.FormatUint(uint64(ref), 10), nil
	}}
}

// FuzzSeriesEntry: an entry is valid only if it was sealed; it decodes to the same as with
// Prometheus's decoder; a time range selects the same chunks as a filter over all of them.
func FuzzSeriesEntry(f *testing.F) {
	f.Add(seriesContentOf(nil), int64(0), int64(0), uint16(0))
	f.Add(
		seriesContentOf([]uint32{1, 2, 3, 1 << 31}, chunks.Meta{Ref: 8, MinTime: -5, MaxTime: 10}),
		int64(0), int64(4), uint16(3))
	f.Add(seriesContentOf([]uint32{1, 2}, chunks.Meta{Ref: 8, MinTime: 0, MaxTime: 10},
		chunks.Meta{Ref: 900, MinTime: 11, MaxTime: 20},
		chunks.Meta{Ref: 1<<32 | 8, MinTime: 30, MaxTime: 40}), int64(15), int64(25), uint16(77))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, int64(math.MinInt64),
		int64(math.MaxInt64), uint16(1))
	f.Fuzz(func(t *testing.T, content []byte, minT, maxT int64, flip uint16) {
		// Bytes that were not sealed.
		if _, err := SeriesContent(content); err != nil && !errors.Is(err, ErrCorrupt) &&
			!errors.Is(err, ErrChecksum) {
			t.Fatal(err)
		}
		if n, err := SeriesEntrySize(content); err == nil &&
			(n < 1+crc32.Size || n > maxSeriesEntry+16) {
			t.Fatalf("an entry of %d bytes", n)
		}
		PeekFirstChunk(content)

		entry := seriesEntry(content)
		if n, err := SeriesEntrySize(entry); err != nil || n != len(entry) {
			t.Fatalf("an entry of %d bytes claims %d, %v", len(entry), n, err)
		}
		got, err := SeriesContent(entry)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%x comes back as %x, %v", content, got, err)
		}
		bad := bytes.Clone(entry)
		bad[int(flip)%len(bad)] ^= byte(1 + flip>>8%255)
		if _, err := SeriesContent(bad); err == nil {
			t.Fatalf("%x, which was %x, verifies", bad, entry)
		}

		refs, rest, err := AppendSeriesLabels(nil, content)
		if err != nil {
			return
		}
		var all ChunkMetas
		first, some, lastKept, err := AppendChunkMetas(&all, rest, math.MinInt64, math.MaxInt64)
		if err != nil {
			return
		}
		if len(refs) > len(content) || all.Len() > len(content) {
			t.Fatalf("%d references and %d chunks of %d bytes", len(refs), all.Len(), len(content))
		}
		var b labels.ScratchBuilder
		var metas []chunks.Meta
		if err := numbered().Series(content, &b, &metas); err != nil {
			t.Fatalf("Prometheus refuses %x: %v", content, err)
		}
		var want labels.ScratchBuilder
		for i := 0; i < len(refs); i += 2 {
			want.Add(strconv.FormatUint(uint64(refs[i]), 10), strconv.FormatUint(uint64(refs[i+1]),
				10))
		}
		if !labels.Equal(want.Labels(), b.Labels()) {
			t.Fatalf("labels %s, Prometheus has %s", want.Labels(), b.Labels())
		}
		// A chunk that overlaps no range, because it ends before the first possible time, is
		// omitted.
		kept := func(minT, maxT int64) (want ChunkMetas) {
			for _, m := range metas {
				if m.MinTime > maxT {
					break
				}
				if m.MaxTime >= minT {
					want.Append(uint64(m.Ref), m.MinTime, m.MaxTime, 0)
				}
			}
			return want
		}
		for _, r := range [][2]int64{{math.MinInt64, math.MaxInt64}, {minT, maxT}} {
			var got ChunkMetas
			f, s, _, err := AppendChunkMetas(&got, rest, r[0], r[1])
			if err != nil || f != first || s != some {
				t.Fatalf("first chunk %d, %v, %v in [%d, %d]; else %d, %v", f, s, err, r[0], r[1],
					first, some)
			}
			for i, bound := range got.Bound {
				if bound != 0 && i+1 < got.Len() && got.Ref[i]>>32 == got.Ref[i+1]>>32 &&
					got.Ref[i+1] < got.Ref[i] {
					t.Fatalf("chunk %d is bound to %d bytes by one in front of it", i, bound)
				}
				got.Bound[i] = 0
			}
			want := kept(r[0], r[1])
			diff := cmp.Diff(append([]uint64{}, want.Ref...), append([]uint64{}, got.Ref...))
			if diff != "" {
				t.Fatalf("chunks in [%d, %d] (-Prometheus +got):\n%s", r[0], r[1], diff)
			}
			diff = cmp.Diff(append(append([]int64{}, want.Min...), want.Max...),
				append(append([]int64{}, got.Min...), got.Max...))
			if diff != "" {
				t.Fatalf("times in [%d, %d] (-Prometheus +got):\n%s", r[0], r[1], diff)
			}
		}
		if some != (len(metas) > 0) || some && (first != uint64(metas[0].Ref) || !lastKept) {
			t.Fatalf("first chunk %d, %v, last kept %v of %v", first, some, lastKept, metas)
		}
		if ref, ok := PeekFirstChunk(entry); ok != some || ref != first {
			t.Fatalf("a peek finds chunk %d, %v, the entry has %d, %v", ref, ok, first, some)
		}
	})
}
