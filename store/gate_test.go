package store

import (
	"context"
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

// gathered is what a registry exports: name{label values in the order of their names} -> value, for histograms their count.
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

func TestGateBoundsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, requests = 3, 20
		g := NewGate(GateOptions{MaxConcurrent: places}, nil)
		var mu sync.Mutex
		running, most, done := 0, 0, 0
		for range requests {
			go func() {
				if err := g.Start(t.Context()); err != nil {
					t.Error(err)
					return
				}
				defer g.Done()
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
			t.Errorf("%d of %d requests ran, at most %d at once; want all, %d", done, requests, most, places)
		}
	})
}

func TestGateFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(GateOptions{MaxConcurrent: 1}, nil)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range 5 {
			go func() {
				if err := g.Start(t.Context()); err != nil {
					t.Error(err)
				}
				order = append(order, i) // Only one runs at a time.
				g.Done()
			}()
			synctest.Wait()
		}
		g.Done()
		synctest.Wait()
		if diff := cmp.Diff([]int{0, 1, 2, 3, 4}, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestGateRefuses(t *testing.T) {
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
		{"fail fast", GateOptions{MaxConcurrent: 2, FailFast: true}, 0, time.Hour, codes.Unavailable,
			"all 2 places for Series requests are taken"},
		{"queue full", GateOptions{MaxConcurrent: 2, MaxWaiting: 3}, 3, time.Hour, codes.ResourceExhausted,
			"all 2 places for Series requests are taken and 3 requests wait for one"},
		{"queue full by default", GateOptions{MaxConcurrent: 2}, defaultMaxWaiting, time.Hour, codes.ResourceExhausted,
			"all 2 places for Series requests are taken and 1000 requests wait for one"},
		{"queue without a bound", GateOptions{MaxConcurrent: 2, MaxWaiting: -1}, defaultMaxWaiting, time.Second, codes.DeadlineExceeded,
			"waited 1s for one of 2 places for Series requests: context deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(c.opts, nil)
				for range c.opts.MaxConcurrent {
					if err := g.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				var ran sync.WaitGroup
				for range c.waiters {
					ran.Go(func() {
						if err := g.Start(t.Context()); err != nil {
							t.Error(err)
							return
						}
						g.Done()
					})
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
				if c.timeout == 0 {
					ctx, cancel = context.WithCancel(t.Context())
					cancel()
				}
				defer cancel()
				err := g.Start(ctx)
				if status.Code(err) != c.want || status.Convert(err).Message() != c.text {
					t.Errorf("got %v, want %s: %s", err, c.want, c.text)
				}
				for range c.opts.MaxConcurrent {
					g.Done()
				}
				ran.Wait()
				// Whoever gave up left nothing behind.
				for range c.opts.MaxConcurrent {
					if err := g.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

func TestGateMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		g := NewGate(GateOptions{MaxConcurrent: 2, MaxWaiting: 1}, reg)
		for range 2 {
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := g.Start(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		if err := g.Start(t.Context()); err == nil {
			t.Fatal("a fourth request found a place")
		}
		want := map[string]float64{
			"larder_series_gate_rejected_total busy":                   0,
			"larder_series_gate_rejected_total gave_up":                0,
			"larder_series_gate_rejected_total queue":                  1,
			"larder_series_gate_waiting":                               1,
			"thanos_bucket_store_series_gate_duration_seconds":         3,
			"thanos_bucket_store_series_gate_queries_duration_seconds": 3,
			"thanos_bucket_store_series_gate_queries_in_flight":        2,
			"thanos_bucket_store_series_gate_queries_max":              2,
			"thanos_bucket_store_series_gate_queries_total":            3,
		}
		if diff := cmp.Diff(want, gathered(t, reg)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
		g.Done()
		g.Done()
		<-done
		g.Done()
		got := gathered(t, reg)
		for name, want := range map[string]float64{
			"larder_series_gate_waiting":                               0,
			"thanos_bucket_store_series_gate_duration_seconds":         4,
			"thanos_bucket_store_series_gate_queries_duration_seconds": 4,
			"thanos_bucket_store_series_gate_queries_in_flight":        0,
			"thanos_bucket_store_series_gate_queries_total":            4,
		} {
			if got[name] != want {
				t.Errorf("%s: got %v, want %v", name, got[name], want)
			}
		}
	})
}

// TestGateOpen: without a bound the gate still counts.
func TestGateOpen(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := NewGate(GateOptions{FailFast: true}, reg)
	for range 100 {
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := gathered(t, reg)
	if n := got["thanos_bucket_store_series_gate_queries_in_flight"]; n != 100 {
		t.Errorf("in flight: got %v, want 100", n)
	}
	if n := got["thanos_bucket_store_series_gate_queries_max"]; n != 0 {
		t.Errorf("max: got %v, want 0", n)
	}
	var none *Gate
	if err := none.Start(t.Context()); err != nil {
		t.Error(err)
	}
	none.Done()
}
