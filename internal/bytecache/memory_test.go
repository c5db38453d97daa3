package bytecache

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// testBytes is the core of a Memory, as the tests of this package use it.
type testBytes struct {
	*Values[[]byte]
	memory *Memory
}

func newBytes(o Options) testBytes {
	m := NewMemory(o)
	return testBytes{m.values, m}
}

func (b testBytes) Set(key uint64, value []byte) { b.memory.Set(Key{Local: key}, value) }

// part is a value that is not bytes but has a size, like a series set.
type part struct {
	labels []byte
	refs   []uint64
}

// newPart returns a part of 1 to 32 KiB, in sizes that the allocator rounds up by little.
func newPart(key uint64) *part {
	n := 1 << (9 + mix(key)%6)
	return &part{labels: make([]byte, n), refs: make([]uint64, n/8)}
}

func (p *part) bytes() int64 {
	return int64(cap(p.labels)+8*cap(p.refs)) + int64(unsafe.Sizeof(*p))
}

func newParts(maxBytes int64) *Values[*part] {
	return NewValues[*part](Options{MaxBytes: maxBytes, ExpectedValueBytes: 8 << 10})
}

func TestMixIsOneToOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(100_000) {
		for _, k := range []uint64{i, i << 26, ^i, rng.Uint64()} {
			if got := unmix(mix(k)); got != k {
				t.Fatalf("unmix(mix(%#x)) = %#x", k, got)
			}
		}
	}
}

// TestMixSpreadsLowBits: ristretto selects one of 256 shards by the low 8 bits. Keys of one page
// number of many blocks differ in high bits only.
func TestMixSpreadsLowBits(t *testing.T) {
	for _, shift := range []uint{0, 26, 40} {
		var shards [256]int
		for i := range uint64(25_600) {
			shards[mix(i<<shift)&255]++
		}
		for s, n := range shards {
			if n < 50 || n > 160 {
				t.Errorf("keys << %d: shard %d has %d keys of about 100", shift, s, n)
			}
		}
	}
}

// TestBurstLosesNothing sets 100,000 values at once, three times the size of ristretto's buffer, in
// a cache that is large enough for all.
func TestBurstLosesNothing(t *testing.T) {
	m := newBytes(Options{MaxBytes: 128 << 20, ExpectedValueBytes: 128})
	defer m.Close()
	value := make([]byte, 128)
	for key := range uint64(100_000) {
		m.Set(key, value)
		if _, ok := m.Get(key); !ok {
			t.Fatalf("key %d is missing right after Set", key)
		}
	}
	m.policy.Wait()
	missing := 0
	for key := range uint64(100_000) {
		if _, ok := m.Get(key); !ok {
			missing++
		}
	}
	st := m.Stats()
	if missing != 0 || st.Items != 100_000 || st.Added < 99_999 ||
		st.Crowded+st.Refused+st.TooLarge != 0 {
		t.Errorf("%d values are missing; %+v", missing, st)
	}
	if st.PendingBytes > 128+entryOverhead {
		t.Errorf("%d bytes still pending after all was applied: more than the last value",
			st.PendingBytes)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what a sync.Pool drops in the first collection is freed in the second
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return int64(ms.HeapAlloc)
}

// TestMemoryHoldsItsSize: after a burst of 100,000 values, many times the size of the cache, the
// heap has grown by the configured size, within 10 %. Every second value is requested, so that the
// policy sees both kinds. The same holds for sizes that the allocator rounds up by a lot.
func TestMemoryHoldsItsSize(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory distorts the figures")
	}
	f := func(maxBytes int64, valueBytes int) {
		t.Helper()
		before := heap()
		m := newBytes(Options{MaxBytes: maxBytes, ExpectedValueBytes: int64(valueBytes)})
		defer m.Close()
		holdsItsSize(t, m.Values, before, func(key uint64) { m.Set(key, make([]byte, valueBytes)) })
	}
	f(64<<20, 8<<10)
	f(32<<20, 1<<10)
	f(16<<20, 256)
	f(128<<20, 16<<10)
	f(16<<20, 1_160)
	f(64<<20, 4_200)
	f(64<<20, 8<<10+1)
	f(64<<20, 33_000)
	f(64<<20, 41_500)
	before := heap()
	m := newParts(128 << 20)
	defer m.Close()
	holdsItsSize(t, m, before, func(key uint64) { p := newPart(key); m.Set(key, p, p.bytes()) })
}

