package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// counter returns the value of a counter, given with its labels.
func (p *process) counter(name string) int {
	p.t.Helper()
	_, metrics := p.get("/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).
		FindStringSubmatch(metrics)
	if m == nil {
		p.t.Fatalf("/metrics lacks %s", name)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// indexReads is how often the process has read indexes of the bucket by now, headers apart.
func (p *process) indexReads() int {
	p.t.Helper()
	return p.counter(`larder_bucket_reads_total{kind="index"}`)
}

// dashboard asks what a dashboard asks: some matchers, with replicas removed.
func (p *process) dashboard() int {
	p.t.Helper()
	stream, err := storepb.NewStoreClient(p.rpc).Series(p.t.Context(), &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64,
		Matchers: []*storepb.LabelMatcher{
			{Name: "__name__", Value: dataset.WholeMetricName},
			{Type: storepb.LabelMatcher_RE, Name: "namespace", Value: "shop-[12]"},
		},
		WithoutReplicaLabels: []string{"replica"},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return countSeries(p.t, stream)
}

func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		p.t.Errorf("got exit code %d", code)
	}
}

// TestARestartWithADiskIsWarm: with a disk cache, a process that is started on the data directory
// of another one answers what that one was asked from memory, chunks included. It has read
// them from the disk before it is ready, and nothing from the bucket.
func TestARestartWithADiskIsWarm(t *testing.T) {
	bucket, data := folder(wideBucket(t)), t.TempDir()
	start := func() *process {
		t.Helper()
		p := startProcess(t, bucket, "--data-dir="+data, "--drain-delay=0s",
			"--disk-cache-size=100MB", "--warm.wait=1m")
		p.await("readiness changed.*ready=true")
		return p
	}
	first := start()
	want := 0
	for range 3 { // the second use keeps chunks on the disk
		want = first.dashboard()
	}
	first.stop()

	p := start()
	if seen := strings.Join(p.seen, "\n"); !strings.Contains(seen, "hot pages\" after=restart") {
		t.Error("the process is ready before it has read hot pages")
	}
	hits := func(tier string) int {
		return p.counter(`larder_pages_hits_total{kind="chunks",tier="` + tier + `"}`)
	}
	disk, memory := hits("disk"), hits("memory")
	if disk == 0 {
		t.Error("no chunks were read from the disk")
	}
	if got := p.dashboard(); got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
	if hits("disk") != disk || hits("memory") == memory {
		t.Errorf("the disk had %d pages of chunks, memory %d", hits("disk")-disk,
			hits("memory")-memory)
	}
	if n := p.counter(`larder_bucket_reads_total{kind="chunks"}`); n != 0 {
		t.Errorf("%d reads of chunks of the bucket", n)
	}
	p.stop()
}

// TestARestartIsWarm: a process that is started on the data directory of another answers what that
// one was asked without reading an index.
func TestARestartIsWarm(t *testing.T) {
	bucket, data := folder(wideBucket(t)), t.TempDir()
	start := func(args ...string) *process {
		t.Helper()
		p := startProcess(t, bucket, append(args, "--data-dir="+data, "--drain-delay=0s")...)
		p.await("readiness changed.*ready=true")
		p.next = 0 // nothing waits for the other, so their lines come in any order
		return p
	}
	first := start()
	want := first.dashboard()
	if want == 0 || first.indexReads() == 0 {
		t.Fatalf("%d series by %d reads", want, first.indexReads())
	}
	first.stop()

	// Twice: the second restart finds what the first found, without a request in between.
	for range 2 {
		p := start()
		if !strings.Contains(strings.Join(p.seen, "\n"), "msg=warmed after=restart") {
			t.Error("the process is ready before its caches are warm")
		}
		line := p.await("msg=warmed after=restart")
		if !strings.Contains(line, "matcher_sets=1 of=1 failed=0") ||
			!strings.Contains(line, `ended="all done"`) {
			t.Error(line)
		}
		before := p.indexReads()
		if got := p.dashboard(); got != want {
			t.Errorf("got %d series, want %d", got, want)
		}
		if n := p.indexReads() - before; n != 0 {
			t.Errorf("%d reads of the index after the replay", n)
		}
		p.signal(syscall.SIGKILL)
		p.exit()
	}

	// A bound of bytes that nothing fits in.
	p := start("--warm.max-bytes=1KB")
	if line := p.await("msg=warmed after=restart"); !strings.Contains(
		line, "matcher_sets=0 of=1",
	) ||
		!strings.Contains(line, `ended="byte limit"`) {
		t.Error(line)
	}
	p.stop()

	// A damaged snapshot does not prevent a start.
	if err := os.WriteFile(filepath.Join(data, "larder", "warm.snapshot"),
		[]byte("larder-warm 2 3 00000000\nabc"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = start()
	p.await("ignoring the warm snapshot.*damaged")
	if got := p.dashboard(); got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
	p.stop()

	p = start("--warm.max-time=0s")
	if _, metrics := p.get("/metrics"); strings.Contains(metrics, "larder_warm_") {
		t.Error("warming is not off")
	}
	p.stop()
}

// s3Folder serves a folder as an S3 bucket. before is called before an object is read.
func s3Folder(t *testing.T, dir string, before func(r *http.Request)) (config string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/blocks"), "/")
		if key == "" {
			var entries strings.Builder
			prefix := r.URL.Query().Get("prefix")
			// an empty listing is what a missing folder comes to
			found, _ := os.ReadDir(filepath.Join(dir, prefix))
			for _, e := range found {
				if e.IsDir() {
					fmt.Fprintf(
						&entries, "<CommonPrefixes><Prefix>%s%s/</Prefix></CommonPrefixes>", prefix,
						e.Name(),
					)
				} else {
					fmt.Fprintf(&entries, "<Contents><Key>%s%s</Key></Contents>", prefix, e.Name())
				}
			}
			_, _ = io.WriteString(
				w,
				`<?xml version="1.0"?><ListBucketResult><Name>blocks</Name><IsTruncated>false</IsTruncated>`+entries.String()+`</ListBucketResult>`,
			)
			return
		}
		before(r)
		if _, err := os.Stat(filepath.Join(dir, key)); err != nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(
				w,
				`<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>`,
			)
			return
		}
		w.Header().Set("ETag", `"1"`)
		http.ServeFile(w, r, filepath.Join(dir, key))
	}))
	t.Cleanup(s.Close)
	return "{type: S3, config: {bucket: blocks, endpoint: " + s.Listener.Addr().
		String() +
		", insecure: true, region: r, access_key: a, secret_key: s}}"
}

