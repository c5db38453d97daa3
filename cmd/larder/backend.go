package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"larder/indexcache"
	"larder/internal/activity"
	"larder/internal/bucket"
	"larder/internal/bucket/cost"
	"larder/internal/bucket/slots"
	"larder/internal/budget"
	"larder/internal/config"
	"larder/internal/datadir"
	"larder/internal/diskcache"
	"larder/internal/intake"
	"larder/internal/localfs"
	"larder/internal/pagecache"
	"larder/internal/pagetrace"
	"larder/internal/panics"
	"larder/internal/telemetry"
	"larder/shard/membership"
	"larder/store"
	"larder/store/admission"
	"larder/store/block"
	"larder/store/catalog"
	"larder/store/indexheader"
	"larder/store/irregular"
	"larder/store/postings"
	"larder/store/prefetch"
	"larder/store/storepb"
	"larder/store/warm"
)

// backend is everything behind the servers: the bucket, the catalog, headers, caches and the store.
type backend struct {
	conf    *storeConfig
	logger  *slog.Logger
	budgets *budget.Current
	blocks  *bucket.Stack
	parquet *bucket.Stack               // of the Parquet converter's bucket, nil for none
	bound   objstore.InstrumentedBucket // blocks, for callers that hold no slot
	catalog *catalog.Catalog
	headers *indexheader.Manager
	server  *store.Server
	// messages is the account of the messages of requests.
	messages *intake.Account
	warmer   *warm.Warmer // nil for none

	shard   *membership.Driver              // nil: all blocks are served
	onShard func(ready bool, reason string) // set before run
	heat    atomic.Pointer[warm.Warmer]     // what is handed over; nil: nothing

	irregular *irregular.Blocks

	disk                     *diskcache.Disk     // nil for none
	pageTrace                *pagetrace.Recorder // nil for none
	diskCaches               []*diskcache.Cache
	indexDisk                *diskcache.Cache // nil for none
	prefetch                 atomic.Pointer[prefetch.Prefetcher]
	indexReader, chunkReader readerPointer

	panics *panics.Guard

	loads, drops prometheus.Counter
	lastLoad     prometheus.Gauge

	undo []func() // run last to first

	activity *activity.Log

	// known is closed when a view is ready, complete when a view comes from the bucket.
	known, complete         chan struct{}
	onceKnown, onceComplete sync.Once
}

// openBackend wires the packages together. dir is larder's directory, nil to keep everything in
// memory. It does not read from the bucket.
func openBackend(
	conf *storeConfig, dir *datadir.Dir, logger *slog.Logger, reg prometheus.Registerer,
	tracing *telemetry.Tracing,
) (*backend, error) {
	b := &backend{
		conf:     conf,
		logger:   logger,
		budgets:  budget.NewCurrent(conf.budgets.parsed),
		activity: activity.New(),
		known:    make(chan struct{}),
		complete: make(chan struct{}),
	}
	b.panics = panics.New("background", logger, reg)
	b.loads = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_block_loads_total",
		Help: "Total number of blocks that larder began to serve.",
	})
	b.drops = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_block_drops_total",
		Help: "Total number of blocks that larder stopped serving.",
	})
	b.lastLoad = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_bucket_store_blocks_last_loaded_timestamp_seconds",
		Help: "Time at which larder last began to serve a block.",
	})
	dropFailures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "thanos_bucket_store_block_drop_failures_total",
		Help: "Always 0, because larder cannot fail to stop serving a block. Kept for dashboards.",
	})
	reg.MustRegister(b.loads, b.drops, b.lastLoad, dropFailures)
	if err := b.open(dir, reg, tracing); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *backend) open(
	dir *datadir.Dir, reg prometheus.Registerer, tracing *telemetry.Tracing,
) error {
	conf, m := b.conf, &b.conf.caches.Memory
	fixed := &conf.hooks.constants
	reads := slots.New(slots.Options{Start: fixed.slots, Registerer: reg})
	if err := b.openBucket(reads, reg); err != nil {
		return err
	}
	// Page caches use the stack itself and acquire their slots before they read, so that waiting
	// for a slot does not count as time of the read.
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
	costs := cost.NewMeter(cost.Model{
		PerRequest: orNone(conf.bucket.request), MaxGap: fixed.maxGap, MaxAlong: fixed.maxAlong,
	})
	b.openDisk(dir, costs, reg)
	pages := pagecache.Options{
		Costs: costs, Limiter: reads,
		MaxInFlightBytes: m.InFlight, Logger: b.logger, Registerer: reg,
	}
	if err := b.openPageTrace(dir, reg); err != nil {
		return err
	}
	index, err := b.openIndexCache(b.blocks, b.traced(pages, tracedIndex))
	if err != nil {
		return err
	}
	sets := block.NewSeriesSets(m.CacheBytes[config.SeriesSets]-m.LabelAnswers(), reg)
	b.onClose(sets.Close)
	answers := indexcache.NewLabelAnswers(m.LabelAnswers(), reg)
	b.onClose(answers.Close)
	chunks, err := b.openChunkCache(b.blocks, b.traced(pages, tracedChunks))
	if err != nil {
		return err
	}
	if err := b.openShard(dir, reg); err != nil {
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
			Buffers: &block.Buffers{},
			Headers: b.headers, Index: index, Chunks: chunks,
			Lister: block.BucketLister{Bucket: b.bound}, Sizes: b.catalog,
			Postings: index.Postings(), Sets: sets, Irregular: b.irregular,
			Expansions: postings.NewAccount(m.Expansions(), reg), Costs: costs,
		},
		LabelAnswers:   answers,
		ChunkPageBytes: conf.caches.Memory.Page[config.ChunkPages].Bytes,
		Gate:           conf.requests.gate,
		Matchers:       conf.caches.matchers,
		Allowance: admission.AllowanceOptions{
			Bytes:     m.Requests.Bytes - m.Expansions() - m.Messages(),
			FlagBytes: m.Requests.Bytes,
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
		Budgets: b.budgets, Clamp: conf.blocks.clamp, Finished: conf.hooks.finished,
		Activity: b.activity, Windows: fixed.windows, Logger: b.logger, Registerer: reg,
		Tracer: tracing.Provider.Tracer("larder"), SpansPerRequest: tracing.SpansPerRequest,
	}
	if b.shard != nil {
		options.Refuse = b.shardRefuses
	}
	if !conf.warm.on() && !b.prefetches() {
		b.server = store.New(options)
		return nil
	}
	recorder := warm.NewRecorder()
	options.Recorder = recorder
	b.server = store.New(options)
	if conf.warm.on() {
		b.openWarmer(recorder, index, chunks, files, lockDir, reg)
	}
	if b.prefetches() {
		b.openPrefetch(index, recorder, files, lockDir, reg)
	}
	return nil
}

