package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/thanos-io/objstore/providers/filesystem"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/store"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/storepb"
)

// recorder records the pages that requests need.
type recorder struct {
	mu      sync.Mutex // guards fetches
	fetches []fetch    // since the last take
}

// fetch is one call of a reader.
type fetch struct {
	kind   kind
	object pagecache.Object
	nth    int     // number among the fetches of this object in this request
	pages  []int64 // ascending
	needed int64   // needed bytes of the pages
}

// note records a Fetch.
func (r *recorder) note(k kind, obj pagecache.Object, pageSize int64, spans []pagecache.Span) {
	f := fetch{kind: k, object: obj}
	last, end := int64(-1), int64(0)
	for _, s := range spans {
		if s.Off == s.End {
			continue
		}
		f.needed += max(s.End-max(s.Off, end), 0)
		end = max(end, s.End)
		for no := max(s.Off/pageSize, last+1); no <= (s.End-1)/pageSize; no++ {
			f.pages = append(f.pages, no)
			last = no
		}
	}
	r.mu.Lock()
	r.fetches = append(r.fetches, f)
	r.mu.Unlock()
}

// take returns the fetches since the last call. Goroutines of a request read different objects in
// parallel; fetches of one object are in order. take sorts them into a reproducible order: the
// first of each object, the second of each, and so on.
func (r *recorder) take() []fetch {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]int{}
	for i := range r.fetches {
		f := &r.fetches[i]
		f.nth = seen[f.object.Name]
		seen[f.object.Name]++
	}
	out := r.fetches
	r.fetches = nil
	slices.SortFunc(out, func(a, b fetch) int {
		switch {
		case a.kind != b.kind:
			return int(a.kind) - int(b.kind)
		case a.nth != b.nth:
			return a.nth - b.nth
		}
		return strings.Compare(a.object.Name, b.object.Name)
	})
	return out
}

type recordedIndex struct {
	block.IndexPages
	rec      *recorder
	pageSize int64
}

func (p recordedIndex) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.rec.note(indexPages, obj, p.pageSize, spans)
	return p.IndexPages.Fetch(ctx, obj, spans, acct)
}

type recordedChunks struct {
	block.ChunkPages
	rec      *recorder
	pageSize int64
}

func (p recordedChunks) Fetch(
	ctx context.Context, obj pagecache.Object, spans []pagecache.Span, acct *pagecache.Account,
) (*pagecache.Pages, error) {
	p.rec.note(chunkPages, obj, p.pageSize, spans)
	return p.ChunkPages.Fetch(ctx, obj, spans, acct)
}

// gateway is a complete gateway in this process over a folder of blocks, with page caches that are
// large enough for all of it.
type gateway struct {
	server *store.Server
	rec    recorder
	undo   []func()
}

func openGateway(ctx context.Context, bucketDir, dataDir string) (*gateway, error) {
	g := &gateway{}
	if err := g.open(ctx, bucketDir, dataDir); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *gateway) open(ctx context.Context, bucketDir, dataDir string) error {
	bucket, err := filesystem.NewBucket(bucketDir)
	if err != nil {
		return err
	}
	headers, err := indexheader.New(indexheader.Options{Dir: localfs.At(dataDir).Sub("headers"),
		Bucket: bucket})
	if err != nil {
		return err
	}
	g.undo = append(g.undo, headers.Close)
	const plenty = 1 << 40
	index := indexcache.New(bucket, indexcache.Options{MaxBytes: 1 << 30})
	g.undo = append(g.undo, index.Close)
	chunks := chunkcache.New(bucket, chunkcache.Options{MaxBytes: 4 << 30})
	g.undo = append(g.undo, chunks.Close)
	cat, err := catalog.New(
		catalog.Options{Bucket: bucket, Dir: localfs.At(dataDir).Sub("catalog")})
	if err != nil {
		return err
	}
	g.undo = append(g.undo, cat.Close)
	g.server = store.New(store.Options{
		Catalog: cat,
		Blocks: block.Deps{
			Headers: headers,
			Index:   recordedIndex{index, &g.rec, int64(index.PageSize())},
			Chunks:  recordedChunks{chunks, &g.rec, int64(chunks.PageSize())},
			Lister:  block.BucketLister{Bucket: bucket},
		},
		// The allowance of a request determines how much it reads at a time. It is large enough for
		// that to be always the same.
		Allowance: admission.AllowanceOptions{Bytes: plenty},
	})
	return cat.Sync(ctx)
}

func (g *gateway) close() {
	for _, f := range slices.Backward(g.undo) {
		f()
	}
}

// ask sends a request and returns the pages that its answer needed.
func (g *gateway) ask(ctx context.Context, req *storepb.SeriesRequest) ([]fetch, error) {
	if err := g.server.Series(req, discard{ctx: ctx}); err != nil {
		return nil, err
	}
	return g.rec.take(), nil
}

// discard is the client's end of a Series call, and ignores all messages.
type discard struct {
	grpc.ServerStream
	ctx context.Context
}

func (d discard) Context() context.Context           { return d.ctx }
func (d discard) Send(*storepb.SeriesResponse) error { return nil }
func (d discard) SendMsg(any) error                  { return nil }

// dial serves the gateway over grpc in memory, for clients that need a connection. stop ends both.
func (g *gateway) dial() (conn *grpc.ClientConn, stop func() error, err error) {
	l := bufconn.Listen(1 << 20)
	conn, err = grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		return nil, nil, err
	}
	rpc := grpc.NewServer(grpc.ForceServerCodecV2(storepb.Codec()))
	storepb.RegisterStoreServer(rpc, g.server)
	storepb.RegisterInfoServer(rpc, g.server)
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(l) }()
	return conn, func() error {
		err := conn.Close()
		rpc.Stop()
		return errors.Join(err, <-done)
	}, nil
}
