package store

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/store/admission"
)

const (
	// otherTenant is the tenant label of all tenants that metrics do not name.
	otherTenant = "other"
	// defaultNamedTenants is how many tenants metrics name by default. A tenant has at most 420
	// series, counting each bucket, sum and count of a histogram. Three tenants and the others
	// therefore have less than 2,000.
	defaultNamedTenants = 3
	// watchedTenants is how many unnamed tenants are tracked. A tenant with more than 1/128 of the
	// use of all unnamed tenants stays tracked.
	watchedTenants = 128

	// useHalvedEvery is the half-life of a tenant's use. On average at most one name is replaced in
	// such a period, because each replacement creates new series. All may be replaced at once.
	useHalvedEvery = 5 * time.Minute
	// forgetTenantAfter is how long a tenant without requests keeps its name.
	forgetTenantAfter = time.Hour

	// useUnit is how many bytes count as much as one request.
	useUnit = 64 << 10
)

// tenantNames decides which tenants metrics name: those with limits of their own, and the largest
// few of the others. The number of series must not depend on clients, which choose the names of
// tenants.
//
// It finds the largest tenants with the Space-Saving algorithm (Metwally and others). In a full
// table a new tenant replaces the smallest unnamed one, and inherits its use as its possible error.
// Use minus error is therefore never more than the tenant has really used, and a name that is new
// each time never looks large. Memory and work do not depend on the number of names.
type tenantNames struct {
	max     int // number of named tenants besides kept
	began   time.Time
	changed *prometheus.CounterVec
	series  []tenantSeries // of metrics by tenant

	due atomic.Int64 // when use is halved next, as a duration since began

	// mu guards the fields below. It is read-locked while a request of a named tenant is counted,
	// so that no series appears for a tenant after its series were deleted.
	mu sync.RWMutex
	// kept are the tenants with limits of their own. The map is immutable.
	kept    map[string]admission.LimitOptions
	tracked map[string]*trackedTenant
	named   int // how many of tracked are named
	// replaced is the time that all replacements would have needed at one per period.
	replaced time.Duration
}

// tenantSeries is one metric with series by tenant: a vector of client_golang or a sizeHistogram.
type tenantSeries interface {
	// DeletePartialMatch deletes the series with these labels.
	DeletePartialMatch(prometheus.Labels) int
}

// trackedTenant is the use of one tenant. A request counts 1, and useUnit bytes count 1.
type trackedTenant struct {
	name        string
	named       bool
	use, excess float64      // use is too high by at most excess; guarded by mu
	recent      atomic.Int64 // use since the last halving, not yet added to use
	last        atomic.Int64 // time of the last request, as a duration since began
}

// newTenantNames returns an empty set of names and registers its metrics. max is the number of
// tenants that are named besides those with limits of their own; 0 means the default, negative
// none.
func newTenantNames(max int, reg prometheus.Registerer) *tenantNames {
	if max == 0 {
		max = defaultNamedTenants
	}
	f := promauto.With(reg)
	t := &tenantNames{
		max: max, began: time.Now(),
		kept: map[string]admission.LimitOptions{}, tracked: map[string]*trackedTenant{},
		changed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_metrics_tenants_removed_total",
			Help: "Tenants that metrics no longer name and whose series were deleted, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{removedIdle, removedSmall, removedLimits} {
		t.changed.WithLabelValues(reason)
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_metrics_tenants",
		Help: "Tenants that metrics name. All others are counted as tenant other.",
	}, t.count)
	t.due.Store(int64(useHalvedEvery))
	if max > 0 {
		t.name(t.add(admission.DefaultTenant, 0), 0)
	}
	return t
}

// Reasons why a tenant is no longer named.
const (
	removedIdle   = "idle"
	removedSmall  = "small"  // a larger tenant has replaced it
	removedLimits = "limits" // it no longer has limits of its own
)

// first returns the tenant whose series exist from the start.
func (t *tenantNames) first() string {
	if t == nil || t.max > 0 {
		return admission.DefaultTenant
	}
	return otherTenant
}

// own registers metrics. Their series of a tenant are deleted when the tenant loses its name. It is
// called before t is used.
func (t *tenantNames) own(metrics ...tenantSeries) { t.series = append(t.series, metrics...) }

// keep replaces the tenants that are always named.
func (t *tenantNames) keep(tenants map[string]admission.LimitOptions) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.kept {
		if _, still := tenants[name]; !still && name != otherTenant {
			t.remove(name, removedLimits)
		}
	}
	for name := range tenants {
		if e := t.tracked[name]; e != nil {
			t.drop(e)
		}
	}
	t.kept = tenants
}

// observe counts a request of a tenant that used this many bytes, and calls f with the tenant's
// label in metrics. With -1 bytes it counts nothing, because the request is counted later. f must
// neither wait nor call t. A nil tenantNames names every tenant.
func (t *tenantNames) observe(tenant string, bytes int64, f func(label string)) {
	if t == nil {
		f(tenant)
		return
	}
	switch {
	case tenant == otherTenant:
	case t.observeNamed(tenant, bytes, f), t.observeLarge(tenant, bytes, f):
		return
	}
	f(otherTenant) // its series are never deleted
}

