package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"larder/internal/bucket"
	"larder/internal/bucket/slots"
	"larder/internal/config"
	"larder/internal/datadir"
	"larder/internal/intake"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/internal/panics"
	"larder/store"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/irregular"
	"larder/store/postings"
	"larder/store/warm"
)

// backend is everything behind the servers: the bucket, the catalog, headers, caches and the store
// itself.
type backend struct {
	conf    *storeConfig
	logger  *slog.Logger
	blocks  *bucket.Stack
	parquet *bucket.Stack               // of the Parquet converter's bucket, nil for none
	bound   objstore.InstrumentedBucket // blocks, for callers that hold no slot
	catalog *catalog.Catalog
	headers *indexheader.Manager
	server  *store.Server
	// messages is the account of the messages of requests.
	messages *intake.Account
	warmer   *warm.Warmer // nil for none

	irregular *irregular.Blocks

	panics *panics.Guard

	loads, drops prometheus.Counter
	lastLoad     prometheus.Gauge

	undo []func() // run last to first

	// closed when a view is ready; when one was seen in the bucket
	known, complete         chan struct{}
	onceKnown, onceComplete sync.Once
}

// openBackend wires the packages together. dir is larder's own directory, nil to keep everything in
// memory. Nothing is read from the bucket before run.
func openBackend(
	conf *storeConfig, dir *datadir.Dir, logger *slog.Logger, reg prometheus.Registerer,
	tracer trace.TracerProvider,
) (*backend, error) {
	b := &backend{
		conf:     conf,
		logger:   logger,
		known:    make(chan struct{}),
		complete: make(chan struct{}),
	}
	b.panics = panics.New("background", logger, reg)
	b.loads = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_block_loads_total",
		Help: "Total number of blocks that came to be served.",
	})
	b.drops = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_block_drops_total",
		Help: "Total number of blocks that ceased to be served.",
	})
	b.lastLoad = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_bucket_store_blocks_last_loaded_timestamp_seconds",
		Help: "When a block last came to be served.",
	})
	dropFailures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_block_drop_failures_total",
		Help: "Always 0: to cease serving a block cannot fail. It is here for dashboards.",
	})
	reg.MustRegister(b.loads, b.drops, b.lastLoad, dropFailures)
	if err := b.open(dir, reg, tracer); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *backend) open(
	dir *datadir.Dir, reg prometheus.Registerer, tracer trace.TracerProvider,
) error {
	conf, m := b.conf, &b.conf.caches.Memory
	reads := slots.New(slots.Options{Registerer: reg})
	if err := b.openBucket(reads, reg); err != nil {
		return err
	}
	// Page caches use the stack itself and take their slots before they read, because the time that
	// they wait for a slot does not count as time of the read.
	b.bound = b.blocks.Bound()
	parquet, err := b.openParquet(reads, reg)
	if err != nil {
		return conf.bucket.parquetYAML.wrap(err)
	}

	var files, headersDir localfs.Dir
	var lockDir func() error
	if dir != nil {
		files, headersDir, lockDir = dir.At(), dir.At().Sub("headers"), dir.Lock
	}
	if err := b.openHeaders(headersDir, lockDir, reg); err != nil {
		return err
	}
	pages := pagecache.Options{
		Limiter: reads, MaxInFlightBytes: m.InFlight, Logger: b.logger, Registerer: reg,
	}
	index, err := b.openIndexCache(b.blocks, pages)
	if err != nil {
		return err
	}
	sets := block.NewSeriesSets(m.CacheBytes[config.SeriesSets], reg)
	b.onClose(sets.Close)
	chunks, err := b.openChunkCache(b.blocks, pages)
	if err != nil {
		return err
	}
	if err := b.openCatalog(parquet, files, lockDir, reg); err != nil {
		return err
	}

	b.messages = intake.NewAccount(m.Messages(), reg)
	b.irregular = irregular.Open(
		irregular.Options{Dir: files, LockDir: lockDir, Logger: b.logger, Registerer: reg},
	)
	b.onClose(b.irregular.Close)
	options := store.Options{
		Catalog: b.catalog,
		Blocks: block.Deps{
			Headers: b.headers, Index: index, Chunks: chunks, Lister: block.BucketLister{Bucket: b.bound}, Sizes: b.catalog,
			Postings: index.Postings(), Sets: sets, Irregular: b.irregular,
			Expansions: postings.NewAccount(m.Expansions(), reg),
		},
		ChunkPageBytes: conf.caches.Memory.Page[config.ChunkPages].Bytes,
		Gate:           conf.requests.gate,
		Matchers:       conf.caches.matchers,
		Allowance: admission.AllowanceOptions{
			Bytes: m.Requests.Bytes - m.Expansions() - m.Messages(),
		},
		Messages:         b.messages,
		Limits:           conf.requests.limits.others,
		Tenants:          conf.requests.limits.tenants,
		NamedTenants:     orNone(conf.requests.namedTenants),
		SendStallTimeout: orNone(conf.requests.sendStall), OnStall: stalled,
		IgnoreSizes: func() {
			index.IgnoreSizes()
			chunks.IgnoreSizes()
		},
		Clamp:  conf.blocks.clamp,
		Logger: b.logger, Registerer: reg, Tracer: tracer.Tracer("larder"),
	}
	if !conf.warm.on() {
		b.server = store.New(options)
		return nil
	}
	recorder := warm.NewRecorder()
	options.Recorder = recorder
	b.server = store.New(options)
	b.openWarmer(recorder, files, lockDir, index.Stats().MaxBytes, reg)
	return nil
}

