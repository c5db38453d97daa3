package store

import (
	"container/list"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
)

// maxCachedPattern bounds the regular expressions that are kept, in bytes: they are counted, not weighed, and clients choose them.
const maxCachedPattern = 64 << 10

// matcherCache keeps the matchers whose regular expressions were compiled, those that were asked for last. Matchers do not change, so
// that requests share them. A nil matcherCache keeps nothing.
type matcherCache struct {
	max int

	mu    sync.Mutex // guards what follows; never held while compiling
	byKey map[matcherKey]*list.Element
	order list.List // of *labels.Matcher, the last asked for first

	requests, hits, evicted prometheus.Counter
	items                   prometheus.Gauge
}

type matcherKey struct {
	t           labels.MatchType
	name, value string
}

// newMatcherCache returns a cache of at most n matchers, nil if that is none. Its metrics are Thanos's, which has them only with a cache.
func newMatcherCache(n int, reg prometheus.Registerer) *matcherCache {
	if n <= 0 {
		return nil
	}
	f := promauto.With(reg)
	c := &matcherCache{max: n, byKey: map[matcherKey]*list.Element{}}
	c.requests = f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_requests_total", Help: "Regular expressions of requests."})
	c.hits = f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_hits_total", Help: "Regular expressions that were kept compiled."})
	c.evicted = f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_evicted_total", Help: "Regular expressions that made room for others."})
	c.items = f.NewGauge(prometheus.GaugeOpts{Name: "thanos_matchers_cache_items", Help: "Regular expressions that are kept compiled."})
	f.NewGauge(prometheus.GaugeOpts{Name: "thanos_matchers_cache_max_items", Help: "Regular expressions that may be kept compiled."}).Set(float64(n))
	return c
}

// matcher returns a matcher, compiled now unless it is kept.
func (c *matcherCache) matcher(t labels.MatchType, name, value string) (*labels.Matcher, error) {
	regex := t == labels.MatchRegexp || t == labels.MatchNotRegexp
	if c == nil || !regex {
		return labels.NewMatcher(t, name, value)
	}
	c.requests.Inc()
	if m := c.get(matcherKey{t, name, value}); m != nil {
		c.hits.Inc()
		return m, nil
	}
	m, err := labels.NewMatcher(t, name, value)
	if err == nil && len(name)+len(value) <= maxCachedPattern {
		c.add(m)
	}
	return m, err
}

func (c *matcherCache) get(k matcherKey) *labels.Matcher {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*labels.Matcher)
}

func (c *matcherCache) add(m *labels.Matcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := matcherKey{m.Type, m.Name, m.Value}
	if c.byKey[k] != nil {
		return // another request was faster
	}
	c.byKey[k] = c.order.PushFront(m)
	if c.order.Len() > c.max {
		last := c.order.Remove(c.order.Back()).(*labels.Matcher)
		delete(c.byKey, matcherKey{last.Type, last.Name, last.Value})
		c.evicted.Inc()
	}
	c.items.Set(float64(c.order.Len()))
}
