package admission

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gathered returns what a registry exports, by name and label values: the value of a counter or
// gauge, and the count of a histogram.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			switch f.GetType() {
			case dto.MetricType_HISTOGRAM:
				out[name] = float64(m.GetHistogram().GetSampleCount())
			case dto.MetricType_COUNTER:
				out[name] = m.GetCounter().GetValue()
			default:
				out[name] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}

// newGate returns a Controller with enough bytes for all requests.
func newGate(opts GateOptions, reg prometheus.Registerer) *Controller {
	return New(opts, AllowanceOptions{Bytes: 1 << 40, SmallLane: 1 << 39, SmallRequest: 1 << 20},
		nil, reg)
}

func enter(t *testing.T, a *Controller) *Turn {
	t.Helper()
	turn, err := a.Enter(t.Context(), DefaultTenant, SeriesRequest)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

// enterLarge runs a large request until it has its turn.
func enterLarge(t *testing.T, a *Controller) (*Turn, error) {
	return admit(t.Context(), a, DefaultTenant, SeriesRequest, 2<<20)
}

func TestGateBoundsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, requests = 3, 20
		g := newGate(GateOptions{MaxConcurrent: places}, nil)
		var mu sync.Mutex
		running, most, done := 0, 0, 0
		for i := range requests {
			go func() {
				turn, err := g.Enter(t.Context(), DefaultTenant, SeriesRequest)
				if i%2 == 0 && err == nil {
					turn.Close()
					turn, err = enterLarge(t, g)
				}
				if err != nil {
					t.Error(err)
					return
				}
				defer turn.Close()
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				running--
				done++
				mu.Unlock()
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if most != places || done != requests {
			t.Errorf("%d of %d requests ran, at most %d at once; want all, %d",
				done, requests, most, places)
		}
	})
}

func TestGateFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(GateOptions{MaxConcurrent: 1}, nil)
		first := enter(t, g)
		var order []int
		for i := range 6 {
			go func() {
				turn, err := g.Enter(t.Context(), DefaultTenant, SeriesRequest)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i) // only one request runs at a time
				turn.Close()
			}()
			synctest.Wait()
		}
		first.Close()
		synctest.Wait()
		if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 5}, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// TestGateLeavesPlacesToSmallRequests: a small request finds a place however many large ones run
// and wait. A waiting large request gets a place however many small ones arrive.
func TestGateLeavesPlacesToSmallRequests(t *testing.T) {
	for _, c := range []struct{ places, large int }{{1, 1}, {2, 1}, {3, 2}, {4, 3}, {8, 6},
		{20, 15}} {
		t.Run(fmt.Sprint(c.places), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(GateOptions{MaxConcurrent: c.places}, nil)
				turns := make(chan *Turn, 2*c.places)
				for range 2 * c.places {
					go func() {
						turn, err := enterLarge(t, g)
						if err != nil {
							t.Error(err)
						}
						turns <- turn
					}()
				}
				synctest.Wait()
				if len(turns) != c.large {
					t.Fatalf("%d large requests of %d run, want %d",
						len(turns), 2*c.places, c.large)
				}
				var small []*Turn
				for range c.places - c.large {
					small = append(small, enter(t, g))
				}
				// All places are taken. Waiting requests get the places of their own lane.
				waiting := make(chan *Turn, 1)
				go func() { waiting <- enter(t, g) }()
				synctest.Wait()
				if len(waiting) != 0 {
					t.Fatal("a request beyond the last place runs")
				}
				if c.places > 1 {
					small[0].Close()
					synctest.Wait()
					if len(waiting) != 1 || len(turns) != c.large {
						t.Errorf(
							"a small request left: %d small ones came in, %d large ones run; want 1, %d",
							len(waiting),
							len(turns),
							c.large,
						)
					}
				}
				for n := range 2 * c.places {
					(<-turns).Close()
					synctest.Wait()
					if want := min(c.large, 2*c.places-n-1); len(turns) != want && c.places > 1 {
						t.Errorf("%d large requests run, want %d", len(turns), want)
					}
				}
				for _, turn := range append(small, <-waiting) {
					turn.Close()
				}
				checkIdle(t, g)
			})
		})
	}
}

