package main

import (
	"maps"
	"slices"
	"time"

	"larder/internal/config"
)

// storeConfig is what the flags of `larder store` say, one field for each concern. The file of a
// concern has its flags, what load checks of them, and what is opened by them.
type storeConfig struct {
	process    processConfig
	bucket     bucketConfig
	dataDir    dataDirConfig
	headers    headersConfig
	blocks     blocksConfig
	caches     cachesConfig
	warm       warmConfig
	requests   requestsConfig
	http       httpConfig
	grpc       grpcConfig
	requestLog requestLogConfig
	web        webConfig
	drainDelay time.Duration

	// withoutEffect and old hold, per name, whether the user gave a flag that means nothing here,
	// or one that has a new name.
	withoutEffect, old map[string]*bool
	// shown are the flags with their values, secrets left out. Call it after parsing.
	shown func() map[string]string
}

// storeFlags registers the flags of the command, in the order in which --help shows them: from what
// must be given to what means nothing.
func (c *storeConfig) storeFlags(f flagger) {
	c.bucket.flags(f)
	c.dataDir.flags(f)
	c.headers.flags(f)
	c.blocks.flags(f)
	c.caches.flags(f)
	c.warm.flags(f)
	c.requests.flags(f)
	c.http.flags(f)
	c.grpc.flags(f)
	c.requestLog.flags(f)
	flag(f, "drain-delay", "5s", &c.drainDelay, goDuration,
		"Time to keep serving after SIGTERM while reporting not ready, so that Queriers stop "+
			"sending requests before connections close. 0 = none.")
	c.web.flags(f)
	c.deprecatedFlags(f)
	c.withoutEffect = map[string]*bool{}
	registerIgnored(f, c.withoutEffect)
}

// load reads the documents that flags name and checks what one flag alone cannot show. It changes
// nothing outside c.
func (c *storeConfig) load(now time.Time) error {
	c.headers.load()
	for _, load := range []func() error{
		func() error { return c.blocks.load(now) },
		func() error { return c.http.load(now) },
		c.web.check,
		c.grpc.load,
		c.bucket.load,
		c.requestLog.load,
		c.requests.load,
		func() error { return c.caches.load(now) },
		c.process.load,
	} {
		if err := load(); err != nil {
			return err
		}
	}
	c.noteFlags()
	return nil
}

// noteFlags notes the flags that have no effect, and those that have a new name.
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
