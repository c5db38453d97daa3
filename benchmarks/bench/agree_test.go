package bench

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"larder/benchmarks/bench/report"
	"larder/benchmarks/scenario"
	"larder/internal/budget"
	"larder/store/storepb"
)

// delayed is a StoreAPI whose answers take known times: until the first frame, and as long again
// until the end.
type delayed struct {
	storepb.UnimplementedStoreServer
	storepb.UnimplementedInfoServer

	mu   sync.Mutex
	rand *rand.Rand
}

func (d *delayed) Info(context.Context, *storepb.InfoRequest) (*storepb.InfoResponse, error) {
	return &storepb.InfoResponse{Store: &storepb.StoreInfo{
		MinTime: 0, MaxTime: time.Hour.Milliseconds(),
	}}, nil
}

func (d *delayed) Series(
	_ *storepb.SeriesRequest, stream grpc.ServerStreamingServer[storepb.SeriesResponse],
) error {
	d.mu.Lock()
	wait := time.Duration(10+d.rand.IntN(90)) * time.Millisecond
	d.mu.Unlock()
	for range 2 {
		time.Sleep(wait)
		if err := stream.Send(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{
			Series: &storepb.Series{Labels: []*storepb.Label{{Name: "__name__", Value: "up"}}},
		}}); err != nil {
			return err
		}
	}
	return nil
}

// independent asks as a Querier does: with the generated client, which decodes, and its own clock.
func independent(
	ctx context.Context, client storepb.StoreClient, n int,
) (first, total []time.Duration, err error) {
	for range n {
		began := time.Now()
		stream, err := client.Series(ctx, &storepb.SeriesRequest{
			MaxTime: time.Hour.Milliseconds(), ResponseBatchSize: 64,
			Matchers: []*storepb.LabelMatcher{{Name: "__name__", Value: "up"}},
		})
		for frames := 0; err == nil; frames++ {
			if _, err = stream.Recv(); err == nil && frames == 0 {
				first = append(first, time.Since(began))
			}
		}
		if !errors.Is(err, io.EOF) {
			return nil, nil, err
		}
		total = append(total, time.Since(began))
	}
	return first, total, nil
}

// TestAgreesWithAnotherClient compares what bench measures with an independent client. Both ask a
// server whose answers take 20 to 200 ms, the same ones for both, in virtual time.
func TestAgreesWithAnotherClient(t *testing.T) {
	const requests = 200
	document, err := scenario.Parse([]byte(`
queries: [{name: up, series: up}]
scenarios: [{name: up, query: up, cache: warm, distinct: 1, requests: 200}]
`))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		serve := func() (dial func(context.Context, string) (net.Conn, error), stop func()) {
			l := bufconn.Listen(1 << 20)
			s := grpc.NewServer()
			d := &delayed{rand: rand.New(rand.NewPCG(1, 2))}
			storepb.RegisterStoreServer(s, d)
			storepb.RegisterInfoServer(s, d)
			done := make(chan error, 1)
			go func() { done <- s.Serve(l) }()
			return func(ctx context.Context, _ string) (net.Conn, error) {
					return l.DialContext(ctx)
				}, func() {
					s.Stop()
					<-done
				}
		}

		dial, stop := serve()
		rep, err := New(Options{
			Document: document, Budgets: &budget.Document{Quantile: 0.99},
			Endpoint: &Target{Address: "passthrough:///memory", Dial: dial},
		}).Run(t.Context())
		stop()
		if err != nil {
			t.Fatal(err)
		}

		dial, stop = serve()
		conn, err := grpc.NewClient("passthrough:///memory", grpc.WithContextDialer(dial),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		client := storepb.NewStoreClient(conn)
		// bench asks once before it measures.
		if _, _, err := independent(t.Context(), client, 1); err != nil {
			t.Fatal(err)
		}
		first, total, err := independent(t.Context(), client, requests)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		stop()

		for row, times := range map[string][]time.Duration{
			budget.Total: total, budget.FirstFrame: first,
		} {
			agree(t, rep.Scenarios[0].Rows, row, times)
		}
	})
}

// agree checks a row of a report against the times of another client.
func agree(t *testing.T, rows []report.Row, name string, times []time.Duration) {
	t.Helper()
	i := slices.IndexFunc(rows, func(r report.Row) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("no row %s in %+v", name, rows)
	}
	slices.Sort(times)
	for _, c := range []struct {
		at  float64
		got float64
	}{{0.5, rows[i].P50}, {0.9, rows[i].P90}, {0.99, rows[i].P99}, {1, rows[i].Max}} {
		want := times[int(c.at*float64(len(times)-1))].Seconds() * 1e3
		if q := c.got / want; q < 0.95 || q > 1.05 {
			t.Errorf("%s at %g: bench measures %.2f ms, the other client %.2f ms", name, c.at,
				c.got, want)
		}
	}
}
