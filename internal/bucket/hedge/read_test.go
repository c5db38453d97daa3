package hedge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"larder/internal/panics"
)

// slowOnce answers the next request as c says, and all others as usual.
func slowOnce(c conduct) func(int) conduct {
	first := true
	return func(int) conduct {
		if first {
			first = false
			return c
		}
		return usual()
	}
}

func TestASlowFirstByteIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, slowOnce(conduct{open: time.Minute}))
		start := time.Now()
		g.mustRead(t, 100, 1000)
		if d := time.Since(start); d < 20*time.Millisecond || d > 30*time.Millisecond {
			t.Errorf("the read took %s, want the usual time of a first byte twice", d)
		}
		if got, want := g.below.taken(), []string{"[100,1100)", "[100,1100)"}; !slices.Equal(
			got, want,
		) {
			t.Errorf("requests %v, want %v", got, want)
		}
		if n := g.hedges(reasonFirstByte, resultWon); n != 1 {
			t.Errorf("%d hedges won, want 1", n)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

func TestTheFirstRequestMayStillWin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, slowOnce(conduct{open: 15 * time.Millisecond}))
		g.mustRead(t, 0, 1000)
		synctest.Wait()
		if won, lost := g.hedges(reasonFirstByte, resultWon),
			g.hedges(reasonFirstByte, resultLost); won != 0 ||
			lost != 1 {
			t.Errorf("won %d lost %d, want 0 and 1", won, lost)
		}
		g.atRest(t)
	})
}

func TestAtMostUpToMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{UpTo: 2}, func(int) conduct { return conduct{open: time.Hour} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := g.GetRange(ctx, "o", 0, 1000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		if n := len(g.below.taken()); n != 3 {
			t.Errorf("%d requests, want 3", n)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

// TestAClientThatHeedsNoContext: a read does not wait for a client that ignores its context, as
// several do.
func TestAClientThatHeedsNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, slowOnce(conduct{open: time.Minute, deaf: true}))
		start := time.Now()
		g.mustRead(t, 0, 1000)
		if d := time.Since(start); d > 30*time.Millisecond {
			t.Errorf("the read took %s: it waited for the loser", d)
		}
		if n := g.limiter.held(); n != 1 {
			t.Errorf("%d slots are in use while the loser runs, want 1", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		g.atRest(t)
	})
}

func TestNothingIsHedgedBeforeEnoughIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(1<<20, func(n int) conduct {
			if n == 99 {
				return conduct{open: time.Minute}
			}
			return usual()
		})
		g := &rig{Bucket: Wrap(b, Options{MinSamples: 100}), below: b, limiter: &limiter{}}
		for range 100 {
			g.mustRead(t, 0, 100)
		}
		if n := len(b.taken()); n != 100 {
			t.Errorf("%d requests for 100 reads", n)
		}
	})
}

// TestTheBudgetSaysWhatIsLate checks that a read within its budget is not hedged, although it is
// slower than usual, and that a read is hedged once it has used up its budget. That also holds
// before the usual time is known.
func TestTheBudgetSaysWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := 500 * time.Millisecond
		opts := Options{ReadBudget: func() time.Duration { return budget }}
		within := conduct{open: 400 * time.Millisecond}
		over := conduct{open: time.Minute}
		read := func(g *rig, c conduct, requests int, atMost time.Duration) {
			t.Helper()
			g.below.taken()
			g.below.act = slowOnce(c)
			start := time.Now()
			g.mustRead(t, 0, 1000)
			if d := time.Since(start); d > atMost {
				t.Errorf("a read took %s, want at most %s", d, atMost)
			}
			if n := len(g.below.taken()); n != requests {
				t.Errorf("%d requests for a read, want %d", n, requests)
			}
		}
		known := newRig(t, opts, nil)
		fresh := &rig{Bucket: Wrap(known.below, opts), below: known.below, limiter: &limiter{}}
		known.below.act = func(int) conduct { return usual() }
		for range 40 { // fewer than MinSamples, and enough to save extra requests
			fresh.mustRead(t, 0, 1000)
		}
		for _, g := range []*rig{known, fresh} {
			read(g, within, 1, 400*time.Millisecond)
			read(g, over, 2, 550*time.Millisecond)
		}
		budget = time.Millisecond // below the quantile, which decides then
		read(known, conduct{open: 5 * time.Millisecond}, 1, 5*time.Millisecond)
		read(known, over, 2, 50*time.Millisecond)
		time.Sleep(time.Hour)
		synctest.Wait()
	})
}

func TestOnlySpareSlotsAreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{Limiter: &limiter{}}, slowOnce(conduct{open: time.Second}))
		g.mustRead(t, 0, 1000)
		if n := len(g.below.taken()); n != 1 {
			t.Errorf("%d requests, want 1: no slot was free", n)
		}
		if g.refused(reasonFirstByte, refusedSlots) == 0 {
			t.Error("the refusal was not counted")
		}
	})
}

func TestErrorsArePassedOnAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, nil)
		for _, c := range []conduct{{err: errGone{}}, {open: time.Second, err: errGone{}}} {
			g.below.act = func(int) conduct { return c }
			_, err := g.GetRange(t.Context(), "o", 0, 1000)
			if _, ok := err.(errGone); !ok || !g.IsObjNotFoundErr(err) {
				t.Errorf("got %#v, want the client's own error", err)
			}
		}
		g.below.act = func(int) conduct { return conduct{err: errBusy} }
		if _, err := g.GetRange(t.Context(), "o", 0, 1000); err != errBusy {
			t.Errorf("got %v, want %v", err, errBusy)
		}
		if n := len(g.below.taken()); n < 3 {
			t.Errorf("%d requests", n)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

// TestAFailureIsMadeGood: the second request succeeds after the first one failed.
func TestAFailureIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, slowOnce(conduct{open: 15 * time.Millisecond, err: errBusy}))
		g.mustRead(t, 0, 1000)
		synctest.Wait()
		g.atRest(t)
	})
}

func TestACallerThatLeavesIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, func(int) conduct { return conduct{open: time.Hour} })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Millisecond, cancel)
		if _, err := g.GetRange(ctx, "o", 0, 1000); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		g.atRest(t)
		if g.gate.failures.count() != 0 {
			t.Error("a read that was cancelled counts as a failure of the bucket")
		}
	})
}

func TestAPanicOfTheClientIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, func(int) conduct { return conduct{panics: true} })
		_, err := g.GetRange(t.Context(), "o", 0, 1000)
		if p := new(panics.Error); !errors.As(err, &p) {
			t.Errorf("got %v, want a panic", err)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

// TestAPanicOfABodyEndsNothing: a panic neither ends the process, on a goroutine of this package,
// nor leaks a slot, in the caller's Close.
func TestAPanicOfABodyEndsNothing(t *testing.T) {
	stalled := conduct{open: 10 * time.Millisecond, stallAt: 5000, stall: time.Hour}
	stalledBadly := stalled
	stalledBadly.closePanics = true
	for _, tc := range []struct {
		name     string
		answers  []conduct // of the first requests
		closeErr bool
	}{
		{name: "read of a replacement", answers: []conduct{stalled, {readPanics: true}}},
		{name: "close of a replacement",
			answers: []conduct{stalled, {failAt: 0, bodyErr: errReset, closePanics: true}}},
		{name: "close of what was replaced", answers: []conduct{stalledBadly}},
		{name: "close of a late answer",
			answers: []conduct{{open: time.Second, deaf: true, closePanics: true}}},
		{name: "close of the answer", answers: []conduct{{closePanics: true}}, closeErr: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, Options{}, func(n int) conduct {
					if n < len(tc.answers) {
						return tc.answers[n]
					}
					return usual()
				})
				body, err := g.GetRange(t.Context(), "o", 0, 20_000)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(body); err != nil ||
					!bytes.Equal(got, g.below.data[:20_000]) {
					t.Errorf("%d bytes, %v; or wrong ones", len(got), err)
				}
				err = body.Close()
				if p := new(panics.Error); errors.As(err, &p) != tc.closeErr {
					t.Errorf("Close returned %v", err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				g.atRest(t)
			})
		})
	}
}

// TestThatAnObjectIsNotThereIsAnAnswer: the read ends, even if another request failed before.
func TestThatAnObjectIsNotThereIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, func(n int) conduct {
			if n == 0 {
				return conduct{open: 15 * time.Millisecond, err: errBusy}
			}
			return conduct{open: 10 * time.Millisecond, err: errGone{}}
		})
		if _, err := g.GetRange(t.Context(), "o", 0, 1000); !g.IsObjNotFoundErr(err) {
			t.Errorf("got %v, want a missing object", err)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

// TestTheBudgetHolds: the budget holds for any share of slow reads, sequential or concurrent.
func TestTheBudgetHolds(t *testing.T) {
	for _, slow := range []int{1, 2, 8, 20} {
		for _, parallel := range []int{1, 50} {
			t.Run(fmt.Sprintf("one in %d, %d at once", slow, parallel), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := newRig(t, Options{}, func(n int) conduct {
						if n%slow == 0 {
							return conduct{open: 2 * time.Second}
						}
						return usual()
					})
					for range 2000 / parallel {
						var wg sync.WaitGroup
						for range parallel {
							wg.Go(func() { g.mustRead(t, 0, 100) })
						}
						wg.Wait()
					}
					synctest.Wait()
					// The budget saved before counts too.
					if n := len(g.below.taken()); n > 2000+2000/20+10 {
						t.Errorf("%d requests for 2000 reads", n)
					}
					g.atRest(t)
				})
			})
		}
	}
}

