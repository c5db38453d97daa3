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

// largeBudget returns a budget that no test exhausts.
func largeBudget() *Budget {
	return NewCompiler(intake.NewAccount(4<<30, nil)).Open(context.Background())
}

// TestCacheIsBoundedByBytes: an expression of a thousand bytes can hold megabytes.
func TestCacheIsBoundedByBytes(t *testing.T) {
	c := NewCache(50, prometheus.NewRegistry())
	_, kept := allocated(func() any {
		for i := range 12 {
			expr := fmt.Sprint(i) + strings.Repeat(`\pL`, 15)
			if _, err := largeBudget().matcher(c, labels.MatchRegexp, "pod", expr); err != nil {
				t.Fatal(err)
			}
		}
		return c
	})
	if limit := c.maxBytes(); kept > limit || c.bytes > limit || c.recent.Len() == 0 {
		t.Errorf("%d expressions of 50 bytes hold %d bytes and count as %d, want 1 to %d",
			c.recent.Len(), kept, c.bytes, limit)
	}
}

func TestCache(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := NewCache(2, reg)
	get := func(kind labels.MatchType, name, value string) *labels.Matcher {
		t.Helper()
		m, err := largeBudget().matcher(c, kind, name, value)
		if err != nil {
			t.Fatal(err)
		}
		if m.Type != kind || m.Name != name || m.Value != value {
			t.Fatalf("asked for %s%s%q, got %s", name, kind, value, m)
		}
		return m
	}
	a := get(labels.MatchRegexp, "job", "a.*")
	if get(labels.MatchRegexp, "job", "a.*") != a {
		t.Error("the same expression was compiled twice")
	}
	// Matchers differ if one part differs, even if name and value concatenate to the same text.
	if get(labels.MatchNotRegexp, "job", "a.*") == a || get(labels.MatchRegexp, "jo", "ba.*") == a {
		t.Error("the cache returned another matcher")
	}
	// The cache has two entries: the first was evicted.
	if get(labels.MatchRegexp, "job", "a.*") == a {
		t.Error("the cache has more than two entries")
	}
	// An equality is neither cached nor counted. Invalid and huge expressions are not cached.
	get(labels.MatchEqual, "job", "a")
	if _, err := largeBudget().matcher(c, labels.MatchRegexp, "job", "("); err == nil {
		t.Error("no error for a bad expression")
	}
	get(labels.MatchRegexp, "job", strings.Repeat("x", bytesPerEntry))

	want := `
# HELP thanos_matchers_cache_evicted_total Compiled regular expressions that the cache evicted.
# TYPE thanos_matchers_cache_evicted_total counter
thanos_matchers_cache_evicted_total 2
# HELP thanos_matchers_cache_hits_total Regular expressions that the cache had compiled.
# TYPE thanos_matchers_cache_hits_total counter
thanos_matchers_cache_hits_total 1
# HELP thanos_matchers_cache_items Compiled regular expressions in the cache.
# TYPE thanos_matchers_cache_items gauge
thanos_matchers_cache_items 2
# HELP thanos_matchers_cache_max_items Maximum number of compiled regular expressions in the cache.
# TYPE thanos_matchers_cache_max_items gauge
thanos_matchers_cache_max_items 2
# HELP thanos_matchers_cache_requests_total Regular expressions that requests looked up.
# TYPE thanos_matchers_cache_requests_total counter
thanos_matchers_cache_requests_total 7
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if NewCache(0, reg) != nil {
		t.Error("a cache of 0 entries is not nil")
	}
}

func TestCacheIsShared(t *testing.T) {
	c := NewCache(3, prometheus.NewRegistry())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				v := fmt.Sprintf("v%d|w", (g+i)%5)
				m, err := largeBudget().matcher(c, labels.MatchRegexp, "l", v)
				if err != nil || m.Value != v || !m.Matches("w") || m.Matches("x") {
					t.Errorf("%s: got %v, %v", v, m, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if c.recent.Len() > 3 || len(c.entries) != c.recent.Len() {
		t.Errorf("got %d in order, %d by key, want at most 3", c.recent.Len(), len(c.entries))
	}
}
