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
	// otherTenant stands in metrics for all tenants that they do not name.
	otherTenant = "other"
	// defaultNamedTenants is how many tenants metrics name. A tenant has at most 409 series,
	// counting each bucket, sum and count of a histogram, so these and the others have less than
	// 2,000.
	defaultNamedTenants = 3
	// watchedTenants is how many tenants are watched that metrics do not name. A tenant with more
	// than one part in so many of the use of all unnamed ones stays among them.
	watchedTenants = 128

	// useHalvedEvery is the half-life of what a tenant has used. In the long run one name is
	// replaced in such a period, because each replacement makes new series; all names may be
	// replaced at once.
	useHalvedEvery = 5 * time.Minute
	// forgetTenantAfter is how long a tenant without requests keeps its name.
	forgetTenantAfter = time.Hour

	// useUnit is how many bytes count as much as a request.
	useUnit = 64 << 10
)

// tenantNames decides which tenants metrics name: those with limits of their own, and the largest
// few of the others. Clients choose the names of tenants, so the number of series must not depend
// on them.
//
// The largest are found as in Space-Saving (Metwally and others): a full table gives the place of
// its smallest unnamed tenant to a new one, which inherits that one's use as its possible error.
// Use less error is therefore never more than what a tenant has used, and a name that is new each
// time never looks large. Memory and work do not depend on how many names there are.
type tenantNames struct {
	max     int // named, besides kept
	began   time.Time
	changed *prometheus.CounterVec
	series  []tenantSeries // of metrics by tenant

	due atomic.Int64 // when use is halved next, since began

	// mu guards what follows. It is held shared while a request of a named tenant is counted, so
	// that a name whose series are deleted gets none afterwards.
	mu sync.RWMutex
	// tenants with limits of their own; it is not changed
	kept     map[string]admission.LimitOptions
	tracked  map[string]*trackedTenant
	named    int           // of tracked
	replaced time.Duration // when replacements, one a period, would have come to as many
}

// tenantSeries are the series of one metric: a vector of client_golang or a sizeHistogram.
type tenantSeries interface {
	// DeletePartialMatch deletes the series with such labels.
	DeletePartialMatch(prometheus.Labels) int
}

// trackedTenant is what is known of one tenant. A request is 1, and so are useUnit bytes.
type trackedTenant struct {
	name        string
	named       bool
	use, excess float64      // use is at most excess too much; guarded by mu
	recent      atomic.Int64 // what is to be added to use
	last        atomic.Int64 // when it was used last, since began
}

// newTenantNames returns an empty set of names and registers its metrics. max is the number of
// tenants that are named besides kept ones; 0 means the default, and a negative one none.
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
			Help: "Tenants that lost their name in metrics and all of their series, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{removedIdle, removedSmall, removedLimits} {
		t.changed.WithLabelValues(reason)
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_metrics_tenants",
		Help: "Tenants that metrics name now. All others are counted as tenant other.",
	}, t.count)
	t.due.Store(int64(useHalvedEvery))
	if max > 0 {
		t.name(t.add(admission.DefaultTenant, 0), 0)
	}
	return t
}

// Why a tenant is no longer named.
const (
	removedIdle   = "idle"
	removedSmall  = "small"  // a larger one took its place
	removedLimits = "limits" // it no longer has limits of its own
)

// first returns the tenant whose series are there from the start.
func (t *tenantNames) first() string {
	if t == nil || t.max > 0 {
		return admission.DefaultTenant
	}
	return otherTenant
}

// own has the series of metrics deleted with the names that they belong to. It is called before t
// is used.
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

// observe counts a request of a tenant that was worth bytes, by calling f with what metrics call
// the tenant. With -1 bytes, f is about a request that is counted later. f must neither wait nor
// call t. A nil tenantNames names every tenant.
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

// observeNamed calls f if the tenant is named and use need not be halved.
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

// observeLarge calls f if the tenant is, or has become, one of the largest.
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
	if !e.named && !t.rise(e, now) {
		return false
	}
	f(tenant)
	return true
}

// rise names a tenant if there is room, or if it is much larger than the smallest that is named. mu
// is held.
func (t *tenantNames) rise(e *trackedTenant, now time.Duration) bool {
	if t.named < t.max {
		t.name(e, now)
		return true
	}
	if t.max <= 0 || now+time.Duration(t.max-1)*useHalvedEvery < t.replaced {
		return false
	}
	var least *trackedTenant
	for _, o := range t.tracked {
		if o.named && (least == nil || o.sure() < least.sure()) {
			least = o
		}
	}
	// Twice as large, so that two tenants of one size do not take turns.
	if e.sure() <= 2*least.sure() {
		return false
	}
	least.named = false
	t.named--
	t.remove(least.name, removedSmall)
	t.name(e, now)
	t.replaced = max(t.replaced, now) + useHalvedEvery
	return true
}

// name is called with mu held.
func (t *tenantNames) name(e *trackedTenant, now time.Duration) {
	e.named = true
	t.named++
	e.last.Store(int64(now))
}

// remove deletes the series of a tenant. mu is held.
func (t *tenantNames) remove(name, reason string) {
	for _, s := range t.series {
		s.DeletePartialMatch(prometheus.Labels{"tenant": name})
	}
	t.changed.WithLabelValues(reason).Inc()
}

// add begins to watch a tenant, in the place of the smallest that is not named if there is no
// other. mu is held.
func (t *tenantNames) add(name string, now time.Duration) *trackedTenant {
	e := &trackedTenant{name: name}
	if len(t.tracked)-t.named >= watchedTenants {
		var least *trackedTenant
		for _, o := range t.tracked {
			if !o.named && (least == nil || o.all() < least.all()) {
				least = o
			}
		}
		delete(t.tracked, least.name)
		e.use, e.excess = least.all(), least.all()
	}
	e.last.Store(int64(now))
	t.tracked[name] = e
	return e
}

// drop forgets a tenant, but not its series. mu is held.
func (t *tenantNames) drop(e *trackedTenant) {
	delete(t.tracked, e.name)
	if e.named {
		t.named--
	}
}

// halve halves use once for each period that has ended. mu is held.
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

// expire forgets tenants without requests. mu is held.
func (t *tenantNames) expire(now time.Duration) {
	for _, e := range t.tracked {
		// The first tenant stays: in most set-ups it is the only one, and its counters begin with
		// 0.
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

// count returns how many tenants are named. It is called for each scrape, so that names of idle
// tenants expire where there are no requests at all.
func (t *tenantNames) count() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(time.Since(t.began))
	return float64(t.named + len(t.kept))
}

// used adds a request that was worth so many bytes, or a part of one for -1.
func (e *trackedTenant) used(bytes int64, now time.Duration) {
	if bytes >= 0 {
		e.recent.Add(1 + bytes/useUnit)
	}
	e.last.Store(int64(now))
}

// all is what the tenant has used at most, and sure what it has used at least. mu is held.
func (e *trackedTenant) all() float64  { return e.use + float64(e.recent.Load()) }
func (e *trackedTenant) sure() float64 { return e.all() - e.excess }
