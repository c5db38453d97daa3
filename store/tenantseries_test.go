package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/metadata"

	"larder/store/admission"
	"larder/store/storepb"
)

// tenantSeries returns the number of series of each tenant, counted like Prometheus: one for each
// bucket, sum and count of a histogram.
func tenantSeries(t *testing.T, reg *prometheus.Registry) map[string]int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() != "tenant" {
					continue
				}
				n := 1
				if f.GetType() == dto.MetricType_HISTOGRAM {
					n = len(m.GetHistogram().GetBucket()) + 3 // +Inf, sum and count
				}
				series[l.GetValue()] += n
			}
		}
	}
	return series
}

// TestSeriesOfTenantsAreBounded sends all kinds of requests as 1,200 tenants. There must be less
// than 2,000 series, with short names, and a tenant that has lost its name must have no series.
func TestSeriesOfTenantsAreBounded(t *testing.T) {
	dir, metas := twoBlocks(t)
	g := startGateway(t, dir, gatewayOptions{})
	ask := func(tenant string) {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("thanos-tenant", tenant))
		req, sink := only(t, metas[0]), &frames{ctx: ctx, on: func(int) error { return nil }}
		if err := g.Server.Series(req, sink); err != nil {
			t.Fatal(err)
		}
		names := &storepb.LabelNamesRequest{End: 1 << 50, Matchers: req.Matchers}
		if _, err := g.Server.LabelNames(ctx, names); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1200 {
		ask(fmt.Sprintf("\xff%d%s", i, strings.Repeat("x", 500)))
	}
	series := tenantSeries(t, g.reg)
	total := 0
	for tenant, n := range series {
		total += n
		if len(tenant) > admission.MaxTenantBytes {
			t.Errorf("a tenant's name has %d bytes", len(tenant))
		}
	}
	t.Logf("series by tenant: %v", series)
	if total > 2000 || len(series) != 4 {
		t.Errorf("%d series of %d tenants, want at most 2000 of 4", total, len(series))
	}
	if series["other"] < 300 {
		t.Errorf("tenant other has only %d series, the test misses metrics", series["other"])
	}

	// A larger tenant replaces a named one, whose series are deleted.
	for range 50 {
		ask("large")
	}
	now := tenantSeries(t, g.reg)
	if now["large"] == 0 || len(now) != 4 {
		t.Errorf("series by tenant: %v, want large among 4", now)
	}

	// A tenant is named as long as it has limits of its own.
	g.Server.SetLimits(admission.LimitOptions{}, map[string]admission.LimitOptions{"kept": {}})
	ask("kept")
	if now = tenantSeries(t, g.reg); now["kept"] == 0 || len(now) != 5 {
		t.Errorf("series by tenant: %v, want kept among 5", now)
	}
	g.Server.SetLimits(admission.LimitOptions{}, nil)
	if now = tenantSeries(t, g.reg); now["kept"] != 0 || len(now) != 4 {
		t.Errorf("series by tenant: %v, want 4 without kept", now)
	}
}
