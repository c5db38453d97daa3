package interop

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"gopkg.in/yaml.v3"

	"larder/interop/internal/answer"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/neighbour"
	"larder/interop/internal/process"
	"larder/interop/internal/programs"
	"larder/interop/internal/query"
	"larder/interop/internal/scrape"
)

// notExported is metrics_not_exported.yaml: the metrics that thanos store exports and larder does
// not export, or exports differently.
type notExported struct {
	Families []*struct {
		Name   string // exactly one of these two
		Prefix string
		Reason string

		used bool
	}
}

func loadNotExported(t *testing.T) *notExported {
	t.Helper()
	f, err := os.Open("metrics_not_exported.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := &notExported{}
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	if err := dec.Decode(out); err != nil {
		t.Fatal(err)
	}
	for _, e := range out.Families {
		if (e.Name == "") == (e.Prefix == "") || e.Reason == "" {
			t.Fatalf(
				"metrics_not_exported.yaml: an entry needs a reason, and either a name or a prefix: %+v",
				*e,
			)
		}
	}
	return out
}

func (n *notExported) excuses(family string) bool {
	for _, e := range n.Families {
		if e.Name == family || e.Prefix != "" && strings.HasPrefix(family, e.Prefix) {
			e.used = true
			return true
		}
	}
	return false
}

// TestMetricNames compares the metrics of larder with those of `thanos store` after the same
// requests over the same bucket. Each family of Thanos must have the same name, type, labels and
// buckets in larder, or be in metrics_not_exported.yaml.
func TestMetricNames(t *testing.T) {
	l, list := oneLayout(t), loadNotExported(t)
	t.Run("caches in memory", func(t *testing.T) {
		sameMetrics(t, l, list, "--store.caching-bucket.config=type: IN-MEMORY")
	})
	t.Run("caches in memcached", func(t *testing.T) {
		cache := "type: MEMCACHED\nconfig: {addresses: ['" + startMemcached(t) + "']}"
		sameMetrics(
			t, l, list, "--index-cache.config="+cache, "--store.caching-bucket.config="+cache,
		)
	})
	for _, e := range list.Families {
		if !e.used {
			t.Errorf(
				"metrics_not_exported.yaml: %s%s is not exported by Thanos, or only without these flags: the entry is not needed",
				e.Name, e.Prefix,
			)
		}
	}
}

// sameMetrics runs both gateways with everything that makes Thanos export more, and with the given
// flags.
func sameMetrics(t *testing.T, l *layout.Layout, list *notExported, more ...string) {
	t.Helper()
	ctx := context.Background()
	bucket := func() gateway.Bucket { return gateway.Bucket{Dir: l.Dir, DataDir: t.TempDir()} }
	flags := append([]string{
		"--store.enable-index-header-lazy-reader", "--store.enable-lazy-expanded-postings",
		"--matcher-cache-size=100",
	}, more...)
	thanos, err := neighbour.StartStore(ctx, programs.Thanos(t), bucket(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, thanos.Process)
	bin, err := gateway.BuildLarder(ctx, "..")
	if err != nil {
		t.Fatal(err)
	}
	larder, err := gateway.StartLarder(ctx, bin, bucket(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, larder.Process)
	ask(t, thanos.Addr, l, 200)
	ask(t, larder.Addr, l, 200)

	sameFigures(t, thanos.Addr, thanos.HTTPAddr, larder.Addr, larder.HTTPAddr)

	want, got := shapes(t, thanos.HTTPAddr), shapes(t, larder.HTTPAddr)
	for name, w := range want {
		g, exported := got[name]
		if list.excuses(name) {
			if exported {
				t.Errorf("%s is exported, but is listed in metrics_not_exported.yaml", name)
			}
			continue
		}
		switch {
		case !exported:
			t.Errorf("%s is not exported: Thanos has a %s with labels %q", name, w.Type, w.Labels)
		case w.Type != g.Type:
			t.Errorf("%s is a %s, in Thanos a %s", name, g.Type, w.Type)
		case w.Labels != g.Labels:
			t.Errorf("%s has labels %q, in Thanos %q", name, g.Labels, w.Labels)
		case !slices.Equal(w.Buckets, g.Buckets):
			t.Errorf("%s has buckets %v, in Thanos %v", name, g.Buckets, w.Buckets)
		case w.Native && !g.Native:
			t.Errorf("%s has no native buckets, in Thanos it does", name)
		}
	}
	t.Logf(
		"proved: of %d families of thanos store with %s, all have the same shape except those of metrics_not_exported.yaml",
		len(want), more,
	)
}

// startMemcached runs a memcached until the test ends and returns its address.
func startMemcached(t *testing.T) string {
	t.Helper()
	addrs, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-l", host, "-p", port, "-U", "0"}
	if os.Getuid() == 0 {
		args = append(args, "-u", "root") // it refuses to run as root unless told to
	}
	p, err := process.Start(context.Background(), process.Options{
		Name: "memcached", Bin: programs.Debian(t, "memcached", "memcached"), Args: args,
		Ready: process.Listening(addrs[0]),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	return addrs[0]
}

// oneLayout writes a bucket without damage.
func oneLayout(t *testing.T) *layout.Layout {
	t.Helper()
	return oneLayoutWith(t, layout.Options{})
}

func oneLayoutWith(t *testing.T, opts layout.Options) *layout.Layout {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bucket")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Write(context.Background(), dir, 1001, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ask sends n generated requests, the same for the same layout. It fails if every answer was empty.
func ask(t *testing.T, addr string, l *layout.Layout, n int) {
	t.Helper()
	ctx := context.Background()
	c, err := gateway.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := query.NewGenerator(l.Seed, l)
	answered := 0
	for range n {
		q := g.Next()
		a, err := answer.Ask(ctx, c, q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		if !a.Empty() {
			answered++
		}
	}
	if answered < n/4 {
		t.Fatalf("only %d of %d requests had answers that are not empty", answered, n)
	}
}

// sameFigures sends both gateways one request that both answer with the same bytes, and compares
// what their metrics report about the answer.
func sameFigures(t *testing.T, thanos, thanosHTTP, larder, larderHTTP string) {
	t.Helper()
	figures := func(httpAddr string) map[string]float64 {
		out := map[string]float64{}
		fs := families(t, httpAddr)
		for _, name := range []string{
			"thanos_bucket_store_series_result_series", "thanos_bucket_store_sent_chunk_size_bytes",
			"thanos_bucket_store_series_blocks_queried",
			"thanos_store_server_series_requested", "thanos_store_server_chunks_requested",
		} {
			for _, m := range fs[name].GetMetric() {
				out[name+"_sum"] += m.GetHistogram().GetSampleSum()
				out[name+"_count"] += float64(m.GetHistogram().GetSampleCount())
			}
		}
		for _, m := range fs["grpc_server_handled_total"].GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "grpc_code" && l.GetValue() == "OK" {
					out["grpc_server_handled_total OK"] += m.GetCounter().GetValue()
				}
			}
		}
		return out
	}
	delta := func(addr, httpAddr string) map[string]float64 {
		before := figures(httpAddr)
		c, err := gateway.Dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := answer.Ask(context.Background(), c, &query.Query{Series: &storepb.SeriesRequest{
			MinTime: -1 << 60, MaxTime: 1 << 60,
			Matchers: []storepb.LabelMatcher{
				{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"},
			},
		}})
		if err != nil || a.Empty() {
			t.Fatalf("%s: an answer of %d series, error %v", addr, len(a.Series), err)
		}
		after := figures(httpAddr)
		for k := range after {
			after[k] -= before[k]
		}
		return after
	}
	want, got := delta(thanos, thanosHTTP), delta(larder, larderHTTP)
	if len(want) != 11 {
		t.Errorf("figures of Thanos: %v", want)
	}
	for k, w := range want {
		if w == 0 || got[k] != w {
			t.Errorf("one request adds %v to %s, in Thanos %v", got[k], k, w)
		}
	}
	t.Logf("proved: one request adds the same to both: %v", want)
}

func shapes(t *testing.T, httpAddr string) map[string]scrape.Shape {
	t.Helper()
	out := map[string]scrape.Shape{}
	for name, f := range families(t, httpAddr) {
		out[name] = scrape.ShapeOf(f)
	}
	return out
}

func families(t *testing.T, httpAddr string) map[string]*dto.MetricFamily {
	t.Helper()
	raw, err := scrape.Get(context.Background(), "http://"+httpAddr+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	fs, err := raw.Families()
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// stop ends a child. A child that has ended by itself fails the test.
func stop(t *testing.T, p interface {
	Exited() <-chan struct{}
	Log() string
	Close() error
}) {
	t.Helper()
	select {
	case <-p.Exited():
		t.Errorf("it ended by itself:\n%s", p.Log())
	default:
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
