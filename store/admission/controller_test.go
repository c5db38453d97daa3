package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// smallAllowance returns a Controller with round numbers: 100 bytes, 20 of them for small requests
// of up to 10 bytes.
func smallAllowance(reg prometheus.Registerer) *Controller {
	return New(GateOptions{}, AllowanceOptions{Bytes: 100, SmallLane: 20, SmallRequest: 10}, nil,
		reg)
}

// reserve runs a request without a place until it has n bytes.
func reserve(ctx context.Context, a *Controller, n int64) (*Turn, error) {
	return admit(ctx, a, DefaultTenant, LabelRequest, n)
}

// admit runs a request until it has n bytes.
func admit(ctx context.Context, a *Controller, tenant string, kind Kind, n int64) (*Turn, error) {
	t, err := a.Enter(ctx, tenant, kind)
	if err != nil {
		return nil, err
	}
	err = t.SettleTotal(n)
	var must *MustWait
	if errors.As(err, &must) {
		err = t.Wait(ctx, must.Need)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func mustReserve(t *testing.T, a *Controller, n int64) *Turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r, err := reserve(ctx, a, n)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// waitFor starts a request that must wait for n bytes. The turn arrives in the channel.
func waitFor(t *testing.T, ctx context.Context, a *Controller, n int64) <-chan *Turn {
	t.Helper()
	out := make(chan *Turn, 1)
	go func() {
		defer close(out)
		r, err := reserve(ctx, a, n)
		if err == nil {
			out <- r
		} else if ctx.Err() == nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	if len(out) != 0 {
		t.Errorf("a reservation of %d bytes did not wait", n)
	}
	return out
}

// granted reports whether a turn has arrived.
func granted(c <-chan *Turn) bool {
	synctest.Wait()
	return len(c) == 1
}

// checkInvariant checks what holds at any time.
func checkInvariant(t *testing.T, a *Controller) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reserved[small] < 0 || a.reserved[large] < 0 ||
		a.reserved[small]+a.reserved[large] > a.total ||
		a.reserved[large] > a.total-a.smallBytes {
		t.Errorf("small %d, large %d of %d with a lane of %d",
			a.reserved[small], a.reserved[large], a.total, a.smallBytes)
	}
}

// checkIdle checks that nothing is reserved and nothing waits.
func checkIdle(t *testing.T, a *Controller) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reserved != [lanes]int64{} || a.running != [lanes]int{} || a.waiting != 0 ||
		a.anyWaiting() ||
		len(a.tenants) != 0 {
		t.Errorf("left behind: %v bytes, %v places, of tenants %v, waiting for %d bytes: %v",
			a.reserved, a.running, a.tenants, a.waiting, a.anyWaiting())
	}
}

func TestAllowanceIsFairWithinALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := smallAllowance(nil)
		first := mustReserve(t, a, 70)
		second := waitFor(t, t.Context(), a, 60)
		third := waitFor(t, t.Context(), a, 11) // fits beside the second, but not beside the first
		first.Release(5)                        // now the third fits, but it is not its turn
		if granted(second) || granted(third) {
			t.Error("a request went past one that waited longer")
		}
		first.Close()
		if !granted(second) || !granted(third) {
			t.Error("requests that fit still wait")
		}
		(<-second).Close()
		(<-third).Close()
		checkIdle(t, a)
	})
}

func TestAllowanceSmallLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := smallAllowance(nil)
		export := mustReserve(t, a, 80)
		next := waitFor(t, t.Context(), a, 80)
		// Large requests hold all bytes that they may, and more wait. Small ones still pass.
		var dashboards []*Turn
		for range 2 {
			dashboards = append(dashboards, mustReserve(t, a, 10))
		}
		third := waitFor(t, t.Context(), a, 10)
		checkInvariant(t, a)
		dashboards[0].Close()
		if !granted(third) {
			t.Error("a small request waits although the lane has free bytes")
		}
		export.Close()
		if !granted(next) {
			t.Error("the large request waits although it fits")
		}
		for _, r := range append(dashboards, <-third, <-next) {
			r.Close()
		}
		checkIdle(t, a)
	})
}

