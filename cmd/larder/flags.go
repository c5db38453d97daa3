package main

import (
	"time"

	"github.com/prometheus/prometheus/model/relabel"

	"larder/internal/bucket"
	"larder/internal/config"
	"larder/internal/requestlog"
	"larder/internal/telemetry"
	"larder/store/admission"
	"larder/store/catalog"
)

// storeConfig is what the flags of `larder store` say. Fields above the line are filled by the
// parser, those below by load.
type storeConfig struct {
	logLevel, logFormat string
	debugName           string
	autoMemLimit        bool
	autoMemLimitRatio   float64

	http struct {
		address, configFile string
		debugAddress        string // empty: there is no such listener
		grace               time.Duration
	}
	web        webConfig
	grpc       grpcConfig
	drainDelay time.Duration

	dataDir          string
	cacheIndexHeader bool
	waitHeaders      time.Duration
	headerIdle       time.Duration
	caches           config.Caches

	seriesLimit, samplesLimit uint64
	bytesLimit                int64
	limitsYAML                content
	gate                      admission.GateOptions
	sendStall                 time.Duration // 0: never
	matcherCacheSize          int
	warm                      warmConfig

	syncInterval       time.Duration
	discovery          string
	headerConcurrency  int
	metaConcurrency    int
	minTime, maxTime   catalog.TimeOrDuration
	consistencyDelay   time.Duration
	deletionMarksDelay time.Duration
	objstoreYAML       content
	parquetYAML        content
	relabelYAML        content
	tracingYAML        content
	indexCacheYAML     content
	bucketCacheYAML    content
	// withoutEffect and old hold, per name, whether the user gave a flag that means nothing here,
	// or one that has a new name.
	withoutEffect, old map[string]*bool
	requestLogYAML     content

	// shown are the flags with their values, secrets left out. Call it after parsing.
	shown func() map[string]string

	// What load has read and checked.
	bucket       *bucket.Config
	parquet      *bucket.Config // nil for none
	relabel      []*relabel.Config
	tracing      []byte
	tenantLimits tenantLimits
	namedTenants int
	// relabelText is what relabel was read from.
	relabelText []byte
	requestLog  *requestlog.Config
	webFixed    webFixed
}

// processFlags registers the flags that Thanos has for all its commands.
func (c *storeConfig) processFlags(f flagger) {
	flag(
		f, "log.level", "Log from this level on: error, warn, info or debug.", "info", &c.logLevel,
		oneOf(telemetry.LogLevels()...),
	)
	flag(
		f, "log.format", "Log format: logfmt, json or journald (the systemd journal).", "logfmt",
		&c.logFormat, oneOf(telemetry.LogFormats()...),
	)
	flag(
		f, "debug.name", "A name that every line of the log carries.", "", &c.debugName, text,
	).Hidden()
	contentFlags(
		f, &c.tracingYAML, "tracing.config",
		"configures tracing, as Thanos has it; type OTLP. Without it the OTEL_* environment counts.",
	)
	boolFlag(
		f, "enable-auto-gomemlimit",
		"Set GOMEMLIMIT from the container's memory limit, unless the environment sets it. No effect without such a limit.",
		"true", &c.autoMemLimit,
	)
	flag(
		f, "auto-gomemlimit.ratio",
		"The part of the container's memory limit that GOMEMLIMIT is set to.", "0.9",
		&c.autoMemLimitRatio, ratio,
	)
}

// storeFlags registers the flags of the command, in the order in which --help shows them: from what
// must be given to what means nothing.
func (c *storeConfig) storeFlags(f flagger) {
	c.storageFlags(f)
	c.cacheFlags(f)
	c.warm.flags(f)
	c.limitFlags(f)
	c.listenFlags(f)
	c.web.flags(f)
	c.deprecatedFlags(f)
	c.withoutEffect = map[string]*bool{}
	registerIgnored(f, c.withoutEffect)
}

