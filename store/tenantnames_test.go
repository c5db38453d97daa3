package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"larder/store/admission"
)

// valuesOf returns the counters and gauges of a registry by "name label label".
func valuesOf(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			out[key] = m.GetGauge().GetValue()
			if f.GetType() == dto.MetricType_COUNTER {
				out[key] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}

// counted is a metric by tenant, with tenantNames.
type counted struct {
	*tenantNames
	t   *testing.T
	vec *prometheus.CounterVec
	reg *prometheus.Registry
}

func newCounted(t *testing.T, max int) *counted {
	t.Helper()
	reg := prometheus.NewRegistry()
	c := &counted{t: t, reg: reg, tenantNames: newTenantNames(max, reg)}
	o := prometheus.CounterOpts{Name: "requests", Help: "Requests."}
	c.vec = prometheus.NewCounterVec(o, []string{"tenant"})
	reg.MustRegister(c.vec)
	c.own(c.vec)
	return c
}

// ask counts n requests of a tenant.
func (c *counted) ask(tenant string, n int) {
	for range n {
		c.observe(tenant, 0, func(label string) { c.vec.WithLabelValues(label).Inc() })
	}
}

// want checks the tenants in a scrape.
func (c *counted) want(tenants ...string) {
	c.t.Helper()
	got := valuesOf(c.t, c.reg)
	var names []string
	for key := range got {
		if name, ok := strings.CutPrefix(key, "requests "); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.Sort(tenants)
	if !slices.Equal(names, tenants) {
		c.t.Errorf("metrics name %q, want %q", names, tenants)
	}
}

// TestDroppedRequestsAreCountedByName checks that a request above a limit is counted with the
// tenant's name in metrics.
func TestDroppedRequestsAreCountedByName(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := New(Options{Limits: admission.LimitOptions{Series: 1}, NamedTenants: 1, Registerer: reg})
	for _, tenant := range []string{admission.DefaultTenant, "unnamed", "unnamed too"} {
		series, _, _ := s.limits.For(tenant)
		if err := series.Reserve(2); err == nil {
			t.Errorf("%s: a request exceeds its limit", tenant)
		}
	}
	got := valuesOf(t, reg)
	const name = "thanos_bucket_store_queries_dropped_total series "
	for tenant, want := range map[string]float64{admission.DefaultTenant: 1, otherTenant: 2} {
		if got[name+tenant] != want {
			t.Errorf("%v requests of tenant %s are counted, want %v",
				got[name+tenant], tenant, want)
		}
	}
	s.names.mu.Lock()
	s.names.remove(admission.DefaultTenant, removedIdle)
	s.names.mu.Unlock()
	if _, ok := valuesOf(t, reg)[name+admission.DefaultTenant]; ok {
		t.Error("a tenant without a name has a series of dropped requests")
	}
}

// TestALargeTenantReplacesASmallOne checks that a later tenant is named once it has used twice as
// much as the smallest named one, whose series are deleted. All names may be replaced at once, and
// then one per five minutes.
func TestALargeTenantReplacesASmallOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, 2)
		c.ask(admission.DefaultTenant, 100)
		c.ask("small", 10)
		c.ask("large", 20)
		c.want(admission.DefaultTenant, "small", otherTenant)
		c.ask("large", 1)
		c.want(admission.DefaultTenant, "large", otherTenant)
		c.ask("larger", 500)
		c.want(admission.DefaultTenant, "larger", otherTenant)
		c.ask("largest", 5000)
		c.want(admission.DefaultTenant, "larger", otherTenant)
		time.Sleep(useHalvedEvery)
		c.ask("largest", 1)
		c.want("largest", "larger", otherTenant)

		// Old use counts little, both requests and bytes.
		time.Sleep(10 * useHalvedEvery)
		c.ask("larger", 20)
		c.observe("bytes", 20*useUnit, func(label string) { c.vec.WithLabelValues(label).Inc() })
		c.want("larger", "bytes", otherTenant)
	})
}

