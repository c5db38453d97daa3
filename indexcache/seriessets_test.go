package indexcache

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// seriesSets opens a cache of series sets, which are strings in these tests.
func seriesSets(t *testing.T, bytes int64, reg prometheus.Registerer) *SeriesSets[string] {
	t.Helper()
	s := NewSeriesSets[string](bytes, reg)
	t.Cleanup(s.Close)
	return s
}

// get reads a set and releases it.
func get(s *SeriesSets[string], k SetKey) (string, bool) {
	set, release, ok := s.Get(k)
	if ok {
		release()
	}
	return set, ok
}

func setKey(i int) SetKey { return NewSetKey(1, ulid.ULID{1}, fmt.Appendf(nil, "set %d", i)) }

// TestSetsStayWithinTheirAllowance puts many times as many sets as fit, with others under
// construction at the same time.
func TestSetsStayWithinTheirAllowance(t *testing.T) {
	const allowance, size = 12 << 20, 300 << 10
	s := seriesSets(t, allowance, nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 100 {
				k := setKey(1000*w + i)
				if !s.TryReserve(size) {
					t.Error("four sets under construction do not fit")
					return
				}
				release := s.Put(k, "set", size, false)
				s.Release(size)
				kept, reserved := s.Stats().Bytes, s.ReservedBytes()
				if kept+reserved > allowance {
					t.Errorf("%d bytes kept, %d reserved; the allowance is %d",
						kept, reserved, allowance)
				}
				release()
				for range 3 {
					get(s, k)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Items < 15 || s.ReservedBytes() != 0 {
		t.Errorf("%+v, %d bytes reserved; want 15 items and 0 bytes", st, s.ReservedBytes())
	}
	if s.TryReserve(s.MaxSetBytes()) && s.TryReserve(1) {
		t.Error("sets under construction may use more than their part")
	}
	big := setKey(-1)
	s.Put(big, "big", s.MaxSetBytes()+1, false)()
	if _, ok := get(s, big); ok {
		t.Error("a set is kept that is too large")
	}
}

// TestAScanDoesNotEvictSetsOfDashboards requests many sets once, four times as many as fit. They
// evict no set that was requested a few times; if the cache was full when those came, at most a few
// of them. A set that is requested again and again is kept, too.
func TestAScanDoesNotEvictSetsOfDashboards(t *testing.T) {
	f := func(full bool, hot, times int, size int64) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			const allowance = 24 << 20
			s := seriesSets(t, allowance, nil)
			ask := func(i int) (found bool) {
				time.Sleep(time.Millisecond) // earlier look-ups are counted
				k := setKey(i)
				if _, ok := get(s, k); ok {
					return true
				}
				_, wanted := s.Pays(k, Candidate{Bytes: size})
				s.Put(k, "set", size, wanted)()
				return false
			}
			once := func(from, bytes int) {
				for i := range bytes / int(size) {
					ask(from + i)
				}
			}
			want := hot
			if full {
				once(1_000_000, allowance)
				want = hot * 4 / 5
			}
			for range times {
				for i := range hot {
					ask(i)
				}
			}
			once(2_000_000, 4*allowance)
			left := 0
			for i := range hot {
				if ask(i) {
					left++
				}
			}
			if left < want {
				t.Errorf("%d of %d sets of %d bytes that were requested %d times are left, want %d",
					left, hot, size, times, want)
			}
			for range times {
				ask(-1)
			}
			if !ask(-1) {
				t.Errorf("a set of %d bytes is not kept after %d requests", size, times)
			}
		})
	}
	for _, full := range []bool{false, true} {
		f(full, 100, 4, 64<<10)
		f(full, 100, 30, 64<<10)
		f(full, 6, 10, 1<<20)
		f(full, 2, 30, 3<<20)
	}
}

// TestEvictedSetsCountWhileTheyAreRead checks that an evicted set counts until its last reader is
// done, because it stays in memory until then.
func TestEvictedSetsCountWhileTheyAreRead(t *testing.T) {
	const size = 1 << 20
	s := seriesSets(t, 12<<20, nil)
	first := setKey(0)
	builder := s.Put(first, "first", size, true)
	_, reader, ok := s.Get(first)
	if !ok || s.ReservedBytes() != 0 {
		t.Fatalf("kept: %v, %d bytes reserved, want 0", ok, s.ReservedBytes())
	}
	for i := 1; ; i++ {
		k := setKey(i)
		s.Put(k, "set", size, true)()
		for range 3 {
			get(s, k)
		}
		if _, ok := s.values.Peek(first.hash); !ok {
			break
		}
		if i > 1000 {
			t.Fatal("the first set is never evicted")
		}
	}
	if n := s.ReservedBytes(); n != size {
		t.Errorf("%d bytes reserved for an evicted set with two readers, want %d", n, size)
	}
	if s.TryReserve(s.MaxSetBytes() - size + 1) {
		t.Error("more bytes are reserved than are free beside an evicted set")
	}
	reader()
	reader()
	if n := s.ReservedBytes(); n != size {
		t.Errorf("%d bytes reserved with one reader left, want %d", n, size)
	}
	builder()
	if n := s.ReservedBytes(); n != 0 {
		t.Errorf("%d bytes reserved without a reader, want 0", n)
	}
	// A refused set counts while it is read.
	refused := s.Put(setKey(-1), "too large", s.MaxSetBytes()+1, false)
	if n := s.ReservedBytes(); n != s.MaxSetBytes()+1 {
		t.Errorf("%d bytes reserved for a refused set, want all of it", n)
	}
	if refused(); s.ReservedBytes() != 0 {
		t.Errorf("%d bytes reserved without a reader, want 0", s.ReservedBytes())
	}
}

