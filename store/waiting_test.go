package store_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	"larder/internal/intake"
	"larder/store"
	"larder/store/storepb"
)

// occupant is a client that does not read until it is released.
type occupant struct {
	sink
	began chan struct{}
	once  sync.Once
	goOn  chan struct{}
}

func (o *occupant) SendMsg(m any) error {
	o.once.Do(func() { close(o.began) })
	<-o.goOn
	return o.sink.SendMsg(m)
}

// TestWaitingRequestsAreAccountedFor sends forty requests of 1 MB, 1 KB each on the wire, while
// all places are in use. Their memory must be bounded by the account of messages.
func TestWaitingRequestsAreAccountedFor(t *testing.T) {
	dir, _ := twoBlocks(t)
	const limit = 8 << 20
	g := startGateway(t, dir, gatewayOptions{server: func(o *store.Options) {
		o.Gate.MaxConcurrent, o.Messages = 1, intake.NewAccount(limit, nil)
	}})
	first := &occupant{
		sink:  sink{ctx: t.Context()},
		began: make(chan struct{}),
		goOn:  make(chan struct{}),
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Server.Series(wholeMetric(64), first) }()
	<-first.began

	req := wholeMetric(64)
	req.Matchers = append(req.Matchers,
		&storepb.LabelMatcher{Name: "pod", Value: strings.Repeat("a", 1_000_000)})
	before := liveHeap()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const n = 40
	refused := make(chan error, n)
	var wg sync.WaitGroup
	for range n {
		stream, err := g.client.Series(ctx, req, grpc.UseCompressor(gzip.Name))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if _, err := stream.Recv(); ctx.Err() == nil {
				refused <- err
			}
		})
	}
	const wait = limit * 3 / 4 / 1_000_000
	for range n - wait {
		if err := <-refused; status.Code(err) != codes.ResourceExhausted ||
			!strings.Contains(err.Error(), "--store.request-bytes") {
			t.Errorf("got %v, want ResourceExhausted", err)
		}
	}
	if inUse := gaugeOf(g.reg, "larder_request_text_bytes", "in_use"); inUse < wait*1_000_000 ||
		inUse > limit {
		t.Errorf("%v bytes are reserved for %d requests of 1 MB", inUse, wait)
	}
	if held := int64(liveHeap()) - int64(before); held > 2*limit {
		t.Errorf("waiting requests use %d bytes, the account has %d", held, limit)
	}
	// A small request still waits, and is answered.
	answered := make(chan error, 1)
	go func() { _, err := g.query(t.Context(), wholeMetric(64)); answered <- err }()
	cancel()
	close(first.goOn)
	wg.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	for gaugeOf(g.reg, "larder_request_text_bytes", "in_use") > 0 {
		runtime.Gosched()
	}
}
