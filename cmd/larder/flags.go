package main

import (
	"maps"
	"slices"
	"time"

	"github.com/thanos-io/objstore"

	"larder/internal/config"
	"larder/store"
)

// storeConfig has the flags of `larder store`, one field for each concern. The file of a concern
// has its flags, their checks and what they configure.
type storeConfig struct {
	process    processConfig
	bucket     bucketConfig
	dataDir    dataDirConfig
	headers    headersConfig
	blocks     blocksConfig
	shard      shardConfig
	caches     cachesConfig
	warm       warmConfig
	pageTrace  pageTraceConfig
	requests   requestsConfig
	http       httpConfig
	grpc       grpcConfig
	requestLog requestLogConfig
	budgets    budgetsConfig
	web        webConfig
	drainDelay time.Duration

	hooks hooks

	// withoutEffect and old record by name which flags without effect and which former names the
	// user gave.
	withoutEffect, old map[string]*bool
	// shown returns the flags with their values and without secrets. Call it after parsing.
	shown func() map[string]string
}

// hooks are what other commands add to a gateway within their process. nil: nothing.
type hooks struct {
	// beneath wraps the client of the bucket: see bucket.Options.
	beneath func(objstore.Bucket) objstore.Bucket
	// finished is called for each request that has ended: see store.Options.
	finished func(store.Finished)
	// memoryLimit replaces the memory limit of the container, in bytes. 0 = it does not.
	memoryLimit int64
	constants   constants
}

// constants replace constants that have no flag. 0 = the constant. Only `larder bench --tune` sets
// them, to measure whether they are right.
type constants struct {
	maxGap, maxAlong int64 // of cost.Model
	slots            int   // slots.Options.Start
	windows          int   // store.Options.Windows
	// Deadlines of look-ups, which otherwise follow the first byte of the bucket.
	disk, memcached time.Duration
}

// storeFlags registers the flags of the command in the order of --help: from required flags to
// flags without effect.
func (c *storeConfig) storeFlags(f flagger) {
	c.bucket.flags(f)
	c.dataDir.flags(f)
	c.headers.flags(f)
	c.blocks.flags(f)
	c.shard.flags(f)
	c.caches.flags(f)
	c.warm.flags(f)
	c.pageTrace.flags(f)
	c.requests.flags(f)
	c.http.flags(f)
	c.grpc.flags(f)
	c.requestLog.flags(f)
	c.budgets.flags(f)
	flag(f, "drain-delay", "5s", &c.drainDelay, goDuration,
		"Time to keep serving after SIGTERM while reporting not ready, so that Queriers stop "+
			"sending requests before connections close. 0 = none.")
	c.web.flags(f)
	c.deprecatedFlags(f)
	c.withoutEffect = map[string]*bool{}
	registerIgnored(f, c.withoutEffect)
}

// load reads the documents that flags name and checks combinations of flags. It changes nothing
// outside c.
func (c *storeConfig) load(now time.Time) error {
	c.headers.load()
	for _, load := range []func() error{
		func() error { return c.blocks.load(now) },
		c.shard.load,
		func() error { return c.http.load(now) },
		c.web.check,
		c.grpc.load,
		c.bucket.load,
		c.requestLog.load,
		c.budgets.load,
		c.requests.load,
		func() error { return c.caches.load(now) },
		c.checkDiskCache,
		c.checkPageTrace,
		c.process.load,
	} {
		if err := load(); err != nil {
			return err
		}
	}
	c.noteFlags()
	return nil
}

// noteFlags adds notes for given flags that have no effect or a new name.
func (c *storeConfig) noteFlags() {
	add := func(msg, flag, why string) {
		c.caches.Notes = append(c.caches.Notes, config.Note{Msg: msg, Flag: "--" + flag, Why: why})
	}
	for _, ig := range ignored() {
		if *c.withoutEffect[ig.name] {
			add(config.NoEffect, ig.name, ig.why)
		}
	}
	if t := c.grpc.tls; len(t.ciphers) > 0 && t.minVersion == "1.3" {
		add(config.NoEffect, "grpc-server-tls-ciphers", "the cipher suites of TLS 1.3 are fixed, "+
			"and --grpc-server-tls-min-version allows nothing older")
	}
	for _, name := range slices.Sorted(maps.Keys(c.old)) {
		if *c.old[name] {
			add(config.Deprecated, name, "use --"+deprecated()[name])
		}
	}
}
