package tsdbfmt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"larder/internal/tsdbfmt"
)

// TestChunkRecordOfPrometheus reads the records of a chunk file written by Prometheus, one after
// the other.
func TestChunkRecordOfPrometheus(t *testing.T) {
	dir := t.TempDir()
	w, err := chunks.NewWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	rnd := newRand(1)
	var want []chunks.Meta
	for i := range 50 {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for s := range 1 + i*3 {
			app.Append(0, int64(s)*15000, rnd.Float64())
		}
		want = append(want, chunks.Meta{Chunk: c})
	}
	if err := w.WriteChunks(want...); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "000001"))
	if err != nil {
		t.Fatal(err)
	}
	off := tsdbfmt.ChunkFileHeader
	for i, m := range want {
		if _, got := chunks.BlockChunkRef(m.Ref).Unpack(); got != off {
			t.Fatalf("chunk %d: at %d, the writer says %d", i, off, got)
		}
		size, err := tsdbfmt.ChunkRecordSize(file[off:])
		if err != nil {
			t.Fatal(err)
		}
		enc, data, err := tsdbfmt.ChunkRecord(file[off : off+size])
		if err != nil {
			t.Fatal(err)
		}
		if enc != byte(chunkenc.EncXOR) || !bytes.Equal(data, m.Chunk.Bytes()) {
			t.Errorf("chunk %d: encoding %d, %d bytes that differ from what was written", i, enc,
				len(data))
		}
		off += size
	}
	if off != len(file) {
		t.Errorf("records end at %d of %d", off, len(file))
	}
}

func TestChunkRecordSize(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      []byte
		want    int
		wantErr error
	}{
		{"empty", nil, 0, tsdbfmt.ErrShort},
		{"cut in the length", []byte{0x80}, 0, tsdbfmt.ErrShort},
		{"cut in a three-byte length", []byte{0x80, 0x80}, 0, tsdbfmt.ErrShort},
		{"no data", []byte{0}, 1 + 1 + 4, nil},
		{"one byte of length", []byte{127}, 1 + 1 + 127 + 4, nil},
		{"two bytes of length", []byte{0x80, 0x01}, 2 + 1 + 128 + 4, nil},
		{"three bytes of length", []byte{0x80, 0x80, 0x01}, 3 + 1 + 16384 + 4, nil},
		{"too long", binary.AppendUvarint(nil, 1<<40), 0, tsdbfmt.ErrCorrupt},
		{"no varint", bytes.Repeat([]byte{0xff}, 11), 0, tsdbfmt.ErrCorrupt},
	} {
		got, err := tsdbfmt.ChunkRecordSize(c.in)
		if got != c.want || !errors.Is(err, c.wantErr) {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, got, err, c.want, c.wantErr)
		}
	}
}

