package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"larder/internal/faultstore/s3server"
	"larder/internal/memcached/memcachedtest"
)

// seriesAtRest is how many series a process may expose before its first request.
const seriesAtRest = 1000

// familyName finds metrics of larder's own in an exposition; anyOf finds prefixes of names with an
// asterisk in a page.
var (
	familyName = regexp.MustCompile(`(?m)^# TYPE (larder_\w+)`)
	anyOf      = regexp.MustCompile("`(larder_[a-z_]+)\\*")
)

// explained returns whether a page has a metric by its name, or by a prefix with an asterisk.
func explained(page, metric string) bool {
	if regexp.MustCompile(`\b` + metric + `\b`).MatchString(page) {
		return true
	}
	return slices.ContainsFunc(anyOf.FindAllStringSubmatch(page, -1), func(m []string) bool {
		return strings.HasPrefix(metric, m[1])
	})
}

// TestSeriesAtRest starts processes with few and with all kinds of caches, and counts their series
// before the first request. The counters that alerts read exist by then, because rate() does not
// see the first increment of a counter that appears with it. docs/metrics.md explains all that are
// larder's own.
func TestSeriesAtRest(t *testing.T) {
	bucket := wideBucket(t)
	s3, err := s3server.Start(s3server.Options{Dir: bucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() })
	memcached := memcachedtest.Start(t, memcachedtest.Options{})
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	remote := "{type: MEMCACHED, config: {addresses: [" + memcached.Addr + "]}}"
	for name, args := range map[string][]string{
		"a folder": {"--objstore.config=" + folder(bucket)},
		"S3, memcached and a disk": {
			"--objstore.config=" + s3.Config(), "--disk-cache-size=100MB",
			"--index-cache.config=" + remote, "--store.caching-bucket.config=" + remote,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startLarder(t, nil, append([]string{
				"store", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
				"--wait-headers=200y", "--drain-delay=0s",
			}, args...)...)
			p.await("readiness changed.*ready=true")
			_, text := p.get("/metrics")
			series := 0
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "#") {
					series++
				}
			}
			t.Logf("%d series", series)
			if series > seriesAtRest || series < 300 {
				t.Errorf("%d series at rest, want at most %d:\n%s", series, seriesAtRest, text)
			}
			for _, want := range []string{
				`larder_request_allowance_refused_total{reason="queue"} 0`,
				`larder_request_allowance_refused_total{reason="too_large"} 0`,
				`larder_corruptions_total{kind="chunk",outcome="failed"} 0`,
				`larder_bucket_gave_up_total{`, `larder_panics_total{`,
				`grpc_server_handled_total{grpc_code="Aborted",grpc_method="Series",`,
				`larder_tenant_requests_total{method="Series",tenant="default-tenant"} 0`,
			} {
				if !strings.Contains(text, want) {
					t.Errorf("/metrics lacks %s", want)
				}
			}
			for _, m := range familyName.FindAllStringSubmatch(text, -1) {
				if !explained(string(page), m[1]) {
					t.Errorf("docs/metrics.md does not explain %s", m[1])
				}
			}
			p.stop()
		})
	}
}
