package warm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/store/catalog"
)

// fakePages is a cache of pages of 8 KiB.
type fakePages []pagecache.Resident

func (fakePages) PageSize() int { return 8 << 10 }

func (p fakePages) EachResident(f func(pagecache.Resident)) {
	for _, r := range p {
		f(r)
	}
}

// TestHotPagesAreHandedOver: the new owner reads the pages that the former one has in memory, those
// that it used again first, within its bytes. The block counts as warm afterwards.
func TestHotPagesAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moved, stays := blockOf(1), blockOf(2)
		moved.Number, stays.Number = 7, 8
		former := newBed(t, Options{
			Index: fakePages{{Block: 7, Page: 3}, {Block: 8, Page: 1, Asked: true}},
			Chunks: fakePages{
				{Block: 7, File: 2, Page: 9, Asked: true},
				{Block: 7, File: 1, Page: 6, Asked: true}, {Block: 7, File: 1, Page: 1},
				{Block: 7, File: 1, Page: 5, Asked: true}, {Block: 9, File: 1, Page: 5},
			},
		})
		former.ViewChanged(view(), view(moved, stays))
		heat := former.Heat([]ulid.ULID{moved.ID})
		takeOver := func(maxBytes int64) (w *bed, read []string) {
			w = newBed(t, Options{MaxBytes: maxBytes})
			w.TakeOver([]*catalog.Block{moved},
				func(context.Context) ([]byte, error) { return heat, nil })
			w.ViewChanged(view(), view(moved))
			synctest.Wait()
			skipped := testutil.ToFloat64(w.metrics.pageReads.WithLabelValues(pageSkipped))
			if n := len(w.store.pages); skipped != float64(4-n) || !w.Warmed(moved.ID) {
				t.Errorf("%d reads, %v were skipped; warm %t", n, skipped, w.Warmed(moved.ID))
			}
			return w, w.store.pages
		}
		const p = 8 << 10
		_, got := takeOver(1 << 20)
		want := []string{
			fmt.Sprintf("1/0 [{%d %d}] false", 3*p, 4*p),
			fmt.Sprintf("1/1 [{%d %d}] false", 1*p, 2*p),
			fmt.Sprintf("1/1 [{%d %d}] true", 5*p, 7*p),
			fmt.Sprintf("1/2 [{%d %d}] true", 9*p, 10*p),
		}
		slices.Sort(got) // two reads run at the same time
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		w, got := takeOver(3 * p)
		n := testutil.ToFloat64(w.metrics.bytes.WithLabelValues(afterHandOver))
		if len(got) == 4 || n == 0 || n > 3*p {
			t.Errorf("read %v, %v bytes, the limit is %d", got, n, 3*p)
		}
		_, pages, _ := decodeHeat(heat)
		var order []string
		for _, f := range pages {
			order = append(order, fmt.Sprintf("%d %t", f.file, f.asked))
		}
		if diff := cmp.Diff([]string{"1 true", "2 true", "0 false", "1 false"}, order); diff != "" {
			t.Errorf("order: %s", diff)
		}
	})
}

// TestHotPagesSurviveARestart: with a disk, a process reads the pages that memory had when the
// former one saved its snapshot, from the disk only, and before it counts as started. Without a
// disk it neither saves nor reads them. A process that stops before it has read them leaves the
// file as it is.
func TestHotPagesSurviveARestart(t *testing.T) {
	const p = 8 << 10
	want := []string{
		fmt.Sprintf("1/0 [{%d %d}] false disk", 6*p, 7*p),
		fmt.Sprintf("1/1 [{%d %d}] true disk", 3*p, 5*p),
	}
	f := func(name string, disk, damaged bool, want []string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			dir := localfs.At(t.TempDir())
			one, gone := blockOf(1), blockOf(2)
			one.Number, gone.Number = 7, 8
			run := func(served *catalog.View, held bool, index, chunks fakePages) *bed {
				w := newBed(t, Options{
					Dir: dir, HasDisk: disk, Index: index, Chunks: chunks, MaxTime: time.Minute,
				})
				if held {
					w.store.hold = func(ctx context.Context, _ string) (bool, error) {
						<-ctx.Done()
						return false, ctx.Err()
					}
				}
				w.ViewChanged(view(), served)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { w.Run(ctx); close(ended) }()
				synctest.Wait()
				ask(w.opts.Recorder, 2, "x", one)
				cancel()
				<-ended
				return w
			}
			run(view(one, gone), false, fakePages{{Block: 7, Page: 6}}, fakePages{
				{Block: 7, File: 1, Page: 4, Asked: true}, {Block: 8, File: 1, Page: 1},
				{Block: 7, File: 1, Page: 3, Asked: true},
			})
			if damaged {
				if err := writeHotPages(dir, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			run(view(one), true, nil, nil)
			w := run(view(one), false, nil, nil)
			slices.Sort(w.store.pages) // two reads run at the same time
			if diff := cmp.Diff(want, w.store.pages); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			ignored := strings.Contains(w.log.String(), "ignoring the warm snapshot")
			if ignored != damaged {
				t.Errorf("%s: log:\n%s", name, w.log)
			}
		})
	}
	f("a disk", true, false, want)
	f("a damaged file", true, true, nil)
	f("no disk", false, false, nil)
}

