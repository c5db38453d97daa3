package main

import (
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDefaults compares the defaults with Thanos's, flag by flag.
func TestDefaults(t *testing.T) {
	c, err := parseStore("--objstore.config=type: FILESYSTEM")
	if err != nil {
		t.Fatal(err)
	}
	f := func(name string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("--%s: got %v, want %v", name, got, want)
		}
	}
	f("http-address", c.http.address, "0.0.0.0:10902")
	f("http-grace-period", c.http.grace, 2*time.Minute)
	f("grpc-address", c.grpc.address, "0.0.0.0:10901")
	f("grpc-grace-period", c.grpc.grace, 2*time.Minute)
	f("grpc-server-max-connection-age", c.grpc.maxConnectionAge, time.Hour)
	f("grpc-server-tls-min-version", c.grpc.tls.minVersion, "1.3")
	f("data-dir", c.dataDir.path, "./data")
	f("cache-index-header", c.dataDir.cacheIndexHeader, true)
	f("index-cache-size", c.caches.Memory.Index.Bytes, int64(250<<20))
	f("disk-cache-size", c.caches.Memory.Disk.Total.Bytes, int64(0))
	f("store.limits.request-series", c.requests.series, uint64(0))
	f("store.limits.request-samples", c.requests.samples, uint64(0))
	f("store.grpc.downloaded-bytes-limit", c.requests.bytes, int64(0))
	f("store.grpc.series-max-concurrency", c.requests.gate.MaxConcurrent, 20)
	f("sync-block-duration", c.blocks.interval, 15*time.Minute)
	f("block-sync-concurrency", c.headers.concurrency, 20)
	f("block-meta-fetch-concurrency", c.blocks.concurrency, 256)
	f("block-discovery-strategy", c.blocks.discovery, "concurrent")
	f("min-time", c.blocks.minTime.Millis(time.Time{}, 0), int64(-62167219200000))
	f("max-time", c.blocks.maxTime.Millis(time.Time{}, 0), int64(253402300799000))
	f("consistency-delay", c.blocks.consistencyDelay, time.Duration(0))
	f("ignore-deletion-marks-delay", c.blocks.deletionMarksDelay, 24*time.Hour)
	f("web.disable", c.web.disable, false)
	f("web.external-prefix", c.web.externalPrefix, "")
	f("web.prefix-header", c.web.prefixHeader, "")
	f("web.disable-cors", c.web.disableCORS, false)
	f("web.allowed-hosts", len(c.web.allowedHosts), 0)
	f("bucket-web-label", c.web.label, "")
	f("disable-admin-operations", c.web.disableAdmin, false)
	f("enable-admin-operations", c.web.enableAdmin, false)
	f("log.level", c.process.logLevel, "info")
	f("log.format", c.process.logFormat, "logfmt")
}

// TestRelativeTimesMoveOn checks that relative times move with the clock.
func TestRelativeTimesMoveOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := parseStore(
			"--min-time=-2h", "--max-time=-1h", "--objstore.config=type: FILESYSTEM",
		)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			now := time.Now().UnixMilli()
			minT, maxT := c.blocks.clamp(math.MinInt64, math.MaxInt64)
			if minT != now-2*3600_000 || maxT != now-3600_000 {
				t.Errorf("at %d: from %d to %d", now, minT, maxT)
			}
			time.Sleep(time.Hour) // the bubble's clock
		}
	})
}