// TestAllowanceSmallRequestsBorrow: small requests use everything that is free, but do not delay a
// large request.
func TestAllowanceSmallRequestsBorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := smallAllowance(nil)
		var small []*Turn
		for range 9 {
			small = append(small, mustReserve(t, a, 10))
		}
		large := waitFor(t, t.Context(), a, 80)
		// 10 bytes are free. They stay free: otherwise new small requests could delay the large one
		// for ever.
		late := waitFor(t, t.Context(), a, 10)
		for i, r := range small[:7] {
			r.Close()
			if want := i == 6; granted(large) != want {
				t.Fatalf("after %d releases: large granted %v, want %v", i+1, !want, want)
			}
			if granted(late) {
				t.Fatalf(
					"after %d releases: a small request went past a large one, beyond the small lane",
					i+1,
				)
			}
		}
		small[7].Close()
		if !granted(late) {
			t.Error("the small request waits although the lane has free bytes")
		}
		checkInvariant(t, a)
		for _, r := range []*Turn{small[8], <-large, <-late} {
			r.Close()
		}
		checkIdle(t, a)
	})
}

func TestAllowanceCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := smallAllowance(nil)
		holder := mustReserve(t, a, 70)
		ctx, cancel := context.WithCancel(t.Context())
		head := waitFor(t, ctx, a, 80)
		behind := waitFor(t, t.Context(), a, 11) // does not fit beside the holder
		holder.Release(10)                       // now it would
		small := make([]*Turn, 0, 3)
		for range 2 {
			small = append(small, mustReserve(t, a, 10))
		}
		smallWaits := waitFor(
			t,
			t.Context(),
			a,
			10,
		) // exceeds the small lane while a large request waits
		cancel()
		if !granted(behind) {
			t.Error("the request behind one that gave up still waits")
		}
		if r := <-head; r != nil {
			t.Error("a request that gave up got its bytes")
		}
		// 60 + 11 + 20 bytes are reserved and no large request waits. 10 more do not fit yet.
		if granted(smallWaits) {
			t.Error("101 bytes of 100 are reserved")
		}
		holder.Release(1)
		if !granted(smallWaits) {
			t.Error("a small request that fits waits although no large one does")
		}
		for _, r := range append(small, holder, <-behind, <-smallWaits) {
			r.Close()
		}
		checkIdle(t, a)
	})
}

// TestAllowanceCancelMeetsGrant: bytes that are granted while the request is cancelled are
// released.
func TestAllowanceCancelMeetsGrant(t *testing.T) {
	for _, sizes := range [][2]int64{{80, 80}, {100, 10}} {
		synctest.Test(t, func(t *testing.T) {
			a := smallAllowance(nil)
			both := 0
			for range 200 {
				hold := []*Turn{mustReserve(t, a, min(80, sizes[0]))}
				for a.InUse() < sizes[0] {
					hold = append(hold, mustReserve(t, a, 10))
				}
				ctx, cancel := context.WithCancel(t.Context())
				waiting := waitFor(t, ctx, a, sizes[1])
				a.mu.Lock()
				cancel() // wakes the request, which cannot continue without the lock
				for _, r := range hold {
					r.releaseAll()
					a.grant()
				}
				if a.reserved[small]+a.reserved[large] > 0 {
					both++
				}
				a.mu.Unlock()
				if r := <-waiting; r != nil {
					r.Close()
				}
				checkIdle(t, a)
			}
			if both != 200 {
				t.Errorf("the grant came in time %d times of 200", both)
			}
		})
	}
}

func TestAllowanceErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := smallAllowance(nil)
		check := func(ctx context.Context, n int64, code codes.Code, text string) {
			t.Helper()
			r, err := reserve(ctx, a, n)
			if r != nil || status.Code(err) != code || status.Convert(err).Message() != text {
				t.Errorf("Reserve(%d): got %v, %v; want %s: %s", n, r, err, code, text)
			}
		}
		const allowance = "the 100 bytes of the request allowance (--store.request-bytes)"
		check(t.Context(), 81, codes.ResourceExhausted, "the request needs an estimated 81 bytes, "+
			"more than the 80 bytes that one request may reserve of "+allowance+
			": split the request or raise the flag")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		check(gone, 1, codes.Canceled, "waited 0s for 10 bytes of "+allowance+": context canceled")
		r := mustReserve(t, a, 80)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		check(ctx, 20, codes.DeadlineExceeded,
			"waited 2s for 20 bytes of "+allowance+": context deadline exceeded")

		text := func(what string, err error, want string) {
			t.Helper()
			if st := status.Convert(err); st.Code() != codes.ResourceExhausted ||
				st.Message() != want {
				t.Errorf("%s: got %v, want ResourceExhausted: %s", what, err, want)
			}
		}
		text("beyond what one request may have", r.Reserve(7), "the request needs 7 bytes beyond "+
			"the 80 bytes that one request may reserve of "+allowance+
			": split the request or raise the flag")
		other := mustReserve(t, a, 10)
		text("bytes of another request", other.Reserve(15), "the request needs 15 bytes more of "+
			allowance+", and other requests have reserved them or wait for them: retry later")
		other.Close()
		r.Close()
		checkIdle(t, a)
	})
}

func TestReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := smallAllowance(nil)
		r := mustReserve(t, a, 50)
		steps := []struct {
			what string
			got  any
			want any
		}{
			{"look-ahead", r.TryReserve(10), true},
			{"look-ahead into the last quarter", r.TryReserve(1), false},
			{"go on into the last quarter", r.Reserve(20) == nil, true},
			{"grow into the small lane", r.TryReserve(1), false},
			{"extend into the small lane", r.Reserve(1) == nil, false},
			{"bytes", r.Bytes(), int64(80)},
		}
		r.Release(60)
		waiting := waitFor(t, t.Context(), a, 70)
		steps = append(steps, []struct {
			what string
			got  any
			want any
		}{
			{"look-ahead while a request waits", r.TryReserve(5), false},
			{"going on while a request waits", r.Reserve(5) == nil, true},
			{"grow by nothing", r.Reserve(0) == nil, true},
			{"bytes after it", r.Bytes(), int64(25)},
		}...)
		r.Release(1000)
		if !granted(waiting) {
			t.Error("everything was released, but a request still waits")
		}
		steps = append(steps, []struct {
			what string
			got  any
			want any
		}{
			{"bytes when all was given back", r.Bytes(), int64(0)},
			{"grow again", r.Reserve(5) == nil, true},
		}...)
		r.Close()
		r.Close()
		r.Release(5)
		steps = append(steps, []struct {
			what string
			got  any
			want any
		}{
			{"grow after release", r.TryReserve(1), false},
			{"go on after release", r.Reserve(1) == nil, false},
			{"in use", a.InUse(), int64(70)},
		}...)
		for _, s := range steps {
			if s.got != s.want {
				t.Errorf("%s: got %v, want %v", s.what, s.got, s.want)
			}
		}
		(<-waiting).Close()
		var none *Turn
		none.Close()
		checkIdle(t, a)
	})
}

// TestLookAheadLeavesAQuarter: requests that only try to reserve leave a quarter of the allowance
// free, whatever they hold together. Bytes that a request needs may come from it.
func TestLookAheadLeavesAQuarter(t *testing.T) {
	a := smallAllowance(nil)
	r, other := mustReserve(t, a, 25), mustReserve(t, a, 25)
	for _, s := range []struct {
		what string
		got  bool
		want bool
	}{
		{"within three quarters", r.TryReserve(5), true},
		{"beyond them", other.TryReserve(6), false},
		{"up to them", other.TryReserve(5), true},
		{"one more byte", r.TryReserve(1), false},
		{"a byte that is needed", r.Reserve(1) == nil, true},
	} {
		if s.got != s.want {
			t.Errorf("%s: got %v, want %v", s.what, s.got, s.want)
		}
	}
	r.Close()
	if !other.TryReserve(30) {
		t.Error("no look-ahead although another request has released its bytes")
	}
	other.Close()
	checkIdle(t, a)
}