// holdsItsSize fills an empty cache that was made after before was measured.
func holdsItsSize[V any](t *testing.T, m *Values[V], before int64, set func(key uint64)) {
	t.Helper()
	var peak, peakPending int64
	later := uint64(0) // after this many Sets a value is looked up: half-way through the queue
	for key := range uint64(100_000) {
		set(key)
		if key%2 == 0 && key >= later {
			m.Get(key - later)
		}
		if key%16 == 0 {
			st := m.Stats()
			later = uint64(m.recent.maxBytes / 2 * st.Items / st.Bytes)
			peak = max(peak, st.Bytes)
			peakPending = max(peakPending, st.PendingBytes)
		}
	}
	m.policy.Wait()
	grown := heap() - before
	st := m.Stats()
	t.Logf(
		"max %d: heap +%d (%.3f), accounted %d, peak %d, peak pending %d, items %d, "+
			"evicted %d, refused %d",
		m.maxBytes, grown, float64(grown)/float64(m.maxBytes), st.Bytes, peak, peakPending,
		st.Items, st.Evictions, st.Refused,
	)
	if st.Added != 100_000 || st.Added != st.Items+st.Evictions+st.Refused {
		t.Errorf("%d values were added, of which %d are held, %d were evicted, and %d refused",
			st.Added, st.Items, st.Evictions, st.Refused)
	}
	if grown > m.maxBytes*11/10 || grown < m.maxBytes*9/10 {
		t.Errorf("the heap grew by %d bytes for a cache of %d", grown, m.maxBytes)
	}
	if peak > m.maxBytes {
		t.Errorf("held %d bytes at its peak, the limit is %d", peak, m.maxBytes)
	}
	if peakPending > m.pendingLimit {
		t.Errorf("%d bytes were pending, more than %d", peakPending, m.pendingLimit)
	}
	if st.Crowded != 0 {
		t.Errorf("%d values did not fit into the buffer", st.Crowded)
	}
	if st.Evictions == 0 || st.Refused == 0 {
		t.Errorf("%d evictions, %d refused: no burst of both kinds", st.Evictions, st.Refused)
	}
}

// TestPendingIsBounded stops ristretto's goroutine: no value is applied, and the pending bytes must
// stay within their limit.
func TestPendingIsBounded(t *testing.T) {
	m := newBytes(Options{MaxBytes: 4 << 20, ExpectedValueBytes: 1 << 10})
	defer m.Close()
	const size = 1 << 10
	const cost = size + entryOverhead
	m.recent.maxBytes = 0
	// The cache has space for one value: the second evicts the first, for which ristretto's
	// goroutine waits for the shard of the first.
	maxCost := m.policy.MaxCost()
	m.policy.UpdateMaxCost(cost)
	m.Set(0, make([]byte, size))
	m.policy.Wait()
	s := m.shardOf(mix(0))
	s.mu.Lock()
	var keys []uint64
	set := func(n int64) {
		key := uint64(1)
		if len(keys) > 0 {
			key = keys[len(keys)-1] + 1
		}
		for ; n > 0; key++ {
			if m.shardOf(mix(key)) != s {
				m.Set(key, make([]byte, size))
				keys = append(keys, key)
				n--
				if got := m.pendingBytes.Load(); got > m.pendingLimit {
					t.Errorf("%d bytes pending, limit %d", got, m.pendingLimit)
				}
			}
		}
	}
	fits := m.pendingLimit/cost - 1
	set(fits)
	for m.evictions.Load() == 0 { // after this it waits for s.mu
		runtime.Gosched()
	}
	done := make(chan struct{})
	go func() { // cannot end before a value is applied
		defer close(done)
		set(2 * fits)
	}()
	if got := m.pendingBytes.Load(); got < fits*cost {
		t.Errorf("%d bytes pending of %d: was something applied?", got, fits*cost)
	}
	select {
	case <-done:
		t.Error("Sets returned although no value was applied")
	default:
	}
	m.policy.UpdateMaxCost(maxCost)
	s.mu.Unlock()
	<-done
	m.policy.Wait()
	for _, key := range keys {
		if _, ok := m.Get(key); !ok {
			t.Errorf("key %d was lost", key)
		}
	}
	if st := m.Stats(); st.Crowded != 0 || st.Evictions != 1 {
		t.Errorf("%d values were refused, %d evicted", st.Crowded, st.Evictions)
	}
}

func TestPresentKeysAreNotSetAgain(t *testing.T) {
	m := newBytes(Options{MaxBytes: 8 << 20, ExpectedValueBytes: 1 << 10})
	defer m.Close()
	for key := range uint64(100) {
		m.Set(key, make([]byte, 1<<10))
	}
	m.policy.Wait()
	before, free := m.Stats(), m.policy.RemainingCost()
	for key := range uint64(100) {
		m.Set(key, make([]byte, 100<<10))
		m.Set(key, make([]byte, 10))
	}
	m.policy.Wait()
	if after := m.Stats(); after != before {
		t.Errorf("got %+v, want %+v", after, before)
	}
	if got := m.policy.RemainingCost(); got != free {
		t.Errorf("remaining cost: got %d, want %d", got, free)
	}
}

