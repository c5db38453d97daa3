// Package gateway starts the two store gateways that interop compares: Thanos's BucketStore as a
// library behind a real gRPC server on a loopback port, and larder as a process. Neither shares
// memory with the client; therefore everything that a test sees went over the wire.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/client"
	"github.com/thanos-io/objstore/providers/filesystem"
	"github.com/thanos-io/thanos/pkg/block"
	"github.com/thanos-io/thanos/pkg/component"
	// The compressors that thanos store offers.
	_ "github.com/thanos-io/thanos/pkg/extgrpc/snappy"
	"github.com/thanos-io/thanos/pkg/gate"
	"github.com/thanos-io/thanos/pkg/info"
	"github.com/thanos-io/thanos/pkg/info/infopb"
	thanosmodel "github.com/thanos-io/thanos/pkg/model"
	"github.com/thanos-io/thanos/pkg/store"
	storecache "github.com/thanos-io/thanos/pkg/store/cache"
	"github.com/thanos-io/thanos/pkg/store/labelpb"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// ThanosOptions configure Thanos. The zero value is `thanos store` with its defaults, but with
// hints in Series answers, which that command always turns off.
type ThanosOptions struct {
	// Listen is the address; empty is a free loopback port.
	Listen string
	// NoHints turns the hints of Series answers off, as in production.
	NoHints bool
	// DontResort streams each block's series in index order. That is faster, and wrong if external
	// or removed labels reorder them.
	DontResort bool
	// IndexCache is the size of the index cache; 0 is 250 MB.
	IndexCache int64
	// Wrap, unless nil, wraps the BucketStore.
	Wrap func(storepb.StoreServer) storepb.StoreServer
	Log  log.Logger
}

// Thanos is a running BucketStore.
type Thanos struct {
	Addr   string
	server *grpc.Server
	store  *store.BucketStore
	bucket objstore.Bucket
	served chan error
}

// StartThanos loads the bucket's blocks and serves them, wired as cmd/thanos/store.go wires them.
func StartThanos(ctx context.Context, b Bucket, opts ThanosOptions) (*Thanos, error) {
	logger := opts.Log
	if logger == nil {
		logger = log.NewNopLogger()
	}
	bkt, err := open(b, logger)
	if err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	minTime, maxTime, err := bounds(b)
	if err != nil {
		return nil, err
	}
	const fetchers = 32
	fetcher, err := block.NewMetaFetcher(
		logger,
		fetchers,
		bkt,
		block.NewConcurrentLister(logger, bkt),
		b.DataDir,
		nil,
		[]block.MetadataFilter{
			block.NewTimePartitionMetaFilter(minTime, maxTime),
			block.NewLabelShardedMetaFilter(nil),
			block.NewConsistencyDelayMetaFilter(logger, 0, nil),
			block.NewIgnoreDeletionMarkFilter(logger, bkt, 24*time.Hour, fetchers),
			block.NewDeduplicateFilter(fetchers),
		},
	)
	if err != nil {
		return nil, fmt.Errorf("meta fetcher: %w", err)
	}
	size := opts.IndexCache
	if size == 0 {
		size = 250 << 20
	}
	cache, err := storecache.NewInMemoryIndexCacheWithConfig(
		logger, nil, nil,
		storecache.InMemoryIndexCacheConfig{
			MaxSize:     thanosmodel.Bytes(size),
			MaxItemSize: storecache.DefaultInMemoryIndexCacheConfig.MaxItemSize,
		},
	)
	if err != nil {
		return nil, fmt.Errorf("index cache: %w", err)
	}
	pool, err := store.NewDefaultChunkBytesPool(2 << 30)
	if err != nil {
		return nil, fmt.Errorf("chunk pool: %w", err)
	}
	bopts := []store.BucketStoreOption{
		store.WithLogger(logger), store.WithRegistry(reg), store.WithIndexCache(cache),
		store.WithQueryGate(gate.NewNoop()),
		store.WithChunkPool(pool), store.WithChunkHashCalculation(true),
		store.WithFilterConfig(&store.FilterConfig{MinTime: minTime, MaxTime: maxTime}),
		store.WithBlockEstimatedMaxSeriesFunc(estimate(64<<10, seriesMax)),
		store.WithBlockEstimatedMaxChunkFunc(estimate(16000, chunkMax)),
		store.WithSeriesMatchRatio(0.5),
	}
	if opts.DontResort {
		// The option ignores its argument: passing it turns it on.
		bopts = append(bopts, store.WithDontResort(true))
	}
	bs, err := store.NewBucketStore(
		bkt, fetcher, b.DataDir, store.NewChunksLimiterFactory(0), store.NewSeriesLimiterFactory(0),
		store.NewBytesLimiterFactory(0), store.NewGapBasedPartitioner(store.PartitionerMaxGapSize),
		20, store.DefaultPostingOffsetInMemorySampling, !opts.NoHints, false, 0, bopts...,
	)
	if err != nil {
		return nil, fmt.Errorf("bucket store: %w", err)
	}
	if err := bs.InitialSync(ctx); err != nil {
		return nil, fmt.Errorf("initial sync: %w", err)
	}
	return serve(bs, bkt, logger, opts)
}

