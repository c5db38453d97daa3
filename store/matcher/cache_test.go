package matcher

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"larder/internal/intake"
)

// roomy is a request for which there is room.
func roomy() *Budget { return NewCompiler(intake.NewAccount(4<<30, nil)).Open(context.Background()) }

// TestMatcherCacheIsWeighed: a thousand bytes of expression can keep megabytes.
func TestMatcherCacheIsWeighed(t *testing.T) {
	c := NewCache(50, prometheus.NewRegistry())
	_, kept := allocated(func() any {
		for i := range 12 {
			if _, err := c.matcher(labels.MatchRegexp, "pod", fmt.Sprint(i)+strings.Repeat(`\pL`, 15), roomy()); err != nil {
				t.Fatal(err)
			}
		}
		return c
	})
	if most := c.maxBytes(); kept > most || c.bytes > most || c.order.Len() == 0 {
		t.Errorf("%d expressions of 50 bytes keep %d bytes, by its count %d, more than %d", c.order.Len(), kept, c.bytes, most)
	}
}

func TestMatcherCache(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := NewCache(2, reg)
	get := func(t_ labels.MatchType, name, value string) *labels.Matcher {
		t.Helper()
		m, err := c.matcher(t_, name, value, roomy())
		if err != nil {
			t.Fatal(err)
		}
		if m.Type != t_ || m.Name != name || m.Value != value {
			t.Fatalf("asked for %s%s%q, got %s", name, t_, value, m)
		}
		return m
	}
	a := get(labels.MatchRegexp, "job", "a.*")
	if get(labels.MatchRegexp, "job", "a.*") != a {
		t.Error("the same expression was compiled twice")
	}
	// What differs in one part only is another matcher, also where name and value read the same together.
	if get(labels.MatchNotRegexp, "job", "a.*") == a || get(labels.MatchRegexp, "jo", "ba.*") == a {
		t.Error("another matcher was taken for it")
	}
	// Two are kept: the first was pushed out.
	if get(labels.MatchRegexp, "job", "a.*") == a {
		t.Error("more are kept than may be")
	}
	// What is not a regular expression is neither kept nor counted; what does not compile, and what is huge, is not kept.
	get(labels.MatchEqual, "job", "a")
	if _, err := c.matcher(labels.MatchRegexp, "job", "(", roomy()); err == nil {
		t.Error("no error for a bad expression")
	}
	get(labels.MatchRegexp, "job", strings.Repeat("x", cachedBytes))

	want := `
# HELP thanos_matchers_cache_evicted_total Regular expressions that made room for others.
# TYPE thanos_matchers_cache_evicted_total counter
thanos_matchers_cache_evicted_total 2
# HELP thanos_matchers_cache_hits_total Regular expressions that were kept compiled.
# TYPE thanos_matchers_cache_hits_total counter
thanos_matchers_cache_hits_total 1
# HELP thanos_matchers_cache_items Regular expressions that are kept compiled.
# TYPE thanos_matchers_cache_items gauge
thanos_matchers_cache_items 2
# HELP thanos_matchers_cache_max_items Regular expressions that may be kept compiled.
# TYPE thanos_matchers_cache_max_items gauge
thanos_matchers_cache_max_items 2
# HELP thanos_matchers_cache_requests_total Regular expressions of requests.
# TYPE thanos_matchers_cache_requests_total counter
thanos_matchers_cache_requests_total 7
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if NewCache(0, reg) != nil {
		t.Error("a cache of no entries is made")
	}
}

func TestMatcherCacheIsShared(t *testing.T) {
	c := NewCache(3, prometheus.NewRegistry())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				v := fmt.Sprintf("v%d|w", (g+i)%5)
				m, err := c.matcher(labels.MatchRegexp, "l", v, roomy())
				if err != nil || m.Value != v || !m.Matches("w") || m.Matches("x") {
					t.Errorf("%s: got %v, %v", v, m, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if c.order.Len() > 3 || len(c.byKey) != c.order.Len() {
		t.Errorf("got %d in order, %d by key, want at most 3", c.order.Len(), len(c.byKey))
	}
}

// BenchmarkMatcherCache is what the cache saves: a Grafana variable of 1,000 values.
func BenchmarkMatcherCache(b *testing.B) {
	values := make([]string, 1000)
	for i := range values {
		values[i] = fmt.Sprintf("pod-%d-%x", i, i*7919)
	}
	pattern := strings.Join(values, "|")
	for name, c := range map[string]*Cache{"none": nil, "kept": NewCache(10, prometheus.NewRegistry())} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.matcher(labels.MatchRegexp, "pod", pattern, roomy()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
