package diskcache

import (
	"bytes"
	"testing"

	"larder/internal/bytecache"
)

// FuzzSegment: any bytes are scanned and their footer is read without a panic, and entries lie in
// the file. A segment of two values has these two, and with any bit of it changed no wrong one.
func FuzzSegment(f *testing.F) {
	id := bytecache.ID{1, 2, 3}
	f.Add(appendFooter(header("index"), nil, headerBytes), []byte("value"), uint32(7))
	f.Add(appendRecord(header("index"), &id, []byte("a value")), []byte{}, uint32(3000))
	f.Fuzz(func(t *testing.T, data, value []byte, flip uint32) {
		const most = 64 << 10
		in := func(entries []entry, b []byte) {
			for _, e := range entries {
				if int64(e.off)+recordHeader+int64(e.length) > int64(len(b)) {
					t.Fatalf("an entry at %d with %d bytes in %d", e.off, e.length, len(b))
				}
			}
		}
		if entries, err := readFooter(bytes.NewReader(data), int64(len(data))); err == nil {
			in(entries, data)
		}
		entries, _, err := scan(bytes.NewReader(data), int64(len(data)), most)
		if err != nil {
			t.Fatal(err)
		}
		in(entries, data)
		if len(value) > most {
			return
		}
		other := bytecache.ID{9}
		b := appendRecord(header("index"), &id, value)
		b = appendRecord(b, &other, data[:min(len(data), most)])
		if entries, end, err := scan(bytes.NewReader(b), int64(len(b)), most); err != nil ||
			len(entries) != 2 || end != int64(len(b)) {
			t.Fatalf("scan: %d entries, end %d of %d, %v", len(entries), end, len(b), err)
		}
		whole := appendFooter(bytes.Clone(b), []entry{{id, headerBytes, uint32(len(value))}},
			int64(len(b)))
		if entries, err := readFooter(bytes.NewReader(whole), int64(len(whole))); err != nil ||
			len(entries) != 1 {
			t.Fatalf("footer: %d entries, %v", len(entries), err)
		}
		at := headerBytes + int(flip>>3)%int(recordHeader-4+int64(len(value)))
		if at >= headerBytes+44 {
			at += 4 // of the zeros, which nothing reads
		}
		b[at] ^= 1 << (flip & 7)
		if found, got, err := parseRecord(b[headerBytes:]); err == nil {
			t.Fatalf("byte %d was changed, got %x, %q", at, found[:4], got)
		}
	})
}
