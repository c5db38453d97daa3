package store_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"larder/store"
	"larder/store/admission"
	"larder/store/storepb"
)

// seriesReader reads an answer one series at a time.
type seriesReader struct {
	stream storepb.Store_SeriesClient
	batch  []*storepb.Series
	head   labels.Labels
	done   bool
}

func (r *seriesReader) next() error {
	for len(r.batch) == 0 {
		resp, err := r.stream.Recv()
		if err == io.EOF {
			r.done = true
			return nil
		}
		if err != nil {
			return err
		}
		r.batch = resp.GetBatch().GetSeries()
	}
	r.head, r.batch = seriesLabels(r.batch[0]), r.batch[1:]
	return nil
}

// merge merges the same answer from two gateways, like a Querier: it reads from one only after it
// knows the next series of the other. first is the gateway to query first; met is called once its
// answer has begun.
func merge(gs [2]*gateway, first int, met func()) (series int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var readers [2]*seriesReader
	for _, i := range []int{first, 1 - first} {
		readers[i] = &seriesReader{}
		if readers[i].stream, err = gs[i].client.Series(ctx, wholeMetric(64)); err != nil {
			return 0, err
		}
		if err := readers[i].next(); err != nil {
			return 0, err
		}
		met()
	}
	for a, b := readers[0], readers[1]; !a.done || !b.done; series++ {
		if a.done || b.done || labels.Compare(a.head, b.head) != 0 {
			return series, fmt.Errorf("series %d: %s (end %v) and %s (end %v)",
				series, a.head, a.done, b.head, b.done)
		}
		if err := a.next(); err != nil {
			return series, err
		}
		if err := b.next(); err != nil {
			return series, err
		}
	}
	return series, nil
}

// TestTwoGatewaysReadByMergingClients lets clients block each other: each holds a place in one
// gateway and waits for the place of another client in the other gateway. All must get the whole
// answer, some after an error and a retry.
func TestTwoGatewaysReadByMergingClients(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("gateways", func(t *testing.T) {
		const clients, series = 4, 6000
		dir := wholeBlock(t, series)
		var gs [2]*gateway
		for i := range gs {
			gs[i] = startGateway(t, dir, gatewayOptions{server: func(o *store.Options) {
				o.SendStallTimeout = 500 * time.Millisecond
				o.Gate = admission.GateOptions{MaxConcurrent: 2} // one for a large request
				o.Allowance = admission.AllowanceOptions{Bytes: 8 << 20, SmallRequest: 64 << 10}
			}})
		}
		var met sync.WaitGroup
		met.Add(2)
		var all sync.WaitGroup
		var mu sync.Mutex
		retried := 0
		for c := range clients {
			// The first two clients begin an answer in one gateway each, and only then query the
			// other one. Now each has the place that the other needs.
			begun := func() {}
			if c < 2 {
				begun = sync.OnceFunc(func() { met.Done(); met.Wait() })
			}
			all.Go(func() {
				if c >= 2 {
					met.Wait()
				}
				first := c % 2
				for try := 1; ; try++ {
					n, err := merge(gs, first, begun)
					if err == nil {
						if n != series {
							t.Errorf("client %d: %d series, want %d", c, n, series)
						}
						return
					}
					if code := status.Code(err); code != codes.Aborted &&
						code != codes.ResourceExhausted &&
						code != codes.Unavailable ||
						try == 50 {
						t.Errorf("client %d, try %d: %v", c, try, err)
						return
					}
					mu.Lock()
					retried++
					mu.Unlock()
					first = rand.IntN(2)
				}
			})
		}
		all.Wait()
		stalls := 0.0
		for _, g := range gs {
			stalls += g.metric(t, "larder_series_send_stalled_total")
			for g.inUse(t) > 0 ||
				g.metric(t, "thanos_bucket_store_series_gate_queries_in_flight") > 0 {
				// Handlers end a little after their clients, and then release their bytes.
				runtime.Gosched()
			}
		}
		if retried == 0 || stalls == 0 {
			t.Errorf("%d retries and %v stalls: the clients did not block each other", retried, stalls)
		}
		t.Logf("%d retries, %v stalls", retried, stalls)
	})
	goleak.VerifyNone(t, leaks)
}

// TestSmallRequestsBesideExports checks that small requests of all kinds, of the same and of
// another tenant, are answered while large exports run, stall and wait.
func TestSmallRequestsBesideExports(t *testing.T) {
	g := startGateway(t, wholeBlock(t, 12_000), gatewayOptions{server: func(o *store.Options) {
		o.SendStallTimeout = -1
		o.Gate = admission.GateOptions{MaxConcurrent: 4}
		o.Allowance = admission.AllowanceOptions{Bytes: 32 << 20, SmallLane: 8 << 20}
	}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	exports, stop := context.WithCancel(ctx)
	for range 20 {
		if _, err := g.client.Series(exports, wholeMetric(64)); err != nil {
			t.Fatal(err)
		}
	}
	for g.metric(t, "larder_request_allowance_waiting", "large") < 17 {
		runtime.Gosched()
	}
	one := wholeMetric(0)
	one.Matchers = append(
		one.Matchers,
		&storepb.LabelMatcher{
			Name:  "code",
			Value: "200",
		},
		&storepb.LabelMatcher{Name: "method", Value: "GET"},
		&storepb.LabelMatcher{Name: "handler", Value: "/metrics"},
	)
	for _, tenant := range []string{"", "other"} {
		ctx := ctx
		if tenant != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "thanos-tenant", tenant)
		}
		for range 5 {
			if a, err := g.query(ctx, one); err != nil || len(a.series) == 0 {
				t.Fatalf("a small Series request of tenant %q: %v", tenant, err)
			}
			if _, err := g.client.LabelNames(
				ctx, &storepb.LabelNamesRequest{End: 1 << 50, Matchers: one.Matchers}); err != nil {
				t.Fatalf("label names of tenant %q: %v", tenant, err)
			}
		}
	}
	if n := g.metric(t, "larder_request_allowance_waiting", "large"); n != 17 {
		t.Errorf("%v exports wait, want 17", n)
	}
	stop()
	for g.inUse(t) > 0 || g.metric(t, "thanos_bucket_store_series_gate_queries_in_flight") > 0 ||
		g.metric(t, "larder_series_gate_waiting") > 0 {
		runtime.Gosched()
	}
	if a, err := g.query(ctx, wholeMetric(64)); err != nil || len(a.series) != 12_000 {
		t.Errorf("an export after them: %v", err)
	}
}