// TestReservationGrowsFromSmallToLarge: bytes beyond the size of a small request count as large.
func TestReservationGrowsFromSmallToLarge(t *testing.T) {
	a := smallAllowance(nil)
	large := mustReserve(t, a, 75)
	r := mustReserve(t, a, 4)
	for _, s := range []struct {
		n    int64
		want bool
	}{{6, true}, {6, false}, {5, true}, {1, false}} {
		if got := r.Reserve(s.n) == nil; got != s.want {
			t.Errorf("Reserve(%d) with %d reserved: got %v, want %v", s.n, r.Bytes(), got,
				s.want)
		}
		checkInvariant(t, a)
	}
	large.Close()
	r.Close()
	checkIdle(t, a)
}

func TestAllowanceMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		a := smallAllowance(reg)
		r := mustReserve(t, a, 60)
		waiting := waitFor(t, t.Context(), a, 30)
		if _, err := reserve(t.Context(), a, 1000); err == nil {
			t.Error("1000 bytes of 100 were granted")
		}
		want := map[string]float64{
			"larder_request_allowance_bytes in_use":            60,
			"larder_request_allowance_bytes limit":             100,
			"larder_request_allowance_bytes waiting":           30,
			"larder_request_allowance_refused_total too_large": 1,
			"larder_request_allowance_refused_total gave_up":   0,
			"larder_request_allowance_refused_total queue":     0,
			"larder_request_allowance_wait_seconds small":      3,
			"larder_request_allowance_wait_seconds large":      1,
			"larder_request_allowance_waiting large":           1,
			"larder_request_allowance_waiting small":           0,
		}
		got := gathered(t, reg)
		maps.DeleteFunc(
			got,
			func(name string, _ float64) bool {
				return !strings.HasPrefix(name, "larder_request_allowance")
			},
		)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
		r.Close()
		(<-waiting).Close()
		if got := gathered(t, reg)["larder_request_allowance_bytes waiting"]; got != 0 {
			t.Errorf("waiting for %v bytes", got)
		}
	})
}

func TestAllowanceDefaults(t *testing.T) {
	for _, c := range []struct{ bytes, wantTotal, wantLane, wantSmall int64 }{
		{0, 1 << 30, 64 << 20, 4 << 20},
		{128 << 20, 128 << 20, 16 << 20, 2 << 20},
		{16 << 20, 16 << 20, 2 << 20, 1 << 20},
		{1 << 20, 1 << 20, 128 << 10, 128 << 10}, // small enough for its lane
	} {
		a := New(GateOptions{}, AllowanceOptions{Bytes: c.bytes}, nil, nil)
		if a.total != c.wantTotal || a.smallBytes != c.wantLane || a.smallRequest != c.wantSmall {
			t.Errorf("%d bytes: got %d, lane %d, small %d; want %d, %d, %d",
				c.bytes, a.total, a.smallBytes, a.smallRequest, c.wantTotal, c.wantLane,
				c.wantSmall)
		}
	}
}

