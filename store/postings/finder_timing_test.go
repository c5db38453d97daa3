package postings

import (
	"testing"
)

func BenchmarkKeptPostings(b *testing.B) {
	f := func(name string, n int, step uint32) {
		k := kept{refs: make([]uint32, n)}
		for i := range k.refs {
			k.refs[i] = 10 + uint32(i)*step
		}
		v := appendKept(nil, &k)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := decodeKept(v, refBounds{end: 1 << 32}, 0); !ok {
					b.Fatal("does not decode")
				}
			}
			b.ReportMetric(float64(len(v))/float64(n), "B/ref")
		})
	}
	f("1000", 1000, 9)
	f("100000", 100_000, 9)
	f("1000000", 1_000_000, 9)
	f("1000000/scattered", 1_000_000, 900)
}