// open opens the bucket as thanos store does: by its configuration, or a folder.
func open(b Bucket, logger log.Logger) (objstore.InstrumentedBucket, error) {
	var bkt objstore.Bucket
	var err error
	if b.Config != "" {
		bkt, err = client.NewBucket(logger, []byte(b.Config), component.Store.String(), nil)
	} else {
		bkt, err = filesystem.NewBucket(b.Dir)
	}
	if err != nil {
		return nil, err
	}
	return objstore.WithNoopInstr(bkt), nil
}

func serve(
	bs *store.BucketStore, bkt objstore.Bucket, logger log.Logger, opts ThanosOptions,
) (*Thanos, error) {
	listen := opts.Listen
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	srv := grpc.NewServer(
		grpc.MaxSendMsgSize(math.MaxInt32), grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.UnaryInterceptor(recoverUnary),
	)
	var api storepb.StoreServer = bs
	if opts.Wrap != nil {
		api = opts.Wrap(bs)
	}
	store.RegisterStoreServer(api, logger)(srv)
	info.RegisterInfoServer(info.NewInfoServer(component.Store.String(),
		info.WithLabelSetFunc(func() []labelpb.ZLabelSet { return bs.LabelSet() }),
		info.WithStoreInfoFunc(func() (*infopb.StoreInfo, error) {
			mint, maxt := bs.TimeRange()
			return &infopb.StoreInfo{
				MinTime: mint, MaxTime: maxt, SupportsSharding: true,
				SupportsWithoutReplicaLabels: true, TsdbInfos: bs.TSDBInfos(),
			}, nil
		}),
	))(srv)
	t := &Thanos{
		Addr:   l.Addr().String(),
		server: srv,
		store:  bs,
		bucket: bkt,
		served: make(chan error, 1),
	}
	go func() { t.served <- srv.Serve(l) }()
	return t, nil
}

// recoverUnary makes a panic the request's error, as thanos store's interceptor does.
func recoverUnary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler,
) (_ any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Errorf(codes.Internal, "panic: %v", p)
		}
	}()
	return h(ctx, req)
}

// Close stops the server and closes the blocks.
func (t *Thanos) Close() error {
	t.server.Stop()
	<-t.served
	closed := make(chan error, 1)
	go func() { closed <- t.store.Close() }()
	select {
	case err := <-closed:
		return errors.Join(err, t.bucket.Close())
	case <-time.After(10 * time.Second):
		// If a request panics between Lock and Unlock and the panic is recovered, the BucketStore
		// stays locked forever.
		return errors.New(
			"Thanos's BucketStore does not close: a request made it panic with its lock held",
		)
	}
}

// bounds turns the bucket's bounds into flag values, with Thanos's defaults.
func bounds(b Bucket) (lo, hi thanosmodel.TimeOrDurationValue, err error) {
	from, to := "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
	if !b.MinTime.IsZero() {
		from = b.MinTime.UTC().Format(time.RFC3339)
	}
	if !b.MaxTime.IsZero() {
		to = b.MaxTime.UTC().Format(time.RFC3339)
	}
	if err = lo.Set(from); err != nil {
		return lo, hi, err
	}
	return lo, hi, hi.Set(to)
}