// TestAReplayKeepsNobodyWaiting: while the bucket does not answer a replay's reads, the process is
// ready after --warm.wait, and ends when it is told to.
func TestAReplayKeepsNobodyWaiting(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	if _, err := dataset.WholeMetric("wide", 1, wideSeries, 30_000).
		Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	var hold atomic.Bool
	reads := make(chan struct{}, 1000)
	bucket := s3Folder(t, dir, func(r *http.Request) {
		if hold.Load() && strings.HasSuffix(r.URL.Path, "/index") {
			reads <- struct{}{}
			<-r.Context().Done() // of the process that asked
		}
	})
	first := startProcess(t, bucket, "--data-dir="+data, "--drain-delay=0s")
	first.await("readiness changed.*ready=true")
	if first.dashboard() == 0 {
		t.Fatal("no series")
	}
	first.stop()

	hold.Store(true)
	second := startProcess(t, bucket, "--data-dir="+data, "--drain-delay=0s", "--warm.wait=100ms")
	second.await("ready before caches are warm")
	second.await("readiness changed.*ready=true")
	<-reads // the replay waits for the bucket
	if err := second.info(); err != nil {
		t.Error(err)
	}
	if code, _ := second.get("/-/ready"); code != http.StatusOK {
		t.Errorf("/-/ready: got %d", code)
	}
	second.metric(`larder_warm_running{after="restart"} 1`)
	second.stop()
	if log := strings.Join(second.seen, "\n"); !strings.Contains(log, `ended="process stops"`) {
		t.Error("the log does not say that the replay was ended")
	}
}

// TestACompactionIsWarm: blocks are served until what was asked of them is there for the one that
// replaces them, and no longer.
func TestACompactionIsWarm(t *testing.T) {
	dir, aside, data := t.TempDir(), t.TempDir(), t.TempDir()
	layout := dataset.WholeMetric("wide", 1, wideSeries, 30_000)
	metas, err := layout.Write(t.Context(), dir, dataset.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := &layout.Blocks[0]
	b.ID, b.Level = ulid.MustNew(metas[0].ULID.Time()+1, strings.NewReader("a compacted block")), 2
	b.Sources = []ulid.ULID{
		metas[0].ULID,
		ulid.MustNew(metas[0].ULID.Time()+1, strings.NewReader("a block that was empty")),
	}
	header := filepath.Join(data, "larder", "headers", b.ID.String()+".header")
	reads, release := make(chan struct{}, 1000), make(chan struct{})
	bucket := s3Folder(t, dir, func(r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, b.ID.String()+"/index") {
			return
		}
		if _, err := os.Stat(header); err != nil {
			return // it is being built
		}
		reads <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	p := startProcess(
		t, bucket, "--data-dir="+data, "--sync-block-duration=100ms", "--drain-delay=0s",
	)
	p.await("readiness changed.*ready=true")
	want := p.dashboard()

	if _, err := layout.Write(t.Context(), aside, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(aside, b.ID.String()),
		filepath.Join(dir, b.ID.String())); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reads: // its header is there, and it is being warmed
	case <-time.After(patience):
		t.Fatal("the new block is not warmed")
	}
	for until := p.counter("thanos_blocks_meta_syncs_total") + 3; p.counter(
		"thanos_blocks_meta_syncs_total") < until; {
		// Until syncs have seen both blocks.
	}
	if n := p.counter("thanos_bucket_store_block_drops_total"); n != 0 {
		t.Errorf("%d blocks were let go before the one that replaces them was warm", n)
	}
	close(release)
	if line := p.await("msg=warmed after=compaction"); !strings.Contains(
		line, "matcher_sets=1 of=1 failed=0",
	) ||
		!strings.Contains(line, b.ID.String()) {
		t.Error(line)
	}
	p.await("blocks changed.* gone=1")
	before := p.indexReads()
	if got := p.dashboard(); got != want {
		t.Errorf("got %d series, want %d", got, want)
	}
	if n := p.indexReads() - before; n != 0 {
		t.Errorf("%d reads of the new block's index", n)
	}
	p.stop()
}
