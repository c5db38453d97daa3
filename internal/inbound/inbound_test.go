package inbound

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func listen(t *testing.T, o Options) *Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := New(l, o)
	t.Cleanup(func() { _ = bounded.Close() }) // a server may have
	return bounded
}

// echo accepts connections and sends each a byte, so that an accepted client can tell.
func echo(t *testing.T, l *Listener) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = l.Close() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = c.Write([]byte{1})
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
}

// letIn dials and reports whether the connection was accepted.
func letIn(t *testing.T, l *Listener) (net.Conn, bool) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	if err != nil {
		_ = c.Close()
	}
	return c, err == nil
}

func TestConnectionsAreBounded(t *testing.T) {
	for _, tc := range []struct {
		bound string
		o     Options
	}{
		{boundAll, Options{Max: 3, MaxPerClient: -1}},
		{boundClient, Options{Max: -1, MaxPerClient: 3}},
	} {
		t.Run(tc.bound, func(t *testing.T) {
			tc.o.Server, tc.o.Metrics = "grpc", NewMetrics(nil)
			l := listen(t, tc.o)
			echo(t, l)
			var conns []net.Conn
			for range 3 {
				c, ok := letIn(t, l)
				if !ok {
					t.Fatal("one of three connections was refused")
				}
				conns = append(conns, c)
			}
			if _, ok := letIn(t, l); ok {
				t.Error("the fourth connection was accepted")
			}
			if n := testutil.ToFloat64(
				tc.o.Metrics.refused.WithLabelValues("grpc", tc.bound)); n != 1 {
				t.Errorf("%v refusals counted, want 1", n)
			}
			// A closed connection makes way for a new one.
			if err := conns[0].Close(); err != nil {
				t.Fatal(err)
			}
			for testutil.ToFloat64(tc.o.Metrics.open.WithLabelValues("grpc")) > 2 {
				runtime.Gosched()
			}
			c, ok := letIn(t, l)
			if !ok {
				t.Error("a connection was refused after another was closed")
			}
			for _, c := range append(conns[1:], c) {
				_ = c.Close()
			}
		})
	}
}

// TestTheClientWithMostConnectionsLosesOne opens a connection of a second client when the first one
// has all of them.
func TestTheClientWithMostConnectionsLosesOne(t *testing.T) {
	l := listen(t, Options{Max: 3, MaxPerClient: -1, Server: "grpc", Metrics: NewMetrics(nil)})
	echo(t, l)
	var crowd []net.Conn
	for range 3 {
		c, ok := letIn(t, l)
		if !ok {
			t.Fatal("one of three connections was refused")
		}
		crowd = append(crowd, c)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	other, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
		t.Errorf("another client was refused: %v", err)
	}
	if _, err := crowd[2].Read(make([]byte, 1)); err == nil {
		t.Error("the newest connection of the client with most is still open")
	}
	n := testutil.ToFloat64(l.opts.Metrics.hungUp.WithLabelValues("grpc", crowded))
	if n != 1 {
		t.Errorf("%v connections were closed for others, want 1", n)
	}
	for _, c := range append(crowd, other) {
		_ = c.Close()
	}
}

// TestOneClientIsOneNetwork checks that the addresses of an IPv6 /64 count as one client.
func TestOneClientIsOneNetwork(t *testing.T) {
	of := func(ip string) string {
		return clientOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}).String()
	}
	for _, tc := range []struct{ a, b string }{
		{"10.0.0.1", "::ffff:10.0.0.1"}, {"2001:db8::1", "2001:db8::ffff:2"},
	} {
		if of(tc.a) != of(tc.b) {
			t.Errorf("%s and %s are two clients", tc.a, tc.b)
		}
	}
	for _, tc := range []struct{ a, b string }{{"10.0.0.1", "10.0.0.2"},
		{"2001:db8::1", "2001:db8:0:1::1"}} {
		if of(tc.a) == of(tc.b) {
			t.Errorf("%s and %s are one client", tc.a, tc.b)
		}
	}
}

// rpc is a gRPC server that sends frames of 256 KiB until sending fails.
type rpc struct {
	l        *Listener
	requests *Requests
	reg      *prometheus.Registry
	conns    chan *Conn // of the calls
	ended    chan error // what they ended with
}

