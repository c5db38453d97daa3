package hedge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAStalledBodyIsContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(
			t, Options{},
			slowOnce(conduct{open: 10 * time.Millisecond, stallAt: 100_000, stall: time.Hour}),
		)
		start := time.Now()
		g.mustRead(t, 1000, 300_000)
		if d := time.Since(start); d > 300*time.Millisecond {
			t.Errorf("the read took %s", d)
		}
		if got, want := g.below.taken(),
			[]string{"[1000,301000)", "[101000,301000)"}; !slices.Equal(
			got, want,
		) {
			t.Errorf("requests %v, want %v: only the missing bytes", got, want)
		}
		if n := g.hedges(reasonStall, resultWon); n != 1 {
			t.Errorf("%d hedges won, want 1", n)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

// TestASlowReaderIsNoStall: time between Reads does not count as a stall.
func TestASlowReaderIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, func(int) conduct { return usual() })
		body, err := g.GetRange(t.Context(), "o", 0, 300_000)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		buf := make([]byte, 10_000)
		for {
			_, err := io.ReadFull(body, buf)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if n := len(g.below.taken()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestAStallThatEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		g := newRig(t, Options{}, func(int) conduct {
			n++
			if n == 1 {
				return conduct{stallAt: 5000, stall: 300 * time.Millisecond, chunk: 5000}
			}
			return conduct{open: time.Second}
		})
		g.mustRead(t, 0, 20_000)
		synctest.Wait()
		if lost := g.hedges(reasonStall, resultLost); lost != 1 {
			t.Errorf("%d hedges lost, want 1", lost)
		}
		g.atRest(t)
	})
}

// TestABodyThatFailsWhileItIsReplaced: the read waits for the replacement.
func TestABodyThatFailsWhileItIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		g := newRig(t, Options{}, func(int) conduct {
			n++
			if n == 1 {
				return conduct{
					stallAt: 5000,
					stall:   300 * time.Millisecond,
					failAt:  5000,
					bodyErr: errReset,
				}
			}
			return conduct{open: time.Second}
		})
		g.mustRead(t, 0, 20_000)
		synctest.Wait()
		g.atRest(t)
	})
}

func TestAReplacementThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		g := newRig(t, Options{}, func(int) conduct {
			n++
			switch n {
			case 1:
				return conduct{stallAt: 5000, stall: time.Minute, failAt: 5000, bodyErr: errReset}
			case 2:
				return conduct{err: errBusy}
			}
			return conduct{open: time.Millisecond, failAt: 0, bodyErr: errBusy}
		})
		if _, err := g.readAll(0, 20_000); err != errReset {
			t.Errorf("got %v, want the error of the body that was read", err)
		}
		if n := g.hedges(reasonStall, resultFailed); n != 3 {
			t.Errorf("%d hedges failed, want 3", n)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

// TestAnObjectIsNotPutTogether: a whole object is not combined from two requests, because it may
// have been replaced in between.
func TestAnObjectIsNotPutTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{}, slowOnce(conduct{stallAt: 1000, stall: time.Minute}))
		g.mustGet(t)
		if got, want := g.below.taken(), []string{"whole"}; !slices.Equal(got, want) {
			t.Errorf("requests %v, want %v", got, want)
		}
		// Its first byte is hedged.
		g.below.act = slowOnce(conduct{open: time.Minute})
		g.mustGet(t)
		if got, want := g.below.taken(), []string{"whole", "whole"}; !slices.Equal(got, want) {
			t.Errorf("requests %v, want %v", got, want)
		}
		synctest.Wait()
		g.atRest(t)
	})
}

func TestACloseWhileABodyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(
			t, Options{}, func(int) conduct { return conduct{stallAt: 0, stall: time.Hour} },
		)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		body, err := g.GetRange(ctx, "o", 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := body.Read(make([]byte, 10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		body.Close()
		body.Close()
		synctest.Wait()
		g.atRest(t)
	})
}

// TestWhateverFails: concurrent reads of a bucket with random delays, stalls, resets and errors
// either fail or return exactly the requested bytes, and leak nothing.
func TestWhateverFails(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(uint64(seed), 7))
				share := rnd.IntN(20) + 1 // of 100 requests, for each fault
				// The bucket calls act under its mutex, which guards rnd.
				g := newRig(t, Options{Budget: 0.5, Burst: 100}, func(int) conduct {
					c := conduct{
						open:  time.Duration(rnd.IntN(12)) * time.Millisecond,
						chunk: []int{0, 1 << 10, 70_000}[rnd.IntN(3)],
					}
					hit := func() bool { return rnd.IntN(100) < share }
					// Each is another number.
					rarely := func() bool { return hit() && hit() } //nolint:staticcheck
					if hit() {
						c.open = time.Duration(rnd.IntN(2000)) * time.Millisecond
						c.deaf = hit()
					}
					if hit() {
						c.stallAt, c.stall = rnd.IntN(
							200_000,
						), time.Duration(
							rnd.IntN(3000),
						)*time.Millisecond
					}
					if rarely() {
						c.failAt, c.bodyErr = rnd.IntN(200_000), errReset
					}
					if rarely() {
						c.err = errBusy
					}
					return c
				})
				type rng struct{ off, length int64 }
				var reads []rng
				for range 200 {
					length := rnd.Int64N(300_000) + 1
					reads = append(reads, rng{off: rnd.Int64N(1<<20 - length), length: length})
				}
				var wg sync.WaitGroup
				next := make(chan rng)
				for range 8 {
					wg.Go(func() {
						for r := range next {
							got, err := g.readAll(r.off, r.length)
							if err != nil && err != errBusy && err != errReset {
								t.Errorf("%v: %v", r, err)
							}
							if want := g.below.data[r.off : r.off+r.length]; !bytes.HasPrefix(
								want, got,
							) ||
								err == nil && len(got) != len(want) {
								t.Errorf(
									"%v: %d of %d bytes, %v; or wrong ones", r, len(got), len(want),
									err,
								)
							}
						}
					})
				}
				for _, r := range reads {
					next <- r
				}
				close(next)
				wg.Wait()
				time.Sleep(time.Minute) // clients that ignore their context return
				synctest.Wait()
				g.atRest(t)
				if g.hedges(reasonStall, resultWon)+g.hedges(reasonFirstByte, resultWon) == 0 {
					t.Error("nothing was hedged: the test covers too little")
				}
			})
		})
	}
}
