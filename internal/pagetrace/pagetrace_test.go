package pagetrace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"larder/internal/localfs"
)

func header() Header {
	return Header{Start: time.Unix(1, 0).UTC(), Caches: []Cache{
		{Kind: "index", PageBytes: 8192, MemoryBytes: 1 << 20},
		{Kind: "chunks", PageBytes: 8192, MemoryBytes: 2 << 20, DiskBytes: 3 << 20},
	}}
}

// read returns the accesses of a trace.
func read(t *testing.T, dir string) (r *Reader, all []Fetch) {
	t.Helper()
	r, stop, err := Open(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r, all
		}
		if err != nil {
			t.Fatal(err)
		}
		c := *f
		c.Pages = slices.Clone(f.Pages)
		all = append(all, c)
	}
}

func TestRecordAndRead(t *testing.T) {
	dir := t.TempDir()
	r, err := Record(Options{Dir: localfs.At(dir), Header: header()})
	if err != nil {
		t.Fatal(err)
	}
	r.Note(0, 7, []int64{0, 1, 5})
	r.Note(1, 1<<38-1, []int64{1<<26 - 1})
	r.Close()
	r.Note(0, 1, []int64{1}) // does nothing
	tr, all := read(t, dir)
	if tr.Rate() != 1 || len(tr.Header.Caches) != 2 || tr.Header.Caches[1] != header().Caches[1] {
		t.Errorf("rate %v, header %+v", tr.Rate(), tr.Header)
	}
	if len(all) != 2 || all[0].Cache != 0 || all[0].Object != 7 ||
		!slices.Equal(all[0].Pages, []int64{0, 1, 5}) || all[1].Cache != 1 ||
		all[1].Object != 1<<38-1 || !slices.Equal(all[1].Pages, []int64{1<<26 - 1}) {
		t.Errorf("got %+v", all)
	}

	// A trace that was cut off within its last record has the others.
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, all := read(t, dir); len(all) != 1 {
		t.Errorf("a cut trace has %d records, want 1", len(all))
	}
	for n := range len(b) {
		_, _ = NewReader(bytes.NewReader(b[:n])) // must not panic
	}
	if _, err := NewReader(bytes.NewReader([]byte("something else, and long enough"))); err == nil {
		t.Error("another file is a trace")
	}
}

// TestTheFileIsBounded records far more than fits. The trace then has all accesses to some pages.
func TestTheFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	const limit, pages, rounds = 1 << 20, 100_000, 25
	r, err := Record(Options{Dir: localfs.At(dir), Header: header(), MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		for object := range uint64(pages / 100) {
			var list []int64
			for no := range int64(100) {
				list = append(list, no)
			}
			r.Note(1, object, list)
			for len(r.full) == cap(r.full) { // a gateway is not that fast
				runtime.Gosched()
			}
		}
	}
	r.Close()
	is, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil || is.Size() > limit {
		t.Errorf("%d bytes, limit %d: %v", is.Size(), limit, err)
	}
	tr, all := read(t, dir)
	times := map[[2]int64]int{}
	for _, f := range all {
		for _, no := range f.Pages {
			times[[2]int64{int64(f.Object), no}]++
		}
	}
	for page, n := range times {
		if n != rounds {
			t.Fatalf("page %v: %d accesses, want all %d", page, n, rounds)
		}
	}
	got := float64(len(times)) / pages
	if rate := tr.Rate(); rate >= 1 || got < 0.9*rate || got > 1.1*rate {
		t.Errorf("%.3g of the pages at a rate of %.3g", got, rate)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