// TestIdleTenantsLoseTheirNames checks that the series of a tenant are deleted after an hour
// without requests, even if there are only scrapes. The default tenant stays.
func TestIdleTenantsLoseTheirNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, 3)
		c.ask(admission.DefaultTenant, 1)
		c.ask("a", 1)
		time.Sleep(forgetTenantAfter / 2)
		c.ask("b", 1)
		time.Sleep(forgetTenantAfter / 2)
		_ = valuesOf(t, c.reg) // the first scrape may read series before it deletes them
		c.want(admission.DefaultTenant, "b")
		if got := valuesOf(t, c.reg)["larder_metrics_tenants_removed_total idle"]; got != 1 {
			t.Errorf("%v tenants were removed as idle, want 1", got)
		}
		time.Sleep(forgetTenantAfter)
		_ = valuesOf(t, c.reg)
		c.want(admission.DefaultTenant)
		if len(c.tracked) != 1 {
			t.Errorf("%d tenants are tracked, want 1", len(c.tracked))
		}
	})
}

// TestInventedNames checks that invented tenant names do not replace names in use, that memory does
// not grow, and that a new tenant with a hundredth of their use is named.
func TestInventedNames(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: the race detector cannot find anything")
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, 3)
		c.ask(admission.DefaultTenant, 5)
		c.ask("a", 5)
		c.ask("b", 5)
		made := 0
		flood := func(n int) {
			for range n {
				made++
				c.ask(fmt.Sprint("made-up-", made), 1)
			}
		}
		flood(50_000)
		c.want(admission.DefaultTenant, "a", "b", otherTenant)
		for range 100 {
			flood(100)
			c.ask("newcomer", 2)
			time.Sleep(time.Second)
		}
		names := slices.Collect(maps.Keys(valuesOf(t, c.reg)))
		if !slices.Contains(names, "requests newcomer") {
			t.Errorf("a new tenant among invented names is not named: %q", names)
		}
		if n := len(c.tracked); n > c.max+watchedTenants {
			t.Errorf("%d tenants are tracked", n)
		}
		time.Sleep(useHalvedEvery)
		flood(50_000)
		for key := range valuesOf(t, c.reg) {
			if strings.Contains(key, "made-up") {
				t.Errorf("metrics have %s", key)
			}
		}
	})
}

// TestTenantsWithLimitsKeepTheirNames checks that a tenant with limits of its own is named in
// addition to the largest ones, however little it uses, until its limits are removed.
func TestTenantsWithLimitsKeepTheirNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(t, 1)
		c.ask("a", 100)
		c.keep(map[string]admission.LimitOptions{"kept": {}, "a": {}})
		c.ask("kept", 1)
		time.Sleep(2 * forgetTenantAfter)
		c.ask("b", 100)
		c.want("a", "kept", "b")
		if n := c.count(); n != 3 {
			t.Errorf("%v tenants are named, want 3", n)
		}
		c.keep(nil)
		c.want("b")
		c.ask("kept", 1)
		c.want("b", otherTenant)
	})
}

// TestNoTenantIsNamed checks that with a negative number all tenants are counted together,
// including one with the name "other".
func TestNoTenantIsNamed(t *testing.T) {
	c := newCounted(t, -1)
	for _, name := range []string{admission.DefaultTenant, "a", otherTenant} {
		c.ask(name, 3)
	}
	c.want(otherTenant)
	if c.first() != otherTenant {
		t.Errorf("the first is %s", c.first())
	}
	c = newCounted(t, 2)
	c.ask(otherTenant, 3)
	c.ask("a", 1)
	c.want("a", otherTenant)
}

// TestNamesChangeUnderRequests replaces names and changes limits while requests are counted. No
// series of an unnamed tenant may be left.
func TestNamesChangeUnderRequests(t *testing.T) {
	c := newCounted(t, 2)
	var wg sync.WaitGroup
	for worker := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(worker, 1))
			for i := range 3000 {
				c.ask(fmt.Sprint("t", rnd.IntN(20)), 1+i%3)
				if i%100 == 0 {
					c.mu.Lock()
					c.replaced = 0
					c.due.Store(0)
					c.mu.Unlock()
				}
				if i%50 == 0 {
					c.keep(map[string]admission.LimitOptions{fmt.Sprint("t", rnd.IntN(20)): {}})
				}
			}
		})
	}
	wg.Wait()
	c.keep(nil)
	named := map[string]bool{otherTenant: true}
	for name, e := range c.tracked {
		named[name] = e.named
	}
	for key := range valuesOf(t, c.reg) {
		if name, ok := strings.CutPrefix(key, "requests "); ok && !named[name] {
			t.Errorf("%s has a series and is not named", name)
		}
	}
	if got := valuesOf(t, c.reg)["larder_metrics_tenants_removed_total small"]; got == 0 {
		t.Error("no name was replaced")
	}
}
