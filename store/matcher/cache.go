package matcher

import (
	"container/list"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
)

// cachedBytes is what each of the matchers that are kept may keep on average, in bytes, as costOf has it: clients choose them. One may have an eighth of what all
// may, or as much as one.
const cachedBytes = 64 << 10

// Cache keeps the matchers whose regular expressions were compiled, those that were asked for last. Matchers do not change, so
// that requests share them. A nil Cache keeps nothing.
type Cache struct {
	max int

	mu    sync.Mutex // guards what follows; never held while compiling
	byKey map[matcherKey]*list.Element
	order list.List // of *compiled, the last asked for first
	bytes int64     // that they keep

	requests, hits, evicted prometheus.Counter
	items                   prometheus.Gauge
}

type matcherKey struct {
	t           labels.MatchType
	name, value string
}

// compiled is a matcher and what it costs.
type compiled struct {
	matcher *labels.Matcher
	cost    expressionCost
}

// bytes is what it keeps, its text included.
func (c *compiled) bytes() int64 {
	return c.cost.kept + int64(len(c.matcher.Name)+len(c.matcher.Value))
}

// NewCache returns a cache of at most n matchers, nil if that is none. Its metrics are Thanos's, which has them only with a cache.
func NewCache(n int, reg prometheus.Registerer) *Cache {
	if n <= 0 {
		return nil
	}
	f := promauto.With(reg)
	c := &Cache{max: n, byKey: map[matcherKey]*list.Element{}}
	c.requests = f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_requests_total", Help: "Regular expressions of requests."})
	c.hits = f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_hits_total", Help: "Regular expressions that were kept compiled."})
	c.evicted = f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_evicted_total", Help: "Regular expressions that made room for others."})
	c.items = f.NewGauge(prometheus.GaugeOpts{Name: "thanos_matchers_cache_items", Help: "Regular expressions that are kept compiled."})
	f.NewGauge(prometheus.GaugeOpts{Name: "thanos_matchers_cache_max_items", Help: "Regular expressions that may be kept compiled."}).Set(float64(n))
	return c
}

// matcher returns a matcher, compiled now unless it is kept. What it takes is had from t before, whose error is the answer.
func (c *Cache) matcher(kind labels.MatchType, name, value string, t *Budget) (*labels.Matcher, error) {
	if kind != labels.MatchRegexp && kind != labels.MatchNotRegexp {
		return labels.NewMatcher(kind, name, value)
	}
	if kept := c.get(matcherKey{kind, name, value}); kept != nil {
		if err := t.compiles(kept.cost); err != nil {
			return nil, err
		}
		t.held.Release(kept.cost.passing)
		return kept.matcher, nil
	}
	if !isList(value) {
		done, err := t.parse(value)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	cost, err := costOf(value)
	if err != nil {
		return nil, err
	}
	if err := t.compiles(cost); err != nil {
		return nil, err
	}
	defer t.held.Release(cost.passing)
	m, err := labels.NewMatcher(kind, name, value)
	if err != nil {
		return nil, errors.New(Clip(err.Error()))
	}
	c.add(&compiled{m, cost})
	return m, nil
}

func (c *Cache) get(k matcherKey) *compiled {
	if c == nil {
		return nil
	}
	c.requests.Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return nil
	}
	c.hits.Inc()
	c.order.MoveToFront(e)
	return e.Value.(*compiled)
}

func (c *Cache) add(m *compiled) {
	if c == nil || m.bytes() > max(c.maxBytes()/8, cachedBytes) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := matcherKey{m.matcher.Type, m.matcher.Name, m.matcher.Value}
	if c.byKey[k] != nil {
		return // another request was faster
	}
	c.byKey[k] = c.order.PushFront(m)
	c.bytes += m.bytes()
	for c.order.Len() > c.max || c.bytes > c.maxBytes() {
		last := c.order.Remove(c.order.Back()).(*compiled)
		delete(c.byKey, matcherKey{last.matcher.Type, last.matcher.Name, last.matcher.Value})
		c.bytes -= last.bytes()
		c.evicted.Inc()
	}
	c.items.Set(float64(c.order.Len()))
}

func (c *Cache) maxBytes() int64 { return int64(c.max) * cachedBytes }
