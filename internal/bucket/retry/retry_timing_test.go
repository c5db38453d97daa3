package retry

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/thanos-io/objstore"
)

// BenchmarkGetRange measures what the decorator adds to a read of a bucket in memory.
func BenchmarkGetRange(b *testing.B) {
	bucket := objstore.NewInMemBucket()
	if err := bucket.Upload(b.Context(), "o", bytes.NewReader(make([]byte, 8<<20))); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int64{8 << 10, 256 << 10, 8 << 20} {
		for name, bkt := range map[string]objstore.Bucket{"direct": bucket,
			"retry": Wrap(bucket, Options{})} {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, name), func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				buf := make([]byte, 256<<10)
				for b.Loop() {
					r, err := bkt.GetRange(b.Context(), "o", 0, size)
					if err != nil {
						b.Fatal(err)
					}
					for err == nil {
						_, err = r.Read(buf)
					}
					if err != io.EOF {
						b.Fatal(err)
					}
					r.Close()
				}
			})
		}
	}
}