// TestChunkRecordDamage flips every bit of a record, and cuts it at every byte.
func TestChunkRecordDamage(t *testing.T) {
	rec := tsdbfmt.AppendChunkRecord(nil, 1, []byte("some bytes of a chunk"))
	if enc, data, err := tsdbfmt.ChunkRecord(rec); err != nil || enc != 1 ||
		string(data) != "some bytes of a chunk" {
		t.Fatalf("intact: %d, %q, %v", enc, data, err)
	}
	for i := range len(rec) * 8 {
		bad := bytes.Clone(rec)
		bad[i/8] ^= 1 << (i % 8)
		if _, _, err := tsdbfmt.ChunkRecord(bad); !errors.Is(err, tsdbfmt.ErrChecksum) &&
			!errors.Is(err, tsdbfmt.ErrCorrupt) {
			t.Errorf("bit %d flipped: %v", i, err)
		}
	}
	for n := range rec {
		if _, _, err := tsdbfmt.ChunkRecord(rec[:n]); !errors.Is(err, tsdbfmt.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, _, err := tsdbfmt.ChunkRecord(append(rec, 0)); !errors.Is(err, tsdbfmt.ErrCorrupt) {
		t.Errorf("a byte too many: %v", err)
	}
}

func TestWireEncoding(t *testing.T) {
	for enc := range 256 {
		wire, reencode, err := tsdbfmt.WireEncoding(byte(enc))
		if known := enc >= 1 && enc <= 6; known != (err == nil) {
			t.Errorf("encoding %d: %v", enc, err)
			continue
		}
		var unknown *tsdbfmt.UnknownEncodingError
		if err != nil {
			if !errors.As(err, &unknown) || unknown.Enc != byte(enc) {
				t.Errorf("encoding %d: error %v", enc, err)
			}
			continue
		}
		if want := byte((enc-1)%3 + 1); wire != want || reencode != (enc > 3) {
			t.Errorf("encoding %d: sent as %d, re-encoded %v", enc, wire, reencode)
		}
	}
}

func TestAggrChunk(t *testing.T) {
	for present := range 1 << tsdbfmt.NumAggrs {
		var want [tsdbfmt.NumAggrs]tsdbfmt.SubChunk
		for i := range want {
			if present&(1<<i) != 0 {
				want[i] = tsdbfmt.SubChunk{Enc: byte(1 + i%3),
					Data: bytes.Repeat([]byte{byte(i)}, 1+100*i), Present: true}
			}
		}
		data := tsdbfmt.AppendAggrChunk(nil, want)
		got, err := tsdbfmt.AggrChunk(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parts %05b: %s", present, diff)
		}
		for n := range data {
			if _, err := tsdbfmt.AggrChunk(data[:n]); !errors.Is(err, tsdbfmt.ErrCorrupt) {
				t.Errorf("parts %05b cut to %d of %d bytes: %v", present, n, len(data), err)
			}
		}
	}
	huge := binary.AppendUvarint(nil, 1<<63)
	if _, err := tsdbfmt.AggrChunk(append(huge, 1, 2, 3)); !errors.Is(err, tsdbfmt.ErrCorrupt) {
		t.Errorf("length of 2^63: %v", err)
	}
}

func FuzzChunkRecord(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(tsdbfmt.AppendChunkRecord(nil, 1, []byte("abc")), false)
	f.Add([]byte{0x83, 0x00, 1, 'a', 'b', 'c'}, true)
	f.Fuzz(func(t *testing.T, b []byte, build bool) {
		b = b[:len(b):len(b)]
		if build && len(b) > 0 {
			rec := tsdbfmt.AppendChunkRecord(nil, b[0], b[1:])
			enc, data, err := tsdbfmt.ChunkRecord(rec)
			if err != nil || enc != b[0] || !bytes.Equal(data, b[1:]) {
				t.Fatalf("round trip: %d, %x, %v", enc, data, err)
			}
			b = rec
		}
		size, err := tsdbfmt.ChunkRecordSize(b)
		if err != nil {
			return
		}
		if size < 6 {
			t.Fatalf("record of %d bytes", size)
		}
		if _, data, err := tsdbfmt.ChunkRecord(b); err == nil &&
			(size != len(b) || len(data) > size-6) {
			t.Fatalf("a record of %d bytes said %d, data %d", len(b), size, len(data))
		}
	})
}

func FuzzAggrChunk(f *testing.F) {
	f.Add(tsdbfmt.AppendAggrChunk(nil, [tsdbfmt.NumAggrs]tsdbfmt.SubChunk{
		tsdbfmt.AggrSum: {Enc: 1, Data: []byte("sum"), Present: true},
		tsdbfmt.AggrMax: {Enc: 1, Data: []byte("max"), Present: true},
	}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:len(b):len(b)]
		sub, err := tsdbfmt.AggrChunk(b)
		if err != nil {
			if !errors.Is(err, tsdbfmt.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := tsdbfmt.AggrChunk(tsdbfmt.AppendAggrChunk(nil, sub))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sub, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
