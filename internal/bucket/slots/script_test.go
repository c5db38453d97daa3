package slots

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/datadriven"
)

// script runs reads that wait for slots. After each command all goroutines run until they wait.
type script struct {
	t        *testing.T
	slots    *Limiter
	contexts map[string]context.Context
	needs    map[string]func()
	joins    map[string]func(context.Context)
	reads    map[string]*Read
	cancels  map[string]context.CancelFunc
	grants
}

// grants records who was granted what. Those that are granted together are sorted.
type grants struct {
	mu      sync.Mutex
	settled []string
	latest  []string
}

func (g *grants) add(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.latest = append(g.latest, name)
}

// settle waits until all goroutines wait.
func (g *grants) settle() {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.Sort(g.latest)
	g.settled, g.latest = append(g.settled, g.latest...), nil
}

// TestScripts runs the scripts of testdata/fair:
//
//	new slots=<n>
//	request <context> tenant=<tenant>
//	background <context>
//	ahead <context> of=<context>      look-ahead of the reader of another context
//	share <context> of=<context>      work that several readers share
//	read <read> of=<context> [n=<n>]  the read acquires a slot; n of them: <read>1, <read>2, ...
//	release [n=<n>]                   frees a slot, n times
//	need <context>                    the look-ahead is needed
//	join <read or share> of=<context> another waiter
//	cancel <read>
//	hedge                             tries to acquire a slot for a hedge
//
// The output has who was granted a slot, in that order, and how many slots are used, are waited for
// by requests, and by look-ahead.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			s := &script{t: t}
			datadriven.RunTest(t, path, s.run)
			for _, cancel := range s.cancels {
				cancel()
			}
		})
	})
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	var of, name string
	n := 1
	d.MaybeScanArgs(t, "of", &of)
	d.MaybeScanArgs(t, "n", &n)
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	switch d.Cmd {
	case "new":
		d.ScanArgs(t, "slots", &n)
		s.slots = New(Options{Max: n, Min: 1})
		s.contexts = map[string]context.Context{"none": t.Context()}
		s.needs, s.joins = map[string]func(){}, map[string]func(context.Context){}
		s.reads, s.cancels = map[string]*Read{}, map[string]context.CancelFunc{}
		return ""
	case "request":
		var tenant string
		d.ScanArgs(t, "tenant", &tenant)
		s.contexts[name] = WithRequest(t.Context(), tenant)
		return ""
	case "background":
		s.contexts[name] = Background(t.Context())
		return ""
	case "ahead":
		s.contexts[name], s.needs[name] = LookAhead(s.contexts[of])
		return ""
	case "share":
		s.contexts[name], s.joins[name] = Share(s.contexts[of])
		return ""
	case "read":
		for i := range n {
			if n > 1 {
				s.read(fmt.Sprint(name, i+1), of)
			} else {
				s.read(name, of)
			}
			s.settle()
		}
	case "release":
		for range n {
			s.slots.Release()
			s.settle()
		}
	case "need":
		s.needs[name]()
	case "join":
		if r := s.reads[name]; r != nil {
			r.Join(s.contexts[of])
		} else {
			s.joins[name](s.contexts[of])
		}
	case "cancel":
		s.cancels[name]()
	case "hedge":
		if s.slots.TryAcquire() {
			s.add("hedge")
		}
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	s.settle()
	granted := strings.Join(s.settled, " ")
	s.settled = nil
	s.slots.gate.mu.Lock()
	defer s.slots.gate.mu.Unlock()
	g := &s.slots.gate
	return strings.TrimSpace(fmt.Sprintf("%s\nused %d, waiting %d, ahead %d",
		granted, g.used, g.demand.len, g.ahead.len))
}

func (s *script) read(name, of string) {
	ctx, cancel := context.WithCancel(s.contexts[of])
	s.cancels[name] = cancel
	r := NewRead(ctx)
	s.reads[name] = r
	go func() {
		if err := s.slots.AcquireFor(ctx, r); err == nil {
			s.add(name)
		} else if !errors.Is(err, context.Canceled) {
			s.t.Error(err)
		}
	}()
}

