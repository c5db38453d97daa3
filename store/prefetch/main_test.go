package prefetch_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"larder/benchmarks/dataset"
	"larder/benchmarks/inprocess"
	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/diskcache"
	"larder/internal/extent"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/store/prefetch"
	"larder/store/storepb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// span is a read of an object.
type span struct {
	name    string
	off, to int64
}

// bucket records the ranged reads of indexes.
type bucket struct {
	objstore.Bucket
	mu    sync.Mutex
	reads []span
	// before is called before each read, which fails with its error.
	before func(name string) error
}

func (b *bucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/index") {
		b.mu.Lock()
		b.reads = append(b.reads, span{name, off, off + length})
		before := b.before
		b.mu.Unlock()
		if before != nil {
			if err := before(name); err != nil {
				return nil, err
			}
		}
	}
	return b.Bucket.GetRange(ctx, name, off, length)
}

// setBefore sets what is called before each read.
func (b *bucket) setBefore(f func(name string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.before = f
}

// take returns the reads since the last call.
func (b *bucket) take() []span {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads := b.reads
	b.reads = nil
	return reads
}

// env is a gateway with a disk cache and prefetch, in virtual time.
type env struct {
	*inprocess.Gateway
	bucket *bucket
	disk   *diskcache.Disk
	index  *diskcache.Cache
	reg    *prometheus.Registry
	from   int64
	to     int64
}

// place is a bucket and a data directory.
type place struct {
	bucket, data string
	layout       dataset.Layout
}

func write(t *testing.T, l dataset.Layout) place {
	t.Helper()
	p := place{bucket: t.TempDir(), data: t.TempDir(), layout: l}
	if _, err := l.Write(t.Context(), p.bucket, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// options change the gateway of a test.
type options struct {
	disk     func(*diskcache.DiskOptions)
	index    func(*diskcache.Options)
	prefetch func(*prefetch.Options)
	pages    pagecache.Options
	before   func(name string) error // see bucket
}

// start calls f with a gateway that has synced once.
func (p place) start(t *testing.T, o options, f func(t *testing.T, e *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fs, err := filesystem.NewBucket(p.bucket)
		if err != nil {
			t.Fatal(err)
		}
		e := &env{
			bucket: &bucket{Bucket: extent.Stating(fs)}, reg: prometheus.NewRegistry(),
			from: math.MaxInt64, to: math.MinInt64,
		}
		for _, b := range p.layout.Blocks {
			e.from, e.to = min(e.from, b.MinTime), max(e.to, b.MaxTime-1)
		}
		e.bucket.before = o.before
		do := diskcache.DiskOptions{Dir: localfs.At(p.data, "disk"), Timeout: time.Minute}
		if o.disk != nil {
			o.disk(&do)
		}
		e.disk = diskcache.OpenDisk(do)
		defer e.disk.Close()
		io := diskcache.Options{
			Kind: "index", MaxBytes: 1 << 30,
			Evicted: func(objects []bytecache.ID) { e.Prefetch.Evicted(objects) },
		}
		if o.index != nil {
			o.index(&io)
		}
		openIndex := func(pageBytes int64) bytecache.Disk {
			io.PageBytes = pageBytes
			e.index = e.disk.Open(io)
			return e.index
		}
		e.Gateway, err = inprocess.New(inprocess.Options{
			Bucket: e.bucket, Dir: p.data, Registerer: e.reg,
			Index:          indexcache.Options{MaxBytes: -1, Disk: openIndex, Pages: o.pages},
			Chunks:         chunkcache.Options{Pages: o.pages},
			SeriesSetBytes: -1, LabelAnswerBytes: -1,
			Prefetch: func(po *prefetch.Options) {
				po.MaxBytes = 1 << 30
				if o.prefetch != nil {
					o.prefetch(po)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		if err := e.Catalog.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(t, e)
	})
}

// metric returns the sum of a metric's series whose labels contain part.
func (e *env) metric(t *testing.T, name, part string) (sum float64) {
	t.Helper()
	families, err := e.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "larder_index_prefetch_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if strings.Contains(fmt.Sprint(m.GetLabel()), part) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// finish waits until no block waits.
func (e *env) finish(t *testing.T) {
	t.Helper()
	for range 100_000 {
		synctest.Wait()
		if e.metric(t, "pending_blocks", "") == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%v blocks wait for ever", e.metric(t, "pending_blocks", ""))
}

// sink is a client that reads at once.
type sink struct {
	grpc.ServerStream
	ctx    context.Context
	frames int
}

func (s *sink) Context() context.Context           { return s.ctx }
func (s *sink) Send(*storepb.SeriesResponse) error { panic("frames only") }
func (s *sink) SendMsg(any) error                  { s.frames++; return nil }

// ask asks for all series of the whole metric.
func (e *env) ask(t *testing.T) {
	t.Helper()
	e.askRange(t, e.from, e.to)
}

// askRange asks for those of a time range.
func (e *env) askRange(t *testing.T, from, to int64) {
	t.Helper()
	s := &sink{ctx: t.Context()}
	if err := e.Server.Series(&storepb.SeriesRequest{
		MinTime: from, MaxTime: to, Matchers: []*storepb.LabelMatcher{
			{Name: "__name__", Value: dataset.WholeMetricName},
		},
	}, s); err != nil {
		t.Fatal(err)
	}
	if s.frames == 0 {
		t.Fatal("no series")
	}
}

// overlap returns how many bytes were read twice.
func overlap(reads []span) (bytes int64) {
	reads = slices.Clone(reads)
	slices.SortFunc(reads, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.off, b.off))
	})
	for i := 1; i < len(reads); i++ {
		if a, b := reads[i-1], reads[i]; a.name == b.name {
			bytes += max(min(a.to, b.to)-b.off, 0)
		}
	}
	return bytes
}
