package storepb

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/golang/snappy"
	"google.golang.org/grpc/encoding"
)

// TestSnappy checks that the reference implementation of the format reads what larder writes, and
// the other way round.
func TestSnappy(t *testing.T) {
	c := encoding.GetCompressor(SnappyName)
	if c == nil || encoding.GetCompressor("gzip") == nil {
		t.Fatal("snappy and gzip must be registered")
	}
	r := rand.New(rand.NewPCG(17, 18))
	for _, n := range []int{0, 1, 100, 64 << 10, 64<<10 + 1, 1 << 20} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(r.Uint32() & 0x1f)
		}
		var ours, theirs bytes.Buffer
		w, err := c.Compress(&ours)
		if err != nil {
			t.Fatal(err)
		}
		tw := snappy.NewBufferedWriter(&theirs)
		for _, w := range []io.WriteCloser{w, tw} {
			if _, err := w.Write(data[:n/3]); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data[n/3:]); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.ReadAll(snappy.NewReader(&ours))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes that larder wrote: the reference read %d, %v", n, len(got), err)
		}
		d, err := c.Decompress(&theirs)
		if err != nil {
			t.Fatal(err)
		}
		got, err = io.ReadAll(d)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes that the reference wrote: larder read %d, %v", n, len(got), err)
		}
		// After Close it must return nothing, because another message may use the pooled reader.
		closer := d.(io.Closer)
		for range 2 {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
		if k, err := d.Read(make([]byte, 10)); k != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("Read after Close: %d, %v", k, err)
		}
	}
	d, err := c.Decompress(bytes.NewReader([]byte("this is no snappy stream")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(d); err == nil {
		t.Error("invalid data was decompressed without an error")
	}
}