func (c *storeConfig) storageFlags(f flagger) {
	c.objstoreYAML.required = true
	contentFlags(
		f, &c.objstoreYAML, "objstore.config",
		"configures the bucket, as Thanos has it: type, config, prefix, hedging_config.",
	)
	contentFlags(
		f, &c.parquetYAML, "objstore-parquet.config",
		"configures the bucket of a Parquet converter: blocks that it has converted are not served.",
	)
	flag(
		f,
		"data-dir",
		"Local directory for index headers and the last view of the bucket, kept under <data-dir>/larder. "+
			"It may be removed while larder is stopped: all of it is rebuilt.",
		"./data",
		&c.dataDir,
		text,
	)
	boolFlag(
		f, "cache-index-header",
		"Keep index headers on disk. With --no-cache-index-header everything is held in memory and --data-dir is not used.",
		"true", &c.cacheIndexHeader,
	)
	flag(
		f, "store.index-header-lazy-reader-idle-timeout",
		"Close the header of a block that no query has used for so long. 0 = never.", "5m",
		&c.headerIdle, goDuration,
	).Hidden()
	flag(
		f, "wait-headers",
		"Be ready only when the headers of blocks with samples from the last so much time are there. 0 = ready as soon as the blocks are known.",
		"0s", &c.waitHeaders, promDuration,
	)

	flag(
		f, "sync-block-duration",
		"Interval at which the bucket is looked through for new and removed blocks.", "15m",
		&c.syncInterval, positive(goDuration),
	)
	flag(
		f, "block-sync-concurrency", "Number of index headers that are built at once.", "20",
		&c.headerConcurrency, integer(1),
	)
	flag(
		f, "block-meta-fetch-concurrency",
		"Number of meta.json and deletion marks that are read at once.", "32", &c.metaConcurrency,
		integer(1),
	)
	flag(
		f, "block-discovery-strategy",
		"How blocks are found: concurrent (one request per unknown block) or recursive (one listing of every object).",
		"concurrent", &c.discovery, oneOf("concurrent", "recursive"),
	)
	flag(
		f, "min-time",
		"Start of the time range to serve: an RFC 3339 time, or a duration relative to now such as -6w.",
		"0000-01-01T00:00:00Z", &c.minTime, catalog.ParseTimeOrDuration,
	)
	flag(
		f, "max-time",
		"End of the time range to serve: an RFC 3339 time, or a duration relative to now such as -2h.",
		"9999-12-31T23:59:59Z", &c.maxTime, catalog.ParseTimeOrDuration,
	)
	contentFlags(
		f, &c.relabelYAML, "selector.relabel-config",
		"selects the blocks to serve by their external labels and __block_id; actions keep, drop and hashmod.",
	)
	flag(
		f, "consistency-delay", "Minimum age of a block before it is served.", "0s",
		&c.consistencyDelay, promDuration,
	)
	flag(
		f, "ignore-deletion-marks-delay",
		"Age of a deletion mark from which its block is not served any more.", "24h",
		&c.deletionMarksDelay, promDuration,
	)
}