// TestNoSlotIsIdle: whatever reads come, end, leave and are promoted, no request waits while a slot
// is free, look-ahead never takes the last quarter, and all slots are free in the end.
func TestNoSlotIsIdle(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			capacity := int64(1 + rnd.IntN(20))
			most := max(capacity-(capacity+3)/4, 1) // of used, where look-ahead is granted a slot
			s := New(Options{Max: int(capacity), Min: 1})
			g := &s.gate
			type waiter struct {
				cancel context.CancelFunc
				need   func()
				demand bool
				done   bool
			}
			var all []*waiter
			running, aheadGranted := 0, false
			var mu sync.Mutex // guards running, aheadGranted and done
			for range 400 {
				switch n := rnd.IntN(10); {
				case n < 4:
					ctx := WithRequest(t.Context(), fmt.Sprint(rnd.IntN(3)))
					w := &waiter{demand: rnd.IntN(2) == 0, need: func() {}}
					if !w.demand {
						ctx, w.need = LookAhead(ctx)
					}
					ctx, w.cancel = context.WithCancel(ctx)
					all = append(all, w)
					go func() {
						err := s.Acquire(ctx)
						mu.Lock()
						defer mu.Unlock()
						if err == nil {
							running++
							aheadGranted = aheadGranted || !w.demand
						}
						w.done = true
					}()
				case n < 7:
					if running > 0 {
						running--
						s.Release()
					}
				case len(all) > 0:
					w := all[rnd.IntN(len(all))]
					if n == 7 {
						if !w.done {
							w.cancel()
						}
					} else {
						w.demand = true
						w.need()
					}
				}
				synctest.Wait()
				switch {
				case aheadGranted && g.used > most:
					t.Fatalf("look-ahead was granted a slot of the last quarter: %d of %d in use",
						g.used, capacity)
				case g.used != int64(running) || g.used > capacity:
					t.Fatalf("%d of %d slots in use, by %d reads", g.used, capacity, running)
				case g.demand.len > 0 && g.used < capacity:
					t.Fatalf("%d reads wait, %d of %d slots in use", g.demand.len, g.used, capacity)
				case g.ahead.len > 0 && g.used < most:
					t.Fatalf("%d reads wait, %d of %d slots in use", g.ahead.len, g.used, capacity)
				}
				aheadGranted = false
				all = slices.DeleteFunc(all, func(w *waiter) bool { return w.done })
			}
			for _, w := range all {
				w.cancel()
			}
			synctest.Wait()
			for ; running > 0; running-- {
				s.Release()
				synctest.Wait()
			}
			if g.used != 0 || g.demand.len+g.ahead.len != 0 || len(g.demand.tenants.byKey) != 0 {
				t.Errorf("used %d, waiting %d and %d", g.used, g.demand.len, g.ahead.len)
			}
		})
	}
}

// TestBytesInTheSameOrder: bytes are granted as slots are. A read of more than there are has all.
func TestBytesInTheSameOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBytes(100)
		var order grants
		acquire := func(name string, ctx context.Context, n, want int64) {
			go func() {
				if got, err := b.AcquireFor(ctx, NewRead(ctx), n); err != nil || got != want {
					t.Errorf("%s: got %d, %v; want %d", name, got, err, want)
				}
				order.add(name)
			}()
			order.settle()
		}
		one, two := WithRequest(t.Context(), "one"), WithRequest(t.Context(), "two")
		ahead, need := LookAhead(two)
		acquire("first", one, 60, 60)
		acquire("ahead", ahead, 20, 20) // would leave less than a quarter
		acquire("large", one, 1000, 100)
		acquire("small", one, 10, 10) // behind large, of the same request
		acquire("other", two, 30, 30)
		for _, n := range []int64{60, 100} {
			b.Release(n)
			order.settle()
		}
		if got, want := fmt.Sprint(order.settled), "[first large ahead other small]"; got != want {
			t.Errorf("granted in the order %s, want %s", got, want)
		}
		acquire("late", lookAheadOf(one), 20, 20)
		need() // has no effect any more
		b.Release(10)
		order.settle()
		if n := len(order.settled); n != 6 {
			t.Errorf("%d reads have their bytes, want 6", n)
		}
	})
}

// lookAheadOf returns a context for look-ahead that is never needed.
func lookAheadOf(ctx context.Context) context.Context {
	ahead, _ := LookAhead(ctx)
	return ahead
}