// TestZeroMeansNone checks flags whose 0 means none or never, while 0 is the default of the option
// behind them.
func TestZeroMeansNone(t *testing.T) {
	c, err := parseStore(
		"--objstore.config={type: FILESYSTEM, config: {directory: b}}",
		"--store.grpc.series-max-waiting=0", "--store.index-header-lazy-reader-idle-timeout=0s",
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.load(time.Now()); err != nil {
		t.Fatal(err)
	}
	if c.requests.gate.MaxWaiting >= 0 || c.headers.idle >= 0 {
		t.Errorf("got %d waiting requests, idle timeout %v", c.requests.gate.MaxWaiting,
			c.headers.idle)
	}
}

// TestThanosCommandLine parses a command line from a typical manifest.
func TestThanosCommandLine(t *testing.T) {
	t.Setenv("BUCKET", "blocks")
	c, err := parseStore(
		"--log.level=debug",
		"--log.format=json",
		"--objstore.config={type: S3, config: {bucket: $(BUCKET), endpoint: s3.local, insecure: yes}, prefix: a/b}",
		"--index-cache-size=2GB",
		"--chunk-pool-size=8GB",
		"--store.grpc.touched-series-limit=1000",
		"--store.grpc.series-sample-limit",
		"1200000",
		"--store.grpc.downloaded-bytes-limit=1KiB",
		"--store.enable-index-header-lazy-reader",
		"--store.index-header-lazy-download-strategy=lazy",
		"--no-cache-index-header",
		"--min-time=-6w",
		"--max-time=-2h",
		"--ignore-deletion-marks-delay=1d",
		"--selector.relabel-config=[{action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 3}, {action: keep, source_labels: [shard], regex: 1}]",
	)
	if err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(100 * 7 * 24 * 3600 * 1000)
	if err := c.load(now); err != nil {
		t.Fatal(err)
	}
	f := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	conf := c.bucket.parsed.Config.(map[any]any)
	f("type", string(c.bucket.parsed.Type), "S3")
	f("prefix", c.bucket.parsed.Prefix, "a/b")
	f("bucket", conf["bucket"], "blocks")
	f("insecure", conf["insecure"], true) // YAML 1.1, as Thanos reads it
	f("index cache", c.caches.Memory.Index.Bytes, int64(2<<30))
	f("series limit", c.requests.series, uint64(1000))
	f("samples limit", c.requests.samples, uint64(1200000))
	f("bytes limit", c.requests.bytes, int64(1<<10))
	f("on disk", c.dataDir.cacheIndexHeader, false)
	f("min time", c.blocks.minTime.Millis(now, 0), int64(94*7*24*3600*1000))
	f("rules", len(c.blocks.relabel), 2)
	f("deletion marks", c.blocks.deletionMarksDelay, 24*time.Hour)
	// Flags without effect and former names are noted once, and only those that were given.
	var said []string
	for _, n := range c.caches.Notes {
		said = append(said, n.Msg+": "+n.Flag)
	}
	f("notes", strings.Join(said, "\n"), strings.Join([]string{
		"flag accepted without effect: --chunk-pool-size",
		"flag accepted without effect: --store.enable-index-header-lazy-reader",
		"flag accepted without effect: --store.index-header-lazy-download-strategy",
		"flag is deprecated: --store.grpc.series-sample-limit",
		"flag is deprecated: --store.grpc.touched-series-limit",
	}, "\n"))
}

// TestValuesAsThanosReadsThem checks values that templates write and that Thanos accepts.
func TestValuesAsThanosReadsThem(t *testing.T) {
	f := func(arg string, got func(c *storeConfig) any, want any) {
		t.Helper()
		c, err := parseStore("--objstore.config=x", arg)
		if err != nil {
			t.Errorf("%s: %v", arg, err)
			return
		}
		if g := got(c); g != want {
			t.Errorf("%s: got %v, want %v", arg, g, want)
		}
	}
	// Helm writes integers above a million in this form.
	f(
		"--block-meta-fetch-concurrency=1e+06",
		func(c *storeConfig) any { return c.blocks.concurrency }, 1_000_000,
	)
	f(
		"--store.limits.request-series=0x10", func(c *storeConfig) any { return c.requests.series },
		uint64(16),
	)
	f(
		"--store.grpc.downloaded-bytes-limit=1.5GB",
		func(c *storeConfig) any { return c.requests.bytes }, int64(3<<29),
	)
	f(
		"--store.grpc.downloaded-bytes-limit=1000",
		func(c *storeConfig) any { return c.requests.bytes }, int64(1000),
	)
	f(
		"--consistency-delay=1d", func(c *storeConfig) any { return c.blocks.consistencyDelay },
		24*time.Hour,
	)
	f(
		"--sync-block-duration=1h30m", func(c *storeConfig) any { return c.blocks.interval },
		90*time.Minute,
	)
	f(
		"--store.grpc.series-max-concurrency=0",
		func(c *storeConfig) any { return c.requests.gate.MaxConcurrent }, 0,
	)
	f(
		"--no-debug.advertise-compatibility-label",
		func(c *storeConfig) any { return *c.withoutEffect["debug.advertise-compatibility-label"] },
		true,
	)

	// Flags that may be repeated are shown as given. Without a value they are empty.
	f(
		"--grpc-server-tls-curves=X25519",
		func(c *storeConfig) any { return c.shown()["grpc-server-tls-curves"] }, "X25519",
	)
	f(
		"--matcher-cache-size=7",
		func(c *storeConfig) any { return c.shown()["grpc-server-tls-ciphers"] }, "",
	)

	args := write(t, "args", "--block-sync-concurrency=3\n--index-cache-size=1GB\n")
	f("@"+args, func(c *storeConfig) any {
		return [2]int64{int64(c.headers.concurrency), c.caches.Memory.Index.Bytes}
	}, [2]int64{3, 1 << 30})

	// With both names of a limit, the last one applies.
	c, err := parseStore(
		"--objstore.config=x", "--store.limits.request-series=5",
		"--store.grpc.touched-series-limit=7",
	)
	if err != nil || c.requests.series != 7 {
		t.Errorf("got %d, %v, want 7", c.requests.series, err)
	}
}

// TestWithoutEffectIsWrittenDown compares the flags without effect in docs/compatibility.md with
// the code.
func TestWithoutEffectIsWrittenDown(t *testing.T) {
	doc, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `--([a-z.-]+)` \\| ([^|]+) \\|$").
		FindAllStringSubmatch(string(doc), -1)
	got := map[string]string{}
	for _, r := range rows {
		got[r[1]] = r[2]
	}
	want := map[string]string{}
	for _, ig := range ignored() {
		want[ig.name] = ig.why
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf(
			"the table of flags without effect in docs/compatibility.md (-want +got):\n%s", diff,
		)
	}
	for old, name := range deprecated() {
		if !strings.Contains(string(doc), "`--"+old+"` (now `--"+name+"`)") {
			t.Errorf("docs/compatibility.md does not say that --%s is now --%s", old, name)
		}
	}
}
