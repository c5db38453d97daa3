package bucket

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"larder/internal/bucket/slots"
)

func open(t *testing.T, yaml string) (*Stack, *prometheus.Registry) {
	t.Helper()
	conf, err := Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	b, err := Open(conf, Options{
		Limiter: slots.New(slots.Options{Max: 1}), WholeBytes: 1 << 20,
		Logger: slog.New(slog.DiscardHandler), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, reg
}

// TestPrefix: every operation stays below the prefix, with any number of slashes around it, with
// and without hedging.
func TestPrefix(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"outside/o":             "wrong",
		"team/prod/o":           "0123456789",
		"team/prod/folder/deep": "deep",
		"team/production/o":     "wrong",
		"o":                     "wrong",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"team/prod", "/team/prod", "team/prod/", "//team/prod//"} {
		for _, hedged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hedged=%v", prefix, hedged), func(t *testing.T) {
				b, _ := open(
					t,
					fmt.Sprintf(
						"{type: filesystem, config: {directory: %q}, prefix: %q, hedging_config: {enabled: %v}}",
						dir,
						prefix,
						hedged,
					),
				)
				ctx := t.Context()
				text := func(r io.ReadCloser, err error) string {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
					defer r.Close()
					all, err := io.ReadAll(r)
					if err != nil {
						t.Fatal(err)
					}
					return string(all)
				}
				if got := text(b.Get(ctx, "o")); got != "0123456789" {
					t.Errorf("Get: %q", got)
				}
				if got := text(b.GetRange(ctx, "o", 3, 4)); got != "3456" {
					t.Errorf("GetRange: %q", got)
				}
				if ok, err := b.Exists(ctx, "folder/deep"); !ok || err != nil {
					t.Errorf("Exists: %v %v", ok, err)
				}
				if ok, err := b.Exists(ctx, "outside/o"); ok || err != nil {
					t.Errorf("Exists above the prefix: %v %v", ok, err)
				}
				if a, err := b.Attributes(ctx, "o"); err != nil || a.Size != 10 {
					t.Errorf("Attributes: %v %v", a, err)
				}
				if _, err := b.GetRange(ctx, "outside/o", 0, 1); !b.IsObjNotFoundErr(err) {
					t.Errorf("GetRange of a missing object: %v", err)
				}
				list := func(dir string, options ...objstore.IterOption) (names []string) {
					t.Helper()
					if err := b.Iter(ctx, dir, func(name string) error {
						names = append(names, name)
						return nil
					}, options...); err != nil {
						t.Fatal(err)
					}
					var again []string
					if err := b.IterWithAttributes(ctx, dir, func(
						a objstore.IterObjectAttributes,
					) error {
						again = append(again, a.Name)
						return nil
					}, options...); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(names, again) {
						t.Errorf("Iter %v, IterWithAttributes %v", names, again)
					}
					return names
				}
				if got, want := list(""), []string{"folder/", "o"}; !slices.Equal(got, want) {
					t.Errorf("Iter: %v, want %v", got, want)
				}
				if got, want := list("", objstore.WithRecursiveIter()),
					[]string{"folder/deep", "o"}; !slices.Equal(
					got,
					want,
				) {
					t.Errorf("Iter, recursive: %v, want %v", got, want)
				}
				if got, want := list("folder"), []string{"folder/deep"}; !slices.Equal(got, want) {
					t.Errorf("Iter: %v, want %v", got, want)
				}
			})
		}
	}
}

// TestHedgingIsOffUnlessAskedFor: hedging needs enabled: true, and does not change the counts of
// the bucket's operations.
func TestHedgingIsOffUnlessAskedFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "o"), []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, hedged := range []string{"", ", hedging_config: {}",
		", hedging_config: {up_to: 2, quantile: 0.9}", ", hedging_config: {enabled: true}"} {
		b, reg := open(t, fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}%s}", dir, hedged))
		r, err := b.GetRange(t.Context(), "o", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP thanos_objstore_bucket_operations_total Total number of all attempted operations against a bucket.
# TYPE thanos_objstore_bucket_operations_total counter
thanos_objstore_bucket_operations_total{bucket=%q,operation="attributes"} 0
thanos_objstore_bucket_operations_total{bucket=%[1]q,operation="delete"} 0
thanos_objstore_bucket_operations_total{bucket=%[1]q,operation="exists"} 0
thanos_objstore_bucket_operations_total{bucket=%[1]q,operation="get"} 0
thanos_objstore_bucket_operations_total{bucket=%[1]q,operation="get_range"} 1
thanos_objstore_bucket_operations_total{bucket=%[1]q,operation="iter"} 0
thanos_objstore_bucket_operations_total{bucket=%[1]q,operation="upload"} 0
`, b.Name())), "thanos_objstore_bucket_operations_total"); err != nil {
			t.Error(err)
		}
		n, err := testutil.GatherAndCount(reg, "larder_bucket_hedges_total")
		if err != nil || (n > 0) != strings.Contains(hedged, "true") {
			t.Errorf("%s: %d series of hedges, %v", hedged, n, err)
		}
	}
}

// TestStacksBesideEachOther: two stacks over one folder share a registerer, and the label bucket
// tells their metrics apart.
func TestStacksBesideEachOther(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "o"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}, "+
		"hedging_config: {enabled: true}}", dir)
	first, reg := open(t, yaml)
	conf, err := Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(conf, Options{
		Limiter: first.limiter, WholeBytes: 1 << 20, Beside: first,
		Logger: slog.New(slog.DiscardHandler), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if ok, err := second.Exists(t.Context(), "o"); !ok || err != nil {
			t.Fatalf("the object exists: %v, %v", ok, err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "thanos_objstore_bucket_operations_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			name := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "bucket" {
					name = l.GetValue()
				}
			}
			got[name] += m.GetCounter().GetValue()
		}
	}
	want := map[string]float64{first.Name(): 0, first.Name() + " (parquet)": 3}
	if !maps.Equal(got, want) {
		t.Errorf("operations by bucket: %v, want %v", got, want)
	}
}

// TestOtherProviders: each provider accepts all keys that it documents. Its stack opens without a
// request to the bucket if the client allows that.
func TestOtherProviders(t *testing.T) {
	for _, yaml := range []string{
		`{type: COS, config: {bucket: b, region: ap-guangzhou, app_id: "1250000000", endpoint: "", secret_key: k, secret_id: i, max_retries: 1, http_config: {idle_conn_timeout: 1m30s, insecure_skip_verify: false}}}`,
		`{type: ALIYUNOSS, config: {endpoint: "http://127.0.0.1:1", bucket: blocks, access_key_id: i, access_key_secret: k}}`,
		`{type: BOS, config: {bucket: b, endpoint: "http://127.0.0.1:1", access_key: i, secret_key: k}}`,
		`{type: OBS, config: {bucket: b, endpoint: "http://127.0.0.1:1", access_key: i, secret_key: k, max_retries: 1, http_config: {response_header_timeout: 2m}}}`,
	} {
		open(t, yaml)
	}
}
