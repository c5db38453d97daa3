package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// crowd starts requests of a tenant that take a second each, and counts those that end.
func crowd(
	ctx context.Context,
	wg *sync.WaitGroup,
	a *Controller,
	tenant string,
	requests int,
	n int64,
	done *int,
	mu *sync.Mutex,
) {
	for range requests {
		wg.Go(func() {
			turn, err := admit(ctx, a, tenant, SeriesRequest, n)
			if err != nil {
				return
			}
			time.Sleep(time.Second)
			mu.Lock()
			*done++
			mu.Unlock()
			turn.Close()
		})
	}
}

// TestTenantsTakeTurns: a thousand requests of one tenant, small or large, delay the only request
// of another by no more than the running requests and one more.
func TestTenantsTakeTurns(t *testing.T) {
	for _, n := range []int64{1, 3 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := New(GateOptions{MaxConcurrent: 4, MaxWaiting: -1},
					AllowanceOptions{Bytes: 12 << 20, SmallLane: 3 << 20, SmallRequest: 1 << 20},
					nil, nil)
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				var mu sync.Mutex
				done := 0
				crowd(ctx, &wg, a, "crowd", 1000, n, &done, &mu)
				time.Sleep(10500 * time.Millisecond)
				start := time.Now()
				turn, err := admit(t.Context(), a, "one", SeriesRequest, n)
				if err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(start); waited > 2*time.Second {
					t.Errorf("the other tenant's request waited %s beside requests of a second",
						waited)
				}
				turn.Close()
				stop()
				wg.Wait()
				checkIdle(t, a)
			})
		})
	}
}

// TestTenantsByWeight: a tenant of weight 3 gets three times as much as the others while all wait.
func TestTenantsByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := NewLimits(LimitOptions{}, map[string]LimitOptions{"heavy": {Weight: 3}}, nil)
		a := New(GateOptions{MaxConcurrent: 4, MaxWaiting: -1},
			AllowanceOptions{Bytes: 12 << 20, SmallLane: 3 << 20, SmallRequest: 1 << 20}, limits,
			nil)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		var heavy, light int
		crowd(ctx, &wg, a, "heavy", 1000, 3<<20, &heavy, &mu)
		crowd(ctx, &wg, a, "light", 1000, 3<<20, &light, &mu)
		time.Sleep(100500 * time.Millisecond)
		mu.Lock()
		if ratio := float64(heavy) / float64(light); ratio < 2.7 || ratio > 3.3 {
			t.Errorf("%d and %d requests, want three to one", heavy, light)
		}
		mu.Unlock()
		stop()
		wg.Wait()
		checkIdle(t, a)
	})
}

// TestTenantLimitsOfTurns: the limits of a tenant bound that tenant and delay no other. They may
// change while requests wait.
func TestTenantLimitsOfTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := NewLimits(LimitOptions{},
			map[string]LimitOptions{"few": {MaxConcurrent: 2}, "lean": {RequestBytes: 0.3}}, nil)
		a := New(GateOptions{MaxConcurrent: 8},
			AllowanceOptions{Bytes: 100, SmallLane: 20, SmallRequest: 10}, limits, nil)
		start := func(tenant string, n int64, requests int) <-chan *Turn {
			turns := make(chan *Turn, requests)
			for range requests {
				go func() {
					turn, err := admit(t.Context(), a, tenant, SeriesRequest, n)
					if err != nil {
						t.Error(err)
					}
					turns <- turn
				}()
			}
			synctest.Wait()
			return turns
		}
		few := start("few", 1, 5)
		if len(few) != 2 {
			t.Errorf("%d requests of a tenant run that may have 2", len(few))
		}
		if _, err := admit(t.Context(), a, "lean", LabelRequest, 31); status.Code(
			err,
		) != codes.ResourceExhausted {
			t.Errorf("31 bytes for a tenant that may have 30: got %v, want ResourceExhausted", err)
		}
		lean := start("lean", 15, 5)
		if len(lean) != 2 {
			t.Errorf("%d requests of 15 bytes run of a tenant that may have 30", len(lean))
		}
		others := start("other", 12, 2)
		if len(others) != 2 {
			t.Errorf(
				"%d requests of another tenant run, want 2: what one tenant may not have, others may",
				len(others),
			)
		}
		if turn := <-others; !turn.TryReserve(1) {
			t.Error("no look-ahead while others wait for what their tenant may not have")
		} else {
			turn.Close()
		}
		(<-others).Close()

		a.SetLimits(LimitOptions{}, map[string]LimitOptions{"few": {MaxConcurrent: 4}})
		synctest.Wait()
		if len(few) != 4 || len(lean) < 3 {
			t.Errorf("with new limits %d and %d requests run, want 4 and more than 2",
				len(few), len(lean))
		}
		for range 5 {
			(<-few).Close()
			(<-lean).Close()
		}
		checkIdle(t, a)
	})
}

