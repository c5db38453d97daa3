package store

import (
	"sort"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// sizeBounds are the buckets of thanos_bucket_store_sent_chunk_size_bytes.
var sizeBounds = [...]float64{
	32, 256, 512, 1 << 10, 32 << 10, 256 << 10, 512 << 10, 1 << 20, 32 << 20, 256 << 20, 512 << 20,
}

// sizeCounts counts sizes by bucket, the last being for what is larger than any bound. A request
// counts its series in one of its own and hands it over when it ends: a call per series into a
// histogram that all requests share would cost more than encoding it.
type sizeCounts struct {
	buckets [len(sizeBounds) + 1]uint64
	sum     int64
}

func (c *sizeCounts) add(n int64) {
	c.buckets[sort.SearchFloat64s(sizeBounds[:], float64(n))]++
	c.sum += n
}

// sizeHistogram is a histogram per tenant that is fed with sizeCounts. Its callers decide which
// tenants it has: tenantNames deletes a tenant that it no longer names.
type sizeHistogram struct {
	desc *prometheus.Desc

	mu       sync.Mutex // guards byTenant; held for additions alone
	byTenant map[string]*sizeCounts
}

func newSizeHistogram(name, help string, reg prometheus.Registerer) *sizeHistogram {
	h := &sizeHistogram{
		desc:     prometheus.NewDesc(name, help, []string{"tenant"}, nil),
		byTenant: map[string]*sizeCounts{},
	}
	if reg != nil {
		reg.MustRegister(h)
	}
	return h
}

func (h *sizeHistogram) observe(tenant string, c *sizeCounts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.byTenant[tenant]
	if t == nil {
		t = &sizeCounts{}
		h.byTenant[tenant] = t
	}
	for i, n := range c.buckets {
		t.buckets[i] += n
	}
	t.sum += c.sum
}

// DeletePartialMatch deletes what is counted for the tenant that labels name.
func (h *sizeHistogram) DeletePartialMatch(labels prometheus.Labels) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := len(h.byTenant)
	delete(h.byTenant, labels["tenant"])
	return before - len(h.byTenant)
}

// Describe implements prometheus.Collector.
func (h *sizeHistogram) Describe(ch chan<- *prometheus.Desc) { ch <- h.desc }

// Collect implements prometheus.Collector.
func (h *sizeHistogram) Collect(ch chan<- prometheus.Metric) {
	h.mu.Lock()
	now := make(map[string]sizeCounts, len(h.byTenant))
	for tenant, c := range h.byTenant {
		now[tenant] = *c
	}
	h.mu.Unlock()
	for tenant, c := range now {
		count, upTo := uint64(0), make(map[float64]uint64, len(sizeBounds))
		for i, bound := range sizeBounds {
			count += c.buckets[i]
			upTo[bound] = count
		}
		count += c.buckets[len(sizeBounds)]
		ch <- prometheus.MustNewConstHistogram(h.desc, count, float64(c.sum), upTo, tenant)
	}
}
