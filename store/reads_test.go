package store_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"larder/benchmarks/dataset"
	"larder/internal/tsdbfmt"
	"larder/store/storepb"
)

// answerBytes returns the chunk bytes of an answer.
func answerBytes(a *answer) (chunks int64) {
	for _, s := range a.series {
		for _, c := range s.Chunks {
			chunks += int64(len(c.Raw.GetData()))
		}
	}
	return chunks
}

// TestColdReads counts the reads of queries on a cold process. The docs promise these bounds on
// over-fetching.
func TestColdReads(t *testing.T) {
	dir := t.TempDir()
	metas, err := dataset.WholeMetric("cold", 3, 20_000, 30_000).
		Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const page = 8 << 10
	cold := func(
		t *testing.T, req *storepb.SeriesRequest,
	) (a *answer, counts map[string]int, bytes map[string]int64) {
		t.Helper()
		g := startGateway(t, dir, gatewayOptions{})
		// The header is built, therefore the next request reads only index and chunks.
		first := wholeMetric(0)
		first.Matchers[0].Value = "absent"
		if _, err := g.query(context.Background(), first); err != nil {
			t.Fatal(err)
		}
		g.bucket.take()
		a, err := g.query(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		counts, bytes = g.bucket.take()
		return a, counts, bytes
	}

	t.Run("whole metric", func(t *testing.T) {
		a, counts, bytes := cold(t, wholeMetric(64))
		if len(a.series) != 20_000 {
			t.Fatalf("%d series", len(a.series))
		}
		got := float64(bytes["chunks"]) / float64(answerBytes(a))
		t.Logf("chunks: %.3f bytes read per byte returned, %d reads; index: %d bytes, %d reads",
			got, counts["chunks"], bytes["index"], counts["index"])
		if got > 1.3 {
			t.Errorf("chunk bytes read are %.2f x those returned, want at most 1.3", got)
		}
		// The whole series section and one posting list are used.
		index, err := os.ReadFile(filepath.Join(dir, metas[0].ULID.String(), "index"))
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(index))
		toc, err := tsdbfmt.ParseTOC(index, index, size)
		if err != nil {
			t.Fatal(err)
		}
		used := toc.SectionEnd(toc.Series, size) - toc.Series + int64(4*len(a.series)+12)
		if got := float64(bytes["index"]) / float64(used); got > 1.5 {
			t.Errorf("index bytes read are %.2f x the %d used, want at most 1.5", got, used)
		} else {
			t.Logf("index: %.3f bytes read per byte used", got)
		}
	})

	t.Run("scattered series", func(t *testing.T) {
		req := wholeMetric(64)
		var pods []string
		g := startGateway(t, dir, gatewayOptions{})
		all, err := g.query(context.Background(),
			func() *storepb.SeriesRequest { r := wholeMetric(64); r.SkipChunks = true; return r }())
		if err != nil {
			t.Fatal(err)
		}
		// Two pods that are far apart. The series of a pod lie together within those of a handler,
		// one per method.
		pods = append(pods, seriesLabels(all.series[0]).Get("pod"),
			seriesLabels(all.series[len(all.series)/200/2*4]).Get("pod"))
		req.Matchers = append(
			req.Matchers,
			&storepb.LabelMatcher{
				Type:  storepb.LabelMatcher_RE,
				Name:  "pod",
				Value: strings.Join(pods, "|"),
			},
			&storepb.LabelMatcher{Name: "method", Value: "GET"},
		)
		a, counts, bytes := cold(t, req)
		needed := int64(0)
		for range a.series {
			// The series are pages apart. Each has two chunks of about 400 bytes, on one page or
			// two.
			needed++
		}
		t.Logf("%d series: %d chunk reads of %d bytes, %d index reads of %d bytes",
			len(a.series), counts["chunks"], bytes["chunks"], counts["index"], bytes["index"])
		if len(a.series) != 100 {
			t.Fatalf("only %d series", len(a.series))
		}
		// Gaps between the pages cost less than requests. A request that is saved may cost as many
		// bytes as half a millisecond transfers, about 300 KiB.
		saved := needed - int64(counts["chunks"])
		if most := needed*page*5/4 + saved*300<<10; saved < needed/2 || bytes["chunks"] > most {
			t.Errorf("%d chunk reads of %d bytes for %d pages, want at most %d reads and %d bytes",
				counts["chunks"], bytes["chunks"], needed, needed/2, most)
		}
	})

	t.Run("one series", func(t *testing.T) {
		g := startGateway(t, dir, gatewayOptions{})
		all, err := g.query(
			context.Background(),
			func() *storepb.SeriesRequest {
				r := wholeMetric(64)
				r.Limit = 5
				r.SkipChunks = true
				return r
			}(),
		)
		if err != nil {
			t.Fatal(err)
		}
		req := wholeMetric(0)
		req.Matchers = nil
		for _, l := range all.series[3].Labels {
			req.Matchers = append(req.Matchers, &storepb.LabelMatcher{Name: l.Name, Value: l.Value})
		}
		req.MaxTime = metas[0].MinTime + 60_000
		a, counts, _ := cold(t, req)
		if len(a.series) != 1 || len(a.series[0].Chunks) != 1 {
			t.Fatalf("%d series", len(a.series))
		}
		t.Log(counts)
		if most := len(req.Matchers) + 1; counts["index"] > most {
			t.Errorf("%d index reads for %d posting lists and one series entry",
				counts["index"], len(req.Matchers))
		}
		if counts["chunks"] != 1 {
			t.Errorf("%d chunk reads, want 1", counts["chunks"])
		}
	})
}

// TestSmallColdAnswersAreReadInParts: nothing is read after the chunks of a small answer, therefore
// a stretch that transfers for long is read in parts at once. The small block beside it is not.
func TestSmallColdAnswersAreReadInParts(t *testing.T) {
	dir := t.TempDir()
	large := dataset.WholeMetric("parts", 3, 1600, 30_000)
	small := dataset.WholeMetric("parts", 3, 200, 30_000)
	small.Blocks[0].ID[0]++
	for _, l := range []dataset.Layout{large, small} {
		if _, err := l.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	g := startGateway(t, dir, gatewayOptions{})
	buildHeaders(t, g)
	var mu sync.Mutex
	lengths := map[string][]int64{}
	g.bucket.setOnRead(func(
		name string, _, length int64, body io.ReadCloser,
	) (io.ReadCloser, error) {
		if objectKind(name) == "chunks" {
			mu.Lock()
			defer mu.Unlock()
			lengths[name[:26]] = append(lengths[name[:26]], length)
		}
		return body, nil
	})
	if _, err := g.query(t.Context(), wholeMetric(64)); err != nil {
		t.Fatal(err)
	}
	parts := lengths[large.Blocks[0].ID.String()]
	if n := len(parts); n < 3 || n > 5 || slices.Max(parts) > 512<<10 {
		t.Errorf("parts of the large block: %d", parts)
	}
	if parts := lengths[small.Blocks[0].ID.String()]; len(parts) != 1 {
		t.Errorf("parts of the small block: %d", parts)
	}
}
