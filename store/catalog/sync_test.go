package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"go.uber.org/goleak"

	"larder/internal/faultstore"
	"larder/internal/localfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// putBlock stores the meta.json of a small block.
func putBlock(b *testBucket, n uint64) ulid.ULID {
	id := testID(n)
	b.put(id.String()+"/"+metaFile, smallMeta(id))
	return id
}

func smallMeta(id ulid.ULID) string {
	return fmt.Sprintf(
		`{"ulid": %q, "version": 1, "minTime": 0, "maxTime": 10, "compaction": {"sources": [%q]}}`,
		id, id,
	)
}

// compactedMeta returns the meta.json of a block compacted from two others.
func compactedMeta(id, a, b ulid.ULID) string {
	return strings.Replace(smallMeta(id), fmt.Sprintf("[%q]", id), fmt.Sprintf("[%q, %q]", a, b), 1)
}

func newCatalog(t *testing.T, opts Options) *Catalog {
	t.Helper()
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func mustSync(t *testing.T, c *Catalog) {
	t.Helper()
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsOfAStart(t *testing.T) {
	b := newTestBucket()
	for i := range uint64(200) {
		putBlock(b, i)
	}
	dir := t.TempDir()
	f := func(discovery Discovery, first, second, restarted string) {
		t.Helper()
		dir := filepath.Join(dir, string(discovery))
		for round := range 2 {
			c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir), Discovery: discovery})
			want := []string{first, second, second}
			if round > 0 {
				want = []string{restarted, restarted, restarted}
			}
			for i := range 3 {
				mustSync(t, c)
				if got := b.requests(); got != want[i] {
					t.Errorf(
						"%s, start %d, sync %d: got %s, want %s", discovery, round+1, i+1, got,
						want[i],
					)
				}
				if v := c.View(); len(v.Blocks) != 200 || !v.Ready {
					t.Errorf("%s: got %d blocks, ready %t", discovery, len(v.Blocks), v.Ready)
				}
			}
		}
	}
	f(
		Concurrent, "list=1 meta=200 mark=200 other=0", "list=1 meta=0 mark=200 other=0",
		"list=1 meta=0 mark=200 other=0",
	)
	f(
		Recursive, "list=1 meta=200 mark=0 other=0", "list=1 meta=0 mark=0 other=0",
		"list=1 meta=0 mark=0 other=0",
	)
}

func TestMarkRotation(t *testing.T) {
	f := func(n, perSync int) {
		t.Helper()
		b := newTestBucket()
		for i := range n {
			putBlock(b, uint64(i))
		}
		c := newCatalog(t, Options{Bucket: b})
		mustSync(t, c)
		if got, want := b.requests(), fmt.Sprintf("list=1 meta=%d mark=%d other=0", n,
			n); got != want {
			t.Fatalf("first sync of %d: got %s, want %s", n, got, want)
		}
		var mu sync.Mutex
		lookups := map[string]int{}
		b.onGet = func(_ context.Context, name string) {
			mu.Lock()
			defer mu.Unlock()
			lookups[name]++
		}
		rounds := (n + perSync - 1) / perSync
		for range rounds {
			mustSync(t, c)
			if got, want := b.requests(), fmt.Sprintf("list=1 meta=0 mark=%d other=0",
				perSync); got != want {
				t.Fatalf("sync of %d: got %s, want %s", n, got, want)
			}
		}
		if len(lookups) != n {
			t.Errorf(
				"%d syncs of %d blocks looked up %d marks, want all", rounds, n, len(lookups),
			)
		}
		// A failed mark is looked up again before other marks have their second turn, within the
		// budget.
		b.faults.Set(failGets(faultstore.ServerError, "*/"+markFile))
		mustSync(t, c)
		if got, want := b.requests(), fmt.Sprintf("list=1 meta=0 mark=%d other=0",
			perSync); got != want {
			t.Errorf("failing sync of %d: got %s, want %s", n, got, want)
		}
	}
	f(300, 256)
	f(2048, 256)
	f(2400, 300)
}

