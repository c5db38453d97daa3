package catalog

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/faultstore"
	"larder/internal/localfs"
)

// run calls Run in the background until the returned function is called.
func runCatalog(t *testing.T, c *Catalog) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestABucketThatIsEmptied: blocks that an operator deletes leave some five minutes later, whatever
// the interval. Until then, a metric shows that the listing is in doubt.
func TestABucketThatIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		var ids []ulid.ULID
		for i := range uint64(10) {
			ids = append(ids, putBlock(b, i))
		}
		var log bytes.Buffer
		c := newCatalog(t, Options{
			Bucket:     b,
			Registerer: prometheus.NewRegistry(),
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
			BucketName: "blocks",
			Prefix:     "eu",
		})
		defer runCatalog(t, c)()
		check := func(when string, blocks int, pending, unlisted float64) {
			t.Helper()
			synctest.Wait()
			if got := len(c.View().Blocks); got != blocks {
				t.Errorf("%s: serving %d blocks, want %d", when, got, blocks)
			}
			p, u := testutil.ToFloat64(c.metrics.shrinkPending),
				testutil.ToFloat64(c.metrics.unlisted)
			if p != pending || u != unlisted {
				t.Errorf("%s: pending %v, unlisted %v, want %v, %v", when, p, u, pending, unlisted)
			}
		}
		check("at first", 10, 0, 0)
		for _, id := range ids[2:] {
			b.deleteBlock(id.String())
		}
		time.Sleep(17 * time.Minute) // a sync, and at most a minute and a half
		check("emptied", 10, 1, 8)
		if n := testutil.ToFloat64(
			c.metrics.contradictions.WithLabelValues(contradictionShrunk)); n == 0 {
			t.Error("no contradiction was counted")
		}
		for _, want := range []string{"lacks more than half", "known=10", "listed=2", "missing=8",
			"bucket=blocks", "prefix=eu"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		b.requests()
		time.Sleep(5 * time.Minute)
		check("five minutes later", 2, 0, 0)
		if got := b.requests(); !strings.Contains(got, "meta=8 ") {
			t.Errorf("got requests %s, want one lookup for each of 8 blocks", got)
		}
	})
}

// TestLookupsOfUnlistedBlocksAreBounded: of thousands of blocks deleted without a mark, each sync
// looks up a limited number. The others stay, and the next sync follows at once. Blocks with
// tombstones come first.
func TestLookupsOfUnlistedBlocksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, deleted = 2000, 900
		b := newTestBucket()
		var ids []ulid.ULID
		for i := range uint64(all) {
			ids = append(ids, putBlock(b, i))
		}
		c := newCatalog(t, Options{Bucket: b})
		mustSync(t, c)
		for _, id := range ids[:deleted] {
			b.deleteBlock(id.String())
		}
		missed := ids[deleted-1]
		c.Tombstone(missed)
		b.requests()
		if err := c.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := b.requests(), "list=1 meta=256 mark=0 other=0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if v := c.View(); v.ByID(missed) != nil || len(v.Blocks) != all-256 {
			t.Errorf(
				"serving %d blocks, want %d without the one that was missed", len(v.Blocks),
				all-256,
			)
		}
		stop := runCatalog(t, c)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(c.View().Blocks); n != all-deleted {
			t.Errorf("serving %d blocks, want %d", n, all-deleted)
		}
		stop()
	})
}

// TestAListingThatHidesABlockForEver: the hidden block stays, and other blocks can leave after ten
// minutes.
func TestAListingThatHidesABlockForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		gone, other := putBlock(b, 1), putBlock(b, 2)
		putBlock(b, 3)
		hidden := putBlock(b, 4)
		c := newCatalog(
			t, Options{Bucket: b, Interval: time.Minute, Registerer: prometheus.NewRegistry()},
		)
		defer runCatalog(t, c)()
		b.faults.Set(failLists(faultstore.ShortListing, 3))
		time.Sleep(12 * time.Minute)
		b.deleteBlock(gone.String())
		b.faults.Set(failLists(faultstore.ShortListing, 2))
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if v := c.View(); v.ByID(hidden) == nil || v.ByID(gone) != nil || v.ByID(other) == nil {
			t.Errorf("serving %v", v.Blocks)
		}
		if s := c.Status(); s.Err != nil {
			t.Errorf("the view is incomplete: %v", s.Err)
		}
		if n := testutil.ToFloat64(c.metrics.unlisted); n != 1 {
			t.Errorf("%v blocks unlisted, want 1", n)
		}
	})
}

// TestABucketWithoutBlocksIsLogged: it is logged once, with other names in the bucket.
func TestABucketWithoutBlocksIsLogged(t *testing.T) {
	for _, d := range []Discovery{Concurrent, Recursive} {
		b := newTestBucket()
		for _, name := range []string{"tenant-a/" + testID(1).String() + "/meta.json", "tenant-a/x",
			"readme.txt", testID(2).String()} {
			b.put(name, "x")
		}
		var log bytes.Buffer
		c := newCatalog(t, Options{
			Bucket:     b,
			Discovery:  d,
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
			BucketName: "blocks",
			Prefix:     "eu",
		})
		mustSync(t, c)
		mustSync(t, c)
		lines := strings.Count(log.String(), "no blocks in the bucket")
		if lines != 1 || !strings.Contains(log.String(), `bucket=blocks prefix=eu`) ||
			!strings.Contains(log.String(), "tenant-a/") ||
			!strings.Contains(log.String(), "readme.txt") {
			t.Errorf("%s: got %d warnings: %s", d, lines, &log)
		}
		if !c.View().Ready {
			t.Errorf("%s: not ready", d)
		}
	}
}

// TestAFinalAnswerAboutOneObject: it delays a first start for less than a minute.
func TestAFinalAnswerAboutOneObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		putBlock(b, 1)
		denied := putBlock(b, 2).String() + "/" + metaFile
		b.faults.Set(failGets(faultstore.AccessDenied, denied))
		c := newCatalog(t, Options{
			Bucket: b, Dir: localfs.At(t.TempDir()), FinalError: accessDenied,
		})
		defer runCatalog(t, c)()
		if c.View().Ready {
			t.Error("ready at once")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if v := c.View(); !v.Ready || len(v.Blocks) != 1 {
			t.Errorf("after a minute: ready %t, %d blocks", v.Ready, len(v.Blocks))
		}
	})
}