// TestTenantsThatShare: invented tenants get no more than one tenant. Tenants with limits of their
// own keep theirs.
func TestTenantsThatShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := NewLimits(LimitOptions{Shared: true}, map[string]LimitOptions{"known": {}}, nil)
		a := New(GateOptions{MaxConcurrent: 1}, AllowanceOptions{}, limits, nil)
		first, err := admit(t.Context(), a, "known", SeriesRequest, 1)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		come := func(tenant string) {
			wg.Go(func() {
				turn, err := admit(t.Context(), a, tenant, SeriesRequest, 1)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, tenant)
				mu.Unlock()
				turn.Close()
			})
			synctest.Wait()
		}
		for i := range 50 {
			come(fmt.Sprint("made-up-", i))
		}
		for range 5 {
			come("known")
		}
		first.Close()
		wg.Wait()
		known := 0
		for _, name := range order[:11] {
			if name == "known" {
				known++
			}
		}
		if known != 5 {
			t.Errorf("the tenant with limits of its own had %d of the first 11 turns, want 5: %v",
				known, order[:11])
		}
		checkIdle(t, a)
	})
}

// TestTheLongestQueueIsShortened: a full queue rejects a request of the tenant with the most
// waiting requests, not the last one.
func TestTheLongestQueueIsShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 1, MaxWaiting: 10}, AllowanceOptions{}, nil, nil)
		first := enter(t, a)
		var wg sync.WaitGroup
		var mu sync.Mutex
		refused := map[string]int{}
		come := func(tenant string) {
			wg.Go(func() {
				turn, err := a.Enter(t.Context(), tenant, SeriesRequest)
				if err == nil {
					turn.Close()
					return
				}
				if status.Code(err) != codes.ResourceExhausted {
					t.Error(err)
				}
				mu.Lock()
				refused[tenant]++
				mu.Unlock()
			})
			synctest.Wait()
		}
		for range 12 {
			come("crowd")
		}
		for range 3 {
			come("one")
		}
		if refused["crowd"] != 5 || refused["one"] != 0 {
			t.Errorf("rejected: %v, want 5 of the crowd: 2 beyond the limit, and 3 for the others",
				refused)
		}
		first.Close()
		wg.Wait()
		checkIdle(t, a)
	})
}

// TestLimitsChangeBeforeARequestWaits: a request is rejected if, when it begins to wait, its tenant
// may no longer hold what it needs. Otherwise it would wait for ever, and its tenant behind it.
func TestLimitsChangeBeforeARequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{}, AllowanceOptions{Bytes: 100, SmallLane: 20, SmallRequest: 10},
			NewLimits(LimitOptions{}, nil, nil), nil)
		running, err := admit(t.Context(), a, "other", LabelRequest, 60)
		if err != nil {
			t.Fatal(err)
		}
		turn, err := a.Enter(t.Context(), "lean", SeriesRequest)
		if err != nil {
			t.Fatal(err)
		}
		var must *MustWait
		if err := turn.SettleTotal(50); !errors.As(err, &must) {
			t.Fatalf("got %v, want a MustWait", err)
		}
		a.SetLimits(LimitOptions{}, map[string]LimitOptions{"lean": {RequestBytes: 0.3}})
		running.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := turn.Wait(ctx, must.Need); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v, want ResourceExhausted", err)
		}
		turn.Close()
		checkIdle(t, a)
	})
}

// TestLimitsOfTenants: each tenant has limits of its own.
func TestLimitsOfTenants(t *testing.T) {
	l := NewLimits(LimitOptions{Series: 10}, map[string]LimitOptions{"a": {Series: 20}, "b": {}},
		nil)
	for tenant, want := range map[string]uint64{"a": 20, "c": 10, "b": math.MaxUint64} {
		series, _, _ := l.For(tenant)
		if err := series.Reserve(want); err != nil {
			t.Errorf("%s: %v", tenant, err)
		}
		if err := series.Reserve(1); err == nil && want != math.MaxUint64 {
			t.Errorf("%s: %d series are allowed", tenant, want+1)
		}
	}
}
