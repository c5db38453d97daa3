package tsdbfmt

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
)

// postingsList encodes refs the same way as Prometheus's index writer.
func postingsList(t testing.TB, refs []uint32) []byte {
	t.Helper()
	var e encoding.Encbuf
	if err := index.EncodePostingsRaw(&e, refs); err != nil {
		t.Fatal(err)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(e.Len()))
	b = append(b, e.Get()...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(e.Get(), castagnoli))
}

func TestAppendPostings(t *testing.T) {
	f := func(dst, refs []uint32, tail string) {
		t.Helper()
		list := append(postingsList(t, refs), tail...)
		got, err := AppendPostings(dst, list)
		if err != nil {
			t.Fatalf("AppendPostings: %v", err)
		}
		want := append(append([]uint32{}, dst...), refs...)
		if diff := cmp.Diff(want, append([]uint32{}, got...)); diff != "" {
			t.Errorf("refs (-want +got):\n%s", diff)
		}
		size, count, err := PostingsSize(list[:8])
		if err != nil || size != int64(len(list)-len(tail)) || count != len(refs) {
			t.Errorf("PostingsSize = %d, %d, %v; want %d, %d", size, count, err,
				len(list)-len(tail), len(refs))
		}
		if got := MaxPostingsCount(size); got != int64(len(refs)) {
			t.Errorf("MaxPostingsCount(%d) = %d, want %d", size, got, len(refs))
		}
	}
	f(nil, nil, "")
	f(nil, []uint32{7}, "")
	f([]uint32{9, 1}, []uint32{1, 2, 1<<32 - 1}, "")
	f([]uint32{9}, []uint32{5, 6}, "bytes after the list")
}

func TestAppendPostingsBroken(t *testing.T) {
	f := func(name string, list []byte, want error) {
		t.Helper()
		got, err := AppendPostings([]uint32{42}, list)
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
		if diff := cmp.Diff([]uint32{42}, got); diff != "" {
			t.Errorf("%s: dst has changed (-want +got):\n%s", name, diff)
		}
	}
	whole := postingsList(t, []uint32{1, 2, 3})
	for i := range whole {
		f("cut", whole[:i], ErrCorrupt)
	}
	for i := 4; i < len(whole); i++ {
		b := append([]byte{}, whole...)
		b[i] ^= 0x10
		f("flipped", b, ErrChecksum)
	}
	// A writer stored a wrong count with a correct checksum.
	b := append([]byte{}, whole...)
	b[7]++
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[4:len(b)-4], castagnoli))
	f("count", b, ErrCorrupt)
	f("too short for the count", make([]byte, 8), ErrCorrupt)
}

func TestPostingsSizeShort(t *testing.T) {
	for n := range 8 {
		if _, _, err := PostingsSize(make([]byte, n)); !errors.Is(err, ErrShort) {
			t.Errorf("PostingsSize of %d bytes: error %v, want %v", n, err, ErrShort)
		}
	}
	if got := MaxPostingsCount(3); got != 0 {
		t.Errorf("MaxPostingsCount(3) = %d, want 0", got)
	}
}

func FuzzAppendPostings(f *testing.F) {
	f.Add([]byte{})
	f.Add(postingsList(f, nil))
	f.Add(postingsList(f, []uint32{1, 2, 3}))
	f.Add(append(postingsList(f, []uint32{16}), 0, 0, 0))
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, list []byte) {
		got, err := AppendPostings([]uint32{1}, list)
		if err != nil {
			if len(got) != 1 || got[0] != 1 {
				t.Fatalf("error %v, but dst is %v", err, got)
			}
			return
		}
		// A decoded list equals the encoding of its references.
		again := postingsList(t, got[1:])
		if diff := cmp.Diff(again, list[:len(again)]); diff != "" {
			t.Fatalf("encoded again (-want +got):\n%s", diff)
		}
		n, postings, err := index.DecodePostingsRaw(
			encoding.NewDecbufAt(byteSlice(list), 0, castagnoli))
		if err != nil || n != len(got)-1 {
			t.Fatalf("Prometheus reads %d of %d references: %v", n, len(got)-1, err)
		}
		for _, ref := range got[1:] {
			if !postings.Next() || postings.At() != storage.SeriesRef(ref) {
				t.Fatalf("reference %d is %d to Prometheus", ref, postings.At())
			}
		}
	})
}
