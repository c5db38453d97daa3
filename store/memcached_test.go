package store_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"larder/benchmarks/dataset"
	"larder/internal/memcached"
	"larder/internal/memcached/memcachedtest"
	"larder/store/storepb"
)

func newMemcached(t testing.TB, addr string, timeout time.Duration) *memcached.Client {
	t.Helper()
	c, err := memcached.New(memcached.Options{Addresses: []string{addr}, Timeout: timeout, MinReadTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// flushed waits until memcached has what was set.
func flushed(t testing.TB, c *memcached.Client) {
	t.Helper()
	for c.Stats().Pending > 0 {
		if t.Context().Err() != nil {
			t.Fatal("memcached does not take what was set")
		}
		runtime.Gosched()
	}
}

// TestAnswersFromMemcached: a process that has nothing but memcached reads no page of the bucket that another process has read, and asks for
// one key a page.
func TestAnswersFromMemcached(t *testing.T) {
	server := memcachedtest.Start(t, memcachedtest.Options{Args: []string{"-m", "256"}})
	dir := t.TempDir()
	if _, err := dataset.WholeMetric("remote", 4, 5000, 30_000).Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	regex := wholeMetric(64)
	regex.Matchers = append(regex.Matchers, &storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: "pod", Value: ".*[02468]"})
	none := gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1}
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
		client := newMemcached(t, server.Addr, 30*time.Second)
		opts := none
		if process == 2 {
			opts = gatewayOptions{} // memory over memcached
		}
		opts.remote = client
		g := startGateway(t, dir, opts)
		absent := wholeMetric(0)
		absent.Matchers[0].Value = "absent"
		if _, err := g.query(context.Background(), absent); err != nil { // builds the header
			t.Fatal(err)
		}
		g.bucket.take()
		for i, req := range requests {
			a, err := g.query(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(texts[i], a.texts()); diff != "" {
				t.Fatalf("process %d (-without a cache +with memcached):\n%s", process, diff)
			}
		}
		reads, _ := g.bucket.take()
		if some := reads["index"] > 0 && reads["chunks"] > 0; some != (process == 0) || !some && len(reads) > 0 {
			t.Errorf("process %d: reads %v of the bucket", process, reads)
		}
		flushed(t, client)
		st := client.Stats()
		t.Logf("process %d: %+v", process, st)
	}
}

// TestMemcachedDoesNotMatter: killed, hanging and back again, memcached changes no answer and fails none.
func TestMemcachedDoesNotMatter(t *testing.T) {
	server := memcachedtest.Start(t, memcachedtest.Options{})
	dir := t.TempDir()
	if _, err := dataset.WholeMetric("faulty", 4, 1500, 30_000).Write(context.Background(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	plain := startGateway(t, dir, gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1})
	a, err := plain.query(context.Background(), wholeMetric(64))
	if err != nil {
		t.Fatal(err)
	}
	want := a.texts()
	g := startGateway(t, dir, gatewayOptions{indexBytes: -1, chunkBytes: -1, postingsBytes: -1, remote: newMemcached(t, server.Addr, 50*time.Millisecond)})
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
