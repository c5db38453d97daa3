package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"larder/internal/bucket"
	"larder/internal/config"
	"larder/internal/requestlog"
	"larder/store/catalog"
)

// load reads the documents that flags name and checks what one flag alone cannot show. It changes
// nothing outside c.
func (c *storeConfig) load(now time.Time) error {
	if c.minTime.Millis(now, math.MinInt64) > c.maxTime.Millis(now, math.MaxInt64) {
		return fmt.Errorf("--min-time %s is after --max-time %s", c.minTime, c.maxTime)
	}
	var err error
	if c.webFixed, err = webFile(c.http.configFile).check(now); err != nil {
		return err
	}
	if err := c.web.check(); err != nil {
		return err
	}
	if _, err := newCertificates(&c.grpc.tls); err != nil {
		return err
	}

	b, err := c.objstoreYAML.read()
	if err != nil {
		return err
	}
	c.bucket, err = bucket.Parse(b)
	if err != nil {
		return c.objstoreYAML.wrap(err)
	}
	if b, err = c.parquetYAML.read(); err != nil {
		return err
	}
	if b != nil {
		if c.parquet, err = bucket.Parse(b); err != nil {
			return c.parquetYAML.wrap(err)
		}
	}

	c.relabelText, err = c.relabelYAML.read()
	if err != nil {
		return err
	}
	c.relabel, err = catalog.ParseRelabelConfig(c.relabelText)
	if err != nil {
		return c.relabelYAML.wrap(err)
	}

	b, err = c.requestLogYAML.read()
	if err != nil {
		return err
	}
	c.requestLog, err = requestlog.Parse(b)
	if err != nil {
		return c.requestLogYAML.wrap(err)
	}

	if err := c.loadLimits(); err != nil {
		return err
	}
	if err := c.loadCaches(now); err != nil {
		return err
	}
	if c.tracing, err = c.tracingYAML.read(); err != nil {
		return err
	}
	if c.gate.MaxWaiting == 0 {
		c.gate.MaxWaiting = -1 // where the flag means no limit, the option means its default
	}
	if c.headerIdle == 0 {
		c.headerIdle = -1 // the same with never
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

// loadCaches reads the documents of the caches and applies them to what the flags say.
func (c *storeConfig) loadCaches(now time.Time) error {
	c.caches.ApplyFlags()
	for _, document := range []struct {
		yaml *content
		use  func(flag string, b []byte, now time.Time) error
	}{{&c.indexCacheYAML, c.caches.UseIndexCache}, {&c.bucketCacheYAML, c.caches.UseBucketCache}} {
		b, err := document.yaml.read()
		if err != nil {
			return err
		}
		if b == nil {
			continue
		}
		if err := document.use(document.yaml.flag(), b, now); err != nil {
			return document.yaml.wrap(err)
		}
	}
	return nil
}
