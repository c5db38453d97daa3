package warm

import (
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
)

// BenchmarkNote measures a request of five blocks.
func BenchmarkNote(b *testing.B) {
	r := NewRecorder()
	blocks := []*catalog.Block{blockOf(1), blockOf(2), blockOf(3), blockOf(4), blockOf(5)}
	ms := []*labels.Matcher{
		equal("__name__", "http_requests_total"),
		equal("job", "api"),
		labels.MustNewMatcher(labels.MatchRegexp, "pod", "api-.*"),
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Note(blocks, ms, []string{"replica"})
	}
}

// BenchmarkNoteByBlocks measures requests of many blocks, per block: with known sets, and with new
// sets when the recorder is full.
func BenchmarkNoteByBlocks(b *testing.B) {
	for _, blocks := range []int{1, 100, 1000, 4000, 10_000, 30_000} {
		for _, known := range []bool{true, false} {
			b.Run(fmt.Sprintf("blocks=%d/known=%v", blocks, known), func(b *testing.B) {
				r := NewRecorder()
				all := manyBlocks(0, blocks)
				sets := make([][]*labels.Matcher, 20)
				for i := range sets {
					sets[i] = []*labels.Matcher{equal("__name__", fmt.Sprint("metric", i))}
				}
				for i := range maxSets {
					r.Note(all, []*labels.Matcher{equal("once", fmt.Sprint(i))}, nil)
				}
				b.ReportAllocs()
				n := 0
				for ; b.Loop(); n++ {
					if known {
						r.Note(all, sets[n%len(sets)], nil)
					} else {
						r.Note(all, []*labels.Matcher{equal("new", fmt.Sprint(n))}, nil)
					}
				}
				b.ReportMetric(
					float64(b.Elapsed().Nanoseconds())/float64(n)/float64(blocks), "ns/block",
				)
			})
		}
	}
}
