package postings

import (
	"context"
	"fmt"
	"testing"

	"larder/store/indexheader"
)

// BenchmarkPostingsPlan plans over a header of one label with a million values. It measures what a
// regex costs before anything is read.
func BenchmarkPostingsPlan(b *testing.B) {
	h := &testHeader{
		all:   indexheader.List{Off: 16, End: 16 + 4<<20},
		names: map[string][]testEntry{},
	}
	for i := range 1_000_000 {
		off := int64(5<<20 + i*16)
		h.names["pod"] = append(h.names["pod"], testEntry{
			value: fmt.Appendf(nil, "some-deployment-%06d-x7f9c", i),
			list:  indexheader.List{Off: off, End: off + 16},
		})
	}
	h.names["job"] = []testEntry{
		{
			value: []byte("api"),
			list:  indexheader.List{Off: 4<<20 + 16, End: 4<<20 + 16 + 12 + 4*5000},
		},
	}
	for _, lines := range [][]string{
		{`pod=~".*-00012.*"`}, {`pod=~".*(12|13)+7-.*"`}, {`pod=~"some-deployment-0001.*"`},
		{`pod=~".+"`}, {`pod=~".+"`, `job="api"`},
	} {
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			ms := parseMatchers(b, lines...)
			b.ReportAllocs()
			for b.Loop() {
				req := request{matchers: ms}
				if _, err := newPlan(context.Background(), h, &req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPostingsExpand expands matchers of a block of 100,000 series with all pages in memory
// and a real header.
func BenchmarkPostingsExpand(b *testing.B) {
	blk := wideIndex(b, 100_000)
	hdr := realHeader(b, blk)
	for _, lines := range [][]string{
		{`job="j7"`}, {`__name__="cpu"`}, {`__name__="cpu"`, `job=~"j1.*"`, `pod!=""`},
		{`pod=~"pod-.*"`}, {`job=~"j.*"`}, {`pod!~".*7"`}, {`pod=~".*0007.*"`},
	} {
		b.Run(fmt.Sprint(lines), func(b *testing.B) {
			pages := newTestPages(b, blk)
			req := request{matchers: parseMatchers(b, lines...), object: blk.object}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				got, err := expand(context.Background(), hdr, pages, req)
				if err != nil {
					b.Fatal(err)
				}
				n = len(got.refs)
			}
			b.ReportMetric(float64(n), "postings")
		})
	}
}