// TestGateLargeRequestsAreNotStarved: an endless stream of small requests leaves large ones their
// part.
func TestGateLargeRequestsAreNotStarved(t *testing.T) {
	for _, places := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(places), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(GateOptions{MaxConcurrent: places}, nil)
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for range 3 * places {
					wg.Go(func() {
						for ctx.Err() == nil {
							turn, err := g.Enter(ctx, DefaultTenant, SeriesRequest)
							if err != nil {
								return
							}
							time.Sleep(time.Second)
							turn.Close()
						}
					})
				}
				synctest.Wait()
				for range 10 {
					start := time.Now()
					turn, err := enterLarge(t, g)
					if err != nil {
						t.Fatal(err)
					}
					// It has waited once as a small request and once as a large one.
					if waited := time.Since(start); waited > 8*time.Second {
						t.Errorf("a large request waited %s beside requests of a second", waited)
					}
					turn.Close()
				}
				stop()
				wg.Wait()
				checkIdle(t, g)
			})
		})
	}
}

// TestGateFreesThePlaceOfARequestThatWaitsForBytes checks that a request that waits for bytes holds
// no place.
func TestGateFreesThePlaceOfARequestThatWaitsForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(GateOptions{MaxConcurrent: 4},
			AllowanceOptions{Bytes: 100, SmallLane: 20, SmallRequest: 5}, nil, nil)
		export, err := admit(t.Context(), a, DefaultTenant, SeriesRequest, 80)
		if err != nil {
			t.Fatal(err)
		}
		late := make(chan *Turn, 6)
		for range 6 {
			go func() {
				turn, err := admit(t.Context(), a, DefaultTenant, SeriesRequest, 20)
				if err != nil {
					t.Error(err)
				}
				late <- turn
			}()
		}
		synctest.Wait()
		if len(late) != 0 {
			t.Error("more bytes than the allowance are reserved")
		}
		for range 3 {
			defer enter(t, a).Close()
		}
		export.Close()
		for range 6 {
			(<-late).Close()
		}
	})
}

func TestGateRejects(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    GateOptions
		waiters int
		timeout time.Duration // 0: cancelled at once
		want    codes.Code
		text    string
	}{
		{"deadline", GateOptions{MaxConcurrent: 2}, 0, 30 * time.Second, codes.DeadlineExceeded,
			"waited 30s for one of 2 places for Series requests: context deadline exceeded"},
		{"client gone", GateOptions{MaxConcurrent: 2}, 0, 0, codes.Canceled,
			"waited 0s for one of 2 places for Series requests: context canceled"},
		{"fail fast", GateOptions{MaxConcurrent: 2, FailFast: true}, 0, time.Hour,
			codes.Unavailable,
			"all 2 places for Series requests are taken"},
		{"queue full", GateOptions{MaxConcurrent: 2, MaxWaiting: 3}, 3, time.Hour,
			codes.ResourceExhausted,
			"all 2 places for Series requests are taken and 3 requests wait for one"},
		{"queue full by default", GateOptions{MaxConcurrent: 2}, defaultMaxWaiting, time.Hour,
			codes.ResourceExhausted,
			"all 2 places for Series requests are taken and 1000 requests wait for one"},
		{"queue without a bound", GateOptions{MaxConcurrent: 2, MaxWaiting: -1}, defaultMaxWaiting,
			time.Second, codes.DeadlineExceeded,
			"waited 1s for one of 2 places for Series requests: context deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(c.opts, nil)
				var first []*Turn
				for range c.opts.MaxConcurrent {
					first = append(first, enter(t, g))
				}
				var ran sync.WaitGroup
				for range c.waiters {
					ran.Go(func() {
						turn, err := g.Enter(t.Context(), DefaultTenant, SeriesRequest)
						if err != nil {
							t.Error(err)
							return
						}
						turn.Close()
					})
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				if c.timeout == 0 {
					ctx, cancel = context.WithCancel(t.Context())
					cancel()
				}
				defer cancel()
				_, err := g.Enter(ctx, DefaultTenant, SeriesRequest)
				if status.Code(err) != c.want || status.Convert(err).Message() != c.text {
					t.Errorf("got %v, want %s: %s", err, c.want, c.text)
				}
				if got := Overloaded(err); got != (c.want == codes.ResourceExhausted) {
					t.Errorf("%v is an overload: got %t", err, got)
				}
				for _, turn := range first {
					turn.Close()
				}
				ran.Wait()
				// The cancelled requests have released everything.
				checkIdle(t, g)
			})
		})
	}
}

