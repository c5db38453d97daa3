package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/benchmarks/dataset"
	"larder/store/admission"
	"larder/store/storepb"
)

// TestLimitsConfig checks that missing keys of a tenant come from default, and those of default
// from the flags.
func TestLimitsConfig(t *testing.T) {
	flags := admission.LimitOptions{Series: 100, Samples: 1000, Bytes: 10}
	f := func(
		doc string, others admission.LimitOptions, tenants map[string]admission.LimitOptions,
	) {
		t.Helper()
		got, err := parseLimits([]byte(doc), flags)
		if err != nil {
			t.Errorf("%s: %v", doc, err)
			return
		}
		if tenants == nil {
			tenants = map[string]admission.LimitOptions{}
		}
		if diff := cmp.Diff(tenantLimits{others, tenants}, got,
			cmp.AllowUnexported(tenantLimits{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", doc, diff)
		}
	}
	f("", flags, nil)
	f("\n", flags, nil)
	f("{}", flags, nil)
	f(
		"default: {request_series: 0, downloaded_bytes: 1GB}",
		admission.LimitOptions{Samples: 1000, Bytes: 1 << 30}, nil,
	)
	f(`
default: {weight: 0.5, request_samples: 7, max_concurrent: 3, shared: true}
tenants:
  kitchen: {weight: 4, request_series: 5, max_concurrent: 0, request_bytes_ratio: 0.25}
  cellar: {}
`, admission.LimitOptions{Series: 100, Samples: 7, Bytes: 10, Weight: 0.5, MaxConcurrent: 3, Shared: true}, map[string]admission.LimitOptions{
		"kitchen": {Series: 5, Samples: 7, Bytes: 10, Weight: 4, RequestBytes: 0.25},
		"cellar":  {Series: 100, Samples: 7, Bytes: 10, Weight: 0.5, MaxConcurrent: 3},
	})

	refused := func(doc, want string) {
		t.Helper()
		if _, err := parseLimits([]byte(doc), flags); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", doc, err, want)
		}
	}
	refused("kitchen: {}", "line 1: unknown key kitchen, known keys are default, tenants")
	refused("tenants: {a: {limit: 1}}", "line 1: tenants.a: unknown key limit")
	refused("tenants: {a: {}, a: {}}", "line 1: tenants: key a is already in line 1")
	refused("default: {weight: -1}", "default: weight: -1 is not from")
	refused("default: {weight: .nan}", "default: weight: NaN is not from")
	refused("default: {request_series: -1}", "want a number")
	refused("default: {max_concurrent: -1}", "max_concurrent must not be below zero")
	refused("default: {downloaded_bytes: lots}", "downloaded_bytes:")
	refused(
		"tenants: {a: {request_bytes_ratio: 0}}",
		"tenants: a: request_bytes_ratio: 0 is not above 0",
	)
	refused("tenants: {a: {shared: true}}", "shared is only valid in default")
	refused(`tenants: {"": {}}`, "is not a valid name")
	refused("tenants: {"+strings.Repeat("a", 129)+": {}}", "is not a valid name")
}

// TestLimitsReload changes the limits of tenants while the process runs. An unusable file changes
// nothing.
func TestLimitsReload(t *testing.T) {
	bucket := t.TempDir()
	if _, err := dataset.WholeMetric("one", 1, 200, 30_000).
		Write(t.Context(), bucket, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	file := write(t, "limits.yml", "tenants: {kitchen: {request_series: 100}}")
	p := startProcess(
		t, folder(bucket), "--store.limits.config-file="+file, "--store.limits.request-series=150",
	)
	p.await("readiness changed.*ready=true")
	ask := func(tenant string, want codes.Code, text string) {
		t.Helper()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "THANOS-TENANT", tenant)
		stream, err := storepb.NewStoreClient(p.rpc).Series(ctx, &storepb.SeriesRequest{
			MaxTime: 1 << 50,
			Matchers: []*storepb.LabelMatcher{
				{Name: "__name__", Value: dataset.WholeMetricName}}})
		for err == nil {
			_, err = stream.Recv()
		}
		if got := status.Convert(err); err.Error() != "EOF" && got.Code() != want ||
			text != "" && !strings.Contains(got.Message(), text) {
			t.Errorf("%s: got %v, want %s: %s", tenant, err, want, text)
		}
	}
	ask("kitchen", codes.ResourceExhausted, "exceeded series limit: limit 100 violated (got 200)")
	ask("cellar", codes.ResourceExhausted, "exceeded series limit: limit 150 violated (got 200)")
	p.metric(`thanos_bucket_store_queries_dropped_total{reason="series",tenant="kitchen"} 1`)

	replace(t, file, []byte("tenants: {kitchen: {request_series: 200}}"))
	p.await("configuration reloaded.* kind=limits")
	ask("kitchen", codes.OK, "")
	replace(t, file, []byte("tenants: {kitchen: {request_serious: 1}}"))
	p.await(
		"configuration reload failed.* kind=limits .*--store.limits.config-file " + file + ": line 1: tenants.kitchen: unknown key request_serious, did you mean request_series",
	)
	p.metric(`larder_config_last_reload_successful{kind="limits"} 0`)
	ask("kitchen", codes.OK, "")
	replace(t, file, []byte("default: {request_series: 0}"))
	p.await("configuration reloaded.* kind=limits")
	ask("cellar", codes.OK, "")
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("got exit code %d", code)
	}
}
