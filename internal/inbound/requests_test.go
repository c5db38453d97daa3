package inbound

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// served begins a call and reads the first frame of its answer.
func served(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	return call(t, conn, true).RecvMsg(&wrapperspb.BytesValue{})
}

// ask does the same as served, but returns the error if the server refuses the connection.
func ask(t *testing.T, conn *grpc.ClientConn) error {
	s, err := conn.NewStream(
		t.Context(),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/any/thing",
	)
	if err != nil {
		return err
	}
	_ = s.SendMsg(&wrapperspb.BytesValue{}) // RecvMsg has the reason if it fails
	return s.RecvMsg(&wrapperspb.BytesValue{})
}

// settled waits until the server counts n requests.
func (r *rpc) settled(n int) {
	for {
		r.requests.mu.Lock()
		open, received := r.requests.open, r.requests.halfReceived
		r.requests.mu.Unlock()
		if open == n && received == 0 {
			return
		}
		runtime.Gosched()
	}
}

// TestClientBeyondItsShare opens more requests than one client may. The connection is closed and
// its requests are no longer counted. A client with more shares may have as many.
func TestClientBeyondItsShare(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{
		MaxPerClient: 2,
		Shares:       Shares{{netip.MustParsePrefix("127.0.0.3/32"), 2}},
	})
	proxy := r.dial(t, from("127.0.0.3"))
	for range 4 {
		if err := served(t, proxy); err != nil {
			t.Fatal(err)
		}
	}
	conn := r.dial(t)
	for range 2 {
		if err := served(t, conn); err != nil {
			t.Fatal(err)
		}
	}
	if err := served(t, conn); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want the connection closed", err)
	}
	r.settled(4)
	r.hungUp(t, tooManyRequests)
}

// TestTheClientWithMostRequestsLoses checks that the client with most requests loses its largest
// connection when there are too many, whichever client opened the last one.
func TestTheClientWithMostRequestsLoses(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{Max: 7, MaxPerClient: -1})
	honest := r.dial(t, from("127.0.0.2"))
	first := call(t, honest, true)
	if err := first.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Fatal(err)
	}
	var many []grpc.ClientStream
	for _, n := range []int{2, 4} {
		conn := r.dial(t)
		for range n {
			s := call(t, conn, true)
			if err := s.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
				t.Fatal(err)
			}
			many = append(many, s)
		}
	}
	if err := served(t, honest); err != nil {
		t.Errorf("a client with two requests was refused: %v", err)
	}
	r.settled(4)
	r.hungUp(t, tooManyRequests)
	for _, s := range append(many[:2], first) {
		if err := s.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			t.Errorf("a smaller connection was closed: %v", err)
		}
	}
}

// TestIncompleteMessages checks that the connection with most bytes of incomplete messages is
// closed.
func TestIncompleteMessages(t *testing.T) {
	const bound = 1 << 20
	r := startRPC(t, Options{}, RequestsOptions{HalfReceived: bound})
	small := call(t, r.dial(t, from("127.0.0.2")), true)
	if err := small.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Fatal(err)
	}
	large := call(t, r.dial(t), false)
	_ = large.SendMsg(
		&wrapperspb.BytesValue{Value: make([]byte, 3*bound)},
	) // it may find its connection closed
	if err := large.RecvMsg(&wrapperspb.BytesValue{}); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want the connection closed", err)
	}
	r.settled(1)
	r.hungUp(t, halfReceived)
	if err := small.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Errorf("the connection of a client that sent little was closed: %v", err)
	}
}

// TestCompleteMessagesAreNotCounted checks that complete messages do not count as incomplete,
// however many there are.
func TestCompleteMessagesAreNotCounted(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{HalfReceived: 2 << 20})
	conn := r.dial(t)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := conn.NewStream(
			ctx,
			&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/any/thing",
		)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(&wrapperspb.BytesValue{Value: make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	r.settled(0)
}

// TestClientThatDropsRequests checks that the connections of a client that drops many requests are
// closed. Dropping a few is allowed.
func TestClientThatDropsRequests(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{Max: 1 << 20, MaxPerClient: -1})
	var dialled atomic.Bool
	conn := r.dial(
		t,
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if dialled.Swap(true) {
				return nil, net.ErrClosed // it does not come back
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}),
	)
	drop := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s, err := conn.NewStream(
			ctx,
			&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/any/thing",
		)
		if err != nil {
			return err
		}
		return s.SendMsg(&wrapperspb.BytesValue{})
	}
	for range droppedAtOnce / 2 {
		if err := drop(); err != nil {
			t.Fatal(err)
		}
	}
	r.settled(0)
	for range 100 * droppedAtOnce {
		if drop() != nil {
			break
		}
	}
	r.hungUp(t, requestsDropped)
}

// TestBlamedClientIsRefused checks that new connections of a client are refused after many were
// closed. Other clients are accepted.
func TestBlamedClientIsRefused(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{MaxPerClient: 1})
	refused := func() float64 {
		return testutil.ToFloat64(r.l.opts.Metrics.refused.WithLabelValues("grpc", boundHungUp))
	}
	// grpc's client may retry a request by itself, and its connection is closed again.
	for range 2 * hangUpsAtOnce {
		conn := r.dial(t)
		for range 2 {
			_ = ask(t, conn)
		}
		_ = conn.Close()
	}
	if refused() == 0 {
		t.Error("no connection was refused")
	}
	if err := served(t, r.dial(t, from("127.0.0.2"))); err != nil {
		t.Errorf("another client: %v", err)
	}
}
