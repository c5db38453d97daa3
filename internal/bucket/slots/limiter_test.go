package slots

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// state returns limit, used and waiting slots.
func (s *Limiter) state() [3]int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return [3]int{int(s.gate.capacity), int(s.gate.used), s.gate.demand.len + s.gate.ahead.len}
}

func (s *Limiter) check(t *testing.T, limit, used, waiting int) {
	t.Helper()
	if got, want := s.state(), [3]int{limit, used, waiting}; got != want {
		t.Errorf("limit, used, waiting: %v, want %v", got, want)
	}
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Max: 2})
		var order []int
		for range 2 {
			if err := s.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			go func() {
				if err := s.Acquire(t.Context()); err != nil {
					t.Error(err)
				}
				order = append(order, i)
			}()
			synctest.Wait()
		}
		s.check(t, 2, 2, 5)
		for range 5 {
			s.Release()
			if s.TryAcquire() {
				t.Error("TryAcquire overtook a waiting read")
			}
			synctest.Wait()
		}
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
			t.Errorf("served in the order %v", order)
		}
		s.check(t, 2, 2, 0)
		s.Release()
		if !s.TryAcquire() || s.TryAcquire() {
			t.Error("one slot was spare")
		}
	})
}

// TestGrowth: the limit grows above its start while reads wait, and not otherwise.
func TestGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Max: 6, Start: 4})
		for range 100 {
			s.Answered()
		}
		s.check(t, 4, 0, 0)
		for range 4 {
			if !s.TryAcquire() {
				t.Fatal("no slot")
			}
		}
		for range 4 {
			go func() {
				if err := s.Acquire(t.Context()); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		for range 5 {
			s.Answered()
		}
		synctest.Wait()
		s.check(t, 5, 5, 3)
		for range 20 {
			s.Answered()
		}
		synctest.Wait()
		s.check(t, 6, 6, 2)
		for range 8 {
			s.Release()
		}
		synctest.Wait()
		s.check(t, 6, 0, 0)
		s.Throttled()
		s.check(t, 4, 0, 0) // the least
	})
}

func TestCancelledWaitersHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Max: 1})
		if !s.TryAcquire() {
			t.Fatal("no slot")
		}
		ctx, cancel := context.WithCancel(t.Context())
		gone, next := make(chan error, 1), make(chan error, 1)
		go func() { gone <- s.Acquire(ctx) }()
		synctest.Wait()
		go func() { next <- s.Acquire(t.Context()) }()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := s.Acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		s.check(t, 1, 1, 1)
		s.Release()
		if err := <-next; err != nil {
			t.Error(err)
		}
		s.check(t, 1, 1, 0)
	})
}

// TestThrottles: a burst of refusals halves the limit once a second, and answers raise it again.
func TestThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		s := New(Options{Max: 64, Min: 4, Registerer: reg})
		for range 50 {
			s.Throttled()
		}
		s.check(t, 32, 0, 0)
		time.Sleep(time.Second)
		s.Throttled()
		s.check(t, 16, 0, 0)
		for range 5 {
			time.Sleep(time.Second)
			s.Throttled()
		}
		s.check(t, 4, 0, 0)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP larder_bucket_reads_promoted_total Waiting look-ahead reads of the bucket that a request came to need.
# TYPE larder_bucket_reads_promoted_total counter
larder_bucket_reads_promoted_total 0
# HELP larder_bucket_slots Concurrent reads of the bucket: the limit, running reads, waiting reads, and look-ahead that waits.
# TYPE larder_bucket_slots gauge
larder_bucket_slots{state="ahead"} 0
larder_bucket_slots{state="limit"} 4
larder_bucket_slots{state="used"} 0
larder_bucket_slots{state="waiting"} 0
# HELP larder_bucket_throttles_total Answers of the bucket that asked for fewer requests (503 SlowDown, 429).
# TYPE larder_bucket_throttles_total counter
larder_bucket_throttles_total 56
`)); err != nil {
			t.Error(err)
		}
		answers := 0
		for s.state()[0] < 64 {
			s.Answered()
			answers++
		}
		// The sum of the limits on the way: one more slot per round of answers.
		if answers < 1500 || answers > 2500 {
			t.Errorf("%d answers until all slots were back", answers)
		}
		s.Answered()
		s.check(t, 64, 0, 0)
	})
}

// TestThrottledHoldersKeepTheirSlots: a lower limit applies to new reads, and answers admit waiting
// ones.
func TestThrottledHoldersKeepTheirSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Max: 4, Min: 1})
		for range 4 {
			if !s.TryAcquire() {
				t.Fatal("no slot")
			}
		}
		s.Throttled()
		s.check(t, 2, 4, 0)
		done := make(chan error, 1)
		go func() { done <- s.Acquire(t.Context()) }()
		synctest.Wait()
		s.Release()
		s.Release()
		s.check(t, 2, 2, 1)
		s.Answered()
		s.Answered()
		s.check(t, 2, 2, 1)
		s.Answered()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.check(t, 3, 3, 0)
	})
}

// TestPausedReadsDoNotCount: paused reads do not count, and resume without waiting.
func TestPausedReadsDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Max: 1})
		if !s.TryAcquire() {
			t.Fatal("no slot")
		}
		s.Pause()
		if !s.TryAcquire() {
			t.Error("a paused read blocks another one")
		}
		s.Resume()
		s.check(t, 1, 2, 0)
		s.Release()
		if s.TryAcquire() {
			t.Error("a slot in use was granted again")
		}
		s.Release()
		s.check(t, 1, 0, 0)
	})
}
