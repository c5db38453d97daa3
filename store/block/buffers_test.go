package block

import "testing"

func TestBuffersKeepFewAndSmallOnes(t *testing.T) {
	sized := func(n int) (d decodeBuffers) {
		d.scratch = make([]byte, 3, n)
		return d
	}
	var b Buffers
	for range 2 * maxKeptBuffers {
		b.keep(sized(1000))
	}
	b.keep(sized(maxKeptBytes + 1))
	if n := len(b.kept); n != maxKeptBuffers {
		t.Fatalf("%d are kept, want %d", n, maxKeptBuffers)
	}
	b.keep(sized(2000)) // is larger than those, and goes
	if d := b.take(999); d.bytes() != 0 {
		t.Errorf("got %d bytes, want no more than 999", d.bytes())
	}
	for n := maxKeptBuffers; n > 0; n-- {
		if d := b.take(1000); d.bytes() != 1000 || len(d.scratch) != 0 {
			t.Errorf("got %d bytes, %d of them used, want 1000, none used",
				d.bytes(), len(d.scratch))
		}
	}
	if d := b.take(1000); d.bytes() != 0 {
		t.Errorf("got %d bytes of buffers that others have", d.bytes())
	}
	for range maxKeptBuffers {
		b.keep(sized(2000))
	}
	b.keep(sized(1000))
	if d := b.take(1000); d.bytes() != 1000 {
		t.Error("small buffers do not replace larger ones")
	}
	var none *Buffers
	none.keep(sized(10))
	if d := none.take(10); d.bytes() != 0 {
		t.Error("no Buffers keep something")
	}
}