// observeNamed calls f if the tenant is named. It returns false if it is not, or if use is due to
// be halved.
func (t *tenantNames) observeNamed(tenant string, bytes int64, f func(label string)) bool {
	now := time.Since(t.began)
	t.mu.RLock()
	defer t.mu.RUnlock()
	if _, ok := t.kept[tenant]; !ok {
		e := t.tracked[tenant]
		if e == nil || !e.named || int64(now) >= t.due.Load() {
			return false
		}
		e.used(bytes, now)
	}
	f(tenant)
	return true
}

// observeLarge counts the request of a tenant, and calls f if the tenant is one of the largest now.
func (t *tenantNames) observeLarge(tenant string, bytes int64, f func(label string)) bool {
	now := time.Since(t.began)
	t.mu.Lock()
	defer t.mu.Unlock()
	if int64(now) >= t.due.Load() {
		t.halve(now)
		t.expire(now)
	}
	e := t.tracked[tenant]
	if e == nil {
		e = t.add(tenant, now)
	}
	e.used(bytes, now)
	if !e.named && !t.promote(e, now) {
		return false
	}
	f(tenant)
	return true
}

// promote names a tenant if fewer than max are named, or if it is much larger than the smallest
// named one. The caller holds mu.
func (t *tenantNames) promote(e *trackedTenant, now time.Duration) bool {
	if t.named < t.max {
		t.name(e, now)
		return true
	}
	if t.max <= 0 || now+time.Duration(t.max-1)*useHalvedEvery < t.replaced {
		return false
	}
	var smallest *trackedTenant
	for _, o := range t.tracked {
		if o.named && (smallest == nil || o.minUse() < smallest.minUse()) {
			smallest = o
		}
	}
	// Twice as large, so that two tenants of the same size do not replace each other repeatedly.
	if e.minUse() <= 2*smallest.minUse() {
		return false
	}
	smallest.named = false
	t.named--
	t.remove(smallest.name, removedSmall)
	t.name(e, now)
	t.replaced = max(t.replaced, now) + useHalvedEvery
	return true
}

// name names a tenant. The caller holds mu.
func (t *tenantNames) name(e *trackedTenant, now time.Duration) {
	e.named = true
	t.named++
	e.last.Store(int64(now))
}

// remove deletes the series of a tenant. The caller holds mu.
func (t *tenantNames) remove(name, reason string) {
	for _, s := range t.series {
		s.DeletePartialMatch(prometheus.Labels{"tenant": name})
	}
	t.changed.WithLabelValues(reason).Inc()
}

// add begins to track a tenant. In a full table it replaces the smallest unnamed one. The caller
// holds mu.
func (t *tenantNames) add(name string, now time.Duration) *trackedTenant {
	e := &trackedTenant{name: name}
	if len(t.tracked)-t.named >= watchedTenants {
		var smallest *trackedTenant
		for _, o := range t.tracked {
			if !o.named && (smallest == nil || o.maxUse() < smallest.maxUse()) {
				smallest = o
			}
		}
		delete(t.tracked, smallest.name)
		e.use, e.excess = smallest.maxUse(), smallest.maxUse()
	}
	e.last.Store(int64(now))
	t.tracked[name] = e
	return e
}

// drop stops tracking a tenant. It keeps the tenant's series. The caller holds mu.
func (t *tenantNames) drop(e *trackedTenant) {
	delete(t.tracked, e.name)
	if e.named {
		t.named--
	}
}

// halve halves use once for each period that has ended. The caller holds mu.
func (t *tenantNames) halve(now time.Duration) {
	due := time.Duration(t.due.Load())
	periods := 1 + (now-due)/useHalvedEvery
	t.due.Store(int64(due + periods*useHalvedEvery))
	part := math.Pow(0.5, float64(periods))
	for _, e := range t.tracked {
		e.use = (e.use + float64(e.recent.Swap(0))) * part
		e.excess *= part
	}
}

// expire drops tenants without recent requests, with their series. The caller holds mu.
func (t *tenantNames) expire(now time.Duration) {
	for _, e := range t.tracked {
		// The default tenant stays, because it is mostly the only one, and its counters then never
		// restart.
		idle := now - time.Duration(e.last.Load())
		if e.name == admission.DefaultTenant && e.named || idle < forgetTenantAfter {
			continue
		}
		t.drop(e)
		if e.named {
			t.remove(e.name, removedIdle)
		}
	}
}

// count returns how many tenants are named. It is called at each scrape, so that names of idle
// tenants expire even without requests.
func (t *tenantNames) count() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(time.Since(t.began))
	return float64(t.named + len(t.kept))
}

// used counts a request with this many bytes. With -1 it only notes the time.
func (e *trackedTenant) used(bytes int64, now time.Duration) {
	if bytes >= 0 {
		e.recent.Add(1 + bytes/useUnit)
	}
	e.last.Store(int64(now))
}

// maxUse and minUse return the bounds of what the tenant has used. The caller holds mu.
func (e *trackedTenant) maxUse() float64 { return e.use + float64(e.recent.Load()) }
func (e *trackedTenant) minUse() float64 { return e.maxUse() - e.excess }
