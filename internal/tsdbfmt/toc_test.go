package tsdbfmt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb/index"
)

func appendTOC(dst []byte, offs ...uint64) []byte {
	start := len(dst)
	for _, o := range offs {
		dst = binary.BigEndian.AppendUint64(dst, o)
	}
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

func TestParseTOC(t *testing.T) {
	head := []byte{0xba, 0xaa, 0xd7, 0x00, 2}
	tail := appendTOC([]byte("series and so on"), 5, 100, 200, 0, 300, 400)
	const size = 1000
	got, err := ParseTOC(head, tail, size)
	if err != nil {
		t.Fatal(err)
	}
	want := TOC{Version: 2, Symbols: 5, Series: 100, LabelIndices: 200, Postings: 300,
		PostingsTable: 400}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	ends := map[int64]int64{5: 100, 99: 100, 100: 200, 250: 300, 300: 400, 400: size - TOCSize,
		990: size - TOCSize}
	for off, want := range ends {
		if end := got.SectionEnd(off, size); end != want {
			t.Errorf("SectionEnd(%d) = %d, want %d", off, end, want)
		}
	}

	bad := func(name string, head, tail []byte, size int64, want error) {
		t.Helper()
		if _, err := ParseTOC(head, tail, size); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	flipped := append([]byte(nil), tail...)
	flipped[len(flipped)-20] ^= 1
	bad("flipped", head, flipped, size, ErrChecksum)
	bad("version 0", []byte{0xba, 0xaa, 0xd7, 0x00, 0}, tail, size, ErrCorrupt)
	bad("version 4", []byte{0xba, 0xaa, 0xd7, 0x00, 4}, tail, size, ErrCorrupt)
	bad("magic", []byte{0xba, 0xaa, 0xd7, 0x01, 2}, tail, size, ErrCorrupt)
	bad("short head", head[:4], tail, size, ErrCorrupt)
	bad("short tail", head, tail[len(tail)-TOCSize+1:], size, ErrCorrupt)
	bad("tiny", head, tail, TOCSize+4, ErrCorrupt)
	bad("behind the end", head, appendTOC(nil, 5, 100, 200, 0, 300, size-TOCSize+1), size,
		ErrCorrupt)
	bad("in front", head, appendTOC(nil, 4, 100, 200, 0, 300, 400), size, ErrCorrupt)
	bad("negative", head, appendTOC(nil, 1<<63, 100, 200, 0, 300, 400), size, ErrCorrupt)
}

func FuzzParseTOC(f *testing.F) {
	f.Add([]byte{0xba, 0xaa, 0xd7, 0x00, 1}, appendTOC(nil, 5, 6, 7, 8, 9, 10), int64(100))
	f.Fuzz(func(t *testing.T, head, tail []byte, size int64) {
		if len(tail) >= TOCSize { // give the mutated table a valid checksum
			tail = bytes.Clone(tail)
			body := tail[len(tail)-TOCSize : len(tail)-crc32.Size]
			binary.BigEndian.PutUint32(tail[len(tail)-crc32.Size:],
				crc32.Checksum(body, castagnoli))
		}
		toc, err := ParseTOC(head, tail, size)
		if err != nil {
			return
		}
		sections := []int64{toc.Symbols, toc.Series, toc.LabelIndices, toc.LabelIndicesTable,
			toc.Postings, toc.PostingsTable}
		for _, o := range sections {
			if o < 0 || o > size-TOCSize || o != 0 && o < IndexHeaderSize {
				t.Fatalf("%+v in %d bytes", toc, size)
			}
			if end := toc.SectionEnd(o, size); end < o || end > size-TOCSize {
				t.Fatalf("%+v: section at %d ends at %d of %d", toc, o, end, size)
			}
		}
		// Prometheus reads the same table, but does not check that the sections lie in the file.
		theirs, err := index.NewTOCFromByteSlice(byteSlice(tail))
		if err != nil {
			t.Fatalf("Prometheus refuses %x: %v", tail, err)
		}
		want := TOC{toc.Version, int64(theirs.Symbols), int64(theirs.Series),
			int64(theirs.LabelIndices), int64(theirs.LabelIndicesTable), int64(theirs.Postings),
			int64(theirs.PostingsTable)}
		if diff := cmp.Diff(want, toc); diff != "" {
			t.Fatalf("table of contents (-Prometheus +got):\n%s", diff)
		}
	})
}
