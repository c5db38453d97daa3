package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// schedules returns the number of random runs of a model.
func schedules(t *testing.T, most int) uint64 {
	if testing.Short() {
		return uint64(most / 20)
	}
	t.Helper()
	return uint64(most)
}

// TestAdmissionModel runs random Series requests, label requests and background work in fake time.
// They plan, wait again, settle, reserve more, release, stall until their stall time-out and are
// cancelled at any point, while limits of tenants change.
//
// The requests count what they hold themselves; both counts must agree. After every step,
// everything that can be granted is granted. A forgotten request would be a deadlock, which
// synctest reports.
func TestAdmissionModel(t *testing.T) {
	var all modelCounts
	for seed := range schedules(t, 4000) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			tenants := func() map[string]LimitOptions {
				out := map[string]LimitOptions{}
				for i := range 4 {
					if r.IntN(2) == 0 {
						out[fmt.Sprint(i)] = LimitOptions{
							Weight:        0.1 + 5*r.Float64(),
							MaxConcurrent: r.IntN(4),
							RequestBytes:  r.Float64(),
						}
					}
				}
				return out
			}
			others := func() LimitOptions { return LimitOptions{Shared: r.IntN(4) == 0} }
			limits := NewLimits(others(), tenants(), nil)
			part := 50 + r.Int64N(300)
			m := &admissionModel{t: t, a: New(
				GateOptions{
					MaxConcurrent: r.IntN(9),
					MaxWaiting:    []int{-1, 3, 1000}[r.IntN(3)],
					FailFast:      r.IntN(8) == 0,
				},
				AllowanceOptions{
					Bytes:        1000,
					SmallLane:    part,
					SmallRequest: 1 + r.Int64N(part),
				},
				limits,
				nil,
			)}
			var wg sync.WaitGroup
			for range 60 {
				seed := r.Uint64()
				wg.Go(func() { m.request(rand.New(rand.NewPCG(seed, 2))) })
			}
			for range 3 {
				time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
				m.a.SetLimits(others(), tenants())
				m.check()
			}
			wg.Wait()
			checkIdle(t, m.a)
			if m.held != 0 {
				t.Errorf("seed %d: %d bytes are still reserved", seed, m.held)
			}
			all.add(m.modelCounts)
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if all.answered == 0 || all.requeued == 0 || all.gaveUp == 0 || all.refused == 0 ||
		all.stalled == 0 ||
		all.background == 0 {
		t.Errorf("the runs are one-sided: %+v", all)
	}
	t.Logf("%+v", all)
}

// modelCounts count how the requests of a model ended, and what happened to them.
type modelCounts struct{ answered, requeued, gaveUp, refused, stalled, background int }

func (c *modelCounts) add(o modelCounts) {
	c.answered += o.answered
	c.requeued += o.requeued
	c.gaveUp += o.gaveUp
	c.refused += o.refused
	c.stalled += o.stalled
	c.background += o.background
}

type admissionModel struct {
	t *testing.T
	a *Controller

	mu   sync.Mutex
	held int64
	modelCounts
}

// change notes that a request holds delta more bytes. Gains are noted after the grant and losses
// before the release, so that held never exceeds what the Controller has counted.
func (m *admissionModel) change(delta int64) {
	m.mu.Lock()
	m.held += delta
	if m.held > m.a.total {
		m.t.Errorf("%d bytes of %d are held", m.held, m.a.total)
	}
	m.mu.Unlock()
	m.check()
}

func (m *admissionModel) count(n *int) {
	m.mu.Lock()
	*n++
	m.mu.Unlock()
}

// check checks what holds at any time.
func (m *admissionModel) check() {
	checkInvariant(m.t, m.a)
	a := m.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running[small] < 0 || a.running[large] < 0 ||
		a.places > 0 &&
			(a.running[small]+a.running[large] > a.places || a.running[large] > a.largePlaces) {
		m.t.Errorf("places: %v of %d, of which large ones may have %d",
			a.running, a.places, a.largePlaces)
	}
	var bytes int64
	var places int
	for name, u := range a.tenants {
		if u.places < 0 || u.bytes < 0 {
			m.t.Errorf("tenant %q has %+v", name, u)
		}
		bytes += u.bytes
		places += u.places
	}
	if places != a.running[small]+a.running[large] || bytes > a.reserved[small]+a.reserved[large] {
		m.t.Errorf("tenants have %d places and %d bytes of %v and %v",
			places, bytes, a.running, a.reserved)
	}
	for l := range lanes {
		if w := a.next(l); w != nil && a.fits(l, w.bytes) {
			m.t.Errorf("a %s request waits for %d bytes that are free", l, w.bytes)
		}
		// The guarantees of the lanes, without the code of next and fits.
		for k := range kinds {
			for _, f := range a.queues[l][k].busy {
				w := f.line.Front().Value.(*waiter)
				lim, use := a.limits.of(w.tenant), a.tenants[w.tenant]
				mine := lim.MaxConcurrent <= 0 || k != SeriesRequest ||
					use.places < lim.MaxConcurrent
				mine = mine && use.bytes+w.bytes <= lim.requestBytes(a.total, a.smallRequest)
				place := k != SeriesRequest || a.places == 0 ||
					a.running[small]+a.running[large] < a.places &&
						(l == small && a.running[small] < a.smallPlaces || l == large &&
							a.running[large] < a.largePlaces)
				if l == small && mine && place && a.reserved[small]+a.smallRequest <= a.smallBytes {
					m.t.Errorf(
						"a small request waits though small ones have their part free: %v places, %v bytes",
						a.running,
						a.reserved,
					)
				}
				if l == large && mine && place && a.reserved[large] == 0 &&
					a.reserved[small] <= a.smallBytes {
					m.t.Errorf(
						"a large request waits though nothing large runs: %v places, %v bytes",
						a.running,
						a.reserved,
					)
				}
			}
		}
	}
}

