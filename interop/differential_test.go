package interop

import (
	"context"
	"testing"

	"larder/interop/internal/allowed"
	"larder/interop/internal/gateway"
	"larder/interop/internal/layout"
	"larder/interop/internal/trial"
)

// TestDifferential is the contract: larder answers what Thanos answers, but for allowed_differences.yaml.
func TestDifferential(t *testing.T) {
	layouts, each := shortLayouts, perLayout
	if full() {
		layouts, each = fullLayouts, fullPerLayout
	}
	layouts = setting(t, "INTEROP_LAYOUTS", layouts)
	requests := setting(t, "INTEROP_REQUESTS", layouts*each)
	seed := setting(t, "INTEROP_SEED", defaultSeed)
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
		subject: trial.Larder(bin), allowed: list, seed: uint64(seed), layouts: layouts, requests: max(1, requests/layouts), kind: kind,
		coverage: newCoverage(),
	}
	r.all(t, reporter(t, maxReports))
	t.Logf("allowed differences that were needed:\n%s", list.Counts())
	t.Logf("proved: %d random requests over %d random layouts answered as Thanos's BucketStore does, seed %d", r.coverage.all(), r.coverage.layouts, seed)
	if t.Failed() || setting(t, "INTEROP_ONLY", -1) >= 0 {
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

// TestHarnessAgreesWithItself runs Thanos against a second Thanos. A difference here is a fault of the harness, or an answer of Thanos that
// is not determined by the request.
func TestHarnessAgreesWithItself(t *testing.T) {
	list, err := allowed.Load("allowed_differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	layouts := setting(t, "INTEROP_SELF_LAYOUTS", 3)
	r := &run{
		subject: trial.Thanos(gateway.ThanosOptions{}), allowed: list, seed: uint64(setting(t, "INTEROP_SEED", defaultSeed)), layouts: layouts,
		requests: perLayout, kind: func(int) layout.Options { return layout.Options{} }, coverage: newCoverage(),
	}
	r.all(t, reporter(t, maxReports))
	t.Logf("needed:\n%s", list.Counts())
	t.Logf("%v %v %v", r.coverage.requests, r.coverage.nonEmpty, r.coverage.features)
	if layouts >= shortLayouts {
		r.coverage.check(t)
	}
}