// TestSetAfterDel: a deleted value does not block a new one, wherever it was, and uses no memory.
func TestSetAfterDel(t *testing.T) {
	f := func(what string, settle func(m testBytes)) {
		t.Helper()
		m := newBytes(Options{MaxBytes: 8 << 20})
		defer m.Close()
		others := uint64(1 << 32)
		fill := func(bytes int) {
			for ; bytes > 0; bytes -= 8 << 10 {
				m.Set(others, make([]byte, 8<<10))
				others++
			}
		}
		m.Set(1, make([]byte, 10))
		settle(m)
		m.Del(1)
		if _, ok := m.Get(1); ok {
			t.Errorf("%s: the key is present after Del", what)
		}
		m.Set(1, make([]byte, 1000))
		fill(2 << 20) // more than the queue of recent values
		m.policy.Wait()
		if v, ok := m.Get(1); !ok || len(v) != 1000 {
			t.Errorf("%s: got %d bytes, %v", what, len(v), ok)
		}
		if st := m.Stats(); st.Items != 1+2<<20/(8<<10) {
			t.Errorf("%s: %d items are held, want %d", what, st.Items, 1+2<<20/(8<<10))
		}
	}
	f("recent", func(testBytes) {})
	f("in ristretto", func(m testBytes) {
		for key := range uint64(200) {
			m.Set(1<<40+key, make([]byte, 8<<10))
		}
		m.policy.Wait()
		for key := range uint64(200) {
			m.Del(1<<40 + key)
		}
	})
	f("on its way there", func(m testBytes) {
		for key := range uint64(200) {
			m.Set(1<<40+key, make([]byte, 8<<10))
		}
		for key := range uint64(200) {
			m.Del(1<<40 + key)
		}
	})
}

func TestTooLargeIsCounted(t *testing.T) {
	m := newBytes(Options{MaxBytes: 1 << 20, MaxValueBytes: 64 << 10})
	defer m.Close()
	m.Set(1, make([]byte, 64<<10))
	m.Set(2, make([]byte, 64<<10+1))
	m.policy.Wait()
	_, fits := m.Get(1)
	_, large := m.Get(2)
	if st := m.Stats(); !fits || large || st.TooLarge != 1 || st.Items != 1 {
		t.Errorf("fits %v, large %v, %+v", fits, large, st)
	}
	tiny := newBytes(Options{MaxBytes: 1})
	defer tiny.Close()
	tiny.Set(1, nil)
	if st := tiny.Stats(); st.TooLarge != 1 || st.Items != 0 {
		t.Errorf("a cache of one byte: %+v", st)
	}
}

