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

// sizeCounts counts sizes by bucket; the last bucket is for larger sizes. Each request counts its
// series in its own sizeCounts, and adds them to the histogram at its end. A call per series into a
// shared histogram would cost more than encoding the series.
type sizeCounts struct {
	buckets [len(sizeBounds) + 1]uint64
	sum     int64
}

func (c *sizeCounts) add(n int64) {
	c.buckets[sort.SearchFloat64s(sizeBounds[:], float64(n))]++
	c.sum += n
}

// sizeHistogram has a histogram per tenant. tenantNames deletes the tenants that metrics no longer
// name.
type sizeHistogram struct {
	desc *prometheus.Desc

	mu       sync.Mutex // guards byTenant; held for additions and copies only
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

// DeletePartialMatch deletes the histogram of the tenant in labels. It returns how many it deleted.
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
