package store_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/benchmarks/inprocess"
	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bytecache"
	"larder/internal/diskcache"
	"larder/internal/extent"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// countedBucket counts the ranged reads of a bucket by kind of object. Tests may observe, change or
// fail them with onRead.
type countedBucket struct {
	objstore.Bucket

	mu     sync.Mutex
	counts map[string]int
	bytes  map[string]int64
	// onRead, if set, may replace the body of a ranged read or fail it.
	onRead func(name string, off, length int64, body io.ReadCloser) (io.ReadCloser, error)
}

func objectKind(name string) string {
	switch {
	case strings.HasSuffix(name, "/index"):
		return "index"
	case strings.Contains(name, "/chunks/"):
		return "chunks"
	}
	return "other"
}

func (b *countedBucket) GetRange(
	ctx context.Context, name string, off, length int64,
) (io.ReadCloser, error) {
	b.mu.Lock()
	b.counts[objectKind(name)]++
	b.bytes[objectKind(name)] += length
	onRead := b.onRead
	b.mu.Unlock()
	body, err := b.Bucket.GetRange(ctx, name, off, length)
	if err == nil && onRead != nil {
		return onRead(name, off, length, body)
	}
	return body, err
}

// take returns the counts since the last call, and restarts them.
func (b *countedBucket) take() (counts map[string]int, bytes map[string]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts, bytes = b.counts, b.bytes
	b.counts, b.bytes = map[string]int{}, map[string]int64{}
	return counts, bytes
}

func (b *countedBucket) setOnRead(
	f func(string, int64, int64, io.ReadCloser) (io.ReadCloser, error),
) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onRead = f
}

// gateway is a gateway over a folder of blocks, and a client of it.
type gateway struct {
	*inprocess.Gateway
	client storepb.StoreClient
	info   storepb.InfoClient
	bucket *countedBucket
	reg    *prometheus.Registry
	dir    string // data directory
}

// gatewayOptions change the gateway that startGateway returns.
type gatewayOptions struct {
	server     func(*store.Options)
	indexBytes int64
	setBytes   int64
	chunkBytes int64
	// postingsBytes bounds the cache of expanded postings.
	postingsBytes int64
	// oneAhead makes answers read their chunks in several rounds, between which tests interfere.
	oneAhead bool
	// remote is a cache outside of the process for pages and postings; nil for none.
	remote bytecache.Remote
	// disk keeps pages; nil for none.
	disk     *diskcache.Disk
	pageSize int
	logger   *slog.Logger
	// refreshEvery is the RefreshEvery of the catalog.
	refreshEvery time.Duration
	discovery    catalog.Discovery
	// wrap decorates the bucket; nil does not.
	wrap func(objstore.Bucket) objstore.Bucket
	// firstSync replaces the first sync; nil syncs once, which must succeed.
	firstSync func(g *gateway) error
	// pages are options for pages of index and chunks. pageSize replaces their PageSize.
	pages pagecache.Options
	// headers changes the options of the index headers.
	headers func(*indexheader.Options)
	// viewChanged is called after the gateway was told of a view.
	viewChanged func(g *gateway, old, cur *catalog.View)
	// grpc are options of the server.
	grpc []grpc.ServerOption
	// dataDir is the data directory; default: one of its own.
	dataDir string
}

func startGateway(t testing.TB, bucketDir string, opts gatewayOptions) *gateway {
	t.Helper()
	fs, err := filesystem.NewBucket(bucketDir)
	if err != nil {
		t.Fatal(err)
	}
	bucket := extent.Stating(fs)
	if opts.wrap != nil {
		bucket = opts.wrap(bucket)
	}
	g := &gateway{
		bucket: &countedBucket{Bucket: bucket, counts: map[string]int{}, bytes: map[string]int64{}},
		reg:    prometheus.NewRegistry(),
		dir:    opts.dataDir,
	}
	if g.dir == "" {
		g.dir = t.TempDir()
	}
	opts.pages.PageSize = opts.pageSize
	var indexDisk, chunkDisk func(pageBytes int64) bytecache.Disk
	if opts.disk != nil {
		indexDisk = func(n int64) bytecache.Disk {
			return opts.disk.Open(diskcache.Options{Kind: "index", PageBytes: n})
		}
		chunkDisk = func(n int64) bytecache.Disk {
			return opts.disk.Open(diskcache.Options{Kind: "chunks", PageBytes: n, SecondUse: true})
		}
	}
	g.Gateway, err = inprocess.New(inprocess.Options{
		Bucket: g.bucket, Dir: g.dir, Registerer: g.reg, Headers: opts.headers,
		Index: indexcache.Options{
			MaxBytes: opts.indexBytes, PostingsBytes: opts.postingsBytes,
			Disk: indexDisk, Remote: opts.remote, Pages: opts.pages,
		},
		SeriesSetBytes: opts.setBytes,
		Chunks: chunkcache.Options{
			MaxBytes: opts.chunkBytes, Disk: chunkDisk, Remote: opts.remote, Pages: opts.pages,
		},
		Catalog: func(o *catalog.Options) {
			o.RefreshEvery, o.Discovery = opts.refreshEvery, opts.discovery
			o.MeasureEvery = time.Nanosecond
			if opts.viewChanged != nil {
				o.OnChange = func(old, cur *catalog.View) { opts.viewChanged(g, old, cur) }
			}
		},
		Server: func(o *store.Options) {
			o.Logger, o.OneAhead = opts.logger, opts.oneAhead
			if opts.server != nil {
				opts.server(o)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if opts.firstSync == nil {
		opts.firstSync = func(g *gateway) error { return g.Catalog.Sync(context.Background()) }
	}
	if err := opts.firstSync(g); err != nil {
		t.Fatal(err)
	}
	conn, stop, err := g.Dial(64<<20, opts.grpc...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })
	g.client, g.info = storepb.NewStoreClient(conn), storepb.NewInfoClient(conn)
	return g
}

// answer is the answer to a Series call. Batches are split, and the parts of continued series are
// joined.
type answer struct {
	series []*storepb.Series
	hints  *storepb.SeriesResponseHints
	frames int
}

func (g *gateway) query(ctx context.Context, req *storepb.SeriesRequest) (*answer, error) {
	stream, err := g.client.Series(ctx, req)
	if err != nil {
		return nil, err
	}
	a := &answer{}
	add := func(s *storepb.Series) {
		if n := len(a.series); n > 0 &&
			seriesLabels(a.series[n-1]).String() == seriesLabels(s).String() {
			a.series[n-1].Chunks = append(a.series[n-1].Chunks, s.Chunks...)
			return
		}
		a.series = append(a.series, s)
	}
	for {
		resp, err := stream.Recv()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		a.frames++
		switch r := resp.Result.(type) {
		case *storepb.SeriesResponse_Series:
			add(r.Series)
		case *storepb.SeriesResponse_Batch:
			for _, s := range r.Batch.Series {
				add(s)
			}
		case *storepb.SeriesResponse_Hints:
			a.hints = &storepb.SeriesResponseHints{}
			if err := r.Hints.UnmarshalTo(a.hints); err != nil {
				return a, err
			}
		}
	}
}

// onlyBlock returns request hints that select one block.
func onlyBlock(t testing.TB, id ulid.ULID) *anypb.Any {
	t.Helper()
	h, err := anypb.New(&storepb.SeriesRequestHints{
		BlockMatchers: []*storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_EQ, Name: "__block_id", Value: id.String()},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}
