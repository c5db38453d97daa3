package interop

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/store/storepb"

	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/mixin"
	"larder/interop/internal/process"
	"larder/interop/internal/scrape"
)

// scrapeInterval is the time between two scrapes in the storage. Some panels have a range of 30 s.
const scrapeInterval = 15 * time.Second

// watched is a larder whose scrapes are written to a storage, at times that the test chooses.
type watched struct {
	*gateway.Larder
	storage *scrape.Storage
	now     time.Time
}

func watch(t *testing.T, l *layout.Layout, flags ...string) *watched {
	t.Helper()
	ctx := context.Background()
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.StartLarder(
		ctx,
		bin,
		gateway.Bucket{Dir: l.Dir, DataDir: t.TempDir()},
		flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	// The labels that usual service discovery adds.
	s, err := scrape.NewStorage(
		t.TempDir(),
		labels.Label{Name: "job", Value: "thanos-store"},
		labels.Label{Name: "namespace", Value: "monitoring"},
		labels.Label{
			Name:  "instance",
			Value: "10.0.0.1:10902",
		},
		labels.Label{Name: "pod", Value: "thanos-store-0"},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &watched{Larder: g, storage: s, now: time.Now().Truncate(time.Second)}
}

// scrape scrapes once.
func (w *watched) scrape(t *testing.T) {
	t.Helper()
	raw, err := scrape.Get(context.Background(), "http://"+w.HTTPAddr+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	w.add(t, raw)
}

func (w *watched) add(t *testing.T, raw *scrape.Raw) {
	t.Helper()
	w.now = w.now.Add(scrapeInterval)
	if err := w.storage.Add(raw, w.now); err != nil {
		t.Fatal(err)
	}
}

// eval returns the current values of an expression.
func (w *watched) eval(t *testing.T, expr string) []float64 {
	t.Helper()
	v, err := w.storage.Eval(expr, w.now)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	var out []float64
	for _, s := range v {
		out = append(out, s.F)
	}
	return out
}

// thanosMixin reads everything in Thanos's mixin about the store.
func thanosMixin(t *testing.T) []mixin.Expression {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/thanos-io/thanos").
		Output()
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(strings.TrimSpace(string(dir)), "examples")
	variables := map[string]string{
		"job":             "thanos-store",
		"interval":        "5m",
		"__rate_interval": "1m",
		"namespace":       "monitoring",
	}
	var all []mixin.Expression
	for _, read := range []func() ([]mixin.Expression, error){
		func() ([]mixin.Expression, error) {
			return mixin.Rules(filepath.Join(examples, "alerts", "alerts.yaml"))
		},
		func() ([]mixin.Expression, error) {
			return mixin.Rules(filepath.Join(examples, "alerts", "rules.yaml"))
		},
		func() ([]mixin.Expression, error) {
			return mixin.Dashboard(filepath.Join(examples, "dashboards", "store.json"), variables)
		},
		func() ([]mixin.Expression, error) {
			return mixin.Dashboard(filepath.Join(examples, "dashboards", "overview.json"),
				variables, "Store")
		},
	} {
		es, err := read()
		if err != nil {
			t.Fatal(err)
		}
		if len(es) < 3 {
			t.Fatalf("only %d expressions about the store in one of the mixin's files", len(es))
		}
		all = append(all, es...)
	}
	return all
}

// named returns the expression of an alert or recording rule.
func named(t *testing.T, all []mixin.Expression, name string) mixin.Expression {
	t.Helper()
	for _, e := range all {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("Thanos's mixin has no %s", name)
	return mixin.Expression{}
}

// TestMixin evaluates Thanos's alerts, rules and dashboards over scrapes of a larder that answers
// requests. Every selector must find series, and every expression must have a value; of alerts the
// thresholds are removed.
func TestMixin(t *testing.T) {
	l := oneLayout(t)
	w := watch(t, l)
	for range 6 {
		w.scrape(t)
		ask(t, w.Addr, l, 40)
	}
	w.scrape(t)

	absent := "ThanosStoreIsDown" // it has a value only when the store is gone
	all := thanosMixin(t)
	for _, e := range all {
		for _, s := range e.Selectors() {
			n, err := w.storage.Find(s, w.now)
			if err != nil {
				t.Errorf("%s: %v", e.Where, err)
			} else if n == 0 {
				t.Errorf("%s: %s finds no series", e.Where, s)
			}
		}
		text, err := e.WithoutThresholds()
		if err != nil {
			t.Fatal(err)
		}
		v, err := w.storage.Eval(text, w.now)
		switch {
		case err != nil:
			t.Errorf("%s: %v", e.Where, err)
		case e.Name == absent && len(v) > 0:
			t.Errorf("%s fires while the store is up", e.Where)
		case e.Name != absent && len(v) == 0:
			t.Errorf("%s has no value: %s", e.Where, e.Text)
		}
		// Nothing is wrong: no alert fires.
		if strings.HasPrefix(e.Where, "alerts.yaml") {
			if v := w.eval(t, e.Text); len(v) > 0 {
				t.Errorf("%s fires: %v", e.Where, v)
			}
		}
	}
	t.Logf("proved: %d alerts, rules and panels of Thanos's mixin find their series", len(all))

	for _, q := range []string{
		// The metrics of Thanos's binary beside those that its alert reads.
		`thanos_bucket_store_series_gate_duration_seconds_count == thanos_bucket_store_series_gate_queries_duration_seconds_count > 0`,
		// The scrape contained native buckets with requests in them.
		`histogram_count(rate(grpc_server_handling_seconds{grpc_method="Series"}[5m])) > 0`,
		`histogram_quantile(0.9, rate(grpc_server_handling_seconds{grpc_method="Series"}[5m])) > 0`,
		`histogram_count(thanos_objstore_bucket_operation_duration_seconds{operation="get_range"}) > 0`,
	} {
		if v := w.eval(t, q); len(v) == 0 {
			t.Errorf("%s has no value", q)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.add(t, nil)
	if v := w.eval(t, named(t, all, absent).Text); len(v) != 1 {
		t.Errorf("%s does not fire while the store is down", absent)
	}
}

// TestMixinGateAlert keeps the only place of the gate occupied. Requests that wait raise the
// latency that Thanos's alert reads.
func TestMixinGateAlert(t *testing.T) {
	l := oneLayoutWith(t, layout.Options{Giants: true})
	w := watch(t, l, "--store.grpc.series-max-concurrency=1")
	w.scrape(t)
	c, err := gateway.Dial(w.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	everything := &storepb.SeriesRequest{
		MinTime: -1 << 60, MaxTime: 1 << 60,
		Matchers: []storepb.LabelMatcher{
			{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"},
		},
	}
	// Its answer is larger than what can be in flight unread. Therefore it occupies its place until
	// the client reads on.
	holder, err := c.Store.Series(ctx, everything)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Recv(); err != nil {
		t.Fatal(err)
	}
	waiting, stopWaiting := context.WithTimeout(ctx, 2500*time.Millisecond)
	defer stopWaiting()
	waiter, err := c.Store.Series(waiting, everything)
	if err == nil {
		_, err = waiter.Recv()
	}
	if err == nil {
		t.Fatal("the gate admitted a second request with a limit of one")
	}
	// The client notices its deadline before the gate does.
	err = w.Wait(ctx, func(ctx context.Context) bool {
		n, err := process.Metric(
			ctx, "http://"+w.HTTPAddr+"/metrics",
			"thanos_bucket_store_series_gate_duration_seconds_count",
		)
		return err == nil && n == 2
	})
	if err != nil {
		t.Fatal(err)
	}
	w.scrape(t)
	e := named(t, thanosMixin(t), "ThanosStoreSeriesGateLatencyHigh")
	if v := w.eval(t, e.Text); len(v) != 1 || v[0] <= 2 {
		t.Errorf("%s: got %v, want more than 2 s", e.Where, v)
	}
	if v := w.eval(t, `thanos_bucket_store_series_gate_queries_in_flight`); len(v) != 1 ||
		v[0] != 1 {
		t.Errorf("in flight: %v", v)
	}
	t.Logf("proved: %s fires while requests wait at the gate", e.Name)
}

// TestMixinBucketAlert removes chunk files. Reads that fail raise the share of failed operations
// that Thanos's alert reads.
func TestMixinBucketAlert(t *testing.T) {
	l := oneLayout(t)
	w := watch(t, l)
	w.scrape(t)
	files, err := filepath.Glob(filepath.Join(l.Dir, "*", "chunks", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d chunk files: %v", len(files), err)
	}
	// A folder in place of the file exists but cannot be read.
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := gateway.Dial(w.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const aborted = 3
	for range aborted {
		s, err := c.Store.Series(context.Background(), &storepb.SeriesRequest{
			MinTime: -1 << 60, MaxTime: 1 << 60,
			Matchers: []storepb.LabelMatcher{
				{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"},
			},
		})
		for err == nil {
			_, err = s.Recv()
		}
	}
	w.scrape(t)
	all := thanosMixin(t)
	e := named(t, all, "ThanosStoreBucketHighOperationFailures")
	if v := w.eval(t, e.Text); len(v) != 1 || v[0] <= 5 {
		t.Errorf(
			"%s: got %v %%, want more than 5; failures %v of %v",
			e.Where,
			v,
			w.eval(
				t, `sum(thanos_objstore_bucket_operation_failures_total)`,
			),
			w.eval(t, `sum(thanos_objstore_bucket_operations_total)`),
		)
	}
	r := named(t, all, ":thanos_objstore_bucket_failures_per_operation:sum_rate")
	if v := w.eval(t, r.Text); len(v) != 1 || v[0] <= 0.05 {
		t.Errorf("%s: got %v", r.Where, v)
	}
	// The requests failed with Aborted, which the alert about gRPC errors does not count.
	if v := w.eval(t, named(t, all, "ThanosStoreGrpcErrorRate").Text); len(v) != 0 {
		t.Errorf("ThanosStoreGrpcErrorRate fires: %v", v)
	}
	v := w.eval(t, `grpc_server_handled_total{grpc_method="Series",grpc_code="Aborted"}`)
	if len(v) != 1 || v[0] != aborted {
		t.Errorf("Aborted requests: %v, want %d", v, aborted)
	}
	t.Logf("proved: %s fires while the bucket fails", e.Name)
}