// services returns the services for the gRPC server.
func (b *backend) services() services {
	m := &b.conf.caches.Memory
	var info storepb.InfoServer = b.server
	if b.shard != nil {
		info = infoAsked{info, b.shard}
	}
	return services{
		store: b.server, info: info,
		messages: b.messages, incomplete: m.HalfReceived(), unsent: m.Messages(),
	}
}

// viewChanged starts building the headers of new blocks in the background and forgets the headers
// of removed ones. A block with changed content is a new block. Requests may use a new block before
// and build its header themselves.
func (b *backend) viewChanged(old, cur *catalog.View) {
	b.server.ViewChanged(cur)
	var arrived []indexheader.Source
	for _, blk := range cur.Blocks {
		if o := old.ByID(blk.ID); o == nil || o.Content != blk.Content {
			arrived = append(arrived, block.Source(blk))
		}
	}
	if p := b.prefetch.Load(); p != nil {
		p.ViewChanged(old, cur)
	}
	b.headers.Prefetch(arrived)
	if b.warmer != nil {
		b.takeOver(old, cur) // first, so that no block counts as warm in between
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
	now := b.catalog.View() // may be newer than cur
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

// serves reports whether a block with this content is served now.
func (b *backend) serves(id ulid.ULID, content uint64) bool {
	blk := b.catalog.View().ByID(id)
	return blk != nil && blk.Content == content
}

// run keeps the catalog up to date until ctx ends. It calls ready once, when the process can serve
// requests.
func (b *backend) run(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.catalog.Run(ctx) })
	background := func(f func() error) { // the store works without it
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
		err := b.panics.Do(func() error { return b.waitHeaders(ctx) })
		if err == nil {
			err = b.waitWarm(ctx)
		}
		if err == nil || errors.As(err, &p) {
			ready()
		}
		return nil
	})
	if b.shard != nil {
		background(func() error {
			b.shard.Run(ctx)
			return nil
		})
	}
	background(func() error {
		b.blocks.ReportSilence(ctx)
		return nil
	})
	if p := b.prefetch.Load(); p != nil {
		background(func() error {
			p.Run(ctx)
			return nil
		})
	}
	background(func() error {
		b.reportDisk(ctx)
		return nil
	})
	background(func() error {
		b.awaitDisk(ctx)
		b.warm(ctx)
		return nil
	})
	background(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-b.complete:
		}
		// Remove headers and findings of blocks that were deleted while no process ran.
		b.irregular.Retain(b.serves)
		known := func(id ulid.ULID) bool { return b.catalog.View().ByID(id) != nil }
		if err := b.headers.Retain(known); err != nil {
			b.logger.Warn("removing index headers of former blocks failed", "err", err)
		}
		return nil
	})
	return g.Wait()
}

func (b *backend) onClose(f func()) { b.undo = append(b.undo, f) }

// opened reports whether a compacted block can replace its sources.
func (b *backend) opened(id ulid.ULID) bool {
	return b.headers.Opened(id) && (b.warmer == nil || b.warmer.Warmed(id))
}

// close releases everything. Call it after run and after the last request.
func (b *backend) close() {
	for i := len(b.undo) - 1; i >= 0; i-- {
		b.undo[i]()
	}
	b.undo = nil
}
