package memcached

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"larder/internal/memcached/memcachedtest"
)

// TestMetricsAreThanos: the metrics that Thanos's dashboards and alerts read have the same names
// and labels.
func TestMetricsAreThanos(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := memcachedtest.Start(t, memcachedtest.Options{})
	c := client(t, Options{Name: "index-cache", Registerer: reg}, s)
	other := client(
		t, Options{Name: "caching-bucket", Registerer: reg, Addresses: []string{"dns+127.0.0.1:1"}},
	)
	_, err := New(Options{Name: "index-cache", Registerer: reg, Addresses: []string{"host:1"}})
	if err == nil ||
		!strings.Contains(err.Error(), "names must differ") {
		t.Errorf("two clients of one name: %v", err)
	}
	store(t, c, map[ID][]byte{idOf("a"): []byte("value")})
	get(t, c, idOf("a"))
	eventually(t, func() bool {
		return other.discovery.lookups.Load() > 0 &&
			len(other.ring.Load().servers) > 0
	})

	families := gather(t, reg)
	f := func(name string, typ dto.MetricType, labels string) {
		t.Helper()
		fam := families[name]
		if fam == nil {
			t.Errorf("%s is not exported", name)
			return
		}
		var got []string
		for _, l := range fam.Metric[0].Label {
			got = append(got, l.GetName())
		}
		slices.Sort(got)
		if fam.GetType() != typ || strings.Join(got, ",") != labels {
			t.Errorf("%s: %v{%s}, want %v{%s}", name, fam.GetType(), strings.Join(got, ","), typ,
				labels)
		}
	}
	const counter, gauge, histogram = dto.MetricType_COUNTER, dto.MetricType_GAUGE,
		dto.MetricType_HISTOGRAM
	f("thanos_memcached_operations_total", counter, "name,operation")
	f("thanos_memcached_operation_failures_total", counter, "name,operation,reason")
	f("thanos_memcached_operation_skipped_total", counter, "name,operation,reason")
	f("thanos_memcached_operation_duration_seconds", histogram, "name,operation")
	f("thanos_memcached_operation_data_size_bytes", histogram, "name,operation")
	f(
		"thanos_memcached_client_info", gauge,
		"dns_provider_update_interval,max_async_buffer_size,max_async_concurrency,max_get_multi_batch_size,max_get_multi_concurrency,max_idle_connections,max_item_size,name,timeout",
	)
	f("thanos_memcached_dns_lookups_total", counter, "name")
	f("thanos_memcached_dns_failures_total", counter, "name")
	f("thanos_memcached_dns_provider_results", gauge, "addr,name")
	f("thanos_memcached_getmulti_gate_gets_max", gauge, "name")
	f("thanos_memcached_getmulti_gate_gets_in_flight", gauge, "name")
	f("thanos_memcached_getmulti_gate_gets_total", counter, "name")
	f("thanos_memcached_getmulti_gate_gets_duration_seconds", histogram, "name")

	f("larder_memcached_requests_total", counter, "name")
	f("larder_memcached_hits_total", counter, "name,source")
	f("larder_memcached_hit_bytes_total", counter, "name")
	f("larder_memcached_corrupt_values_total", counter, "fault,name")
	f("larder_memcached_dropped_writes_total", counter, "name,reason")
	f("larder_memcached_pending_writes", gauge, "name")
	f("larder_memcached_pending_write_bytes", gauge, "name")
	f("larder_memcached_read_deadline_seconds", gauge, "name")
	f("larder_memcached_breaker_state", gauge, "direction,name,server")
	f("larder_memcached_breaker_opened_total", counter, "direction,name,server")
	f("thanos_cache_memcached_requests_total", counter, "name")
	f("thanos_cache_memcached_hits_total", counter, "name")
	f("larder_corruptions_total", counter, "kind,outcome")
	if len(families) != 27 {
		t.Errorf("%d families", len(families))
	}

	got := map[string]float64{}
	for _, m := range families["thanos_memcached_operations_total"].Metric {
		if m.Label[0].GetValue() == "index-cache" {
			got[m.Label[1].GetValue()] = m.Counter.GetValue()
		}
	}
	if diff := cmp.Diff(map[string]float64{"set": 1, "getmulti": 1, "delete": 0}, got); diff != "" {
		t.Errorf("operations: %s", diff)
	}

	// After Close, another client can use the name. The counter of corruptions belongs to the
	// process.
	c.Close()
	other.Close()
	left := gather(t, reg)
	delete(left, "larder_corruptions_total") // shared by the whole process
	delete(left, "larder_panics_total")
	if n := len(left); n != 0 {
		t.Errorf("%d families are left by closed clients", n)
	}
	client(t, Options{Name: "index-cache", Registerer: reg}, s)
}

func gather(t *testing.T, reg prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]*dto.MetricFamily{}
	for _, f := range all {
		families[f.GetName()] = f
	}
	return families
}
