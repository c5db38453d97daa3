package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"larder/benchmarks/dataset"
	"larder/store/storepb"
)

// everyRPC calls each method of the port once, in the name of a tenant.
func everyRPC(ctx context.Context, rpc *grpc.ClientConn, tenant string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "thanos-tenant", tenant)
	all := []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "__name__", Value: ".+"}}
	client := storepb.NewStoreClient(rpc)
	series, err := client.Series(ctx, &storepb.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64, Matchers: all,
		Aggregates: []storepb.Aggr{storepb.Aggr_RAW},
	})
	if err != nil {
		return err
	}
	for resp, err := series.Recv(); resp != nil; resp, err = series.Recv() {
		if err != nil {
			return err
		}
	}
	_, err = client.LabelNames(ctx, &storepb.LabelNamesRequest{
		Start: math.MinInt64, End: math.MaxInt64, Matchers: all,
	})
	if err != nil {
		return err
	}
	_, err = client.LabelValues(ctx, &storepb.LabelValuesRequest{
		Label: "__name__", Start: math.MinInt64, End: math.MaxInt64, Matchers: all,
	})
	if err != nil {
		return err
	}
	if _, err := storepb.NewInfoClient(rpc).Info(ctx, &storepb.InfoRequest{}); err != nil {
		return err
	}
	health := healthpb.NewHealthClient(rpc)
	if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		return err
	}
	watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if _, err := watch.Recv(); err != nil {
		return err
	}
	reflect, err := reflectionpb.NewServerReflectionClient(rpc).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	list := &reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}
	if err := reflect.Send(list); err != nil {
		return err
	}
	_, err = reflect.Recv()
	return err
}

// TestMadeUpTenantsInMetrics calls every method for 1,200 tenants. A scrape grows by at most 2,000
// series. Tenants of the limits document are always named.
func TestMadeUpTenantsInMetrics(t *testing.T) {
	dir := t.TempDir()
	few := dataset.WholeMetric("few", 1, 3, 30_000)
	if _, err := few.Write(t.Context(), dir, dataset.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, folder(dir), "--store.limits.config={tenants: {known: {}}}")
	p.await("readiness changed.*ready=true")
	scrape := func() (all, tenants []string) {
		_, body := p.get("/metrics")
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			all = append(all, line)
			if strings.Contains(line, `tenant="`) {
				tenants = append(tenants, line)
			}
		}
		return all, tenants
	}
	if err := everyRPC(t.Context(), p.rpc, "default-tenant"); err != nil {
		t.Fatal(err)
	}
	before, beforeTenants := scrape()

	const names, workers = 1200, 4
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := next.Add(1); n <= names; n = next.Add(1) {
				name := fmt.Sprintf("made-up-%d-%s", n, strings.Repeat("x", 1000))
				if err := everyRPC(t.Context(), p.rpc, name); err != nil {
					t.Errorf("tenant %d: %v", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := everyRPC(t.Context(), p.rpc, "known"); err != nil {
		t.Fatal(err)
	}
	after, tenants := scrape()
	t.Logf("%d series, %d of tenants, before; %d, %d after",
		len(before), len(beforeTenants), len(after), len(tenants))

	var known int
	for _, line := range tenants {
		name := regexp.MustCompile(`tenant="([^"]*)"`).FindStringSubmatch(line)[1]
		if name == "known" {
			known++
		}
		if len(name) > 128 {
			t.Fatalf("a name of %d bytes: %s", len(name), line)
		}
	}
	if n := len(tenants) - known; n > 2000 {
		t.Errorf("%d series are of tenants that have no limits of their own, want at most 2000", n)
	}
	if known < 300 {
		t.Errorf("%d series are of the tenant that has limits of its own", known)
	}
	others, othersBefore := len(after)-len(tenants), len(before)-len(beforeTenants)
	if others > othersBefore+200 {
		t.Errorf("%d series are of no tenant, %d before", others, othersBefore)
	}
}