// TestGateRejectsLargeRequests checks that requests that become large are rejected like others, and
// that a part of the queue stays free for small ones.
func TestGateRejectsLargeRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := newGate(GateOptions{MaxConcurrent: 4, FailFast: true}, nil)
		for range 3 {
			turn, err := enterLarge(t, busy)
			if err != nil {
				t.Fatal(err)
			}
			defer turn.Close()
		}
		_, err := enterLarge(t, busy)
		if want := "all 3 places for large Series requests are taken"; status.Code(
			err,
		) != codes.Unavailable ||
			status.Convert(err).Message() != want {
			t.Errorf("got %v, want Unavailable: %s", err, want)
		}
		enter(t, busy).Close()

		full := newGate(GateOptions{MaxConcurrent: 4, MaxWaiting: 4}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 + 3 {
			all.Go(func() {
				if turn, err := admit(ctx, full, DefaultTenant, SeriesRequest, 2<<20); err == nil {
					defer turn.Close()
					<-ctx.Done()
				}
			})
			synctest.Wait()
		}
		_, err = enterLarge(t, full)
		if want := "all 3 places for large Series requests are taken and 3 requests wait for one"; status.Code(
			err,
		) != codes.ResourceExhausted ||
			status.Convert(err).Message() != want {
			t.Errorf("got %v, want ResourceExhausted: %s", err, want)
		}
		small := enter(t, full)
		waits := make(chan *Turn)
		go func() { waits <- enter(t, full) }()
		synctest.Wait()
		small.Close()
		(<-waits).Close()
		cancel()
		all.Wait()
		checkIdle(t, full)
	})
}

func TestGateMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		g := newGate(GateOptions{MaxConcurrent: 2, MaxWaiting: 1}, reg)
		first := []*Turn{enter(t, g), enter(t, g)}
		done := make(chan *Turn, 1)
		go func() { done <- enter(t, g) }()
		synctest.Wait()
		if _, err := g.Enter(t.Context(), DefaultTenant, SeriesRequest); err == nil {
			t.Fatal("a fourth request found a place")
		}
		check := func(want map[string]float64) {
			t.Helper()
			got := gathered(t, reg)
			for name, want := range want {
				if got[name] != want {
					t.Errorf("%s: got %v, want %v", name, got[name], want)
				}
			}
		}
		check(map[string]float64{
			"larder_series_gate_rejected_total busy":            0,
			"larder_series_gate_rejected_total gave_up":         0,
			"larder_series_gate_rejected_total queue":           1,
			"larder_series_gate_waiting":                        1,
			"thanos_bucket_store_series_gate_queries_in_flight": 2,
			"thanos_bucket_store_series_gate_queries_max":       2,
			"thanos_bucket_store_series_gate_queries_total":     4,
		})
		first[0].Close()
		first[1].Close()
		(<-done).Close()
		check(map[string]float64{
			"larder_series_gate_waiting":                               0,
			"thanos_bucket_store_series_gate_duration_seconds":         4,
			"thanos_bucket_store_series_gate_queries_duration_seconds": 4,
			"thanos_bucket_store_series_gate_queries_in_flight":        0,
			"thanos_bucket_store_series_gate_queries_total":            4,
		})
	})
}

// TestGateOpen: an unlimited gate still counts requests.
func TestGateOpen(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := newGate(GateOptions{FailFast: true}, reg)
	for range 50 {
		defer enter(t, g).Close()
		turn, err := enterLarge(t, g)
		if err != nil {
			t.Fatal(err)
		}
		defer turn.Close()
	}
	got := gathered(t, reg)
	if n := got["thanos_bucket_store_series_gate_queries_in_flight"]; n != 100 {
		t.Errorf("in flight: got %v, want 100", n)
	}
	if n := got["thanos_bucket_store_series_gate_queries_max"]; n != 0 {
		t.Errorf("max: got %v, want 0", n)
	}
}