func TestMarkOfUnknownStateComesFirst(t *testing.T) {
	b := newTestBucket()
	for i := range uint64(600) {
		putBlock(b, i)
	}
	c := newCatalog(t, Options{Bucket: b})
	mustSync(t, c)
	late := putBlock(b, 10_000)
	b.faults.Set(failGets(faultstore.ServerError, late.String()+"/"+markFile))
	mustSync(t, c)
	b.faults.Heal()
	b.put(late.String()+"/"+markFile, `{"version": 1, "deletion_time": 5}`)
	if c.View().ByID(late) == nil {
		t.Fatal("a new block whose mark cannot be read is not served")
	}
	mustSync(t, c)
	if c.View().ByID(late) != nil {
		t.Error("the mark that could not be read was not looked up by the next sync")
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	b := newTestBucket()
	for i := range uint64(100) {
		putBlock(b, i)
	}
	var running, most atomic.Int64
	b.onGet = func(context.Context, string) {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
	}
	c := newCatalog(t, Options{Bucket: b, Concurrency: 3})
	mustSync(t, c)
	if most.Load() > 3 {
		t.Errorf("got %d concurrent reads, want at most 3", most.Load())
	}
}

// TestConcurrentUse runs tombstones, syncs, refreshes and readers at once, for -race. OnChange must
// receive the views as a chain.
func TestConcurrentUse(t *testing.T) {
	b := newTestBucket()
	for i := range uint64(50) {
		putBlock(b, i)
	}
	var last *View
	c := newCatalog(t, Options{
		Bucket:       b,
		Dir:          localfs.At(t.TempDir()),
		RefreshEvery: time.Nanosecond,
		OnChange: func(old, new *View) {
			if last != nil && old != last {
				t.Error("OnChange skipped a view")
			}
			last = new
		},
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 30 {
				switch g {
				case 0:
					mustSync(t, c)
				case 1:
					if err := c.Refresh(t.Context()); err != nil {
						t.Error(err)
					}
				case 2:
					c.Tombstone(testID(uint64(i)))
				case 3:
					v := c.View()
					for _, s := range v.Sets {
						v.Choose(s, 0, 100, 0, nil)
					}
					c.Status()
				}
			}
		})
	}
	wg.Wait()
	mustSync(t, c)
	if n := len(c.View().Blocks); n != 50 {
		t.Errorf("got %d blocks at the end, want 50", n)
	}
}

// A sync does not remove a tombstone that was set while it ran, even if it was set before too: the
// listing may be older than the loss.
func TestTombstoneDuringASync(t *testing.T) {
	b := newTestBucket()
	id := putBlock(b, 1)
	c := newCatalog(t, Options{Bucket: b})
	mustSync(t, c)
	for _, before := range []bool{false, true} {
		if before {
			c.Tombstone(id)
		}
		b.onList = func(context.Context) { c.Tombstone(id) }
		mustSync(t, c)
		b.onList = nil
		b.requests()
		mustSync(t, c)
		if got, want := b.requests(), "list=1 meta=1 mark=1 other=0"; got != want {
			t.Errorf(
				"tombstone before the sync too %v: the next sync made %s, want %s", before, got,
				want,
			)
		}
		mustSync(t, c)
		if got, want := b.requests(), "list=1 meta=0 mark=1 other=0"; got != want {
			t.Errorf(
				"tombstone before the sync too %v: the one after that made %s, want %s", before,
				got, want,
			)
		}
	}
}

// TestListingEndsWithoutAnError: if a client ends a listing without an error when its context ends,
// the listing is incomplete.
func TestListingEndsWithoutAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newTestBucket()
		id := putBlock(b, 1)
		b.silent = true
		for _, d := range []Discovery{Concurrent, Recursive} {
			c := newCatalog(t, Options{Bucket: b, Discovery: d})
			b.onList = nil
			mustSync(t, c)
			b.onList = func(ctx context.Context) { <-ctx.Done() }
			if err := c.Sync(t.Context()); !errors.Is(err, errStalled) {
				t.Errorf("%s: got %v, want errStalled", d, err)
			}
			if c.View().ByID(id) == nil {
				t.Errorf("%s: the block left the view", d)
			}
			c.Close()
		}
	})
}

