package interop

import (
	"context"
	"testing"

	"larder/interop/internal/allowed"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/settings"
	"larder/interop/internal/trial"
)

// TestDifferential is the contract: larder gives the same answers as Thanos, except for
// allowed_differences.yaml.
func TestDifferential(t *testing.T) {
	layouts := settings.Int(t, "INTEROP_LAYOUTS", settings.Choose(shortLayouts, fullLayouts))
	requests := settings.Int(
		t, "INTEROP_REQUESTS", layouts*settings.Choose(perLayout, fullPerLayout),
	)
	seed := settings.Seed(t)
	t.Logf("INTEROP_SEED=%d INTEROP_LAYOUTS=%d INTEROP_REQUESTS=%d", seed, layouts, requests)
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := gateway.BuildLarder(context.Background(), "..")
	if err != nil {
		t.Fatal(err)
	}
	r := &run{
		// Every second layout is served from memcached and memory. The blocks of the other layouts
		// have filled memcached, too.
		subject: trial.Larder(
			bin,
		), other: trial.Larder(bin, tieredCaches(startMemcached(t))...), again: true,
		allowed: list, seed: seed, layouts: layouts, requests: max(1, requests/layouts), kind: kind,
		coverage: newCoverage(),
	}
	r.all(t, reporter(t, maxReports))
	t.Logf("allowed differences that were needed:\n%s", list.Counts())
	t.Logf(
		"proved: %d random requests over %d random layouts answered as Thanos's BucketStore does, seed %d",
		r.coverage.all(), r.coverage.layouts, seed,
	)
	if t.Failed() || settings.Int(t, "INTEROP_ONLY", -1) >= 0 {
		return
	}
	if layouts >= shortLayouts {
		r.coverage.check(t)
	}
	if layouts >= fullLayouts {
		for _, name := range list.NeverMatched() {
			t.Errorf("allowed_differences.yaml: %q was never needed", name)
		}
	}
}

// tieredCaches returns flags for caches in memory over a memcached.
func tieredCaches(addr string) []string {
	config := "{in_memory: {max_size: 32MiB}, memcached: {addresses: [" + addr + "]}}"
	return []string{
		"--index-cache.config={type: TIERED, config: " + config + "}",
		"--store.caching-bucket.config={type: TIERED, config: " + config + "}",
	}
}

// TestHarnessAgreesWithItself compares Thanos with a second Thanos. A difference is a fault of the
// harness, or an answer of Thanos that the request does not determine.
func TestHarnessAgreesWithItself(t *testing.T) {
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	layouts := settings.Int(t, "INTEROP_SELF_LAYOUTS", 3)
	r := &run{
		subject: trial.Thanos(
			gateway.ThanosOptions{},
		), allowed: list, seed: settings.Seed(t), layouts: layouts,
		requests: perLayout, kind: func(i int) layout.Options {
			return layout.Options{Irregular: i%2 == 1}
		}, coverage: newCoverage(),
	}
	r.all(t, reporter(t, maxReports))
	t.Logf("needed:\n%s", list.Counts())
	t.Logf("%v %v %v", r.coverage.requests, r.coverage.nonEmpty, r.coverage.features)
	t.Logf(
		"proved: the comparison agrees with itself: Thanos against Thanos, %d requests",
		r.coverage.all(),
	)
	if layouts >= shortLayouts {
		r.coverage.check(t)
	}
}
