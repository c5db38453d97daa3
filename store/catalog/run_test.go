package catalog

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/faultstore"
	"larder/internal/localfs"
)

func TestRunSyncsAtOnceAndThenAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		putBlock(b, 1)
		begun := make(chan time.Duration, 100)
		start := time.Now()
		b.onList = func(context.Context) { begun <- time.Since(start) }
		c := newCatalog(t, Options{Bucket: b, Interval: 10 * time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		synctest.Wait()
		if len(begun) != 1 || !c.View().Ready {
			t.Fatalf("got %d listings, ready %t; want one listing at once", len(begun),
				c.View().Ready)
		}
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		close(begun)
		var at []time.Duration
		for d := range begun {
			at = append(at, d)
		}
		if len(at) < 6 || len(at) > 8 {
			t.Errorf("got %d listings in an hour at an interval of 10 minutes", len(at))
		}
		distinct := map[time.Duration]bool{}
		for i := 1; i < len(at); i++ {
			d := at[i] - at[i-1]
			distinct[d] = true
			if d < 9*time.Minute || d > 11*time.Minute {
				t.Errorf("interval %v", d)
			}
		}
		if len(distinct) < 2 {
			t.Error("intervals are not spread")
		}
	})
}

// TestReselect: new rules take effect at once, in both directions, even while the bucket cannot be
// listed. Invalid rules change nothing.
func TestReselect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		first, second := putBlock(b, 1), putBlock(b, 2)
		rules := func(action string, id ulid.ULID) []*relabel.Config {
			t.Helper()
			rules, err := ParseRelabelConfig(
				[]byte(
					"[{action: " + action + ", source_labels: [__block_id], regex: " + id.String() +
						"}]",
				),
			)
			if err != nil {
				t.Fatal(err)
			}
			return rules
		}
		var dropped []ulid.ULID
		onChange := func(old, cur *View) {
			for _, blk := range old.Blocks {
				if cur.ByID(blk.ID) == nil {
					dropped = append(dropped, blk.ID)
				}
			}
		}
		c := newCatalog(t, Options{
			Bucket: b, Relabel: rules("keep", first), OnChange: onChange,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		serves := func(want ...ulid.ULID) {
			t.Helper()
			synctest.Wait()
			var got []ulid.ULID
			for _, blk := range c.View().Blocks {
				got = append(got, blk.ID)
			}
			slices.SortFunc(got, ulid.ULID.Compare)
			if !slices.Equal(got, want) {
				t.Errorf("got blocks %v, want %v", got, want)
			}
		}
		serves(first)
		start := time.Now()
		reselect := func(r []*relabel.Config) {
			t.Helper()
			if err := c.Reselect(r); err != nil {
				t.Fatal(err)
			}
		}
		reselect(rules("drop", first))
		serves(second)
		reselect(nil)
		serves(first, second)
		if err := c.Reselect([]*relabel.Config{{Action: relabel.Replace}}); err == nil {
			t.Error("accepted an action that selects nothing")
		}
		serves(first, second)
		if took := time.Since(start); took != 0 {
			t.Errorf("the rules took effect after %v", took)
		}

		b.faults.Set(failLists(faultstore.ListingError, 0))
		reselect(rules("keep", second))
		serves(second)
		reselect(rules("keep", first))
		serves(first)
		if want := []ulid.ULID{first, first, second}; !slices.Equal(dropped, want) {
			t.Errorf("got drops of %v, want %v", dropped, want)
		}
		cancel()
		<-done
	})
}

func TestRunRetriesForEverWithoutABucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		b.faults.Set(failLists(faultstore.ListingError, 0))
		var listings atomic.Int64
		b.onList = func(context.Context) { listings.Add(1) }
		c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(t.TempDir())})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		n := listings.Swap(0)
		if n < 5 || n > 12 || c.View().Ready {
			t.Errorf("%d listings in the first minute, ready %t", n, c.View().Ready)
		}
		time.Sleep(24 * time.Hour)
		if n = listings.Load(); n < 2000 || n > 4000 {
			t.Errorf("%d listings in a day, want one in about 30 s", n)
		}
		b.faults.Heal()
		putBlock(b, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if v := c.View(); !v.Ready || len(v.Blocks) != 1 {
			t.Errorf("after the outage: ready %t, %d blocks", v.Ready, len(v.Blocks))
		}
		cancel()
		<-done
	})
}

// A bucket that accepts a listing and never answers must neither delay a start with a saved
// catalog, nor block the catalog for ever.
func TestRunWithABucketThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		putBlock(b, 1)
		dir := t.TempDir()
		c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
		mustSync(t, c)

		var hang atomic.Bool
		hang.Store(true)
		b.onList = func(ctx context.Context) {
			if hang.Load() {
				<-ctx.Done()
			}
		}
		c = newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(9 * time.Second)
		if c.View().Ready {
			t.Error("ready before SavedAfter had passed")
		}
		time.Sleep(2 * time.Second)
		if v := c.View(); !v.Ready || !v.FromDisk || len(v.Blocks) != 1 {
			t.Errorf(
				"after 11 s: ready %t, from disk %t, %d blocks", v.Ready, v.FromDisk, len(v.Blocks),
			)
		}
		time.Sleep(2 * time.Minute)
		if err := c.Status().Err; !errors.Is(err, errStalled) {
			t.Errorf("got status %v, want errStalled", err)
		}
		hang.Store(false)
		time.Sleep(15 * time.Minute)
		if v := c.View(); !v.Ready || v.FromDisk {
			t.Errorf("after the bucket recovered: ready %t, from disk %t", v.Ready, v.FromDisk)
		}
		cancel()
		<-done
	})
}

func TestRefreshIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		putBlock(b, 1)
		c := newCatalog(t, Options{Bucket: b})
		mustSync(t, c)
		b.requests()
		release := make(chan struct{})
		b.onList = func(context.Context) { <-release }

		putBlock(b, 2)
		errs := make(chan error, 10)
		for range 10 {
			go func() { errs <- c.Refresh(t.Context()) }()
		}
		impatient, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Refresh(impatient); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled caller: got %v", err)
		}
		synctest.Wait()
		close(release)
		for range 10 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if got, want := b.requests(), "list=1 meta=1 mark=1 other=0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if c.View().ByID(testID(2)) == nil {
			t.Error("the new block is not in the view")
		}
		// A failure is shared for as long as a success.
		time.Sleep(10 * time.Second)
		b.faults.Set(failLists(faultstore.ListingError, 0))
		for range 2 {
			if err := c.Refresh(t.Context()); !errors.Is(err, ErrIncomplete) {
				t.Errorf("got %v, want ErrIncomplete", err)
			}
		}
		if got, want := b.requests(), "list=1 meta=0 mark=0 other=0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestRefreshOutlivesItsCaller: a refresh continues after its only caller has left. The next caller
// shares it instead of listing the bucket again.
func TestRefreshOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		c := newCatalog(t, Options{Bucket: b})
		release := make(chan struct{})
		b.onList = func(context.Context) { <-release }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("first caller: got %v, want DeadlineExceeded", err)
		}
		done := make(chan error)
		go func() { done <- c.Refresh(t.Context()) }()
		time.Sleep(time.Minute)
		close(release)
		if err := <-done; err != nil {
			t.Errorf("second caller: %v", err)
		}
		if got, want := b.requests(), "list=1 meta=0 mark=0 other=0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		c.Close()
	})
}

// A refresh counts only for losses before its begin. One that began earlier may not have seen the
// replacement.
func TestRefreshIsNewerThanTheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		first, replaced := putBlock(b, 1), putBlock(b, 2)
		c := newCatalog(t, Options{Bucket: b})
		mustSync(t, c)
		began := time.Now()
		if err := c.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		putBlock(b, 3)
		b.deleteBlock(first.String())
		c.Tombstone(first)
		if err := c.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("refreshed again after %v, want 10 s", d)
		}
		if v := c.View(); v.ByID(first) != nil || v.ByID(testID(3)) == nil {
			t.Error("the lost block is in the view, or the new one is not")
		}
		// If the replacement of a lost block is known, Refresh does not wait.
		time.Sleep(10 * time.Second)
		b.put(testID(4).String()+"/"+metaFile, compactedMeta(testID(4), testID(2), testID(3)))
		c.opts.Opened = func(ulid.ULID) bool { return false }
		if err := c.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		began = time.Now()
		c.Tombstone(replaced)
		if err := c.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 0 || c.View().ByID(replaced) != nil ||
			c.View().ByID(testID(4)) == nil {
			t.Errorf("waited %v; in the view: %v", d, c.View().Blocks)
		}
		// A caller whose context ends stops waiting.
		c.Tombstone(testID(4))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
	})
}

func TestRefreshWaitsForASyncAndTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		var hang atomic.Bool
		hang.Store(true)
		b.onList = func(ctx context.Context) {
			if hang.Load() {
				<-ctx.Done()
			}
		}
		c := newCatalog(t, Options{Bucket: b, StallTimeout: time.Minute})
		go func() {
			if err := c.Sync(t.Context()); !errors.Is(err, errStalled) {
				t.Errorf("sync: got %v, want errStalled", err)
			}
		}()
		synctest.Wait()
		began := time.Now()
		if err := c.Refresh(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("refresh: got %v, want DeadlineExceeded", err)
		}
		if d := time.Since(began); d != time.Minute {
			t.Errorf("refresh took %v, want the stall timeout", d)
		}
		synctest.Wait()
		hang.Store(false)
		mustSync(t, c)
		c.Close()
		time.Sleep(time.Minute)
		if err := c.Refresh(t.Context()); err == nil {
			t.Error("refresh after Close succeeded")
		}
	})
}

func TestSavedMarksExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		for i := range uint64(600) {
			putBlock(b, i)
		}
		dir := t.TempDir()
		f := func(wait time.Duration, want string) {
			t.Helper()
			time.Sleep(wait)
			b.requests()
			mustSync(t, newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)}))
			if got := b.requests(); got != want {
				t.Errorf("started after %v: got %s, want %s", wait, got, want)
			}
		}
		f(0, "list=1 meta=600 mark=600 other=0")
		f(0, "list=1 meta=0 mark=256 other=0")
		f(5*time.Hour, "list=1 meta=0 mark=256 other=0")
		f(6*time.Hour, "list=1 meta=0 mark=600 other=0")
	})
}
