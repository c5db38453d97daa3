package store_test

import (
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"larder/store"
	"larder/store/admission"
	"larder/store/storepb"
)

// TestAClientThatStopsReadingEndsItsRequest checks, with one place and bytes for one request, that
// other requests are answered once the stall time-out has aborted those of clients that do not
// read. These clients get what grpc had queued, at most a frame and some windows, and then the
// reason.
func TestAClientThatStopsReadingEndsItsRequest(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("gateway", func(t *testing.T) {
		stalled := make(chan context.Context, 10)
		g := startGateway(t, wholeBlock(t, 12_000), gatewayOptions{server: func(o *store.Options) {
			o.SendStallTimeout = time.Second
			o.OnStall = func(ctx context.Context) { stalled <- ctx }
			o.Gate = admission.GateOptions{MaxConcurrent: 1}
			o.Allowance = admission.AllowanceOptions{Bytes: 64 << 20}
		}})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var deaf []storepb.Store_SeriesClient
		for range 3 { // one after the other, because there is one place
			stream, err := g.client.Series(ctx, wholeMetric(64))
			if err != nil {
				t.Fatal(err)
			}
			deaf = append(deaf, stream)
		}
		for range deaf {
			if ctx := <-stalled; ctx.Err() == nil {
				t.Error("the stream's context is not cancelled")
			}
		}
		for g.inUse(t) > 0 || g.metric(t, "thanos_bucket_store_series_gate_queries_in_flight") > 0 {
			runtime.Gosched()
		}
		if n := g.metric(t, "larder_series_send_stalled_total"); n != 3 {
			t.Errorf("%v stalls counted, want 3", n)
		}
		// Other requests of the connection continue with the bytes that were released.
		if a, err := g.query(ctx, wholeMetric(64)); err != nil || len(a.series) != 12_000 {
			t.Errorf("a client that reads got %d series, %v", len(a.series), err)
		}
		for _, stream := range deaf {
			size := 0
			for {
				m, err := stream.Recv()
				if err != nil {
					if status.Code(err) != codes.Aborted ||
						!strings.Contains(err.Error(), "--store.grpc.send-stall-timeout") {
						t.Errorf("got %v, want Aborted that names the flag", err)
					}
					break
				}
				size += proto.Size(m)
			}
			// 64 KiB of grpc's quota, the frame that exceeded it, and the client's own window.
			if most := storepb.MaxFrameBytes + 64<<10 + 64<<10; size == 0 || size > most {
				t.Errorf("%d bytes arrived after the request was aborted, want at most %d", size, most)
			}
		}
	})
	goleak.VerifyNone(t, leaks)
}

// TestAClientThatReadsSlowlyIsServed checks that the time-out counts per frame.
func TestAClientThatReadsSlowlyIsServed(t *testing.T) {
	g := startGateway(t, wholeBlock(t, 3000),
		gatewayOptions{server: func(o *store.Options) { o.SendStallTimeout = time.Minute }})
	a, err := g.query(context.Background(), wholeMetric(1))
	if err != nil || len(a.series) != 3000 {
		t.Fatalf("%d series, %v", len(a.series), err)
	}
	never := startGateway(t, wholeBlock(t, 3000),
		gatewayOptions{server: func(o *store.Options) { o.SendStallTimeout = -1 }})
	stream, err := never.client.Series(context.Background(), wholeMetric(64))
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
