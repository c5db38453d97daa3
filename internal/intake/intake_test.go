package intake_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	gzipcodec "google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"larder/internal/inbound/inboundtest"
	"larder/internal/intake"
	"larder/store/storepb"
)

// server answers label names and health checks. It records the bytes that are reserved meanwhile.
type server struct {
	storepb.UnimplementedStoreServer
	healthpb.UnimplementedHealthServer
	account *intake.Account
	held    chan int64    // as each handler begins
	goOn    chan struct{} // closed: handlers return
	names   []string      // the answer
}

func (s *server) handle() {
	s.held <- s.account.InUse()
	<-s.goOn
}

func (s *server) LabelNames(
	context.Context,
	*storepb.LabelNamesRequest,
) (*storepb.LabelNamesResponse, error) {
	s.handle()
	return &storepb.LabelNamesResponse{Names: s.names}, nil
}

func (s *server) Series(
	*storepb.SeriesRequest,
	grpc.ServerStreamingServer[storepb.SeriesResponse],
) error {
	s.handle()
	return nil
}

func (s *server) Check(
	context.Context,
	*healthpb.HealthCheckRequest,
) (*healthpb.HealthCheckResponse, error) {
	s.handle()
	return &healthpb.HealthCheckResponse{}, nil
}

func (s *server) Watch(
	*healthpb.HealthCheckRequest,
	grpc.ServerStreamingServer[healthpb.HealthCheckResponse],
) error {
	s.handle()
	return nil
}

const limit, maxAnswer = 8 << 20, 1 << 20

func serve(t *testing.T, opts ...grpc.ServerOption) (*server, *grpc.ClientConn) {
	t.Helper()
	s := &server{
		account: intake.NewAccount(limit, nil),
		held:    make(chan int64, 100),
		goOn:    make(chan struct{}),
	}
	intake.BoundDecompression(s.account, gzipcodec.Name, storepb.SnappyName)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(append(opts,
		grpc.ForceServerCodecV2(storepb.Codec()), grpc.MaxRecvMsgSize(16<<20))...)
	storepb.RegisterStoreServer(
		intake.Registrar{Server: srv, Account: s.account, MaxAnswerBytes: maxAnswer}, s)
	healthpb.RegisterHealthServer(
		intake.Registrar{Server: srv, Account: s.account, MaxMessageBytes: 4 << 10},
		s,
	)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient(
		l.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := s.account.InUse(); n != 0 {
			t.Errorf("%d bytes are still reserved", n)
		}
	})
	return s, conn
}

func names(n int) *storepb.LabelNamesRequest {
	return &storepb.LabelNamesRequest{
		Matchers: []*storepb.LabelMatcher{{Name: "a", Value: strings.Repeat("a", n)}},
	}
}

// TestMessageReservesItsMemory checks that a message reserves its memory until its request ends,
// however it is compressed.
func TestMessageReservesItsMemory(t *testing.T) {
	for _, compression := range []string{"", gzipcodec.Name, storepb.SnappyName} {
		t.Run(compression, func(t *testing.T) {
			s, conn := serve(t)
			var opts []grpc.CallOption
			if compression != "" {
				opts = append(opts, grpc.UseCompressor(compression))
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				client := storepb.NewStoreClient(conn)
				if _, err := client.LabelNames(t.Context(), names(1<<20), opts...); err != nil {
					t.Error(err)
				}
			})
			if n := <-s.held; n < 1<<20 || n > 1<<20+4096 {
				t.Errorf("a message of 1 MiB reserves %d bytes", n)
			}
			wg.Go(func() {
				stream, err := storepb.NewStoreClient(conn).
					Series(t.Context(), &storepb.SeriesRequest{
						Matchers: names(1 << 20).Matchers,
					}, opts...)
				if err == nil {
					_, err = stream.Recv()
				}
				if err != io.EOF {
					t.Error(err)
				}
			})
			if n := <-s.held; n < 2<<20 || n > 2<<20+8192 {
				t.Errorf("two messages of 1 MiB reserve %d bytes", n)
			}
			close(s.goOn)
			wg.Wait()
		})
	}
}

// TestMessagesThatDoNotFit checks that messages that do not fit are rejected before they are
// decoded. Messages that fit are served meanwhile.
func TestMessagesThatDoNotFit(t *testing.T) {
	for _, compression := range []string{encoding.Identity, gzipcodec.Name, storepb.SnappyName} {
		t.Run(compression, func(t *testing.T) {
			s, conn := serve(t)
			client := storepb.NewStoreClient(conn)
			var wg sync.WaitGroup
			ask := func(n int) {
				wg.Go(func() {
					_, err := client.LabelNames(
						t.Context(),
						names(n),
						grpc.UseCompressor(compression),
					)
					if err != nil {
						t.Error(err)
					}
				})
				<-s.held
			}
			ask(limit / 2)
			_, err := client.LabelNames(
				t.Context(),
				names(limit/2),
				grpc.UseCompressor(compression),
			)
			if err == nil || !strings.Contains(err.Error(), "--store.request-bytes") {
				t.Errorf("message larger than the account: got %v", err)
			}
			if compression == encoding.Identity && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("got %v, want ResourceExhausted", err)
			}
			ask(10 << 10)
			close(s.goOn)
			wg.Wait()
		})
	}
}

