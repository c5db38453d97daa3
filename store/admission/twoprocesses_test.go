package admission

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A client that merges the answers of two processes reads the one whose next series sorts first. It
// stops reading one process while it waits for the other. Requests that are admitted in opposite
// orders therefore hold in one process what the other waits for, which neither process can see.
// These tests show that, and that the stall time-out ends it.

// modelStore is a process: it admits requests and sends frames to clients.
type modelStore struct {
	a     *Controller
	stall time.Duration // 0: never
}

// modelStream is an answer in transit: the frames that the transport holds, and the error that
// ended it.
type modelStream struct {
	frames chan int
	err    error // once frames is closed
}

// series answers with keys, one per frame, after delay.
func (s *modelStore) series(
	ctx context.Context,
	delay time.Duration,
	n int64,
	keys []int,
) *modelStream {
	out := &modelStream{frames: make(chan int, 1)}
	go func() {
		defer close(out.frames)
		time.Sleep(delay)
		turn, err := admit(ctx, s.a, DefaultTenant, SeriesRequest, n)
		if err != nil {
			out.err = err
			return
		}
		defer turn.Close()
		for _, k := range keys {
			if out.err = s.send(ctx, out.frames, k); out.err != nil {
				return
			}
		}
	}()
	return out
}

func (s *modelStore) send(ctx context.Context, frames chan<- int, k int) error {
	var stalled <-chan time.Time
	if s.stall > 0 {
		timer := time.NewTimer(s.stall)
		defer timer.Stop()
		stalled = timer.C
	}
	select {
	case frames <- k:
		return nil
	case <-stalled:
		return errStalled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// merged reads two streams in order.
func merged(ctx context.Context, a, b *modelStream) ([]int, error) {
	var out []int
	heads, open := [2]int{}, [2]bool{}
	streams := [2]*modelStream{a, b}
	read := func(i int) error {
		select {
		case heads[i], open[i] = <-streams[i].frames:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !open[i] {
			return streams[i].err
		}
		return nil
	}
	for i := range streams {
		if err := read(i); err != nil {
			return nil, err
		}
	}
	for open[0] || open[1] {
		i := 0
		if !open[0] || open[1] && heads[1] < heads[0] {
			i = 1
		}
		out = append(out, heads[i])
		if err := read(i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// TestRequestsOfTwoProcessesInOppositeOrder: one request holds the only large place of the first
// process and waits in the second; the other request does the reverse.
func TestRequestsOfTwoProcessesInOppositeOrder(t *testing.T) {
	run := func(
		t *testing.T, stall time.Duration, opts GateOptions, allowance AllowanceOptions,
	) (answered, stalled int) {
		stores := [2]*modelStore{}
		for i := range stores {
			stores[i] = &modelStore{a: New(opts, allowance, nil, nil), stall: stall}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		for q := range 2 {
			wg.Go(func() {
				var streams [2]*modelStream
				for i := range streams {
					// Each request reaches another process first. The second request starts a
					// second later.
					delay := time.Duration(q) * time.Second
					if i != q {
						delay += 5 * time.Second
					}
					streams[i] = stores[i].series(ctx, delay, 30,
						[]int{1 + i, 3 + i, 5 + i, 7 + i, 9 + i})
				}
				_, err := merged(ctx, streams[0], streams[1])
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					answered++
				case errors.Is(err, errStalled):
					stalled++
				}
			})
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		a, s := answered, stalled
		mu.Unlock()
		cancel()
		wg.Wait()
		synctest.Wait()
		for _, s := range stores {
			checkIdle(t, s.a)
		}
		return a, s
	}
	for name, c := range map[string]struct {
		gate      GateOptions
		allowance AllowanceOptions
	}{
		"places": {GateOptions{MaxConcurrent: 2}, AllowanceOptions{Bytes: 1000, SmallLane: 100,
			SmallRequest: 10}},
		"bytes": {GateOptions{}, AllowanceOptions{Bytes: 50, SmallLane: 10, SmallRequest: 10}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if answered, stalled := run(t, 0, c.gate, c.allowance); answered != 0 ||
					stalled != 0 {
					t.Errorf(
						"without a stall time-out %d are answered and %d ended: the test shows nothing",
						answered,
						stalled,
					)
				}
				// The first request that stalls ends, and the client of the other one reads again.
				if answered, stalled := run(t, time.Minute, c.gate, c.allowance); answered != 1 ||
					stalled != 1 {
					t.Errorf("with a stall time-out %d are answered and %d ended, want one each",
						answered, stalled)
				}
			})
		})
	}
}

// TestTwoProcessesModel: requests of merging clients end within a bounded time, in whatever order
// they reach two processes and whatever places and bytes these have. They get the right answer, or
// an error after which a retry succeeds.
func TestTwoProcessesModel(t *testing.T) {
	const stall, tries = time.Minute, 12
	var all struct{ answered, stalled int }
	for seed := range schedules(t, 3000) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 6))
			var stores [2]*modelStore
			for i := range stores {
				part := 20 + r.Int64N(20)
				stores[i] = &modelStore{
					a: New(
						GateOptions{MaxConcurrent: r.IntN(4)},
						AllowanceOptions{
							Bytes:        100,
							SmallLane:    part,
							SmallRequest: 5 + r.Int64N(10),
						},
						nil,
						nil,
					),
					stall: stall,
				}
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			queries := 2 + r.IntN(8)
			for range queries {
				r := rand.New(rand.NewPCG(r.Uint64(), 7))
				wg.Go(func() {
					time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
					for try := range tries {
						start := time.Now()
						ctx, cancel := context.WithCancel(t.Context())
						var keys [2][]int
						var streams [2]*modelStream
						for i := range streams {
							for range r.IntN(8) {
								keys[i] = append(keys[i], r.IntN(20))
							}
							slices.Sort(keys[i])
							streams[i] = stores[i].series(ctx,
								time.Duration(r.IntN(1000))*time.Millisecond, 1+r.Int64N(60),
								keys[i])
						}
						got, err := merged(ctx, streams[0], streams[1])
						cancel()
						// In the worst case all other requests stall first, one after another.
						if took := time.Since(start); took > time.Duration(
							queries*tries,
						)*(stall+5*time.Second) {
							t.Errorf("a request took %s", took)
						}
						mu.Lock()
						if err == nil {
							all.answered++
						} else {
							all.stalled++
						}
						mu.Unlock()
						switch {
						case err == nil:
							want := append(slices.Clone(keys[0]), keys[1]...)
							slices.Sort(want)
							if !slices.Equal(got, want) {
								t.Errorf("got %v, want %v", got, want)
							}
							return
						case !errors.Is(err, errStalled):
							t.Error(err)
							return
						case try == tries-1:
							t.Errorf("stalled %d times", tries)
						}
						time.Sleep(time.Duration(r.IntN(20_000)) * time.Millisecond)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			for _, s := range stores {
				checkIdle(t, s.a)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if all.answered == 0 || all.stalled == 0 {
		t.Errorf("the runs are one-sided: %+v", all)
	}
	t.Logf("%+v", all)
}
