// Package inprocess assembles a whole gateway within one process, for tests and benchmarks.
//
// A Gateway has a bucket, a catalog, index headers, caches and a store.Server, wired like those of
// the command. The caller chooses the bucket and the data directory, may change the options of each
// part, and calls Catalog.Sync to load the first view. Dial serves it over grpc in memory. Command
// larder does not use this package, because it also has flags, limits and reloads to wire.
//
// A Gateway owns its parts, and Close closes them. The package has no locks.
package inprocess

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"larder/chunkcache"
	"larder/indexcache"
	"larder/internal/bucket/retry"
	"larder/internal/bytecache"
	"larder/internal/diskcache"
	"larder/internal/intake"
	"larder/internal/localfs"
	"larder/store"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/irregular"
	"larder/store/prefetch"
	"larder/store/storepb"
	"larder/store/warm"
)

// Options configure a Gateway. Bucket and Dir are required.
type Options struct {
	Bucket objstore.Bucket
	// Dir is the data directory. It must exist.
	Dir string
	// Registerer gets the metrics of headers, catalog and server; nil: no registry.
	Registerer prometheus.Registerer
	// Index and Chunks are the options of the caches.
	Index  indexcache.Options
	Chunks chunkcache.Options
	// SeriesSetBytes bounds the series sets; default a quarter of Index.MaxBytes, negative: none.
	SeriesSetBytes int64
	// LabelAnswerBytes bounds the label answers; default a sixteenth of Index.MaxBytes, negative:
	// none.
	LabelAnswerBytes int64
	// Prefetch, if set, may change the options of what reads indexes into the *diskcache.Cache that
	// Index.Disk opens, in the background. Default: indexes are read when requests need them.
	Prefetch func(*prefetch.Options)
	// Headers, Catalog and Server, if set, change the options of these parts.
	Headers func(*indexheader.Options)
	Catalog func(*catalog.Options)
	Server  func(*store.Options)
}

// Gateway is a gateway within this process.
type Gateway struct {
	Headers   *indexheader.Manager
	Index     *indexcache.Cache
	Chunks    *chunkcache.Cache
	Sets      *block.SeriesSets
	Catalog   *catalog.Catalog
	Irregular *irregular.Blocks
	Server    *store.Server
	Prefetch  *prefetch.Prefetcher // nil for none

	messages *intake.Account
	undo     []func() // in the order of their creation
}

// New assembles a gateway. The caller closes it.
func New(opts Options) (*Gateway, error) {
	g := &Gateway{}
	if err := g.assemble(&opts); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Gateway) assemble(opts *Options) (err error) {
	opts.Index.Pages.PageSize = cmp.Or(opts.Index.Pages.PageSize, indexcache.DefaultPageSize)
	dir := func(name string) string { return filepath.Join(opts.Dir, name) }
	headers := indexheader.Options{
		Dir: localfs.At(dir("headers")), Bucket: opts.Bucket, Registerer: opts.Registerer,
		Unsatisfiable: retry.Unsatisfiable, Measure: g.measure,
	}
	if opts.Prefetch != nil {
		headers.PageSize = opts.Index.Pages.PageBytes()
		headers.OnRead = func(rd indexheader.Read) { g.Prefetch.Keep(rd) }
	}
	if opts.Headers != nil {
		opts.Headers(&headers)
	}
	if g.Headers, err = indexheader.New(headers); err != nil {
		return err
	}
	g.undo = append(g.undo, g.Headers.Close)
	var indexDisk *diskcache.Cache
	if open := opts.Index.Disk; opts.Prefetch != nil {
		opts.Index.Disk = func(pageBytes int64) bytecache.Disk {
			indexDisk = open(pageBytes).(*diskcache.Cache)
			return indexDisk
		}
	}
	index := indexcache.New(opts.Bucket, opts.Index)
	g.Index = index
	g.undo = append(g.undo, index.Close)
	indexBytes := cmp.Or(opts.Index.MaxBytes, indexcache.DefaultMaxBytes)
	g.Sets = block.NewSeriesSets(
		cmp.Or(opts.SeriesSetBytes, indexBytes/4), opts.Index.Pages.Registerer)
	g.undo = append(g.undo, g.Sets.Close)
	labels := indexcache.NewLabelAnswers(
		cmp.Or(opts.LabelAnswerBytes, indexBytes/16), opts.Index.Pages.Registerer)
	g.undo = append(g.undo, labels.Close)
	chunks := chunkcache.New(opts.Bucket, opts.Chunks)
	g.Chunks = chunks
	g.undo = append(g.undo, chunks.Close)
	blocks := catalog.Options{
		Bucket: opts.Bucket, Dir: localfs.At(dir("catalog")), Registerer: opts.Registerer,
	}
	if opts.Catalog != nil {
		opts.Catalog(&blocks)
	}
	changed := blocks.OnChange
	blocks.OnChange = func(old, cur *catalog.View) {
		if g.Server != nil {
			g.Server.ViewChanged(cur)
		}
		if g.Prefetch != nil {
			g.Prefetch.ViewChanged(old, cur)
			g.Headers.Prefetch(arrived(old, cur))
		}
		if changed != nil {
			changed(old, cur)
		}
	}
	if g.Catalog, err = catalog.New(blocks); err != nil {
		return err
	}
	g.undo = append(g.undo, g.Catalog.Close)
	if err := os.MkdirAll(dir("irregular"), 0o700); err != nil {
		return err
	}
	g.Irregular = irregular.Open(
		irregular.Options{Dir: localfs.At(dir("irregular")), Registerer: opts.Registerer})
	g.undo = append(g.undo, g.Irregular.Close)
	server := store.Options{
		Catalog: g.Catalog,
		Blocks: block.Deps{
			Buffers: &block.Buffers{},
			Headers: g.Headers, Index: index, Chunks: chunks, Sizes: g.Catalog,
			Lister:   block.BucketLister{Bucket: opts.Bucket},
			Postings: index.Postings(), Sets: g.Sets, Irregular: g.Irregular,
			Costs: opts.Index.Pages.Costs,
		},
		LabelAnswers:   labels,
		ChunkPageBytes: int64(chunks.PageSize()),
		Messages:       intake.NewAccount(0, nil),
		Registerer:     opts.Registerer,
	}
	if opts.Server != nil {
		opts.Server(&server)
	}
	g.messages = server.Messages
	var recorder *warm.Recorder
	if opts.Prefetch != nil && server.Recorder == nil {
		recorder = warm.NewRecorder()
		server.Recorder = recorder
	}
	g.Server = store.New(server)
	if opts.Prefetch != nil {
		g.prefetch(opts, index, indexDisk, recorder)
	}
	return nil
}