func TestPanicIsAnError(t *testing.T) {
	b := newTestBucket()
	putBlock(b, 1)
	bad := putBlock(b, 2)
	b.onGet = func(_ context.Context, name string) {
		if strings.HasPrefix(name, bad.String()) {
			panic("boom")
		}
	}
	c := newCatalog(t, Options{Bucket: b})
	if err := c.Sync(t.Context()); !errors.Is(err, ErrIncomplete) ||
		!strings.Contains(err.Error(), "boom") {
		t.Errorf("panic in a read: got %v", err)
	}
	b.onGet = nil
	b.onList = func(context.Context) { panic("bang") }
	if err := c.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "bang") {
		t.Errorf("panic in a listing: got %v", err)
	}
	b.onList = nil
	mustSync(t, c) // the turn was given back
}

func TestCanceledSyncPublishesNothing(t *testing.T) {
	b := newTestBucket()
	id := putBlock(b, 1)
	putBlock(b, 2)
	reg := prometheus.NewRegistry()
	c := newCatalog(t, Options{Bucket: b, Concurrency: 1, Registerer: reg})
	ctx, cancel := context.WithCancel(t.Context())
	b.onGet = func(_ context.Context, name string) {
		if strings.HasPrefix(name, id.String()) {
			cancel()
		}
	}
	if err := c.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	if v := c.View(); v.Ready || len(v.Blocks) > 0 {
		t.Errorf("got a view of %d blocks, ready %t", len(v.Blocks), v.Ready)
	}
	if n := testutil.ToFloat64(c.metrics.syncFailures); n != 0 {
		t.Errorf("a shutdown counted %v failures", n)
	}
}

func TestNumbersRunOut(t *testing.T) {
	n := newNumbers()
	n.next = MaxNumber
	var got []uint32
	for i := range uint64(3) {
		got = append(got, n.block(Block{ID: testID(i), Content: i}).Number)
	}
	if diff := cmp.Diff([]uint32{MaxNumber, MaxNumber + 1, MaxNumber + 1}, got); diff != "" ||
		!n.exhausted() {
		t.Errorf("exhausted %t, numbers (-want +got)\n%s", n.exhausted(), diff)
	}
}

