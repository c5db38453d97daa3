package run_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"larder/interop/internal/compare/report"
	"larder/interop/internal/compare/run"
	"larder/interop/internal/compare/server"
)

// TestMain makes the test binary a server if the comparison starts it as one.
func TestMain(m *testing.M) {
	served, err := server.Serve(context.Background(), os.Args[1:])
	if !served {
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestShortComparison asks larder and Thanos every query of the comparison over the short form of
// the data sets behind S3. The answers must be equal. What larder asks of the bucket with empty
// caches must be what testdata/short.txt says. INTEROP_REWRITE=1 writes that file.
func TestShortComparison(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..")
	res, err := run.Run(t.Context(), run.Options{
		Root: root, Cache: t.TempDir(), Systems: []string{server.Larder},
		Modes: []string{run.S3Cold}, Concurrency: []int{1}, Rounds: 1, Short: true, Untimed: true,
		Latency:  server.Latency{FirstByte: 20 * time.Millisecond, BytesPerSecond: 80_000_000},
		Progress: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	report.Bucket(&got, res)
	name := filepath.Join("testdata", "short.txt")
	if os.Getenv("INTEROP_REWRITE") != "" {
		if err := os.WriteFile(name, got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := within(want, got.Bytes()); err != nil {
		t.Errorf(
			"%v\nIf this is intended: INTEROP_REWRITE=1 go test -tags slicelabels -run TestShortComparison ./internal/compare/run\n"+
				"got:\n%s\nwant:\n%s", err, got.Bytes(), want,
		)
	}
}

// within compares two tables of report.Bucket. Look-ahead depends on times; therefore requests and
// bytes may differ by a tenth, and chains may be two longer. Into how many parts a read of chunks
// is split depends on the bandwidth as measured, which is lower on a busy machine: up to three more
// or less.
func within(want, got []byte) error {
	w, g := lines(want), lines(got)
	if len(w) != len(g) {
		return fmt.Errorf("%d queries, want %d", len(g), len(w))
	}
	for i := range w {
		if w[i].query != g[i].query {
			return fmt.Errorf("query %s, want %s", g[i].query, w[i].query)
		}
		parts := int64(1)
		if w[i].query == "Q3d" || w[i].query == "D4" {
			parts = 3
		}
		for _, c := range []struct {
			what            string
			want, got, more int64
		}{
			{"index requests", w[i].index, g[i].index, max(w[i].index/10, 1)},
			{"chunk requests", w[i].chunks, g[i].chunks, max(w[i].chunks/10, parts)},
			{"meta requests", w[i].meta, g[i].meta, 0},
			{"bytes", w[i].bytes, g[i].bytes, w[i].bytes / 10},
		} {
			if c.got > c.want+c.more || c.got < c.want-c.more {
				return fmt.Errorf("%s: %d %s, want %d", w[i].query, c.got, c.what, c.want)
			}
		}
		if got, want := g[i].trips+g[i].queued, w[i].trips+w[i].queued; got > want+2 {
			return fmt.Errorf("%s: %d reads wait for one another, want %d", w[i].query, got, want)
		}
	}
	return nil
}

type counted struct {
	query                                     string
	index, chunks, meta, bytes, trips, queued int64
}

func lines(table []byte) []counted {
	var out []counted
	for i, l := range bytes.Split(bytes.TrimSpace(table), []byte("\n")) {
		var c counted
		_, err := fmt.Sscan(
			string(l), &c.query, &c.index, &c.chunks, &c.meta, &c.bytes, &c.trips, &c.queued,
		)
		if i > 0 && err == nil { // the first line is the head
			out = append(out, c)
		}
	}
	return out
}
