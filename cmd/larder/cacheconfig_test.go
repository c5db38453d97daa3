package main

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"larder/internal/clienttls/tlstest"
	"larder/internal/config"
	"larder/internal/memcached"
)

const mib = int64(1 << 20)

// loadedFlags parses a command line and loads its documents.
func loadedFlags(t *testing.T, args ...string) (*storeConfig, error) {
	t.Helper()
	c, err := parseStore(append([]string{"--objstore.config={type: FILESYSTEM}"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c, c.load(time.Now())
}

// TestCacheConfig applies documents from Thanos's documentation and from charts, and checks the
// result.
func TestCacheConfig(t *testing.T) {
	t.Setenv("CACHE_SIZE", "3GB")
	type result struct{ index, chunks, page int64 }
	f := func(want result, notes string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			return
		}
		m := &c.caches.Memory
		got := result{m.Index.Bytes, m.Chunks.Bytes, m.Page[config.ChunkPages].Bytes}
		if got != want {
			t.Errorf("%q: got %+v, want %+v", args, got, want)
		}
		var said []string
		for _, n := range c.caches.Notes {
			said = append(said, strings.TrimSpace(n.Flag+" "+n.Key))
		}
		if s := strings.Join(said, ", "); s != notes {
			t.Errorf("%q:\ngot notes %s\nwant      %s", args, s, notes)
		}
	}
	// Without documents: flags and defaults. 0 is decided by Fit.
	f(result{250 * mib, 0, 8 << 10}, "")
	f(result{1, 0, 8 << 10}, "", "--index-cache-size=1B")

	// The index cache: the document takes precedence over the flag, and has its own default (0).
	f(
		result{500 * mib, 0, 8 << 10}, "",
		"--index-cache.config={type: IN-MEMORY, config: {max_size: 500MB}}",
	)
	f(result{0, 0, 8 << 10}, "", "--index-cache.config={type: in-memory}")
	f(result{0, 0, 8 << 10}, "", "--index-cache.config=type: IN-MEMORY\nconfig:\n")
	f(
		result{0, 0, 8 << 10}, "--index-cache-size", "--index-cache.config={type: IN-MEMORY}",
		"--index-cache-size=1GB",
	)
	f(
		result{3 << 30, 0, 8 << 10}, "",
		"--index-cache.config={type: IN-MEMORY, config: {max_size: $(CACHE_SIZE)}}",
	)
	f(result{0, 0, 8 << 10}, "", "--index-cache.config={type: IN-MEMORY, config: {max_size: 0}}")
	f(
		result{100 * mib, 0, 8 << 10},
		"--index-cache.config-file max_item_size, --index-cache.config-file enabled_items, --index-cache.config-file ttl",
		"--index-cache.config-file="+write(t, "index-cache.yml", `
type: IN-MEMORY
config:
  max_size: 100MiB
  max_item_size: 5MiB
enabled_items: [Postings, ExpandedPostings]
ttl: 12h
`),
	)

	// The caching bucket: the flag takes precedence over the document, because Thanos does not have
	// it.
	f(
		result{250 * mib, 700 * mib, 8 << 10}, "",
		"--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 700MB}}",
	)
	f(result{250 * mib, 0, 8 << 10}, "", "--store.caching-bucket.config={type: IN-MEMORY}")
	f(
		result{250 * mib, 900 * mib, 32 << 10},
		"--store.caching-bucket.config chunk_subrange_size, --store.caching-bucket.config max_size, --store.caching-bucket.config chunk_subrange_size",
		"--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 700MB}, chunk_subrange_size: 16000}",
		"--chunk-cache-size=900MB",
		"--chunk-cache.page-size=32KB",
	)
	// A power of two is used as given. Other sizes are replaced by the nearest one, with a note.
	f(
		result{250 * mib, 0, 16 << 10}, "",
		"--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 16384}",
	)
	f(result{250 * mib, 0, 1 << 10}, "--store.caching-bucket.config chunk_subrange_size",
		"--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 1}")
	f(result{250 * mib, 0, 1 << 20}, "--store.caching-bucket.config chunk_subrange_size",
		"--store.caching-bucket.config={type: IN-MEMORY, chunk_subrange_size: 100000000}")
	all := "--store.caching-bucket.config-file "
	f(result{250 * mib, 250 * mib, 16 << 10}, all+strings.Join([]string{
		"max_item_size", "chunk_subrange_size", "chunk_subrange_ttl",
		"max_chunks_get_range_requests", "chunk_object_attrs_ttl",
		"blocks_iter_ttl", "metafile_exists_ttl", "metafile_doesnt_exist_ttl",
		"metafile_content_ttl", "metafile_max_size",
	}, ", "+all), "--store.caching-bucket.config-file="+write(t, "bucket-cache.yml", `
type: IN-MEMORY
config:
  max_size: 250MiB
  max_item_size: 125MiB
chunk_subrange_size: 16000
max_chunks_get_range_requests: 3
chunk_object_attrs_ttl: 24h
chunk_subrange_ttl: 24h
blocks_iter_ttl: 5m
metafile_exists_ttl: 2h
metafile_doesnt_exist_ttl: 15m
metafile_content_ttl: 24h
metafile_max_size: 1MiB
`))
}

// TestMemcachedConfig checks the options of memcached for documents.
func TestMemcachedConfig(t *testing.T) {
	f := func(want memcached.Options, writes int64, notes, config string) {
		t.Helper()
		for _, c := range []struct{ prefix, document string }{
			{"", "{type: MEMCACHED, config: {addresses: [a:11211], " + config + "}}"},
			{"memcached.", "{type: tiered, config: {memcached: {addresses: [a:11211], " + config + "}, in_memory: {max_size: 1GB}}}"},
		} {
			conf, err := loadedFlags(t, "--index-cache.config="+c.document)
			if err != nil {
				t.Errorf("%s: %v", c.document, err)
				continue
			}
			want.Addresses = []string{"a:11211"}
			if want.MaxItemSize == 0 {
				want.MaxItemSize = mib
			}
			got := conf.caches.IndexRemote.Options
			if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(&tls.Config{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.document, diff)
			}
			if got := conf.caches.Memory.IndexWrites; got.Bytes != writes ||
				got.Given != (writes > 0) {
				t.Errorf("%s: got %+v for writes, want %d", c.document, got, writes)
			}
			var said []string
			for _, n := range conf.caches.Notes {
				said = append(said, strings.TrimPrefix(n.Key, c.prefix))
			}
			if s := strings.Join(said, " "); s != notes {
				t.Errorf("%s:\ngot notes %s\nwant      %s", c.document, s, notes)
			}
		}
	}
	type o = memcached.Options
	type b = memcached.BreakerOptions
	f(o{}, 0, "", "")
	// Thanos's defaults, as written in its documentation and in charts.
	f(o{
		Timeout: 500 * time.Millisecond, MaxIdleConnections: 100, MaxAsyncConcurrency: 20,
		MaxAsyncBufferSize: 10000, MaxGetMultiConcurrency: 100,
		DNSInterval: 10 * time.Second,
		Breaker: b{
			Disabled:            true,
			HalfOpenMaxRequests: 10,
			OpenDuration:        5 * time.Second,
			MinRequests:         50,
		},
	}, 0, "max_get_multi_batch_size", `timeout: 500ms, max_idle_connections: 100, max_async_concurrency: 20, max_async_buffer_size: 10000,
		max_get_multi_concurrency: 100, max_get_multi_batch_size: 0, max_item_size: 1MiB, dns_provider_update_interval: 10s, auto_discovery: false,
		set_async_circuit_breaker_config: {enabled: false, half_open_max_requests: 10, open_duration: 5s, min_requests: 50, consecutive_failures: 5, failure_percent: 0.05}`)
	f(o{
		Timeout: time.Second, MaxIdleConnections: 7, MaxAsyncConcurrency: 6, MaxAsyncBufferSize: 5,
		MaxGetMultiConcurrency: 4, MaxGetMultiBatchSize: 3,
		MaxItemSize: 2 * mib, DNSInterval: time.Minute, MinReadTimeout: 2 * time.Millisecond,
		Namespace: "a:",
		Breaker: b{
			HalfOpenMaxRequests: 1,
			OpenDuration:        2 * time.Second,
			MinRequests:         3,
			ConsecutiveFailures: 4,
			FailurePercent:      0.5,
		},
	}, 8*mib, "", `timeout: 1s, max_idle_connections: 7, max_async_concurrency: 6, max_async_buffer_size: 5, max_get_multi_concurrency: 4, max_get_multi_batch_size: 3,
		max_item_size: 2MiB, dns_provider_update_interval: 1m, min_timeout: 2ms, namespace: "a:", max_async_buffer_bytes: 8MiB,
		set_async_circuit_breaker_config: {enabled: true, half_open_max_requests: 1, open_duration: 2s, min_requests: 3, consecutive_failures: 4, failure_percent: 0.5}`)
	// The meaning of zero. The breaker is on unless it is turned off.
	f(
		o{Breaker: b{HalfOpenMaxRequests: 1, OpenDuration: time.Minute, MinRequests: 1}},
		0,
		"max_idle_connections max_get_multi_concurrency max_get_multi_batch_size max_item_size",
		`timeout: 0s, max_idle_connections: 0, max_get_multi_concurrency: 0, max_get_multi_batch_size: 0, max_item_size: 0,
		set_async_circuit_breaker_config: {half_open_max_requests: 0, open_duration: 0s, min_requests: 0}`,
	)
	f(
		o{
			Breaker: b{
				Disabled:            true,
				HalfOpenMaxRequests: 1,
				OpenDuration:        time.Minute,
				MinRequests:         1,
			},
		},
		0,
		"",
		`set_async_circuit_breaker_config: {enabled: false, half_open_max_requests: 0, open_duration: 0s, min_requests: 0, consecutive_failures: 0, failure_percent: 0}`,
	)
	f(o{}, 0, "tls_config", "tls_enabled: false, tls_config: {ca_file: /does/not/exist}")
	f(o{}, 0, "", "tls_enabled: true")
}

// TestMemcachedTakesTheCachesPlace checks for each type what is cached where, and which keys and
// flags apply.
func TestMemcachedTakesTheCachesPlace(t *testing.T) {
	const index, chunks = "--index-cache.config=", "--store.caching-bucket.config="
	const servers = "{addresses: [a:1, dns+b:2]}"
	f := func(indexTTL, chunkTTL time.Duration, off, notes string, args ...string) {
		t.Helper()
		c, err := loadedFlags(t, args...)
		if err != nil {
			t.Errorf("%q: %v", args, err)
			return
		}
		ttl := func(r *config.Memcached, writes *config.Amount) time.Duration {
			if (r == nil) != (writes == nil) {
				t.Errorf("%q: memcached without memory for writes, or the other way round", args)
			}
			if r == nil {
				return -1
			}
			return r.Options.TTL
		}
		a := ttl(c.caches.IndexRemote, c.caches.Memory.IndexWrites)
		b := ttl(c.caches.ChunkRemote, c.caches.Memory.ChunkWrites)
		if a != indexTTL || b != chunkTTL {
			t.Errorf("%q: got TTLs %v and %v, want %v and %v", args, a, b, indexTTL, chunkTTL)
		}
		var kindsOff, said []string
		for k := range config.Kinds {
			switch {
			case c.caches.Uncached[k]:
				kindsOff = append(kindsOff, k.String()+":nowhere")
			case c.caches.Memory.Off[k]:
				kindsOff = append(kindsOff, k.String())
			}
		}
		for _, n := range c.caches.Notes {
			said = append(said, strings.TrimSpace(n.Flag+" "+n.Key))
		}
		if got := strings.Join(kindsOff, " "); got != off {
			t.Errorf("%q: got %q not in memory, want %q", args, got, off)
		}
		if got := strings.Join(said, ", "); got != notes {
			t.Errorf("%q:\ngot notes %s\nwant      %s", args, got, notes)
		}
	}
	const none = -1
	f(none, none, "", "")
	f(0, none, "index_pages expanded_postings", "", index+"{type: memcached, config: "+servers+"}")
	f(none, 0, "chunk_pages", "", chunks+"{type: Memcached, config: "+servers+"}")
	f(
		0, 0, "", "", index+"{type: TIERED, config: {memcached: "+servers+"}}",
		chunks+"{type: TIERED, config: {memcached: "+servers+", in_memory: {}}}",
	)
	// TTLs.
	f(
		time.Hour, 25*time.Hour, "index_pages expanded_postings", "",
		index+"{type: MEMCACHED, ttl: 1h, config: "+servers+"}",
		chunks+"{type: TIERED, chunk_subrange_ttl: 25h, config: {memcached: "+servers+"}}",
	)
	f(0, time.Second, "", "", index+"{type: TIERED, ttl: 0s, config: {memcached: "+servers+"}}",
		chunks+"{type: TIERED, chunk_subrange_ttl: 1ms, config: {memcached: "+servers+"}}")
	// Flags beside documents.
	f(
		0, 0, "index_pages expanded_postings chunk_pages",
		"--index-cache-size, --index-cache.postings-size, --chunk-cache-size",
		index+"{type: MEMCACHED, config: "+servers+"}",
		chunks+"{type: MEMCACHED, config: "+servers+"}", "--index-cache-size=1GB",
		"--index-cache.postings-size=10MB", "--index-cache.series-size=10MB",
		"--chunk-cache-size=1GB",
	)
	f(
		0,
		0,
		"",
		"--store.caching-bucket.config in_memory.max_size",
		index+"{type: TIERED, config: {memcached: "+servers+"}}",
		chunks+"{type: TIERED, config: {memcached: "+servers+", in_memory: {max_size: 1GB}}}",
		"--index-cache.postings-size=10MB",
		"--index-cache.series-size=10MB",
		"--chunk-cache-size=2GB",
	)
	f(
		0, none, "", "--index-cache.config in_memory.max_item_size",
		index+"{type: TIERED, config: {in_memory: {max_item_size: 1MB}, memcached: "+servers+"}}",
	)

	f(
		0, none, "index_pages expanded_postings:nowhere series_sets:nowhere", "",
		index+"{type: MEMCACHED, config: "+servers+"}", "--index-cache.postings-size=0",
		"--index-cache.series-size=0",
	)
	f(none, none, "series_sets:nowhere", "", "--index-cache.series-size=0")

	// Items.
	f(none, none, "", "", index+"{type: IN-MEMORY, enabled_items: []}")
	f(
		none, none, "", "",
		index+"{type: IN-MEMORY, enabled_items: [Postings, Series, ExpandedPostings]}",
	)
	f(
		none, none, "series_sets:nowhere", "--index-cache.config enabled_items",
		index+"{type: IN-MEMORY, enabled_items: [Postings, ExpandedPostings]}",
	)
	f(
		none, none, "expanded_postings:nowhere", "--index-cache.config enabled_items",
		index+"{type: IN-MEMORY, enabled_items: [Series]}",
	)
	f(
		0, none, "index_pages:nowhere expanded_postings series_sets:nowhere", "",
		index+"{type: MEMCACHED, enabled_items: [ExpandedPostings], config: "+servers+"}",
	)
	f(
		0, none, "index_pages expanded_postings:nowhere series_sets:nowhere",
		"--index-cache.config enabled_items, --index-cache.postings-size, --index-cache.series-size",
		index+"{type: MEMCACHED, enabled_items: [Postings], config: "+servers+"}",
		"--index-cache.postings-size=1MB", "--index-cache.series-size=1MB",
	)
}

// TestBadCacheConfig checks that the error for a bad document is one line that names the key and,
// if there is one, the right value.
func TestBadCacheConfig(t *testing.T) {
	const index, chunks = "--index-cache.config=", "--store.caching-bucket.config="
	f := func(want, arg string, more ...string) {
		t.Helper()
		_, err := loadedFlags(t, append(more, arg)...)
		if flag, _, _ := strings.Cut(arg, "="); err == nil ||
			!strings.HasPrefix(err.Error(), flag+": "+want) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line that begins with %s: %s", arg, err, flag, want)
		}
	}
	f(
		"type REDIS is not supported: use type IN-MEMORY, MEMCACHED or TIERED, or leave the flag out and set --index-cache-size",
		index+"{type: REDIS, config: {addr: a}}",
	)
	f("type FLOPPY is not known, want IN-MEMORY, MEMCACHED or TIERED", chunks+"{type: FLOPPY}")
	f("ttl: -1h0m0s is negative", index+"{type: MEMCACHED, ttl: -1h, config: {addresses: [a:1]}}")
	f(
		"ttl: 87601h0m0s is above 87600h0m0s: memcached's clock ends",
		index+"{type: MEMCACHED, ttl: 87601h, config: {addresses: [a:1]}}",
	)
	f(
		"chunk_subrange_ttl: -1h0m0s is negative",
		chunks+"{type: MEMCACHED, chunk_subrange_ttl: -1h, config: {addresses: [a:1]}}",
	)

	// TIERED.
	f("config: memcached is missing", index+"{type: TIERED}")
	f("config: memcached is missing", index+"{type: TIERED, config: {in_memory: {max_size: 1GB}}}")
	f(
		"config: memcached: addresses is missing",
		index+"{type: TIERED, config: {memcached: {timeout: 1s}}}",
	)
	f(
		"line 1: config: unknown key addresses, known keys are in_memory, memcached",
		index+"{type: TIERED, config: {addresses: [a:1]}}",
	)
	f(
		"line 1: config.in_memory: unknown key max_sise, did you mean max_size? known keys are max_size, max_item_size",
		index+"{type: TIERED, config: {in_memory: {max_sise: 1GB}, memcached: {addresses: [a:1]}}}",
	)
	f(
		`in_memory.max_size: "lots" is not a size`,
		index+"{type: TIERED, config: {in_memory: {max_size: lots}, memcached: {addresses: [a:1]}}}",
	)

	// MEMCACHED, the same in both documents.
	memcached := func(want, config string) {
		t.Helper()
		f("config: "+want, index+"{type: MEMCACHED, config: {addresses: [a:1], "+config+"}}")
		f(
			"config: memcached: "+want,
			chunks+"{type: TIERED, config: {memcached: {addresses: [a:1], "+config+"}}}",
		)
	}
	shape := func(want, config string) {
		t.Helper()
		f("line 1: config"+want, index+"{type: MEMCACHED, config: {addresses: [a:1], "+config+"}}")
		f(
			"line 1: config.memcached"+want,
			chunks+"{type: TIERED, config: {memcached: {addresses: [a:1], "+config+"}}}",
		)
	}
	shape(
		": unknown key adresses, did you mean addresses? known keys are addresses, timeout,",
		"adresses: []",
	)
	memcached(
		"auto_discovery is not supported: leave it out and list the nodes in addresses, or a DNS name of all of them as dns+host:port",
		"auto_discovery: true",
	)
	memcached("timeout: -1s is less than 1ms", "timeout: -1s")
	memcached("timeout: 500ns is less than 1ms", "timeout: 500")
	memcached("min_timeout: 1µs is less than 1ms", "min_timeout: 1us")
	memcached("min_timeout: 2s is above timeout, 1s", "min_timeout: 2s, timeout: 1s")
	memcached("min_timeout: 501ms is above timeout, 500ms", "min_timeout: 501ms")
	shape(".timeout: got a string, want a duration such as 1m30s", "timeout: soon")
	memcached(
		"dns_provider_update_interval: 0s must be above zero", "dns_provider_update_interval: 0s",
	)
	memcached("max_idle_connections: -1 must be above zero", "max_idle_connections: -1")
	memcached("max_async_concurrency: 0 must be above zero", "max_async_concurrency: 0")
	memcached("max_async_buffer_size: 0 must be above zero", "max_async_buffer_size: 0")
	memcached("max_get_multi_concurrency: -5 must be above zero", "max_get_multi_concurrency: -5")
	memcached(
		"max_get_multi_batch_size: 10001 is above 10000: more keys are asked for in batches",
		"max_get_multi_batch_size: 10001",
	)
	memcached(`max_item_size: "big" is not a size`, "max_item_size: big")
	memcached(
		"max_item_size: 2GiB is above 1GiB: memcached's -I takes no more", "max_item_size: 2GiB",
	)
	memcached(`max_async_buffer_bytes: "0" must be above zero`, "max_async_buffer_bytes: 0")
	memcached(
		"set_async_circuit_breaker_config: consecutive_failures: 0 must be above zero",
		"set_async_circuit_breaker_config: {consecutive_failures: 0}",
	)
	memcached(
		"set_async_circuit_breaker_config: failure_percent: 5 is not a ratio",
		"set_async_circuit_breaker_config: {enabled: true, failure_percent: 5}",
	)
	memcached(
		"set_async_circuit_breaker_config: failure_percent: NaN is not a ratio",
		"set_async_circuit_breaker_config: {failure_percent: .nan}",
	)
	memcached(
		"set_async_circuit_breaker_config: open_duration: -1s is negative",
		"set_async_circuit_breaker_config: {enabled: false, open_duration: -1s}",
	)
	shape(
		".set_async_circuit_breaker_config.min_requests: got a number, want a number from 0 to 4294967295",
		"set_async_circuit_breaker_config: {min_requests: -1}",
	)
	memcached(
		"tls_config is given, but not tls_enabled: set it to true or false",
		"tls_config: {ca_file: /ca.pem}",
	)
	f(
		"config: max_item_size: 8KiB do not hold a page of 16KiB and what comes with it: raise "+
			"it, and memcached's -I, or lower --index-cache.page-size",
		index+"{type: MEMCACHED, config: {addresses: [a:1], max_item_size: 8KB}}",
	)
	f(
		"config: max_item_size: 1MiB do not hold a page of 1MiB and what comes with it: raise it, and memcached's -I, or lower --store.caching-bucket.config chunk_subrange_size",
		chunks+"{type: MEMCACHED, chunk_subrange_size: 1048576, config: {addresses: [a:1]}}",
	)
	f(
		"config: max_item_size: 1MiB do not hold a page of 1MiB and what comes with it: raise it, and memcached's -I, or lower --chunk-cache.page-size",
		chunks+"{type: MEMCACHED, config: {addresses: [a:1]}}", "--chunk-cache.page-size=1MB",
	)

	// TLS.
	ca := tlstest.New(t)
	certFile, keyFile := ca.Files(-time.Hour, time.Hour)
	_, otherKey := ca.Files(-time.Hour, time.Hour)
	oldCert, oldKey := ca.Files(-2*time.Hour, -time.Hour)
	tlsConfig := func(want, config string) {
		t.Helper()
		f(
			"config: tls_config: "+want,
			index+"{type: MEMCACHED, config: {addresses: [a:1], tls_enabled: true, tls_config: {"+config+"}}}",
		)
	}
	tlsConfig("ca_file: open /does/not/exist", "ca_file: /does/not/exist")
	tlsConfig("ca_file "+keyFile+": the file contains no certificate", "ca_file: "+keyFile)
	tlsConfig("ca_file "+oldCert+": the certificate expired at", "ca_file: "+oldCert)
	tlsConfig("cert_file and key_file must be given together", "cert_file: "+certFile)
	tlsConfig("cert_file and key_file must be given together", "key_file: "+keyFile)
	tlsConfig("cert_file: open /does/not/exist", "cert_file: /does/not/exist, key_file: "+keyFile)
	tlsConfig(
		"key_file: open /does/not/exist", "cert_file: "+certFile+", key_file: /does/not/exist",
	)
	tlsConfig(
		"cert_file "+certFile+" and key_file "+otherKey+
			": tls: private key does not match public key",
		"cert_file: "+certFile+", key_file: "+otherKey,
	)
	tlsConfig(
		"cert_file "+oldCert+": the certificate expired at",
		"cert_file: "+oldCert+", key_file: "+oldKey,
	)
	f(
		"line 1: config.tls_config: unknown key ca, known keys are ca_file,",
		index+"{type: MEMCACHED, config: {addresses: [a:1], tls_enabled: true, tls_config: {ca: /ca.pem}}}",
	)
	_, err := loadedFlags(t, index+"{type: MEMCACHED, config: {addresses: [a:1], "+
		"tls_enabled: true, tls_config: {ca_file: "+certFile+", cert_file: "+certFile+
		", key_file: "+keyFile+", server_name: memcached, insecure_skip_verify: true}}}")
	if err != nil {
		t.Error(err)
	}
}

// TestMemoryNamesTheDocument checks that an error about the memory limit names the source of each
// amount.
func TestMemoryNamesTheDocument(t *testing.T) {
	c, err := loadedFlags(t, "--index-cache.config={type: IN-MEMORY, config: {max_size: 2GB}}",
		"--store.caching-bucket.config={type: IN-MEMORY, config: {max_size: 1GB}}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.caches.Memory.Fit(1 << 30)
	if want := "--index-cache.config max_size 2GiB, --store.caching-bucket.config max_size 1GiB, at least 16MiB for requests"; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}