// TestScanLeavesHotValues: values used three times survive a scan of values used once, four times
// the size of the cache, at every phase of the cycle in which the policy halves its counts.
func TestScanLeavesHotValues(t *testing.T) {
	const maxBytes, size = 8 << 20, 8 << 10
	const hot = maxBytes / size / 2
	kept := 0
	f := func(seed uint64) {
		t.Helper()
		m := newBytes(Options{MaxBytes: maxBytes})
		defer m.Close()
		uses := 0
		use := func(key uint64) {
			if _, ok := m.Get(key); !ok {
				m.Set(key, make([]byte, size))
			}
			// Look-ups are paced so that the policy can count them.
			if uses++; uses%countBatch == 0 {
				for len(m.accesses) > 0 {
					runtime.Gosched()
				}
			}
		}
		count := func() (n int) {
			m.policy.Wait()
			for key := range uint64(hot) {
				mixed := mix(key)
				if _, ok := m.shardOf(mixed).table[mixed]; ok {
					n++
				}
			}
			return n
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		for range hot + rng.IntN(12*maxBytes/size) { // what was cached before
			use(1<<41 + rng.Uint64N(20*hot))
		}
		for range 3 {
			for key := range uint64(hot) {
				use(key)
			}
		}
		before := count()
		for i := range uint64(4 * maxBytes / size) {
			use(1<<40 + i)
		}
		left := count()
		if before < hot*7/10 {
			// On a busy machine ristretto counted too little: it drops look-ups rather than delay
			// them.
			return
		}
		if kept++; left < before*8/10 {
			t.Errorf("seed %d: of %d hot values %d were there before the scan, %d after", seed, hot,
				before, left)
		}
	}
	seeds := uint64(20)
	if raceEnabled {
		seeds = 3
	}
	for seed := range seeds {
		f(seed)
	}
	if kept == 0 {
		t.Error("the hot values were never there before the scan")
	}
}

// TestImmediateLookUpsDoNotCount: a full cache keeps a value that was looked up some time after it
// was set, or several times. It does not keep one whose only look-up came directly after it was
// set.
func TestImmediateLookUpsDoNotCount(t *testing.T) {
	const size = 8 << 10
	m := newBytes(Options{MaxBytes: 8 << 20})
	defer m.Close()
	next := uint64(1 << 32)
	fill := func(bytes int64) {
		for ; bytes > 0; bytes -= size {
			m.Set(next, make([]byte, size))
			next++
		}
	}
	fill(2 * m.maxBytes)
	for key := range uint64(30) {
		m.Set(key, make([]byte, size))
		switch key % 3 {
		case 0:
			m.Get(key)
			m.Get(key)
		case 1:
			for range 5 {
				m.Get(key)
			}
		}
		fill(m.recent.maxBytes / 2)
		if key%3 == 2 {
			for range 5 { // so that the policy admits it too
				m.Get(key)
			}
		}
		fill(2 * m.recent.maxBytes)
	}
	m.policy.Wait()
	const used = 20 // values that are worth keeping
	kept := 0
	for key := range uint64(30) {
		_, ok := m.Get(key)
		if ok && key%3 == 0 {
			t.Errorf("value %d is kept, though its only look-up came directly after it was set", key)
		} else if ok {
			kept++
		}
	}
	// On a busy machine the policy loses some look-ups. A value that lost all of its own may go.
	if kept < used*3/4 {
		t.Errorf("%d of %d used values are kept", kept, used)
	}
}

// TestMemo: a memo remembers a key until about as many others were added as its capacity, and
// hardly ever confuses keys.
func TestMemo(t *testing.T) {
	const n = 1000
	m := newMemo(n)
	if m.has(mix(0)) || m.has(0) {
		t.Error("an empty memo remembers")
	}
	f := func(name string, from, to uint64, least, most int) {
		t.Helper()
		got := 0
		for key := from; key < to; key++ {
			if m.has(mix(key)) {
				got++
			}
		}
		if got < least || got > most {
			t.Errorf("%s: %d of %d keys are remembered, want %d to %d", name, got, to-from, least,
				most)
		}
	}
	for key := range uint64(10 * n) {
		m.add(mix(key))
		if !m.has(mix(key)) {
			t.Fatalf("key %d was added just now", key)
		}
	}
	f("the last", 9*n, 10*n, n*9/10, n)
	f("those before", 0, 9*n, 0, 0)
	f("others", 10*n, 1000*n, 0, 1)
}

func TestGetDoesNotAllocate(t *testing.T) {
	m := newBytes(Options{})
	defer m.Close()
	for key := range uint64(100) {
		m.Set(key, make([]byte, 100))
	}
	key := uint64(0)
	if n := testing.AllocsPerRun(10_000, func() { m.Get(key % 200); key++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newBytes(Options{MaxBytes: 1 << 20, MaxValueBytes: 1 << 10, Name: "chunks",
		Registerer: reg})
	other := newBytes(Options{Name: "index", Registerer: reg})
	defer other.Close()
	m.Set(1, make([]byte, 100))
	m.Set(2, make([]byte, 2<<10))
	m.Get(1)
	m.Get(3)
	want := `
# HELP larder_cache_hits_total Look-ups that found a value.
# TYPE larder_cache_hits_total counter
larder_cache_hits_total{cache="chunks",tier="memory"} 1
larder_cache_hits_total{cache="index",tier="memory"} 0
# HELP larder_cache_items Values held.
# TYPE larder_cache_items gauge
larder_cache_items{cache="chunks",tier="memory"} 1
larder_cache_items{cache="index",tier="memory"} 0
# HELP larder_cache_rejected_total Values that were not kept, by reason.
# TYPE larder_cache_rejected_total counter
larder_cache_rejected_total{cache="chunks",reason="crowded",tier="memory"} 0
larder_cache_rejected_total{cache="chunks",reason="policy",tier="memory"} 0
larder_cache_rejected_total{cache="chunks",reason="too_large",tier="memory"} 1
larder_cache_rejected_total{cache="index",reason="crowded",tier="memory"} 0
larder_cache_rejected_total{cache="index",reason="policy",tier="memory"} 0
larder_cache_rejected_total{cache="index",reason="too_large",tier="memory"} 0
# HELP larder_cache_requests_total Look-ups in the cache.
# TYPE larder_cache_requests_total counter
larder_cache_requests_total{cache="chunks",tier="memory"} 2
larder_cache_requests_total{cache="index",tier="memory"} 0
`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want), "larder_cache_requests_total",
		"larder_cache_hits_total", "larder_cache_items", "larder_cache_rejected_total")
	if err != nil {
		t.Error(err)
	}
	m.Close()
	again := newBytes(Options{Name: "chunks", Registerer: reg}) // the name is free again
	again.Close()
}
