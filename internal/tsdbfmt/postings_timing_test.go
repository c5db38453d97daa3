package tsdbfmt

import (
	"testing"
)

func BenchmarkAppendPostings(b *testing.B) {
	refs := make([]uint32, 100_000)
	for i := range refs {
		refs[i] = uint32(i * 9)
	}
	list := postingsList(b, refs)
	dst := make([]uint32, 0, len(refs))
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendPostings(dst[:0], list); err != nil {
			b.Fatal(err)
		}
	}
}