// TestASlowBucketIsLeftAlone: reads are not hedged while all of them are slow.
func TestASlowBucketIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{Burst: 50}, func(int) conduct { return conduct{open: time.Second} })
		before := g.extra()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { g.mustRead(t, 0, 100) })
		}
		wg.Wait()
		synctest.Wait()
		// The budget would have allowed one each.
		if n := g.extra() - before; n > 25 {
			t.Errorf("%d hedges for 50 reads", n)
		}
		if g.refused(reasonFirstByte, refusedSlow) == 0 {
			t.Error("no hedge was suppressed because the bucket is slow")
		}
		g.atRest(t)
	})
}

func TestABucketThatFailsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, func(n int) conduct { return conduct{err: errBusy} })
		for range 10 {
			if _, err := g.GetRange(t.Context(), "o", 0, 1000); err != errBusy {
				t.Fatal(err)
			}
		}
		before := g.extra()
		g.below.act = slowOnce(conduct{open: time.Second})
		g.mustRead(t, 0, 1000)
		if n := g.extra() - before; n != 0 {
			t.Errorf("%d hedges while the bucket fails", n)
		}
		if g.refused(reasonFirstByte, refusedFailing) == 0 {
			t.Error("the refusal was not counted")
		}
		// The bucket answers again.
		for range 64 {
			g.mustRead(t, 0, 1000)
		}
		g.below.act = slowOnce(conduct{open: time.Second})
		g.mustRead(t, 0, 1000)
		synctest.Wait()
		if n := g.hedges(reasonFirstByte, resultWon); n != 1 {
			t.Errorf("%d hedges won after the bucket was back, want 1", n)
		}
		g.atRest(t)
	})
}

// TestWhatWasLearnedFades: the delay follows a bucket that becomes slower or faster for good.
func TestWhatWasLearnedFades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, func(int) conduct { return usual() })
		delay := func() time.Duration { return g.small.delay() }
		if d := delay(); d < 10*time.Millisecond || d > 13*time.Millisecond {
			t.Fatalf("delay %s of a bucket that answers in 10ms", d)
		}
		g.below.act = func(int) conduct { return conduct{open: 100 * time.Millisecond} }
		for range 1000 {
			g.mustRead(t, 0, 100)
		}
		if d := delay(); d < 100*time.Millisecond || d > 130*time.Millisecond {
			t.Errorf("delay %s of a bucket that answers in 100ms now", d)
		}
		g.below.act = func(int) conduct { return usual() }
		for range 10 {
			for range 100 {
				g.mustRead(t, 0, 100)
			}
			time.Sleep(time.Minute)
		}
		if d := delay(); d > 13*time.Millisecond {
			t.Errorf("delay %s of a bucket that answers in 10ms again", d)
		}
	})
}

// TestHedgingDoesNotTeachHaste: cancelled reads count as late. Otherwise the delay would fall the
// more reads are hedged.
func TestHedgingDoesNotTeachHaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{MinDelay: time.Millisecond}, func(n int) conduct {
			switch {
			case n%40 == 0: // 2.5 %
				return conduct{open: time.Second}
			case n%40 < 20:
				return conduct{open: 2 * time.Millisecond}
			}
			return usual()
		})
		for range 8000 {
			g.mustRead(t, 0, 100)
		}
		if d := g.small.delay(); d < 10*time.Millisecond {
			t.Errorf("delay %s, want the 10ms that half of the reads take", d)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

func TestStateIsExported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, nil)
		n, err := testutil.GatherAndCount(
			g.reg, "larder_bucket_hedges_total", "larder_bucket_hedges_refused_total",
			"larder_bucket_hedge_budget", "larder_bucket_hedge_delay_seconds",
		)
		if err != nil || n != 6+8+1+4 {
			t.Errorf("%d series, %v", n, err)
		}
	})
}