// TestReadsOfPagesAreSmall: a long run of pages is divided.
func TestReadsOfPagesAreSmall(t *testing.T) {
	b := blockOf(1)
	got := readsOf([]filePages{
		{id: b.ID, file: 1, spans: []pagecache.Span{{Off: 0, End: 100}, {Off: 200, End: 600_000}}},
		{id: blockOf(2).ID, file: 1, spans: []pagecache.Span{{Off: 0, End: 100}}},
	}, view(b).ByID, false)
	var spans [][]pagecache.Span
	for _, r := range got {
		spans = append(spans, r.spans)
	}
	want := [][]pagecache.Span{
		{{Off: 0, End: 100}, {Off: 200, End: readAtOnce + 100}},
		{{Off: readAtOnce + 100, End: 2*readAtOnce + 100}},
		{{Off: 2*readAtOnce + 100, End: 600_000}},
	}
	if diff := cmp.Diff(want, spans); diff != "" {
		t.Error(diff)
	}
}

// TestHeatIsBounded: a cache of any size makes a Heat that the other side accepts.
func TestHeatIsBounded(t *testing.T) {
	b := blockOf(1)
	b.Number = 1
	var scattered fakePages
	for page := range int64(maxHeatPages) + 100 {
		scattered = append(scattered, pagecache.Resident{Block: 1, File: 1, Page: 200 * page})
	}
	w := newBed(t, Options{Chunks: scattered})
	w.ViewChanged(view(), view(b))
	heat := w.Heat([]ulid.ULID{b.ID})
	_, pages, ok := decodeHeat(heat)
	if !ok || len(pages) != 1 || len(pages[0].spans) != maxHeatPages ||
		len(heat) > MaxHeatBytes {
		t.Fatalf("%d bytes, ok %t, %d files", len(heat), ok, len(pages))
	}
}

// checkSpans decodes a Heat, and checks that addresses ascend and are in bounds.
func checkSpans(t *testing.T, payload []byte) {
	t.Helper()
	_, pages, ok := decodeHeat(payload)
	for _, f := range pages {
		last := int64(0)
		for _, s := range f.spans {
			if ok && (s.Off < last || s.End <= s.Off || s.End > maxPageNumber<<20) {
				t.Fatalf("span %v of %x", s, payload)
			}
			last = s.End
		}
	}
}

// FuzzHeat: no payload is accepted with addresses out of bounds.
func FuzzHeat(f *testing.F) {
	sets, _ := filled("x").encode(nil)
	heat := append(binary.AppendUvarint(nil, uint64(len(sets))), sets...)
	f.Add(append(heat, encodePages([]pageSet{
		{file: 1, asked: true, pageSize: 8 << 10, pages: []int64{6, 7, 9}},
		{file: 0, pageSize: 16 << 10, pages: []int64{1}},
	})...))
	f.Fuzz(func(t *testing.T, payload []byte) { checkSpans(t, payload) })
}

// TestNonsenseIsNoHeat: no cut or changed payload is accepted with addresses out of bounds.
func TestNonsenseIsNoHeat(t *testing.T) {
	b := blockOf(1)
	b.Number = 1
	w := newBed(t, Options{Chunks: fakePages{
		{Block: 1, File: 1, Page: 6, Asked: true}, {Block: 1, File: 3, Page: 1},
	}})
	ask(w.opts.Recorder, 3, "x", b)
	w.ViewChanged(view(), view(b))
	heat := w.Heat([]ulid.ULID{b.ID})
	if _, pages, ok := decodeHeat(heat); !ok || len(pages) != 2 {
		t.Fatalf("ok %t, %d files", ok, len(pages))
	}
	for i := range heat {
		checkSpans(t, heat[:i])
		for bit := range 8 {
			changed := append([]byte(nil), heat...)
			changed[i] ^= 1 << bit
			checkSpans(t, changed)
		}
	}
}

// TestReadingHotPagesIsBounded: reads that the store refuses, because requests come first, delay
// the block at most for the time limit.
func TestReadingHotPagesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := blockOf(1)
		b.Number = 1
		former := newBed(t, Options{Chunks: fakePages{{Block: 1, File: 1, Page: 6, Asked: true}}})
		former.ViewChanged(view(), view(b))
		w := newBed(t, Options{MaxTime: time.Minute})
		w.store.busy = true
		w.TakeOver([]*catalog.Block{b}, func(context.Context) ([]byte, error) {
			return former.Heat([]ulid.ULID{b.ID}), nil
		})
		w.ViewChanged(view(), view(b))
		time.Sleep(time.Minute - time.Millisecond)
		if w.Warmed(b.ID) {
			t.Error("warm too early")
		}
		time.Sleep(2 * time.Millisecond)
		if !w.Warmed(b.ID) || len(w.store.pages) > 0 {
			t.Error("not warm after the time limit")
		}
	})
}

// TestPagesThatCannotBeRead: they are skipped, and the others read.
func TestPagesThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, gone := blockOf(1), blockOf(2)
		w := newBed(t, Options{})
		w.ViewChanged(view(), view(b))
		spans := []pagecache.Span{{Off: 0, End: 100}}
		w.readPages(t.Context(), afterHandOver, []pageReads{
			{block: gone, file: 1, spans: spans}, {block: b, file: 1, spans: spans},
		}, newBudget(1<<20))
		if diff := cmp.Diff([]string{"1/1 [{0 100}] false"}, w.store.pages); diff != "" {
			t.Error(diff)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("away"))
		reads := []pageReads{{block: b, file: 1, spans: spans}}
		w.readPages(ctx, afterHandOver, reads, newBudget(1<<20))
		if len(w.store.pages) != 1 {
			t.Error("read after the end")
		}
	})
}