var errStalled = errors.New("stalled")

// request runs a request from start to end.
func (m *admissionModel) request(r *rand.Rand) {
	pause := func(most int) { time.Sleep(time.Duration(r.IntN(most)) * time.Millisecond) }
	pause(1000)
	if r.IntN(10) == 0 {
		n := r.Int64N(m.a.total / 2)
		if turn, _ := m.a.TryReserve(n); turn != nil {
			m.count(&m.background)
			m.change(n)
			pause(100)
			m.change(-n)
			turn.Close()
		}
		return
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	if r.IntN(3) == 0 {
		time.AfterFunc(time.Duration(r.IntN(2000))*time.Millisecond, cancel)
	}
	kind := SeriesRequest
	if r.IntN(3) == 0 {
		kind = LabelRequest
	}
	turn, err := m.a.Enter(ctx, fmt.Sprint(r.IntN(6)), kind)
	if err != nil {
		m.over(ctx, err)
		return
	}
	need := 1 + r.Int64N(m.a.smallRequest)
	if r.IntN(2) == 0 {
		need = 1 + r.Int64N(m.a.total-m.a.smallBytes)
	}
	held := m.a.smallRequest
	m.change(held)
	for ctx.Err() == nil {
		err = m.attempt(ctx, r, turn, need, &held)
		var must *MustWait
		if !errors.As(err, &must) || ctx.Err() != nil {
			break
		}
		m.count(&m.requeued)
		m.change(-held)
		held = 0
		if err = turn.Wait(ctx, must.Need); err != nil {
			break
		}
		held, need = must.Need, max(need, must.Need)
		m.change(held)
	}
	m.change(-held)
	turn.Close()
	if r.IntN(4) == 0 {
		turn.Close()
	}
	m.check()
	if err == nil {
		err = ctx.Err()
	}
	m.over(ctx, err)
}

// attempt plans, settles and sends.
func (m *admissionModel) attempt(
	ctx context.Context,
	r *rand.Rand,
	turn *Turn,
	need int64,
	held *int64,
) error {
	pause := func(most int) { time.Sleep(time.Duration(r.IntN(most)) * time.Millisecond) }
	// sync notes what the turn holds now. It notes gains after the fact.
	sync := func() {
		if n := turn.Bytes(); n != *held {
			m.change(n - *held)
			*held = n
		}
	}
	turn.Restart()
	for range r.IntN(4) {
		pause(20)
		if err := turn.ReserveForPlan(1 + r.Int64N(need)); err != nil {
			return err
		}
		sync()
	}
	// Losses are noted before the release.
	if n := turn.Bytes(); need < n {
		m.change(need - n)
		*held = need
	}
	if err := turn.SettleTotal(need); err != nil {
		return err
	}
	sync()
	for range r.IntN(6) {
		pause(50)
		d := 1 + r.Int64N(100)
		switch r.IntN(4) {
		case 0:
			d = min(d, *held)
			m.change(-d)
			*held -= d
			turn.Release(d)
		case 1:
			if err := turn.Reserve(d); err != nil {
				return err
			}
		case 2:
			turn.TryReserve(d)
		case 3:
			if r.IntN(8) == 0 { // a client that reads no more
				m.count(&m.stalled)
				stall := time.NewTimer(time.Minute)
				select {
				case <-stall.C:
					return errStalled
				case <-ctx.Done():
					stall.Stop()
					return ctx.Err()
				}
			}
		}
		sync()
	}
	return nil
}

// over counts how a request ended.
func (m *admissionModel) over(ctx context.Context, err error) {
	switch {
	case err == nil:
		m.count(&m.answered)
	case ctx.Err() != nil, errors.Is(err, errStalled):
		m.count(&m.gaveUp)
	default:
		m.count(&m.refused)
	}
	m.check()
}
