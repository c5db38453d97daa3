package store_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"larder/benchmarks/dataset"
	"larder/internal/bytecache"
	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
	"larder/store/storepb"
)

func newMemcached(t testing.TB, addr string, timeout time.Duration) *memcached.Client {
	t.Helper()
	c, err := memcached.New(
		memcached.Options{Addresses: []string{addr}, Timeout: timeout, MinReadTimeout: timeout},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// flushed waits until memcached has stored all values.
func flushed(t testing.TB, c *memcached.Client) {
	t.Helper()
	for c.Stats().Pending > 0 {
		if t.Context().Err() != nil {
			t.Fatal("memcached does not store the values in time")
		}
		runtime.Gosched()
	}
}

// keyCounter is a memcached client that counts the requested keys.
type keyCounter struct {
	*memcached.Client
	server *memcachedtest.Server
	before map[string]int // figures of the server when counting began

	mu      sync.Mutex
	keys    map[bytecache.ID]bool
	asked   int // requested keys, with repetitions
	lookups int
}

func newKeyCounter(t testing.TB, server *memcachedtest.Server) *keyCounter {
	c := &keyCounter{Client: newMemcached(t, server.Addr, 30*time.Second), server: server}
	c.begin(t)
	return c
}

func (c *keyCounter) GetMulti(ctx context.Context, ids []bytecache.ID, values [][]byte) {
	c.mu.Lock()
	c.lookups++
	c.asked += len(ids)
	for _, id := range ids {
		c.keys[id] = true
	}
	c.mu.Unlock()
	c.Client.GetMulti(ctx, ids, values)
}

// figures returns counters of the server: requested keys, found keys, sent bytes.
func (c *keyCounter) figures(t testing.TB) map[string]int {
	t.Helper()
	all := map[string]int{}
	for name, text := range c.server.Stats(t) {
		if n, err := strconv.Atoi(text); err == nil {
			all[name] = n
		}
	}
	return all
}

// begin restarts the counters.
func (c *keyCounter) begin(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	c.keys, c.asked, c.lookups = map[bytecache.ID]bool{}, 0, 0
	c.mu.Unlock()
	c.before = c.figures(t)
}

// countedPage is the size of the pages that a keyCounter checks.
const countedPage = 8 << 10

// check compares the keys requested since begin with the pages of the files and one key of expanded
// postings. If warm is set, memcached has all of them: then the server must have found all
// requested keys, and sent little besides the pages.
func (c *keyCounter) check(t testing.TB, what string, files map[string]int, warm bool) {
	t.Helper()
	const (
		page   = countedPage
		beside = 256      // overhead of a page: protocol line and envelope
		stats  = 16 << 10 // answers to figures
	)
	pages := 0
	for _, size := range files {
		pages += (size + page - 1) / page
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.keys); n == 0 || n > pages+1 {
		t.Errorf("%s: requested %d keys, the files have %d pages", what, n, pages)
	}
	// A read may begin in the page in which the previous one ended.
	if again := c.asked - len(c.keys); again >= c.lookups {
		t.Errorf("%s: %d look-ups have asked for %d keys again", what, c.lookups, again)
	}
	now := c.figures(t)
	get, hits, sent := now["cmd_get"]-c.before["cmd_get"], now["get_hits"]-c.before["get_hits"],
		now["bytes_written"]-c.before["bytes_written"]
	if get > c.asked || warm && (get != c.asked || hits != c.asked) {
		t.Errorf("%s: memcached was asked for %d keys and had %d, larder has asked for %d",
			what, get, hits, c.asked)
	}
	if most := hits*(page+beside) + stats; sent > most {
		t.Errorf("%s: memcached has sent %d bytes for %d pages, want %d at most",
			what, sent, hits, most)
	}
}

// TestAnswersFromMemcached checks that a process with only memcached does not read pages from the
// bucket that another process has stored, and requests one key per page.
func TestAnswersFromMemcached(t *testing.T) {
	server := memcachedtest.Start(t, memcachedtest.Options{Args: []string{"-m", "256"}})
	dir := t.TempDir()
	metas, err := dataset.WholeMetric("remote", 4, 5000, 30_000).
		Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, files := blockFiles(t, dir, metas)
	regex := wholeMetric(64)
	regex.Matchers = append(regex.Matchers,
		&storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".*[02468]"})
	none := gatewayOptions{
		indexBytes: -1, chunkBytes: -1, postingsBytes: -1, pageSize: countedPage,
	}
	want := startGateway(t, dir, none)
	var texts [][]string
	requests := []*storepb.SeriesRequest{regex, wholeMetric(64)}
	for _, req := range requests {
		a, err := want.query(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, a.texts())
	}
	for process := range 3 {
		counter := newKeyCounter(t, server)
		opts := none
		if process == 2 {
			opts = gatewayOptions{pageSize: countedPage} // memory over memcached
		}
		opts.remote = counter
		g := startGateway(t, dir, opts)
		buildHeaders(t, g)
		g.bucket.take()
		for i, req := range requests {
			counter.begin(t)
			a, err := g.query(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(texts[i], a.texts()); diff != "" {
				t.Fatalf("process %d (-without a cache +with memcached):\n%s", process, diff)
			}
			flushed(t, counter.Client)
			counter.check(t, fmt.Sprintf("process %d, request %d", process, i), files, process > 0)
		}
		reads, _ := g.bucket.take()
		if some := reads["index"] > 0 && reads["chunks"] > 0; some != (process == 0) ||
			!some && len(reads) > 0 {
			t.Errorf("process %d: reads %v of the bucket", process, reads)
		}
	}
}

// buildHeaders sends a request that matches nothing, which builds the header of the block.
func buildHeaders(t testing.TB, g *gateway) {
	t.Helper()
	absent := wholeMetric(0)
	absent.Matchers[0].Value = "absent"
	if _, err := g.query(context.Background(), absent); err != nil {
		t.Fatal(err)
	}
}

// TestManyValuesCostPages checks that a regular expression over 100,000 values requests one key per
// page from memcached, not one per value.
func TestManyValuesCostPages(t *testing.T) {
	values := 100_000
	if testing.Short() {
		values = 20_000
	}
	server := memcachedtest.Start(t, memcachedtest.Options{Args: []string{"-m", "256"}})
	dir := t.TempDir()
	metas, err := dataset.ManyValues("values", 4, values).
		Write(context.Background(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, files := blockFiles(t, dir, metas)
	req := wholeMetric(64)
	req.Matchers = []*storepb.LabelMatcher{
		{Type: storepb.LabelMatcher_RE, Name: dataset.ManyValuesLabel, Value: ".+[02468ace]"},
	}
	for process := range 2 {
		counter := newKeyCounter(t, server)
		g := startGateway(t, dir, gatewayOptions{
			indexBytes: -1, chunkBytes: -1, postingsBytes: -1, pageSize: countedPage,
			remote: counter,
		})
		buildHeaders(t, g)
		counter.begin(t)
		a, err := g.query(context.Background(), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(a.series); n < values*4/10 {
			t.Fatalf("%d series have one of %d values", n, values)
		}
		flushed(t, counter.Client)
		counter.check(t, fmt.Sprintf("process %d", process), files, process > 0)
		if n := len(counter.keys); n > len(a.series)/20 {
			t.Errorf("process %d: %d keys for %d values", process, n, len(a.series))
		}
	}
}

// TestMemcachedFailuresChangeNoAnswer kills, hangs and restarts memcached. No answer may change or
// fail.
func TestMemcachedFailuresChangeNoAnswer(t *testing.T) {
	server := memcachedtest.Start(t, memcachedtest.Options{})
	dir := t.TempDir()
	if _, err := dataset.WholeMetric("faulty", 4, 1500, 30_000).
		Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	plain := startGateway(t, dir, gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1})
	a, err := plain.query(context.Background(), wholeMetric(64))
	if err != nil {
		t.Fatal(err)
	}
	want := a.texts()
	g := startGateway(t, dir, gatewayOptions{
		indexBytes:    -1,
		chunkBytes:    -1,
		postingsBytes: -1,
		remote:        newMemcached(t, server.Addr, 50*time.Millisecond),
	})
	ask := func(what string) {
		t.Helper()
		for range 3 {
			a, err := g.query(context.Background(), wholeMetric(64))
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if diff := gocmp.Diff(want, a.texts()); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", what, diff)
			}
		}
	}
	ask("at work")
	server.Pause(t)
	ask("hanging")
	server.Resume(t)
	ask("back")
	server.Flush(t)
	ask("emptied")
	server.Kill()
	ask("dead")
	server.Restart(t)
	ask("restarted")
}
