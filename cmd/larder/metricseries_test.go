package main

import (
	"regexp"
	"strings"
	"testing"

	"larder/internal/faultstore/s3server"
	"larder/internal/memcached/memcachedtest"
)

// seriesAtRest is how many series a process may expose before its first request.
const seriesAtRest = 1000

// familyName finds the metrics of larder and of Thanos in an exposition.
var familyName = regexp.MustCompile(`(?m)^# TYPE ((?:larder|thanos)_\w+)`)

// TestSeriesAtRest starts processes with few and with all kinds of caches, and counts their series
// before the first request. The counters that alerts read exist by then, because rate() does not
// see the first increment of a counter that appears with it. docs/metrics.md says of all of them
// what to do.
func TestSeriesAtRest(t *testing.T) {
	bucket := wideBucket(t)
	s3, err := s3server.Start(s3server.Options{Dir: bucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s3.Close() })
	memcached := memcachedtest.Start(t, memcachedtest.Options{})
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
			// Some metrics appear with the first request.
			if err := everyRPC(t.Context(), p.rpc, "kitchen"); err != nil {
				t.Error(err)
			}
			_, text = p.get("/metrics")
			var names []string
			for _, m := range familyName.FindAllStringSubmatch(text, -1) {
				names = append(names, m[1])
			}
			checkExplained(t, "metrics.md", names)
			p.stop()
		})
	}
}
