package pagecache

import (
	"bytes"
	"math"
	"testing"
)

// sparse returns the pages 1, 2, 3, 6, 9 and 10 of an object. Pages have 512 bytes, except the last
// one, 10, which has 100.
func sparse(t testing.TB) (*Pages, []byte) {
	t.Helper()
	const size = 10*512 + 100
	b := newTestBucket(map[string]int{"o": size})
	r := New(b, newMapCache(), Options{PageSize: 512})
	t.Cleanup(r.Close)
	p, err := r.Fetch(
		t.Context(), testObject("o", size),
		[]Span{{600, 1900}, {700, 701}, {1800, 2048}, {3300, 3400}, {5000, size}}, nil,
	)
	if err != nil {
		t.Fatal(err)
	}
	return p, b.objects["o"]
}

func TestPagesBytes(t *testing.T) {
	p, data := sparse(t)
	f := func(off int64, n int, want bool) {
		t.Helper()
		scratch := make([]byte, 3, 7)
		b, grown, ok := p.Bytes(off, n, scratch)
		if ok != want {
			t.Errorf("[%d,+%d): got %v, want %v", off, n, ok, want)
			return
		}
		if ok && !bytes.Equal(b, data[off:off+int64(n)]) {
			t.Errorf("[%d,+%d): wrong bytes", off, n)
		}
		joined := ok && n > 0 && off/512 != (off+int64(n)-1)/512
		if grew := len(grown) - len(scratch); (joined && grew != n) || (!joined && grew != 0) {
			t.Errorf("[%d,+%d): scratch grew by %d", off, n, grew)
		}
		if ok && cap(b) != len(b) {
			t.Errorf("[%d,+%d): appending to the result would overwrite the bytes after it", off, n)
		}
	}
	f(512, 512, true)
	f(512, 0, true)
	f(512, 1536, true)
	f(512, 1537, false)
	f(511, 1, false)
	f(1000, 100, true)
	f(2047, 1, true)
	f(2047, 2, false)
	f(2048, 0, false)
	f(3072, 512, true)
	f(3072, 513, false)
	f(4608, 612, true)
	f(4608, 613, false)
	f(5219, 1, true)
	f(5220, 0, true) // no bytes, at the object's end
	f(5220, 1, false)
	f(5221, 0, false)
	f(1<<40, 1, false)
	f(600, -1, false)
	f(-1, 1, false)
	f(600, math.MaxInt, false)
	f(math.MaxInt64, math.MaxInt, false)
}

func TestPagesHave(t *testing.T) {
	p, _ := sparse(t)
	for off, want := range map[int64]int64{
		0: 0, 511: 0, 512: 1536, 1000: 1048, 2047: 1, 2048: 0, 3072: 512, 3583: 1, 3584: 0,
		4608: 612, 5219: 1, 5220: 0, 6000: 0, 1 << 40: 0, -1: 0,
	} {
		if got := p.Have(off); got != want {
			t.Errorf("offset %d: got %d, want %d", off, got, want)
		}
	}
	if got, want := p.PinnedBytes(), int64(5*512+100); got != want {
		t.Errorf("pinned: got %d, want %d", got, want)
	}
}

// TestCursor: a cursor returns the same bytes as Pages, in any order, and earlier results do not
// change while the scratch grows.
func TestCursor(t *testing.T) {
	p, data := sparse(t)
	type view struct {
		off int64
		b   []byte
	}
	for _, stride := range []int64{1, 37, 500, 3000, 5001} {
		c := p.Cursor()
		var views []view
		var scratch []byte
		for i := range int64(5220) {
			off := i * stride % 5220
			n := int(i % 600)
			var b []byte
			var ok bool
			b, scratch, ok = c.Bytes(off, n, scratch)
			if want := p.Have(off) >= int64(n) && p.Have(off) > 0; ok != want {
				t.Fatalf("stride %d: [%d,+%d): got %v, want %v", stride, off, n, ok, want)
			}
			if ok {
				views = append(views, view{off, b})
			}
		}
		for _, v := range views {
			if !bytes.Equal(v.b, data[v.off:v.off+int64(len(v.b))]) {
				t.Fatalf("stride %d: [%d,+%d) changed", stride, v.off, len(v.b))
			}
		}
	}
	var zero Cursor
	if _, _, ok := zero.Bytes(0, 0, nil); ok {
		t.Error("the zero Cursor has bytes")
	}
}