func TestTryReserve(t *testing.T) {
	a := New(GateOptions{}, AllowanceOptions{Bytes: 1000, SmallLane: 200, SmallRequest: 100}, nil,
		nil)
	f := func(n int64, granted, ever bool) *Turn {
		t.Helper()
		r, e := a.TryReserve(n)
		if (r != nil) != granted || e != ever {
			t.Errorf("%d bytes of %d in use: granted %v, ever %v", n, a.InUse(), r != nil, e)
		}
		return r
	}
	f(501, false, false)
	f(math.MaxInt64, false, false)
	r := f(400, true, true)
	f(101, false, true)
	s := f(100, true, true)
	s.Close()
	r.Close()

	large, err := reserve(context.Background(), a, 800)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waits := make(chan error)
	go func() {
		_, err := reserve(ctx, a, 800)
		waits <- err
	}()
	for waiting := false; !waiting; waiting, _ = a.Waiting() {
		// Until it waits.
	}
	large.Release(790)
	f(1, false, true)
	cancel()
	<-waits
	f(1, true, true).Close()
	large.Close()
	if n := a.InUse(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

// TestAllowanceModel runs many random requests in fake time. The requests count what they hold
// themselves; both counts must agree and never exceed the allowance. Every request that is not
// cancelled gets its turn: a forgotten request would be a deadlock, which synctest reports.
func TestAllowanceModel(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				a := New(
					GateOptions{},
					AllowanceOptions{
						Bytes:        1000,
						SmallLane:    50 + r.Int64N(300),
						SmallRequest: 1 + r.Int64N(200),
					},
					nil,
					nil,
				)
				m := &model{t: t, a: a}
				var wg sync.WaitGroup
				for range 200 {
					seed := r.Uint64()
					wg.Go(func() { m.request(rand.New(rand.NewPCG(seed, 2))) })
				}
				wg.Wait()
				checkIdle(t, a)
				if m.held != 0 {
					t.Errorf("%d bytes are still reserved", m.held)
				}
				if m.granted == 0 || m.gaveUp == 0 || m.grown == 0 || m.notGrown == 0 {
					t.Errorf("the run is one-sided: %d granted, %d gave up, %d grown, %d not",
						m.granted, m.gaveUp, m.grown, m.notGrown)
				}
			})
		})
	}
}

type model struct {
	t *testing.T
	a *Controller

	mu                               sync.Mutex
	held                             int64
	granted, gaveUp, grown, notGrown int
}

// change notes that a request holds delta more bytes. Gains are noted after the grant and losses
// before the release, so that held never exceeds what the Controller has counted.
func (m *model) change(delta int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held += delta; m.held > m.a.total {
		m.t.Errorf("%d bytes of %d are in use", m.held, m.a.total)
	}
	checkInvariant(m.t, m.a)
}

func (m *model) request(r *rand.Rand) {
	pause := func(most int) { time.Sleep(time.Duration(r.IntN(most)) * time.Millisecond) }
	pause(1000)
	n := 1 + r.Int64N(m.a.total-m.a.smallBytes)
	if r.IntN(2) == 0 {
		n = 1 + r.Int64N(m.a.smallRequest)
	}
	ctx := m.t.Context()
	if r.IntN(3) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(2000))*time.Millisecond)
		defer cancel()
	}
	res, err := reserve(ctx, m.a, n)
	if err != nil {
		if ctx.Err() == nil {
			m.t.Error(err)
		}
		m.mu.Lock()
		m.gaveUp++
		m.mu.Unlock()
		return
	}
	m.mu.Lock()
	m.granted++
	m.mu.Unlock()
	m.change(n)
	for range r.IntN(6) {
		pause(50)
		switch d := 1 + r.Int64N(300); r.IntN(3) {
		case 0:
			d = min(d, n)
			m.change(-d)
			n -= d
			res.Release(d)
		default:
			grow := res.TryReserve
			if r.IntN(2) == 0 {
				grow = func(n int64) bool { return res.Reserve(n) == nil }
			}
			ok := grow(d)
			if ok {
				n += d
				m.change(d)
			}
			m.mu.Lock()
			if ok {
				m.grown++
			} else {
				m.notGrown++
			}
			m.mu.Unlock()
		}
		if got := res.Bytes(); got != n {
			m.t.Errorf("reservation holds %d, want %d", got, n)
		}
	}
	m.change(-n)
	res.Close()
	if r.IntN(4) == 0 {
		res.Close()
	}
}
