package matcher

import (
	"container/list"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
)

// bytesPerEntry bounds the mean size of cached matchers, by their measured cost, because clients
// choose them. A single matcher may have an eighth of the whole cache, or this much.
const bytesPerEntry = 64 << 10

// Cache keeps compiled regular expressions and evicts the least recently used. Matchers are
// immutable, therefore requests share them. A nil Cache keeps nothing. A Cache is safe for
// concurrent use.
type Cache struct {
	maxEntries int

	mu      sync.Mutex // guards what follows; never held while compiling
	entries map[cacheKey]*list.Element
	recent  list.List // of *entry, the most recently used first
	bytes   int64     // of all entries

	requests, hits, evicted prometheus.Counter
	items                   prometheus.Gauge
}

type cacheKey struct {
	kind        labels.MatchType
	name, value string
}

// entry is a compiled matcher and what it costs.
type entry struct {
	matcher *labels.Matcher
	cost    cost
}

func (e *entry) key() cacheKey { return cacheKey{e.matcher.Type, e.matcher.Name, e.matcher.Value} }

// bytes returns what the entry holds, with its text.
func (e *entry) bytes() int64 {
	return e.cost.compiled + int64(len(e.matcher.Name)+len(e.matcher.Value))
}

// NewCache returns a cache of at most n matchers, or nil if n is 0. It registers Thanos's metrics
// of the matcher cache, which exist only with a cache, same as in Thanos.
func NewCache(n int, reg prometheus.Registerer) *Cache {
	if n <= 0 {
		return nil
	}
	f := promauto.With(reg)
	c := &Cache{maxEntries: n, entries: map[cacheKey]*list.Element{}}
	c.requests = f.NewCounter(prometheus.CounterOpts{
		Name: "thanos_matchers_cache_requests_total",
		Help: "Regular expressions that requests looked up.",
	})
	c.hits = f.NewCounter(prometheus.CounterOpts{
		Name: "thanos_matchers_cache_hits_total",
		Help: "Regular expressions that the cache had compiled.",
	})
	c.evicted = f.NewCounter(prometheus.CounterOpts{
		Name: "thanos_matchers_cache_evicted_total",
		Help: "Compiled regular expressions that the cache evicted.",
	})
	c.items = f.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_matchers_cache_items",
		Help: "Compiled regular expressions in the cache.",
	})
	f.NewGauge(prometheus.GaugeOpts{
		Name: "thanos_matchers_cache_max_items",
		Help: "Maximum number of compiled regular expressions in the cache.",
	}).Set(float64(n))
	return c
}

// get returns the entry of a regular expression, or nil. It counts a request.
func (c *Cache) get(k cacheKey) *entry {
	if c == nil {
		return nil
	}
	c.requests.Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.entries[k]
	if at == nil {
		return nil
	}
	c.hits.Inc()
	c.recent.MoveToFront(at)
	return at.Value.(*entry)
}

// add caches an entry unless it is too large, and evicts others to keep the bounds.
func (c *Cache) add(e *entry) {
	if c == nil || e.bytes() > max(c.maxBytes()/8, bytesPerEntry) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.key()] != nil {
		return // another request has compiled it meanwhile
	}
	c.entries[e.key()] = c.recent.PushFront(e)
	c.bytes += e.bytes()
	for c.recent.Len() > c.maxEntries || c.bytes > c.maxBytes() {
		last := c.recent.Remove(c.recent.Back()).(*entry)
		delete(c.entries, last.key())
		c.bytes -= last.bytes()
		c.evicted.Inc()
	}
	c.items.Set(float64(c.recent.Len()))
}

func (c *Cache) maxBytes() int64 { return int64(c.maxEntries) * bytesPerEntry }