func TestLocalFiles(t *testing.T) {
	dir := t.TempDir()
	b := newTestBucket()
	id := putBlock(b, 1)
	c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
	mustSync(t, c)
	b.requests()

	path := filepath.Join(dir, "meta", id.String()+".json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := metaFormat().Seal([]byte(smallMeta(id))); string(good) != string(want) {
		t.Errorf("got %q, want %q", good, want)
	}
	// After any damage the document is read from the bucket, and the copy is replaced.
	for name, content := range map[string][]byte{
		"empty":   nil,
		"cut":     good[:len(good)-1],
		"longer":  append(append([]byte{}, good...), ' '),
		"changed": []byte(strings.Replace(string(good), "10", "11", 1)),
		"no line": []byte(smallMeta(id)),
		"other version": []byte(strings.Replace(string(good), "larder-meta 1", "larder-meta 2",
			1)),
		"other kind":        savedFormat().Seal([]byte(smallMeta(id))),
		"another block's":   metaFormat().Seal([]byte(smallMeta(testID(2)))),
		"zeros after crash": make([]byte, len(good)),
	} {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		c := newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
		mustSync(t, c)
		if got, want := b.requests(), "list=1 meta=1 mark=1 other=0"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got := testutil.ToFloat64(c.metrics.damagedCopies); got < 1 {
			t.Errorf("%s: not counted as damaged", name)
		}
		if again, err := os.ReadFile(path); err != nil || string(again) != string(good) {
			t.Errorf("%s: the copy was not replaced: %q, %v", name, again, err)
		}
	}

	// Unfinished files of a killed process are removed. Files of other programs stay.
	for _, name := range []string{"meta/x.json.tmp-123", "catalog.json.tmp-9", "meta/notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	others := []ulid.ULID{putBlock(b, 2), putBlock(b, 3)}
	mustSync(t, newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)}))
	b.deleteBlock(id.String())
	c = newCatalog(t, Options{Bucket: b, Dir: localfs.At(dir)})
	mustSync(t, c)
	var left []string
	for _, pattern := range []string{"*", "meta/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, rel)
		}
	}
	if diff := cmp.Diff([]string{"catalog.json", "meta", "meta/" + others[0].String() + ".json",
		"meta/" + others[1].String() + ".json", "meta/notes.txt"}, left); diff != "" {
		t.Errorf("files left (-want +got)\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	b := newTestBucket()
	f := func(opts Options, want string) {
		t.Helper()
		if _, err := New(opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	f(Options{}, "no bucket")
	f(Options{Bucket: b, Discovery: "x"}, `unknown block discovery strategy "x"`)
	f(Options{Bucket: b, Interval: -1}, "interval -1ns is negative")
	f(Options{Bucket: b, Concurrency: -1}, "concurrency -1 is negative")
}

// TestRealBuckets runs the catalog on objstore's own buckets: instrumented, prefixed, on a file
// system.
func TestRealBuckets(t *testing.T) {
	fs, err := filesystem.NewBucket(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	id := testID(7)
	for name, content := range map[string]string{
		id.String() + "/" + metaFile:         smallMeta(id),
		id.String() + "/chunks/000001":       "x",
		id.String() + "/index":               "x",
		testID(8).String() + "/index":        "x",
		testID(9).String():                   "a file with a block's name",
		"debug/metas/" + id.String() + ".js": "x",
		"01arz3ndektsv4rrffq69g5fav/x":       "lower case",
	} {
		if err := fs.Upload(ctx, "tenant/"+name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []Discovery{Concurrent, Recursive} {
		for _, bucket := range []Bucket{
			objstore.NewPrefixedBucket(objstore.WrapWithMetrics(fs, prometheus.NewRegistry(),
				"test"), "tenant"),
			objstore.WrapWithMetrics(objstore.NewPrefixedBucket(fs, "tenant"),
				prometheus.NewRegistry(), "test"),
		} {
			c := newCatalog(t, Options{Bucket: bucket, Discovery: d})
			for range 2 {
				mustSync(t, c)
			}
			if v := c.View(); len(v.Blocks) != 1 || v.Blocks[0].ID != id {
				t.Errorf("%s: got %v", d, v.Blocks)
			}
			if s := c.Status(); len(s.Broken) != 1 || s.Broken[0].State != stateNoMeta {
				t.Errorf("%s: got broken %+v", d, s.Broken)
			}
		}
	}
}

func TestMissingMarksAreNotFailuresOfTheBucket(t *testing.T) {
	b := newTestBucket()
	putBlock(b, 1)
	reg := prometheus.NewRegistry()
	c := newCatalog(t, Options{Bucket: objstore.WrapWithMetrics(b, reg, "test")})
	mustSync(t, c)
	want := `
# HELP objstore_bucket_operation_failures_total Total number of operations against a bucket that failed, but were not expected to fail in certain way from caller perspective. Those errors have to be investigated.
# TYPE objstore_bucket_operation_failures_total counter
objstore_bucket_operation_failures_total{bucket="test",operation="attributes"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="delete"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="exists"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="get"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="get_range"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="iter"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="upload"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"objstore_bucket_operation_failures_total"); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	b := newTestBucket()
	putBlock(b, 1)
	b.put(testID(2).String()+"/index", "x")
	reg := prometheus.NewRegistry()
	c := newCatalog(t, Options{Bucket: b, Registerer: reg, ConsistencyDelay: 30 * time.Second})
	mustSync(t, c)
	c.Tombstone(testID(1))
	want := `
# HELP larder_catalog_blocks Number of blocks in the view.
# TYPE larder_catalog_blocks gauge
larder_catalog_blocks 1
# HELP larder_catalog_complete 1 if the last sync or refresh was complete, else 0.
# TYPE larder_catalog_complete gauge
larder_catalog_complete 1
# HELP larder_catalog_meta_reads_total Total number of requests for a meta.json, by outcome.
# TYPE larder_catalog_meta_reads_total counter
larder_catalog_meta_reads_total{outcome="broken"} 0
larder_catalog_meta_reads_total{outcome="failed"} 0
larder_catalog_meta_reads_total{outcome="missing"} 2
larder_catalog_meta_reads_total{outcome="ok"} 1
# HELP larder_catalog_tombstoned_blocks Number of blocks with a missing object, until the next complete view.
# TYPE larder_catalog_tombstoned_blocks gauge
larder_catalog_tombstoned_blocks 1
# HELP thanos_blocks_meta_modified Always 0, because a store does not change the meta.json files that it reads.
# TYPE thanos_blocks_meta_modified gauge
thanos_blocks_meta_modified{modified="replica-label-removed"} 0
# HELP thanos_blocks_meta_synced Number of listed blocks in the last sync, by state.
# TYPE thanos_blocks_meta_synced gauge
thanos_blocks_meta_synced{state="corrupted-meta-json"} 0
thanos_blocks_meta_synced{state="duplicate"} 0
thanos_blocks_meta_synced{state="failed"} 0
thanos_blocks_meta_synced{state="label-excluded"} 0
thanos_blocks_meta_synced{state="loaded"} 1
thanos_blocks_meta_synced{state="marked-for-deletion"} 0
thanos_blocks_meta_synced{state="marked-for-no-compact"} 0
thanos_blocks_meta_synced{state="no-meta-json"} 1
thanos_blocks_meta_synced{state="parquet-converted"} 0
thanos_blocks_meta_synced{state="parquet-migrated"} 0
thanos_blocks_meta_synced{state="time-excluded"} 0
thanos_blocks_meta_synced{state="too-fresh"} 0
# HELP thanos_blocks_meta_syncs_total Total number of started syncs.
# TYPE thanos_blocks_meta_syncs_total counter
thanos_blocks_meta_syncs_total 1
# HELP thanos_consistency_delay_seconds The configured consistency delay.
# TYPE thanos_consistency_delay_seconds gauge
thanos_consistency_delay_seconds 30
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "larder_catalog_blocks",
		"larder_catalog_complete",
		"larder_catalog_meta_reads_total", "larder_catalog_tombstoned_blocks",
		"thanos_blocks_meta_modified",
		"thanos_blocks_meta_synced", "thanos_blocks_meta_syncs_total",
		"thanos_consistency_delay_seconds"); err != nil {
		t.Error(err)
	}
}

// A goroutine that removes a block from the view does not wait for calls of OnChange by others. The
// calls are in order.
func TestOnChangeIsCalledWithoutALock(t *testing.T) {
	b := newTestBucket()
	first, second := putBlock(b, 1), putBlock(b, 2)
	var c *Catalog
	var told []int // blocks in each new view
	entered, leave := make(chan struct{}), make(chan struct{})
	c = newCatalog(t, Options{
		Bucket: b,
		Opened: func(ulid.ULID) bool { return false },
		OnChange: func(_, cur *View) {
			switch told = append(told, len(cur.Blocks)); len(told) {
			case 3:
				close(entered)
				<-leave
				c.Status()
			case 4:
				panic("boom")
			}
		},
	})
	mustSync(t, c)
	b.put(testID(3).String()+"/"+metaFile, compactedMeta(testID(3), first, second))
	mustSync(t, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Tombstone(first)
	}()
	<-entered
	c.Tombstone(second)
	close(leave)
	<-done // a panic of OnChange does not reach the caller
	putBlock(b, 4)
	mustSync(t, c) // the panic does not silence what comes after it
	if want := []int{2, 3, 2, 1, 2}; !slices.Equal(told, want) {
		t.Errorf("OnChange got views of %v blocks, want %v", told, want)
	}
}

// A broken mark is logged once, and again only if it was valid in between.
func TestABrokenMarkIsLoggedOnce(t *testing.T) {
	for _, d := range []Discovery{Concurrent, Recursive} {
		b := newTestBucket()
		b.noTimes = true
		id := testID(1)
		b.put(id.String()+"/"+metaFile, smallMeta(id))
		var log bytes.Buffer
		c := newCatalog(
			t, Options{Bucket: b, Discovery: d, Logger: slog.New(slog.NewTextHandler(&log, nil))},
		)
		warned := func(step string, want int) {
			t.Helper()
			mustSync(t, c)
			mustSync(t, c)
			if got := strings.Count(log.String(), "deletion mark is not usable"); got != want {
				t.Errorf("%s: %s: got %d warnings, want %d", d, step, got, want)
			}
		}
		b.put(id.String()+"/"+markFile, "{")
		warned("broken", 1)
		b.put(
			id.String()+"/"+markFile,
			fmt.Sprintf(`{"version": 1, "deletion_time": %d}`, time.Now().Unix()),
		)
		mustSync(t, c)
		warned("whole", 1)
		b.put(id.String()+"/"+markFile, "{")
		// without times, a listing does not show that a mark has changed
		if d == Concurrent {
			warned("broken again", 2)
		}
	}
}