func startRPC(t *testing.T, o Options, ro RequestsOptions) *rpc {
	t.Helper()
	requests := NewRequests(ro)
	o.Requests = requests
	r := &rpc{
		requests: requests, reg: prometheus.NewRegistry(),
		conns: make(chan *Conn, 100), ended: make(chan error, 100),
	}
	o.Server, o.Metrics = "grpc", NewMetrics(r.reg)
	r.l = listen(t, o)
	srv := grpc.NewServer(
		grpc.InTapHandle(requests.Tap),
		grpc.ChainStreamInterceptor(requests.Stream),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			if p, ok := peer.FromContext(stream.Context()); ok {
				tell(r.conns, From(p.Addr))
			}
			err := stream.RecvMsg(&wrapperspb.BytesValue{})
			for err == nil {
				err = stream.SendMsg(&wrapperspb.BytesValue{Value: make([]byte, 256<<10)})
			}
			tell(r.ended, err)
			return err
		}),
	)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(r.l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// tell sends v to a test, or drops it if the channel is full.
func tell[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

func (r *rpc) hungUp(t *testing.T, reason string) {
	t.Helper()
	want := `
# HELP larder_connections_hung_up_total Connections that larder closed because of the behaviour of their client, by reason.
# TYPE larder_connections_hung_up_total counter
`
	for _, why := range reasons {
		n := " 0\n"
		if why == reason {
			n = " 1\n"
		}
		want += `larder_connections_hung_up_total{reason="` + why + `",server="grpc"}` + n
	}
	if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want),
		"larder_connections_hung_up_total"); err != nil {
		t.Error(err)
	}
}

// from returns a client at another address of this host.
func from(ip string) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		return d.DialContext(ctx, "tcp", address)
	})
}

func (r *rpc) dial(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(
		r.l.Addr().String(),
		append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call begins a call, and sends its request if send is set. If the connection is closed before,
// SendMsg returns io.EOF and RecvMsg has the reason.
func call(t *testing.T, conn *grpc.ClientConn, send bool) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(
		t.Context(),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/any/thing",
	)
	if err == nil && send {
		if err = stream.SendMsg(&wrapperspb.BytesValue{}); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// deafConn is a client's connection that stops reading when deaf is closed. Only the buffers of the
// kernel still accept bytes.
type deafConn struct {
	net.Conn
	deaf, closed chan struct{}
	once         *sync.Once
}

func (c deafConn) Read(b []byte) (int, error) {
	select {
	case <-c.deaf:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(b)
	}
}

func (c deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestClientThatDoesNotReadItsConnection has a client with open HTTP/2 windows that does not read
// from TCP. HTTP/2 does not notice that.
func TestClientThatDoesNotReadItsConnection(t *testing.T) {
	r := startRPC(t, Options{WriteTimeout: 200 * time.Millisecond}, RequestsOptions{})
	deaf := make(chan struct{})
	conn := r.dial(t, grpc.WithInitialWindowSize(1<<30), grpc.WithInitialConnWindowSize(1<<30),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			return deafConn{
				Conn:   c,
				deaf:   deaf,
				closed: make(chan struct{}),
				once:   &sync.Once{},
			}, err
		}))
	stream := call(t, conn, true)
	if err := stream.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Fatal(err)
	}
	close(deaf)
	if err := <-r.ended; err == nil {
		t.Error("the call did not fail")
	}
	r.hungUp(t, writeStalled)

	// Clients that read are served meanwhile and afterwards.
	stream = call(t, r.dial(t), true)
	for range 20 {
		if err := stream.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStreamsThatStall checks that stalled streams close the connection only if there are many of
// them.
func TestStreamsThatStall(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{})
	stream := call(t, r.dial(t), true)
	if err := stream.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Fatal(err)
	}
	c := <-r.conns
	for range maxStalled {
		c.Stalled()
	}
	if err := stream.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Fatalf("after %d: %v", maxStalled, err)
	}
	c.Stalled()
	if err := <-r.ended; err == nil {
		t.Error("the call did not fail")
	}
	r.hungUp(t, streamsStalled)
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if n := len(r.l.stalled); n > 0 {
		t.Errorf("%d streams of a connection that is closed are remembered", n)
	}
}

// TestIncompleteRequest sends the headers of a request and nothing else.
func TestIncompleteRequest(t *testing.T) {
	r := startRPC(t, Options{}, RequestsOptions{ReceiveTimeout: 100 * time.Millisecond})
	served := call(t, r.dial(t), true) // has arrived: lasts as long as it likes
	if err := served.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
		t.Fatal(err)
	}
	err := call(t, r.dial(t), false).RecvMsg(&wrapperspb.BytesValue{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want the connection closed", err)
	}
	r.hungUp(t, notReceived)
	for range 20 {
		if err := served.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadingIsBounded sends more than the burst. The rest is read at the bounded rate, and the
// sender waits.
func TestReadingIsBounded(t *testing.T) {
	const perSecond = 64 << 10
	l := listen(t, Options{ReadBytes: perSecond})
	sent := make(chan error, 1)
	const size = 3 * perSecond
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = c.Write(make([]byte, size))
			_ = c.Close()
		}
		sent <- err
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c); err != nil || n != size {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	limiter := c.(*Conn).source.limiter
	// The tokens that are left show that the bytes beyond the burst have waited.
	if left := limiter.Tokens(); left > perSecond+perSecond/2 {
		t.Errorf("%v bytes may be read at once after reading %d: the limiter has not counted them", left, size)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
