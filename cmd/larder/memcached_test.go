package main

import (
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"larder/benchmarks/dataset"
	"larder/internal/clienttls"
	"larder/internal/clienttls/tlstest"
	"larder/internal/memcached/memcachedtest"
	"larder/store/storepb"
)

// counted adds up the samples of a family whose labels contain all of those given.
func (p *process) counted(name string, labels ...string) (sum float64) {
	p.t.Helper()
	_, text := p.get("/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range families[name].GetMetric() {
		has := map[string]bool{}
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		matches := true
		for _, l := range labels {
			matches = matches && has[l]
		}
		if matches {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// askAll sends the same requests each time and returns a summary of the answers.
func askAll(p *process) string {
	p.t.Helper()
	var answers []string
	for _, matchers := range [][]*storepb.LabelMatcher{
		{{Name: "__name__", Value: dataset.WholeMetricName}},
		{{Type: storepb.LabelMatcher_RE, Name: "__name__",
			Value: dataset.WholeMetricName + "|none"},
			{Type: storepb.LabelMatcher_NEQ, Name: "absent", Value: "x"}},
	} {
		stream, err := storepb.NewStoreClient(p.rpc).Series(p.t.Context(), &storepb.SeriesRequest{
			MinTime: math.MinInt64, MaxTime: math.MaxInt64, Matchers: matchers,
			Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
		})
		if err != nil {
			p.t.Fatal(err)
		}
		answers = append(answers, fmt.Sprint(countSeries(p.t, stream)))
	}
	return strings.Join(answers, " ")
}

// TestMemcached runs a process with memcached, and then one that knows nothing but the same
// memcached: that one answers without a read of index or chunk pages from the bucket.
func TestMemcached(t *testing.T) {
	bucket := folder(wideBucket(t))
	f := func(name, document string, o memcachedtest.Options) {
		t.Run(name, func(t *testing.T) {
			server := memcachedtest.Start(t, o)
			args := []string{"--wait-headers=200y", "--drain-delay=0s"}
			for flag, more := range map[string]string{"--index-cache.config": "ttl: 1h",
				"--store.caching-bucket.config": "chunk_subrange_size: 16000"} {
				args = append(
					args, flag+"="+strings.ReplaceAll(document, "ADDRESS", server.Addr)+"\n"+more,
				)
			}
			first := startProcess(t, bucket, args...)
			first.await("readiness changed.*ready=true")
			want := fmt.Sprintf("%d %d", wideSeries, wideSeries)
			if got := askAll(first); got != want {
				t.Errorf("the first process: got %s series, want %s", got, want)
			}
			for _, kind := range []string{"index", "chunks"} {
				if first.counted("larder_bucket_reads_total", "kind="+kind) == 0 {
					t.Errorf("the first process has read no %s pages from the bucket", kind)
				}
			}
			for _, client := range []string{"index-cache", "caching-bucket"} {
				first.metric(`larder_memcached_pending_writes{name="` + client + `"} 0`)
			}
			first.signal(syscall.SIGINT)
			if code := first.exit(); code != 0 {
				t.Fatalf("the first process: exit code %d", code)
			}

			second := startProcess(t, bucket, args...) // with a folder of its own
			second.await("readiness changed.*ready=true")
			if got := askAll(second); got != want {
				t.Errorf("the second process: got %s series, want %s", got, want)
			}
			for _, kind := range []string{"index", "chunks"} {
				if n := second.counted("larder_bucket_reads_total", "kind="+kind); n != 0 {
					t.Errorf(
						"the second process has read the bucket for %s pages %g times", kind, n,
					)
				}
			}
			for _, client := range []string{"index-cache", "caching-bucket"} {
				if n := second.counted("larder_memcached_hits_total", "name="+client,
					"source=server"); n == 0 {
					t.Errorf("client %s has found nothing in memcached", client)
				}
			}
			if t.Failed() {
				t.Logf("memcached: %v", server.Stats(t))
			}
		})
	}
	f(
		"alone", "type: MEMCACHED\nconfig: {addresses: [ADDRESS], timeout: 10s, min_timeout: 10s}",
		memcachedtest.Options{},
	)
	f(
		"below memory",
		"type: TIERED\nconfig: {in_memory: {max_size: 64MB}, memcached: {addresses: [ADDRESS], timeout: 10s, min_timeout: 10s}}",
		memcachedtest.Options{},
	)

	ca := tlstest.New(t)
	serverCert, serverKey := ca.Files(-time.Hour, time.Hour)
	clientCert, clientKey := ca.Files(-time.Hour, time.Hour)
	caFile := ca.File()
	f(
		"over TLS",
		"type: MEMCACHED\nconfig: {addresses: [ADDRESS], timeout: 10s, min_timeout: 10s, tls_enabled: true, tls_config: {ca_file: "+caFile+
			", cert_file: "+clientCert+", key_file: "+clientKey+"}}",
		memcachedtest.Options{
			TLS: &memcachedtest.TLS{Cert: serverCert, Key: serverKey, ClientCA: caFile},
		},
	)
}

// TestMemcachedCertificate checks that a client certificate is reloaded from its files, and kept if
// they are not usable.
func TestMemcachedCertificate(t *testing.T) {
	ca := tlstest.New(t)
	certFile, keyFile := ca.Files(-time.Hour, time.Hour)
	conf, certificate,
		err := (&clienttls.Config{CertFile: certFile, KeyFile: keyFile, ServerName: "cache",
		InsecureSkipVerify: true}).Open(
		time.Now(),
	)
	if err != nil {
		t.Fatal(err)
	}
	if conf.ServerName != "cache" || !conf.InsecureSkipVerify || conf.RootCAs != nil {
		t.Errorf("got %+v", conf)
	}
	shown := func() string {
		t.Helper()
		c, err := conf.GetClientCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := shown()
	cert, key := ca.Issue(-time.Hour, time.Hour)
	replace(t, certFile, cert)
	if shown() != first || certificate.Reload(time.Now()) == nil {
		t.Error("half of a rotation counts")
	}
	replace(t, keyFile, key)
	second := shown()
	if second == first {
		t.Error("the new certificate is not shown")
	}
	replace(t, keyFile, []byte("garbage"))
	if shown() != second {
		t.Error("garbage is shown")
	}
}