// services are what the gRPC server is given.
func (b *backend) services() services {
	m := &b.conf.caches.Memory
	return services{
		store: b.server, info: b.server,
		messages: b.messages, incomplete: m.HalfReceived(), unsent: m.Messages(),
	}
}

// viewChanged has the headers of new blocks built in the background and those of blocks that left
// forgotten; a block with other content than before is a new one. Queries may have met the new
// blocks before; they build what they need themselves.
func (b *backend) viewChanged(old, cur *catalog.View) {
	b.server.ViewChanged(old, cur)
	var arrived []indexheader.Source
	for _, blk := range cur.Blocks {
		if o := old.ByID(blk.ID); o == nil || o.Content != blk.Content {
			arrived = append(arrived, block.Source(blk))
		}
	}
	b.headers.Prefetch(arrived)
	if b.warmer != nil {
		b.warmer.ViewChanged(old, cur)
	}
	if cur.Ready && !cur.FromDisk {
		b.irregular.Retain(b.serves)
	}
	left := 0
	for _, blk := range old.Blocks {
		switch c := cur.ByID(blk.ID); {
		case c == nil:
			b.headers.Forget(blk.ID)
			left++
		case c.Content != blk.Content:
			left++
		}
	}
	now := b.catalog.View() // which may be newer than cur
	b.headers.Keep(func(id ulid.ULID) bool { return now.ByID(id) != nil })
	b.loads.Add(float64(len(arrived)))
	if len(arrived) > 0 {
		b.lastLoad.SetToCurrentTime()
	}
	b.drops.Add(float64(left))
	b.logger.Info(
		"blocks changed", "blocks", len(cur.Blocks), "new", len(arrived), "gone", left,
		"label_sets", len(cur.Sets), "from_disk", cur.FromDisk,
	)
	if cur.Ready {
		b.onceKnown.Do(func() { close(b.known) })
	}
	if cur.Ready && !cur.FromDisk {
		b.onceComplete.Do(func() { close(b.complete) })
	}
}

// serves reports whether a block with such content is served now.
func (b *backend) serves(id ulid.ULID, content uint64) bool {
	blk := b.catalog.View().ByID(id)
	return blk != nil && blk.Content == content
}

// run keeps the catalog up to date until ctx ends, and calls ready once, when requests may come.
func (b *backend) run(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.catalog.Run(ctx) })
	background := func(f func() error) { // the store answers without it
		g.Go(func() error {
			_ = b.panics.Do(f)
			return nil
		})
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-b.known:
		}
		var p *panics.Error
		if err := b.panics.Do(func() error { return b.waitHeaders(ctx) }); err == nil ||
			errors.As(err, &p) {
			ready()
		}
		return nil
	})
	background(func() error {
		b.blocks.ReportSilence(ctx)
		return nil
	})
	background(func() error {
		b.warm(ctx)
		return nil
	})
	background(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-b.complete:
		}
		// Headers and findings of blocks that left the bucket while no process ran.
		b.irregular.Retain(b.serves)
		if err := b.headers.Retain(func(id ulid.ULID) bool { return b.catalog.View().ByID(id) != nil }); err != nil {
			b.logger.Warn("index headers of former blocks stay", "err", err)
		}
		return nil
	})
	return g.Wait()
}

func (b *backend) onClose(f func()) { b.undo = append(b.undo, f) }

// opened reports whether a block can take the place of those that it was made from.
func (b *backend) opened(id ulid.ULID) bool {
	return b.headers.Opened(id) && (b.warmer == nil || b.warmer.Warmed(id))
}

// close must be called after run and after the last request.
func (b *backend) close() {
	for i := len(b.undo) - 1; i >= 0; i-- {
		b.undo[i]()
	}
	b.undo = nil
}