// prefetch starts to read indexes into the disk cache.
func (g *Gateway) prefetch(
	opts *Options, index *indexcache.Cache, disk *diskcache.Cache, recorder *warm.Recorder,
) {
	o := prefetch.Options{
		Pages: index, Disk: disk, Headers: g.Headers,
		Busy: g.Server.Busy, Dir: localfs.At(opts.Dir), Registerer: opts.Registerer,
	}
	if recorder != nil {
		o.Queried = recorder.Recent
	}
	opts.Prefetch(&o)
	g.Prefetch = prefetch.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.Prefetch.Run(ctx)
	}()
	g.undo = append(g.undo, func() {
		cancel()
		<-done
	})
}

// arrived returns the sources of the headers of new blocks.
func arrived(old, cur *catalog.View) (srcs []indexheader.Source) {
	for _, b := range cur.Blocks {
		if o := old.ByID(b.ID); o == nil || o.Content != b.Content {
			srcs = append(srcs, block.Source(b))
		}
	}
	return srcs
}

// measure tells the index headers whether the files of a block have changed.
func (g *Gateway) measure(
	ctx context.Context, src indexheader.Source, corrupt bool,
) (bool, error) {
	doubt := catalog.SizeDoubt
	if corrupt {
		doubt = catalog.BytesDoubt
	}
	v, err := g.Catalog.Measure(ctx, src.ID, src.Content, doubt)
	return v == catalog.Changed, err
}

// Close closes all parts, the last one first.
func (g *Gateway) Close() {
	for _, f := range slices.Backward(g.undo) {
		f()
	}
}

// Dial serves the gateway over grpc in memory and returns a connection to it. The connection
// receives messages of up to maxMessage bytes. The caller calls stop, which ends both.
func (g *Gateway) Dial(
	maxMessage int, opts ...grpc.ServerOption,
) (conn *grpc.ClientConn, stop func() error, err error) {
	l := bufconn.Listen(1 << 20)
	conn, err = grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, nil, err
	}
	rpc := grpc.NewServer(append(opts, grpc.ForceServerCodecV2(storepb.Codec()))...)
	within := intake.Registrar{Server: rpc, Account: g.messages}
	storepb.RegisterStoreServer(within, g.Server)
	storepb.RegisterInfoServer(within, g.Server)
	done := make(chan error, 1)
	go func() { done <- rpc.Serve(l) }()
	return conn, func() error {
		err := conn.Close()
		rpc.Stop()
		return errors.Join(err, <-done)
	}, nil
}