func (c *storeConfig) cacheFlags(f flagger) {
	m := &c.caches.Memory
	memoryFlag := func(
		name, help, def string, a *config.Amount, parse func(string) (int64, error),
	) {
		a.From = "--" + name
		clause := flag(f, name, help, def, &a.Bytes, parse).IsSetByUser(&a.Given)
		if def == "" {
			clause.PlaceHolder("SIZE")
		}
	}
	memoryFlag(
		"cache-size",
		"Memory for all caches together: 30 % for the index cache, 62 % for chunk pages, 8 % for blocks of index headers. "+
			"What is given for one of them counts first, and the others share the rest.",
		"",
		&m.Total,
		config.ParseSize,
	)
	memoryFlag(
		"index-cache-size",
		"Memory for index pages (60 %), series sets (30 %) and expanded postings (10 %). Does not count when --index-cache.config is given, "+
			"which has a size of its own.",
		"250MB",
		&m.Index,
		config.ParseSize,
	)
	memoryFlag("index-cache.postings-size",
		"Memory for expanded postings, out of that of the index cache, instead of their part. "+
			"0 = none are kept.", "", &m.Postings, config.ParseSize)
	memoryFlag("index-cache.series-size",
		"Memory for series sets, out of that of the index cache, instead of their part. "+
			"0 = none are kept.", "", &m.Series, config.ParseSize)
	contentFlags(
		f, &c.indexCacheYAML, "index-cache.config",
		"configures the index cache, as Thanos has it; type IN-MEMORY, MEMCACHED or TIERED.",
	)
	memoryFlag("chunk-cache-size",
		"Memory for chunk pages. "+
			"Default: 20 % of GOMEMLIMIT or of the container's limit, else 512MB.",
		"", &m.Chunks, config.ParseSize)
	memoryFlag(
		"store.request-bytes",
		"Memory for requests, all together; what exceeds it waits. Default: 25 % of GOMEMLIMIT or of the container's limit, else 1GB.",
		"", &m.Requests, positive(config.ParseSize),
	)
	memoryFlag("index-cache.page-size",
		"Size of the pieces in which indexes are read and cached: a power of two from 1KB to 1MB.",
		"8KB", &m.Page[config.IndexPages], config.ParsePageSize)
	memoryFlag("chunk-cache.page-size",
		"Size of the pieces in which chunks are read and cached: a power of two from 1KB to 1MB.",
		"8KB", &m.Page[config.ChunkPages], config.ParsePageSize)
	hiddenContentFlags(
		f, &c.bucketCacheYAML, "store.caching-bucket.config",
		"configures the cache of chunks, as Thanos has it; type IN-MEMORY, MEMCACHED or TIERED.",
	)
	flag(
		f, "matcher-cache-size",
		"Number of compiled regular expressions of requests that are kept. 0 = none.", "0",
		&c.matcherCacheSize, integer(0),
	)
}

func (c *storeConfig) limitFlags(f flagger) {
	flag(
		f, "store.limits.request-series",
		"Maximum series of a Series request; more is an error. 0 = no limit.", "0", &c.seriesLimit,
		count,
	)
	flag(
		f, "store.limits.request-samples",
		"Maximum samples of a Series request, counted as 120 per chunk; more is an error. 0 = no limit.",
		"0", &c.samplesLimit, count,
	)
	flag(
		f, "store.grpc.downloaded-bytes-limit",
		"Maximum bytes that a request may read, from the bucket or a cache; more is an error. 0 = no limit.",
		"0", &c.bytesLimit, config.ParseSize,
	)
	contentFlags(
		f, &c.limitsYAML, "store.limits.config",
		"gives tenants limits and weights of their own: keys default and tenants.",
	)
	flag(
		f,
		"store.metrics.tenants",
		"Maximum number of tenants that metrics name, the largest of late; those in --store.limits.config come on top. "+
			"All others are counted as tenant other. 0 = none is named.",
		"3",
		&c.namedTenants,
		between(0, 1000),
	)
	flag(
		f, "store.grpc.series-max-concurrency",
		"Series requests that run at once; more wait. 0 = no limit.", "20", &c.gate.MaxConcurrent,
		integer(0),
	)
	flag(
		f, "store.grpc.series-max-waiting",
		"Series requests, and label requests, that wait for others to end; what comes on top is refused. 0 = no limit.",
		"1000", &c.gate.MaxWaiting, integer(0),
	)
	boolFlag(
		f, "store.grpc.series-fail-fast",
		"Refuse Series requests that would have to wait. For set-ups where a replica can answer instead.",
		"false", &c.gate.FailFast,
	)
	flag(
		f, "store.grpc.send-stall-timeout",
		"End a Series request with Aborted when its client leaves a frame of the answer unread for so long. 0 = never.",
		"1m", &c.sendStall, goDuration,
	)
}

func (c *storeConfig) deprecatedFlags(f flagger) {
	c.old = map[string]*bool{}
	for name := range deprecated() {
		c.old[name] = new(bool)
	}
	flag(
		f, "store.grpc.touched-series-limit", "Deprecated: use --store.limits.request-series.", "0",
		&c.seriesLimit, count,
	).
		IsSetByUser(c.old["store.grpc.touched-series-limit"])
	flag(
		f, "store.grpc.series-sample-limit", "Deprecated: use --store.limits.request-samples.", "0",
		&c.samplesLimit, count,
	).
		IsSetByUser(c.old["store.grpc.series-sample-limit"])
}