// TestInterceptorsSeeFailuresOfMessages checks that the interceptors of a unary request see that
// its message was rejected, or that its answer was too large. The client gets the same error. The
// handler does not run with a message that was rejected.
func TestInterceptorsSeeFailuresOfMessages(t *testing.T) {
	seen := make(chan error, 1)
	s, conn := serve(t, grpc.UnaryInterceptor(func(
		ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
	) (any, error) {
		resp, err := next(ctx, req)
		seen <- err
		return resp, err
	}))
	close(s.goOn)
	f := func(name string, asked, answered int, want string) {
		t.Helper()
		s.names = []string{strings.Repeat("a", answered)}
		_, err := storepb.NewStoreClient(conn).LabelNames(t.Context(), names(asked))
		got := <-seen
		if want == "" {
			if err != nil || got != nil {
				t.Errorf("%s: %v, the interceptor saw %v", name, err, got)
			}
			<-s.held
			return
		}
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), want) ||
			status.Code(got) != codes.ResourceExhausted ||
			status.Convert(got).Message() != status.Convert(err).Message() {
			t.Errorf("%s: %v, the interceptor saw %v, want %q", name, err, got, want)
		}
		if runs := len(s.held); runs != min(answered, 1) {
			t.Errorf("%s: the handler ran %d times", name, runs)
		} else if runs > 0 {
			<-s.held
		}
	}
	f("small messages", 10, 10, "")
	f("a message larger than grpc allows", 16<<20, 0, "larger than max")
	f("a message larger than the account", limit, 0, "--store.request-bytes")
	f("a large answer", 10, maxAnswer-100, "")
	f("an answer that is too large", 10, maxAnswer, "the answer has 1048580 bytes")
}

// TestServicesOfSmallMessages checks that these services reject large messages.
func TestServicesOfSmallMessages(t *testing.T) {
	s, conn := serve(t)
	close(s.goOn)
	client := healthpb.NewHealthClient(conn)
	for n, want := range map[int]codes.Code{4000: codes.OK, 5000: codes.ResourceExhausted} {
		req := &healthpb.HealthCheckRequest{Service: strings.Repeat("a", n)}
		for _, compression := range []string{encoding.Identity, gzipcodec.Name} {
			if _, err := client.Check(t.Context(), req,
				grpc.UseCompressor(compression)); status.Code(
				err,
			) != want {
				t.Errorf("Check with %d bytes, %s: got %v", n, compression, err)
			}
			stream, err := client.Watch(t.Context(), req, grpc.UseCompressor(compression))
			if err == nil {
				_, err = stream.Recv()
			}
			if err == io.EOF {
				err = nil
			}
			if status.Code(err) != want {
				t.Errorf("Watch with %d bytes, %s: got %v", n, compression, err)
			}
		}
	}
}

// TestDecompressionReleasesItsReservation checks that the turn and the bytes are released, also if
// grpc stops reading a message that is too large.
func TestDecompressionReleasesItsReservation(t *testing.T) {
	s, conn := serve(t)
	close(s.goOn)
	client := storepb.NewStoreClient(conn)
	for range 3 {
		// Too large for a message, too large for the account, and fine.
		for _, n := range []int{17 << 20, 6 << 20, 5 << 20} {
			_, err := client.LabelNames(t.Context(), names(n), grpc.UseCompressor(gzipcodec.Name))
			if (err == nil) != (n == 5<<20) {
				t.Errorf("%d bytes: got %v", n, err)
			}
		}
		if n := s.account.InUse(); n > 0 {
			t.Fatalf("%d bytes are still reserved", n)
		}
		for len(s.held) > 0 {
			<-s.held
		}
	}
}

// TestLargeMessagesAreDecompressedOneAtATime also checks that small ones are decompressed
// meanwhile.
func TestLargeMessagesAreDecompressedOneAtATime(t *testing.T) {
	account := intake.NewAccount(limit, nil)
	intake.BoundDecompression(account, gzipcodec.Name)
	open := func(n int) io.Reader {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(make([]byte, n))
		_ = z.Close()
		r, err := encoding.GetCompressor(gzipcodec.Name).Decompress(&b)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := open(1 << 20)
	if _, err := io.ReadFull(first, make([]byte, 128<<10)); err != nil {
		t.Fatal(err)
	}
	second := open(1 << 20)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, second)
		done <- err
	}()
	small := open(60 << 10)
	if n, err := io.ReadFull(small, make([]byte, 60<<10)); err != nil {
		t.Errorf("a small message: %d bytes, %v", n, err)
	}
	for account.InUse() < 128<<10+64<<10 { // the second one has what it may have before it waits
		runtime.Gosched()
	}
	select {
	case err := <-done:
		t.Errorf("a second large message did not wait: %v", err)
	default:
	}
	for _, r := range []io.Reader{small, first} {
		if err := r.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = second.(io.Closer).Close()
	if n := account.InUse(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

// TestClientGetsThreeQuartersOfTheAccount checks that one client gets at most three quarters of the
// account, however small its messages are.
func TestClientGetsThreeQuartersOfTheAccount(t *testing.T) {
	account := intake.NewAccount(limit, nil)
	client := func(ip string) context.Context {
		return peer.NewContext(t.Context(), inboundtest.ClientAt(t, ip, nil))
	}
	crowd := client("127.0.0.2")
	var all []*intake.Reservation
	for {
		r := account.Open(crowd)
		all = append(all, r)
		if err := r.Reserve(16 << 10); err != nil {
			break
		}
	}
	if n := account.InUse(); n != limit*3/4 {
		t.Errorf("a client with small messages has %d bytes of %d", n, limit)
	}
	r := account.Open(client("127.0.0.3"))
	if err := r.Reserve(64 << 10); err != nil {
		t.Errorf("another client: %v", err)
	}
	for _, o := range append(all, r) {
		o.Close()
	}
	if n := account.InUse(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}
