package store_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"

	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bucket/retry"
	"larder/internal/bytecache"
	"larder/internal/extent"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/irregular"
	"larder/store/storepb"
)

// countedBucket counts the ranged reads of a bucket by kind of object, and may change or refuse
// them.
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

// take returns what was counted since the last call.
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

// gateway is a whole gateway in this process over a folder of blocks.
type gateway struct {
	client  storepb.StoreClient
	info    storepb.InfoClient
	bucket  *countedBucket
	catalog *catalog.Catalog
	headers *indexheader.Manager
	server  *store.Server
	sets    *block.SeriesSets
	odd     *irregular.Blocks
	reg     *prometheus.Registry
	dir     string // what it keeps on disk
}

// gatewayOptions change what startGateway makes.
type gatewayOptions struct {
	server     func(*store.Options)
	indexBytes int64
	setBytes   int64
	chunkBytes int64
	// postingsBytes is for expanded postings.
	postingsBytes int64
	// remote keeps pages and postings outside; nil for none.
	remote   bytecache.Remote
	pageSize int
	logger   *slog.Logger
	// refreshEvery is the catalog's.
	refreshEvery time.Duration
	discovery    catalog.Discovery
	// wrap stands between the folder and all who read it; nil: nothing does.
	wrap func(objstore.Bucket) objstore.Bucket
	// firstSync replaces the first sync; nil: it must succeed.
	firstSync func(g *gateway) error
	// pages change those of index and chunks, their size apart.
	pages pagecache.Options
	// headers change what the manager of index headers is made with.
	headers func(*indexheader.Options)
	// viewChanged is called after the gateway was told of a view.
	viewChanged func(g *gateway, old, cur *catalog.View)
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
	dir := opts.dataDir
	if dir == "" {
		dir = t.TempDir()
	}
	g := &gateway{
		bucket: &countedBucket{Bucket: bucket, counts: map[string]int{}, bytes: map[string]int64{}},
		reg:    prometheus.NewRegistry(),
		dir:    dir,
	}
	opts.pages.PageSize = opts.pageSize
	ho := indexheader.Options{
		Dir: localfs.At(filepath.Join(dir, "headers")), Bucket: g.bucket, Registerer: g.reg,
		Unsatisfiable: retry.Unsatisfiable,
		Measure: func(ctx context.Context, src indexheader.Source, corrupt bool) (bool, error) {
			doubt := catalog.SizeDoubt
			if corrupt {
				doubt = catalog.BytesDoubt
			}
			v, err := g.catalog.Measure(ctx, src.ID, src.Content, doubt)
			return v == catalog.Changed, err
		},
	}
	if opts.headers != nil {
		opts.headers(&ho)
	}
	headers, err := indexheader.New(ho)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(headers.Close)
	g.headers = headers
	index := indexcache.New(
		g.bucket,
		indexcache.Options{
			MaxBytes:      opts.indexBytes,
			PostingsBytes: opts.postingsBytes,
			Remote:        opts.remote,
			Pages:         opts.pages,
		},
	)
	t.Cleanup(index.Close)
	indexBytes := cmp.Or(opts.indexBytes, indexcache.DefaultMaxBytes)
	g.sets = block.NewSeriesSets(cmp.Or(opts.setBytes, indexBytes/4), opts.pages.Registerer)
	t.Cleanup(g.sets.Close)
	chunks := chunkcache.New(
		g.bucket,
		chunkcache.Options{MaxBytes: opts.chunkBytes, Remote: opts.remote, Pages: opts.pages},
	)
	t.Cleanup(chunks.Close)
	g.catalog, err = catalog.New(catalog.Options{
		Bucket:       g.bucket,
		Dir:          localfs.At(filepath.Join(dir, "catalog")),
		RefreshEvery: opts.refreshEvery,
		MeasureEvery: time.Nanosecond,
		Discovery:    opts.discovery,
		Registerer:   g.reg,
		OnChange: func(old, cur *catalog.View) {
			if g.server != nil {
				g.server.ViewChanged(old, cur)
			}
			if opts.viewChanged != nil {
				opts.viewChanged(g, old, cur)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.catalog.Close)
	g.odd = irregular.Open(
		irregular.Options{
			Dir:        localfs.At(mkdir(t, filepath.Join(dir, "irregular"))),
			Registerer: g.reg,
		},
	)
	t.Cleanup(g.odd.Close)
	o := store.Options{
		Catalog: g.catalog,
		Blocks: block.Deps{
			Headers: headers, Index: index, Chunks: chunks, Lister: block.BucketLister{Bucket: g.bucket}, Sizes: g.catalog,
			Postings: index.Postings(), Sets: g.sets, Irregular: g.odd,
		},
		ChunkPageBytes: int64(opts.pageSize),
		Logger:         opts.logger,
		Registerer:     g.reg,
	}
	if opts.server != nil {
		opts.server(&o)
	}
	g.server = store.New(o)
	if opts.firstSync == nil {
		opts.firstSync = func(g *gateway) error { return g.catalog.Sync(context.Background()) }
	}
	if err := opts.firstSync(g); err != nil {
		t.Fatal(err)
	}

	l := bufconn.Listen(1 << 20)
	rpc := grpc.NewServer(grpc.ForceServerCodecV2(storepb.Codec()))
	storepb.RegisterStoreServer(rpc, g.server)
	storepb.RegisterInfoServer(rpc, g.server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = rpc.Serve(l)
	}()
	conn, err := grpc.NewClient(
		"passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) },
		),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		rpc.Stop()
		<-done
	})
	g.client, g.info = storepb.NewStoreClient(conn), storepb.NewInfoClient(conn)
	return g
}

// answer is what a Series call returned, batches taken apart and series continued over frames
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