// TestSetsAreComparedWhole checks that two sets whose keys share 64 bits are not confused.
func TestSetsAreComparedWhole(t *testing.T) {
	s := seriesSets(t, 12<<20, nil)
	one, other := setKey(1), setKey(2)
	other.hash = one.hash
	s.Put(one, "one", 100, false)()
	if v, ok := get(s, one); !ok || v != "one" {
		t.Errorf("got %v, %v", v, ok)
	}
	if v, ok := get(s, other); ok {
		t.Errorf("got %v for another key", v)
	}
	if v, _, ok := s.GetAgain(other); ok {
		t.Errorf("got %v for another key", v)
	}
	s.Put(other, "other", 100, false)()
	if v, ok := get(s, other); ok {
		t.Errorf("got %v where one is kept", v)
	}
	if v, _, ok := s.GetAgain(one); !ok || v != "one" || s.Coalesced() != 1 ||
		s.Stats().Requests != 3 {
		t.Errorf("got %v, %v; %+v", v, ok, s.Stats())
	}
}

// TestPays checks when building a set pays, and whether it is then wanted.
func TestPays(t *testing.T) {
	s := seriesSets(t, 30<<20, nil) // 10 MiB for one set
	next := 0
	check := func(name string, requests int, c Candidate, wantPays, wantWanted bool) {
		t.Helper()
		next++
		k := setKey(next)
		for range requests - 1 {
			s.Pays(k, c)
		}
		if pays, wanted := s.Pays(k, c); pays != wantPays || wanted != wantWanted {
			t.Errorf("%s, request %d: got %v and %v, want %v and %v",
				name, requests, pays, wanted, wantPays, wantWanted)
		}
	}
	const large = 5 << 20
	check("small", 1, Candidate{Bytes: 1 << 20}, true, false)
	check("small", 2, Candidate{Bytes: 1 << 20}, true, true)
	check("large", 1, Candidate{Bytes: large}, false, false)
	check("large", 2, Candidate{Bytes: large}, true, true)
	check("large, of the whole block", 1, Candidate{Bytes: large, Whole: true}, true, false)
	check("large, known", 1, Candidate{Bytes: large, Known: true}, true, true)
	check("large, planned again", 2, Candidate{Bytes: large, Repeated: true}, true, false)
	check("too large", 2, Candidate{Bytes: 11 << 20, Known: true}, false, false)
	check("too large at most", 2, Candidate{Bytes: 11 << 20, AtMost: true}, true, true)
	check("empty", 1, Candidate{Empty: true, Known: true}, false, false)
	check("empty", 2, Candidate{Empty: true}, true, true)
	check("empty, planned again", 2, Candidate{Empty: true, Repeated: true}, true, false)

	k := setKey(-1)
	if s.TooLarge(k, 10<<20) || !s.TooLarge(k, 10<<20+1) {
		t.Error("a set of a third of the allowance is too large, or a larger one is not")
	}
	if pays, _ := s.Pays(k, Candidate{Bytes: 100, Known: true}); pays {
		t.Error("a set that turned out too large pays")
	}
}

// TestFiltersRemember checks that filters remember the last hashes and forget old ones.
func TestFiltersRemember(t *testing.T) {
	var f filter
	known := 0
	add := func(i int) bool { return f.add(setKey(i).hash) }
	if add(0) || !add(0) {
		t.Error("a hash is known before it is added, or unknown after it")
	}
	for i := range filterItems - 1 {
		if add(1 + i) {
			known++
		}
	}
	if !add(0) {
		t.Error("a hash is forgotten after one generation")
	}
	for i := range 2 * filterItems {
		if add(1_000_000 + i) {
			known++
		}
	}
	if share := float64(known) / (3 * filterItems); share > 0.005 {
		t.Errorf("%.3f of new hashes were taken for known ones", share)
	}
	if f.has(setKey(0).hash) {
		t.Error("a hash is never forgotten")
	}
}

func TestSeriesSetMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := seriesSets(t, 12<<20, reg)
	s.Put(setKey(1), "one", 1000, false)()
	get(s, setKey(1))
	get(s, setKey(2))
	s.Joined()
	s.TryReserve(500)
	s.TryReserve(1 << 30)
	s.TooLarge(setKey(3), 1<<30)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP larder_cache_hit_bytes_total Bytes of values found.
# TYPE larder_cache_hit_bytes_total counter
larder_cache_hit_bytes_total{cache="series_sets",tier="memory"} 1000
# HELP larder_cache_hits_total Look-ups that found a value.
# TYPE larder_cache_hits_total counter
larder_cache_hits_total{cache="series_sets",tier="memory"} 1
# HELP larder_cache_requests_total Look-ups in the cache.
# TYPE larder_cache_requests_total counter
larder_cache_requests_total{cache="series_sets",tier="memory"} 2
# HELP larder_series_sets_abandoned_total Series sets whose construction was abandoned: they were too large to be kept (too_large), or memory for sets under construction was used up (no_room).
# TYPE larder_series_sets_abandoned_total counter
larder_series_sets_abandoned_total{reason="no_room"} 1
larder_series_sets_abandoned_total{reason="too_large"} 1
# HELP larder_series_sets_held_bytes Bytes of series sets that are under construction, or evicted and still read.
# TYPE larder_series_sets_held_bytes gauge
larder_series_sets_held_bytes 500
# HELP larder_series_sets_coalesced_total Plans of a block that used a series set which another request was building.
# TYPE larder_series_sets_coalesced_total counter
larder_series_sets_coalesced_total 1
`), "larder_cache_requests_total", "larder_cache_hits_total", "larder_cache_hit_bytes_total",
		"larder_series_sets_coalesced_total", "larder_series_sets_held_bytes",
		"larder_series_sets_abandoned_total"); err != nil {
		t.Error(err)
	}
}
