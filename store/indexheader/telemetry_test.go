package indexheader

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"larder/internal/localfs"
)

// The metrics that dashboards read exist and count.
func TestMetricNames(t *testing.T) {
	idx := tinyIndex(t)
	bkt := newBucket()
	src := bkt.add(1, idx)
	dir := t.TempDir()
	for round, wantBuilds := range []float64{1, 0} {
		reg := prometheus.NewRegistry()
		m, err := New(Options{Dir: localfs.At(dir), Bucket: bkt, Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		_, release, err := m.Acquire(context.Background(), src)
		if err != nil {
			t.Fatal(err)
		}
		m.waitPersisted(src)
		for name, want := range map[string]float64{
			"thanos_bucket_store_indexheader_lazy_load_total":            1,
			"thanos_bucket_store_indexheader_lazy_load_failed_total":     0,
			"thanos_bucket_store_indexheader_lazy_unload_total":          0,
			"thanos_bucket_store_indexheader_lazy_unload_failed_total":   0,
			"thanos_bucket_store_indexheader_lazy_load_duration_seconds": 1,
			"thanos_bucket_store_indexheader_download_duration_seconds":  wantBuilds,
			"thanos_bucket_store_indexheader_load_duration_seconds":      1 - wantBuilds,
			"larder_header_builds_total":                                 wantBuilds,
			"larder_header_build_failures_total":                         0,
			"larder_header_build_duration_seconds":                       wantBuilds,
			"larder_header_local_failures_total":                         0,
			"larder_header_open":                                         1,
			"larder_header_building":                                     0,
			"larder_header_build_queue":                                  0,
			"larder_header_block_reads_total":                            0,
			"larder_header_block_cache_hits_total":                       0,
			"larder_header_block_cache_bytes":                            0,
		} {
			if got := metric(t, reg, name); got != want {
				t.Errorf("round %d: %s is %v, want %v", round, name, got, want)
			}
		}
		release()
		m.Close()
	}
}

// A request's trace shows the builds and openings that it waited for.
func TestSpans(t *testing.T) {
	idx := tinyIndex(t)
	bkt := newBucket()
	src := bkt.add(1, idx)
	dir := t.TempDir()
	rec := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec)).Tracer("test")
	for range 2 {
		m := newManager(t, Options{Dir: localfs.At(dir), Bucket: bkt})
		ctx, span := tracer.Start(context.Background(), "request")
		_, release, err := m.Acquire(ctx, src)
		if err != nil {
			t.Fatal(err)
		}
		span.End()
		m.waitPersisted(src)
		release()
	}
	var got []string
	for _, s := range rec.Ended() {
		got = append(got, s.Name())
		if s.Name() != "request" && !s.Parent().IsValid() {
			t.Errorf("span %q has no parent", s.Name())
		}
	}
	want := []string{
		"open index header",
		"build index header",
		"request",
		"open index header",
		"request",
	}
	if len(got) != len(want) {
		t.Fatalf("spans %q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("spans %q, want %q", got, want)
		}
	}
}
